"""Conda: Column-Normalized Adam for Training Large Language Models Faster."""
