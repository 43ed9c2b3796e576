"""Generators of text with known ground truth: each a pure function of a seed and a size."""
