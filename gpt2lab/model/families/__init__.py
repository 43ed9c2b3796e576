"""The architectures that Hugging Face checkpoints come in, one short file each."""

from gpt2lab.model.families.base import Entries, Family, Weight
from gpt2lab.model.families.gpt2 import GPT2, gpt2_config
from gpt2lab.model.families.gpt_neo import GPT_NEO, gpt_neo_config
from gpt2lab.model.families.gpt_neox import GPT_NEOX, gpt_neox_config
from gpt2lab.model.families.llama import LLAMA, llama_config
from gpt2lab.model.families.mistral import MISTRAL
from gpt2lab.model.families.mixtral import MIXTRAL, mixtral_config
from gpt2lab.model.families.qwen2 import QWEN2

FAMILIES: dict[str, Family] = {
    family.name: family for family in (GPT2, GPT_NEO, GPT_NEOX, LLAMA, MISTRAL, MIXTRAL, QWEN2)
}

__all__ = [
    "FAMILIES",
    "Entries",
    "Family",
    "Weight",
    "gpt2_config",
    "gpt_neo_config",
    "gpt_neox_config",
    "llama_config",
    "mixtral_config",
]
