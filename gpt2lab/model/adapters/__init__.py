"""Low-rank adapters: on any layer, several at once, merged and unmerged, as a function, and in PEFT's files."""

from gpt2lab.model.adapters.functional import InnerAdamW, Moments, adapt, functional_lora, plain_loss
from gpt2lab.model.adapters.layers import Adapted, AdaptedEmbedding, AdaptedLinear, LowRank
from gpt2lab.model.adapters.lora import (
    Lora,
    Trainable,
    activate,
    adapter_parameters,
    adapters,
    combine,
    count_trainable,
    remove,
    train_only,
)
from gpt2lab.model.adapters.merge import MergeLora, merge, merged, unmerge
from gpt2lab.model.adapters.peft_files import (
    is_adapter,
    load_adapter,
    read_adapter_config,
    save_adapter,
    write_adapter,
)
from gpt2lab.model.adapters.targets import Site, sites

__all__ = [
    "Adapted",
    "AdaptedEmbedding",
    "AdaptedLinear",
    "InnerAdamW",
    "Lora",
    "LowRank",
    "MergeLora",
    "Moments",
    "Site",
    "Trainable",
    "activate",
    "adapt",
    "adapter_parameters",
    "adapters",
    "combine",
    "count_trainable",
    "functional_lora",
    "is_adapter",
    "load_adapter",
    "merge",
    "merged",
    "plain_loss",
    "read_adapter_config",
    "remove",
    "save_adapter",
    "sites",
    "train_only",
    "unmerge",
    "write_adapter",
]
