"""What a model is worth: perplexity, cloze, multiple choice, text metrics, statistics. Import the file you need."""
