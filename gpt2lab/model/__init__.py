"""The one transformer, its families, activations, loading and saving."""

from gpt2lab.model.cache import KeyValueCache
from gpt2lab.model.checkpoint import load_model, save_model
from gpt2lab.model.config import LayerConfig, TransformerConfig
from gpt2lab.model.loss import linear_cross_entropy
from gpt2lab.model.tap import Pass, Tap
from gpt2lab.model.transformer import Block, Transformer

__all__ = [
    "Block",
    "KeyValueCache",
    "LayerConfig",
    "Pass",
    "Tap",
    "Transformer",
    "TransformerConfig",
    "linear_cross_entropy",
    "load_model",
    "save_model",
]
