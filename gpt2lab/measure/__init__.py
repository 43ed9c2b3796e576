"""What a model is worth: perplexity, cloze, multiple choice, text metrics, statistics."""
