"""Exploring Next Token Prediction in Theory of Mind (ToM) Tasks: Comparative Experiments with GPT-2 and
LLaMA-2 AI Models.
"""
