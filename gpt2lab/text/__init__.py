"""Tokenizers, corpora, token shards, batches and generators of data."""
