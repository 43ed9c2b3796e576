"""The architectures that Hugging Face checkpoints come in, one short file each."""

from collections.abc import Callable

from gpt2lab.model.checkpoints.families.base import Entries, Family, Weight
from gpt2lab.model.checkpoints.families.bert import BERT, bert_config
from gpt2lab.model.checkpoints.families.distilbert import DISTILBERT, distilbert_config
from gpt2lab.model.checkpoints.families.gpt2 import GPT2, attention_scales, gpt2_config
from gpt2lab.model.checkpoints.families.gpt_neo import GPT_NEO, gpt_neo_config
from gpt2lab.model.checkpoints.families.gpt_neox import GPT_NEOX, gpt_neox_config
from gpt2lab.model.checkpoints.families.llama import LLAMA, llama_config
from gpt2lab.model.checkpoints.families.mistral import MISTRAL, mistral_config
from gpt2lab.model.checkpoints.families.mixtral import MIXTRAL, mixtral_config
from gpt2lab.model.checkpoints.families.qwen2 import QWEN2, qwen2_config
from gpt2lab.model.checkpoints.families.roberta import ROBERTA, roberta_config
from gpt2lab.model.config import TransformerConfig

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (GPT2, GPT_NEO, GPT_NEOX, LLAMA, MISTRAL, MIXTRAL, QWEN2, BERT, ROBERTA, DISTILBERT)
}

CONSTRUCTORS: dict[str, Callable[..., TransformerConfig]] = {
    "gpt2": gpt2_config,
    "gpt_neo": gpt_neo_config,
    "gpt_neox": gpt_neox_config,
    "llama": llama_config,
    "mistral": mistral_config,
    "mixtral": mixtral_config,
    "qwen2": qwen2_config,
    "bert": bert_config,
    "roberta": roberta_config,
    "distilbert": distilbert_config,
}
"""Family → function that configures a new model of it; all take vocab_size, d_model, n_layers, n_heads, max_positions."""

__all__ = [
    "CONSTRUCTORS",
    "FAMILIES",
    "Entries",
    "Family",
    "Weight",
    "attention_scales",
    "bert_config",
    "distilbert_config",
    "gpt2_config",
    "gpt_neo_config",
    "gpt_neox_config",
    "llama_config",
    "mistral_config",
    "mixtral_config",
    "qwen2_config",
    "roberta_config",
]
