"""Pretraining Language Models to Ponder in Continuous Space."""
