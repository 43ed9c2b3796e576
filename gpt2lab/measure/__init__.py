"""What a model is worth: perplexity, cloze, multiple choice, text metrics, statistics."""

from gpt2lab.measure.measurement import Measurement

__all__ = ["Measurement"]
