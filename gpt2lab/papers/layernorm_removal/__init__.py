"""Transformers Don't Need LayerNorm at Inference Time: Scaling LayerNorm Removal to GPT-2 XL and the
Implications for Mechanistic Interpretability.
"""
