"""WECHSEL: Effective initialization of subword embeddings for cross-lingual transfer of monolingual language
models.
"""
