"""What a model is worth: perplexity, cloze, multiple choice, text metrics, statistics."""

from gpt2lab.measures.measurement import Measurement

__all__ = ["Measurement"]
