"""The architectures whose capacity the paper compares: `l` blocks, `h` heads and a width of 64 h, unless said otherwise."""

from collections.abc import Callable, Mapping
from typing import Any

from gpt2lab.base.errors import unknown
from gpt2lab.model import TransformerConfig
from gpt2lab.model.checkpoints.families import gpt_neox_config, llama_config, mistral_config

_GPT2: Mapping[str, Any] = {
    "rotary_fraction": 1.0,
    "parallel_residual": False,
    "tied_head": True,
    "activation": "gelu_tanh",
}
"""GPT-2 with rotary positions, which the layout of GPT-NeoX holds: the whole head is rotated, base 10,000."""


def _gpt2(**sizes: Any) -> TransformerConfig:
    return gpt_neox_config(**{**_GPT2, **sizes})


def _llama(**sizes: Any) -> TransformerConfig:
    return llama_config(**sizes)


def _mistral(n_heads: int, d_model: int, **sizes: Any) -> TransformerConfig:
    groups = 4 if n_heads % 4 == 0 else 2 if n_heads % 2 == 0 else 1
    # The gated feed-forward has three matrices of 3.5 d², 10.5 d² in all.
    return mistral_config(
        n_heads=n_heads, d_model=d_model, n_kv_heads=groups, d_mlp=7 * d_model // 2, window=None, **sizes
    )


def _experts(d_model: int, **sizes: Any) -> TransformerConfig:
    """32 experts of d² up and d² down in every block, of which a token meets one; twice their even share in training."""
    return _gpt2(
        d_model=d_model, d_mlp=d_model, n_experts=32, experts_per_token=1, normalise_expert_weights=False,
        expert_capacity=2.0, balance_weight=0.01, **sizes,
    )  # fmt: skip


_SHAPES: Mapping[str, Callable[..., TransformerConfig]] = {
    "gpt2": _gpt2,
    "gpt2-quarter": lambda d_model, **sizes: _gpt2(d_model=d_model, d_mlp=d_model, **sizes),
    "gpt2-no-mlp": lambda **sizes: _gpt2(d_mlp=0, **sizes),
    "gpt2-gated": lambda d_model, **sizes: _gpt2(
        d_model=d_model, gated=True, d_mlp=-(-8 * d_model // 24) * 8, **sizes
    ),
    "gpt2-experts": _experts,
    "llama": _llama,
    "llama-tied": lambda **sizes: _llama(tied_head=True, **sizes),
    "llama-plain": lambda d_model, **sizes: _llama(
        d_model=d_model, gated=False, d_mlp=4 * d_model, tied_head=True, **sizes
    ),
    "mistral": _mistral,
    "mistral-tied": lambda **sizes: _mistral(tied_head=True, **sizes),
}
SHAPES = tuple(_SHAPES)
"""gpt2 (rotary positions), then with a quarter of the feed-forward, without one, with a gated one of the same size, with 32
experts; llama, then with a tied head, with that and a plain feed-forward; mistral, and with a tied head."""


def shape_config(
    shape: str,
    *,
    vocab_size: int,
    n_layers: int,
    n_heads: int,
    d_head: int = 64,
    context: int = 512,
    **changes: Any,
) -> TransformerConfig:
    """Return the configuration `SHAPE-n_layers-n_heads`, without dropout; `changes` are further fields.

    A gated feed-forward has about the 8 d² of GPT-2's plain one: three matrices of 8/3 d, rounded up to a multiple of 8.
    LabError for another shape.
    """
    if shape not in _SHAPES:
        raise unknown("shape", shape, SHAPES)
    sizes = {
        "vocab_size": vocab_size,
        "d_model": n_heads * d_head,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "max_positions": context,
    }
    return _SHAPES[shape](**sizes, **changes)
