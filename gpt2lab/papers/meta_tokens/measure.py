"""The measure of meta-tokens: what they do to the loss of text, with and without their position and embedding."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures import corpus
from gpt2lab.measures.held_out import held_out_loss
from gpt2lab.measures.measurement import Measurement
from gpt2lab.measures.scoring import check_batch_size
from gpt2lab.papers.meta_tokens.architecture import marking
from gpt2lab.papers.meta_tokens.caching import caching
from gpt2lab.papers.meta_tokens.injection import Injector
from gpt2lab.papers.meta_tokens.objective import token_of
from gpt2lab.papers.meta_tokens.sharpness import sharpness
from gpt2lab.papers.meta_tokens.zeroing import zeroed
from gpt2lab.plots.heatmaps import heatmap

if TYPE_CHECKING:
    from gpt2lab.model import Transformer
    from gpt2lab.text.language_model import LanguageModel

_LOOKED_AT = 64
"""Windows whose attention and states are looked at."""


@dataclass(frozen=True, kw_only=True)
class MetaEffects:
    """Loss of real tokens with metas, without them, and with them zeroed; entropy of attention; what metas hold."""

    data: tuple[str, ...] = ("docstrings",)
    """Text to score: files, folders, hub:ID or names of built-in sources."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    token: int | None = None
    """Id of the meta-token; none is that of the model's meta-attention. Text that holds it is refused."""
    fraction: float = 0.1
    """Metas per token of text; rows grow by them, so that all losses are over the same real tokens."""
    window: int | None = None
    """Tokens of text in a row; none means that rows with metas fill the model's positions, at most 256."""
    limit: int = 8192
    """Score at most this many tokens."""
    distance: int = 16
    """Farthest token before a meta whose likeness to the meta is measured."""
    batch_size: int = 8
    """Rows in one forward pass; changes speed and memory, not the numbers."""
    seed: int = 0
    """Seed of the places of metas."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure. LabError without meta-attention (unless token is given), for too little text, and no room for metas."""
        lm.config.require_causal("meta-effects")
        tokenizer = corpus.need_tokenizer(lm, "meta-effects")
        if self.token is None and marking(lm.model) is None:
            raise LabError(
                "meta-effects: this model has no meta-attention; `gpt2lab apply add-meta-token` attaches it, or name "
                "the id of a token with --token"
            )
        check_batch_size(self.batch_size)
        if not self.distance >= 1 or self.limit < 2:
            raise LabError("meta-effects: distance must be at least 1, and limit at least 2 tokens")
        injector = Injector(
            token=token_of(lm.model, self.token),
            fraction=self.fraction,
            append=True,
            exclude_first=1,  # what stands before the first token has nothing to hold
            seed=self.seed,
        )
        window = self._window(lm)
        passage = corpus.stream(corpus.read_texts(self.data, self.field), tokenizer, limit=self.limit)
        window = min(window, len(passage.ids) - 1)
        if not injector.count(window):
            raise LabError(
                f"meta-effects: in rows of {window} tokens a fraction of {self.fraction} is no meta"
            )
        n = (len(passage.ids) - 1) // window
        rows = torch.stack([torch.tensor(passage.ids[i * window : (i + 1) * window + 1]) for i in range(n)])
        plain = {"tokens": rows[:, :-1], "targets": rows[:, 1:]}
        with_metas = injector(plain)
        losses = self._losses(lm.model, plain, with_metas, injector.token)
        if not all(map(math.isfinite, losses.values())):
            raise LabError(
                "meta-effects: the model's losses are not finite; its weights or embeddings hold NaN"
            )
        looked = with_metas["tokens"][:_LOOKED_AT]
        sharp = sharpness(lm.model, looked, token=injector.token, batch_size=self.batch_size)
        known = caching(
            lm.model, looked, token=injector.token, distance=self.distance, batch_size=self.batch_size
        )
        return Measurement(
            name="meta-effects",
            numbers={
                **losses,
                "entropy_drop": sharp.drop,
                "score_boost": sharp.boost,
                "sharper": sharp.sharper,
            },
            units={
                **dict.fromkeys(losses, "nats/token"),
                "entropy_drop": "nats",
                "score_boost": "nats",
                "sharper": "share of attention rows",
            },
            tables={"losses": [{"metas": name, "loss": loss} for name, loss in losses.items()]},
            figures=_figures(known),
            arrays={
                "entropy_drops": sharp.drops.numpy(),
                "score_boosts": sharp.boosts.numpy(),
                "cosine_with_embeddings": known[0].numpy(),
                "cosine_with_states": known[1].numpy(),
            },
            about={
                "data": list(self.data),
                "tokens": rows[:, 1:].numel(),
                "window": window,
                "metas in a row": injector.count(window),
                "losses": "over the same real tokens; with metas, a token before metas is predicted from the last of them",
            },
        )

    def _window(self, lm: "LanguageModel") -> int:
        room = max(1, int(lm.model.context / (1 + self.fraction)))
        window = min(room, 256) if self.window is None else self.window
        if not 1 <= window <= room:
            raise LabError(
                f"window must lie in [1, {room}]: with metas rows are at most {lm.model.context} tokens long; got {window}"
            )
        return window

    def _losses(
        self, model: "Transformer", plain: dict[str, Tensor], with_metas: dict[str, Tensor], token: int
    ) -> dict[str, float]:
        def loss(rows: dict[str, Tensor]) -> float:
            parts = zip(*(rows[name].split(self.batch_size) for name in ("tokens", "targets")), strict=True)
            return held_out_loss(model, ({"tokens": x, "targets": y} for x, y in parts)).loss

        losses = {"loss": loss(with_metas), "loss_without_metas": loss(plain)}
        for what in ("no_pos", "no_embed"):
            if what == "no_pos" and model.config.positions == "none":
                losses["loss_no_pos"] = losses["loss"]  # there is no position to take away
                continue
            with zeroed(model, what, token=token):
                losses[f"loss_{what}"] = loss(with_metas)
        return losses


def _figures(known: tuple[Tensor, Tensor]) -> dict[str, Callable[[], Any]]:
    return {
        name: partial(
            heatmap,
            cosines.tolist(),
            rows=[f"after block {index}" for index in range(len(cosines))],
            columns=range(1, cosines.shape[1] + 1),
            x_label="places before the meta-token",
            label=f"cosine with {what}",
            numbers=False,
        )
        for name, cosines, what in zip(
            ("caching_embeddings", "caching_states"),
            known,
            ("input embeddings", "states of the same block"),
            strict=True,
        )
    }
