"""Mission: Impossible Language Models."""
