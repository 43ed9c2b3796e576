"""Anchored Answers: Unravelling Positional Bias in GPT-2's Multiple-Choice Questions."""
