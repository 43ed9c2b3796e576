"""Analyzing Leakage of Personally Identifiable Information in Language Models."""
