"""The models of the paper, by name, and the small ones of the reduced study.

GPT-Neo (Black et al. 2021): pre-LN, learned positions, tied head, 16 heads, no bias on q, k, v, scores not divided
by sqrt(d_head), layers alternating between global and local attention with a window of 256. The names are not
parameter counts: `parameter_table` has those.
"""

from dataclasses import dataclass
from typing import Any

from gpt2lab.base.errors import unknown
from gpt2lab.model import TransformerConfig
from gpt2lab.model.checkpoints.families import gpt_neo_config

GPT2_ROWS, REDUCED_ROWS = 50_257, 10_000


@dataclass(frozen=True)
class Size:
    """Width and depth of a published model."""

    d_model: int
    n_layers: int


SIZES: dict[str, Size] = {
    "1M": Size(64, 8),
    "3M": Size(128, 8),
    "8M": Size(256, 8),
    "28M": Size(512, 8),
    "33M": Size(768, 4),
    "1Layer-21M": Size(1024, 1),
    "2Layers-33M": Size(1024, 2),
}
"""The published checkpoints, `roneneldan/TinyStories-NAME`; the Instruct models have the same sizes."""


def tinystories_config(name: str, *, vocab_size: int = GPT2_ROWS, **changes: Any) -> TransformerConfig:
    """Configure a published model; LabError with the nearest name if there is none."""
    if name not in SIZES:
        raise unknown("TinyStories model", name, SIZES)
    size = SIZES[name]
    return story_config(size.d_model, size.n_layers, vocab_size=vocab_size, n_heads=16, **changes)


def story_config(
    d_model: int,
    n_layers: int,
    *,
    vocab_size: int,
    n_heads: int,
    max_positions: int = 2048,
    local_window: int = 256,
    **changes: Any,
) -> TransformerConfig:
    """Configure a model of the paper's architecture at any width and depth."""
    return gpt_neo_config(
        vocab_size=vocab_size,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        max_positions=max_positions,
        local_window=local_window,
        **changes,
    )


def count_parameters(size: Size, *, rows: int = GPT2_ROWS, positions: int = 2048) -> dict[str, int]:
    """Return total, embedding and non-embedding parameters of a size, without making any weights.

    A block has q, k, v without bias and an output projection with one, a feed-forward of 4 d with biases, two norms;
    the head is the embedding table.
    """
    d = size.d_model
    block = (4 * d * d + d) + (8 * d * d + 5 * d) + 4 * d
    embedding, non_embedding = (rows + positions) * d, size.n_layers * block + 2 * d
    return {"total": embedding + non_embedding, "embedding": embedding, "non_embedding": non_embedding}


def parameter_table() -> list[dict[str, object]]:
    """Return the paper's models with their counts at 50,257 and at 10,000 rows."""
    rows: list[dict[str, object]] = []
    for name, size in SIZES.items():
        full = count_parameters(size)
        reduced = count_parameters(size, rows=REDUCED_ROWS)
        rows.append(
            {
                "name": name, "d": size.d_model, "layers": size.n_layers, "total": full["total"],
                "with 10K rows": reduced["total"], "non-embedding": full["non_embedding"],
            }
        )  # fmt: skip
    return rows
