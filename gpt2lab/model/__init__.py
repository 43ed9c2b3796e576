"""The one transformer, its families, activations, loading and saving."""

from gpt2lab.model.architecture import attach, drawn, under
from gpt2lab.model.backbone import Architecture, Backbone, Wrapper
from gpt2lab.model.cache import Cache, CacheGroup, KeyValueCache
from gpt2lab.model.checkpoints.huggingface import load_model, save_model
from gpt2lab.model.config import LayerConfig, TransformerConfig
from gpt2lab.model.extra_inputs import ExtraInput
from gpt2lab.model.forward import Inner, Inputs, NewCache, Pass
from gpt2lab.model.loss import linear_cross_entropy
from gpt2lab.model.tap import Tap
from gpt2lab.model.transformer import Block, Transformer

__all__ = [
    "Architecture",
    "Backbone",
    "Block",
    "Cache",
    "CacheGroup",
    "ExtraInput",
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
