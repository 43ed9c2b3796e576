"""Two loops of contrastive search: ours, and the published one, which copies the cache k times at every step."""

import dataclasses
from typing import TYPE_CHECKING

import torch

from gpt2lab.decode import Limits
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families.gpt2 import gpt2_config
from gpt2lab.papers.contrastive_search.costs import compare
from gpt2lab.papers.contrastive_search.decoder import ContrastiveSearch
from gpt2lab.papers.contrastive_search.published import CopyingContrastiveSearch
from gpt2lab.papers.contrastive_search.study.settings import Settings

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run

_EXACT_TOKENS = 64
"""New tokens that are compared in float64."""


def compare_loops(settings: Settings, run: "Run") -> None:
    """Time both loops on the same untrained model and prompts, and compare their tokens in float64.

    In float32 two scores of random weights can be closer than its resolution, and either token is right.
    """
    shape = settings.speed_model
    config = gpt2_config(
        vocab_size=4096, d_model=shape.d_model, n_layers=shape.n_layers, n_heads=shape.n_heads,
        max_positions=max(settings.speed_prompts) + settings.speed_new,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(run.seed)
    model = Transformer(config, generator=generator).to(run.device)
    prompts = [torch.randint(4096, (n,), generator=generator).tolist() for n in settings.speed_prompts]
    limits = Limits(max_new_tokens=settings.speed_new)
    ours, theirs = ContrastiveSearch(), CopyingContrastiveSearch()
    for name, value in compare(model, prompts, limits, ours, theirs, rounds=settings.speed_rounds).items():
        run.result(f"speed.{name}", value)
    short = dataclasses.replace(limits, max_new_tokens=min(_EXACT_TOKENS, settings.speed_new))
    exact = model.double()
    texts = [list(decoder.decode(exact, prompts, short)) for decoder in (ours, theirs)]
    same = [a == b for one, other in zip(*texts, strict=True) for a, b in zip(one, other, strict=True)]
    run.result("speed.identical_in_float64", sum(same) / len(same))
