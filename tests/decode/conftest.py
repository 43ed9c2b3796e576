"""Models that decoding is tried on: random tiny ones of each family, and the real small ones beside the repository."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from gpt2lab.model import Transformer, load_model

MODELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "models"
VOCAB, EOS = 40, 3


@dataclass
class Pair:
    """The same weights here and in transformers."""

    ours: Transformer
    theirs: PreTrainedModel

    def generate(
        self, prompts: Sequence[Sequence[int]], *, eos: int | None, pad: int = 0, **settings: Any
    ) -> list[list[int]]:
        """Return what transformers adds to each prompt, cut after the end token."""
        width = max(map(len, prompts))
        tokens = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        settings = {"do_sample": False, **settings}
        out = self.theirs.generate(
            tokens, attention_mask=mask, eos_token_id=eos, pad_token_id=pad, **settings
        )
        rows = out[:, width:].tolist()
        return [row[: row.index(eos) + 1] if eos in row else row for row in rows]


def _tiny(family: str) -> PreTrainedModel:
    torch.manual_seed(7)
    common = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": EOS, "initializer_range": 0.4}
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=24, n_layer=3, n_head=4, n_positions=64, **common))
    if family == "gpt_neo":
        kinds = [[["global", "local"], 1]]
        return GPTNeoForCausalLM(
            GPTNeoConfig(
                hidden_size=24,
                num_layers=2,
                num_heads=4,
                attention_types=kinds,
                window_size=5,
                max_position_embeddings=64,
                **common,
            )
        )
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=40,
            max_position_embeddings=64,
            **common,
        )
    )


@pytest.fixture(scope="session", params=["gpt2", "gpt_neo", "llama"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A random tiny model of each family; its logits are far apart, so that rounding decides nothing."""
    theirs = _tiny(request.param).eval()
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    return Pair(load_model(folder), theirs)


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """Return the folder of a real small model; skips where it is not beside the repository."""

    def find(name: str) -> Path:
        if not (MODELS / name).is_dir():
            pytest.skip(f"no {name} in ../shared/data/models (tests/SKIPPED.md)")
        return MODELS / name

    return find
