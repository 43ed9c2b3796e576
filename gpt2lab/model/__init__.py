"""The one transformer, its families, activations, loading and saving."""

from gpt2lab.model.architecture import Architecture, Inner, Inputs, NewCache, Wrapper, attach, drawn, under
from gpt2lab.model.cache import Cache, CacheGroup, KeyValueCache
from gpt2lab.model.checkpoints.huggingface import load_model, save_model
from gpt2lab.model.config import LayerConfig, TransformerConfig
from gpt2lab.model.loss import linear_cross_entropy
from gpt2lab.model.tap import Pass, Tap
from gpt2lab.model.transformer import Block, Transformer

__all__ = [
    "Architecture",
    "Block",
    "Cache",
    "CacheGroup",
    "Inner",
    "Inputs",
    "KeyValueCache",
    "LayerConfig",
    "NewCache",
    "Pass",
    "Tap",
    "Transformer",
    "TransformerConfig",
    "Wrapper",
    "attach",
    "drawn",
    "linear_cross_entropy",
    "load_model",
    "save_model",
    "under",
]
