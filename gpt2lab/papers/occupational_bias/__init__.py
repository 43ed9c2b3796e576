"""Bias Out-of-the-Box: An Empirical Analysis of Intersectional Occupational Biases in Popular Generative
Language Models.
"""
