"""Measure `attribution-exactness`: direct logit attribution of every head beside the direct effect of leaving it out."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import progress
from gpt2lab.measures import corpus
from gpt2lab.measures.measurement import Measurement
from gpt2lab.model import Transformer
from gpt2lab.model.interpret import decompose, direct_effect, dla, nmae
from gpt2lab.plots.heatmaps import heatmap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2lab.text.language_model import LanguageModel

Target = Literal["next", "last"]


@dataclass(frozen=True)
class Heads:
    """What every head contributes to a logit, by projection and by leaving it out."""

    names: tuple[str, ...]
    """`L0H0`, `L0H1`, ..."""
    direct: Tensor
    """Direct logit attribution, [heads, samples], float64."""
    effect: Tensor
    """Direct effect, alike."""

    @property
    def error(self) -> float:
        """100 · mean |attribution - effect| / mean |effect| over heads and samples, in percent (Baroni et al. 2025)."""
        return float(nmae(self.direct, self.effect))  # formula: NMAE

    @property
    def by_head(self) -> Tensor:
        """The same for each head, [heads]."""
        return nmae(self.direct, self.effect, dim=1)

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """Return a 95 % interval of `error`, by drawing heads and samples anew, both with replacement."""
        rng = np.random.default_rng(seed)
        heads, samples = self.direct.shape
        difference, size = (self.direct - self.effect).abs().numpy(), self.effect.abs().numpy()
        by_head = rng.multinomial(heads, np.full(heads, 1 / heads), size=resamples)  # how often each is drawn
        by_sample = rng.multinomial(samples, np.full(samples, 1 / samples), size=resamples)
        numerator = ((by_head @ difference) * by_sample).sum(1) / (heads * samples)
        denominator = ((by_head @ size) * by_sample).sum(1) / (heads * samples)
        low, high = np.quantile(100 * numerator / (denominator + 1e-10), [0.025, 0.975])
        return float(low), float(high)


def head_attributions(
    model: Transformer,
    rows: Tensor,
    *,
    target: Target = "next",
    batch_size: int = 16,
    label: str = "attribution",
) -> Heads:
    """Return attribution and effect of every head at the end of each row, rows [samples, length + 1] int64.

    target "next" reads the logit of the row's last token at the place before it; "last" that of the token that stands
    there itself, as the authors' code does. LabError for a model whose residual is no sum of parts, or without heads.
    """
    direct, effect, names = list[Tensor](), list[Tensor](), list[str]()
    for part in progress(rows.split(batch_size), label=label):
        ids = part.to(model.device)
        found = decompose(model, ids[:, :-1], pos=-1)
        chosen = [i for i, name in enumerate(found.names) if name.startswith("L") and "H" in name]
        names = [found.names[i] for i in chosen]
        if not chosen:
            raise LabError("this model has no attention heads, whose attribution could be measured")
        values, wide = found.values[chosen].double(), found.total.double()
        targets = ids[:, -1:] if target == "next" else ids[:, -2:-1]
        direct.append(dla(model, values, targets, scale=found.scale.double()).squeeze(-1).double().cpu())
        effect.append(direct_effect(model, values, wide, targets).squeeze(-1).double().cpu())
    return Heads(tuple(names), torch.cat(direct, 1), torch.cat(effect, 1))


@dataclass(frozen=True, kw_only=True)
class AttributionExactness:
    """How far direct logit attribution is from the direct effect of each head; 0 in a model without norms."""

    data: tuple[str, ...] = ("docstrings",)
    """Text to read: files, folders, hub:ID or names of built-in sources."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    samples: int = 64
    """Pieces of text; the paper reads 1,000."""
    length: int = 64
    """Tokens of a piece, at most the model's positions; the paper reads 512."""
    target: Target = "next"
    """Token whose logit is measured: the next token, or the last token read (as in the authors' code)."""
    resamples: int = 1000
    """Draws of the bootstrap over heads and pieces."""
    batch_size: int = 16
    """Pieces in one pass; changes speed and memory, not the numbers."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model; LabError for post-norm models, too little text, and NaN."""
        rows = read_rows(lm, self.data, self.field, self.samples, self.length, "attribution-exactness")
        heads = head_attributions(lm.model, rows, target=self.target, batch_size=self.batch_size)
        if not bool(heads.effect.isfinite().all()):
            raise LabError(
                "attribution-exactness: effects are not finite; the model gives NaN or infinite states"
            )
        low, high = heads.interval(self.resamples, self.seed)
        each = heads.by_head
        return Measurement(
            name="attribution-exactness",
            numbers={
                "error": heads.error, "error_low": low, "error_high": high,
                "worst_head": float(each.max()), "mean_effect": float(heads.effect.abs().mean()),
            },
            units={
                "error": "% of the mean effect, mean over heads and pieces",
                "error_low": "% (95 % interval)", "error_high": "%",
                "worst_head": f"%, {heads.names[int(each.argmax())]}", "mean_effect": "nats",
            },
            tables={
                "heads": [
                    {"head": name, "error": float(each[i]), "attribution": float(heads.direct[i].mean()),
                     "direct effect": float(heads.effect[i].mean())}
                    for i, name in enumerate(heads.names)
                ]
            },
            figures={"heads": heads_figure(heads)},
            about={"pieces": len(rows), "tokens each": rows.shape[1] - 1, "target": self.target},
        )  # fmt: skip


def heads_figure(heads: Heads) -> "Callable[[], Figure]":
    """Return a function that draws the error of every head, layers as rows."""
    places = [tuple(map(int, name[1:].split("H"))) for name in heads.names]
    layers, most = 1 + max(layer for layer, _ in places), 1 + max(head for _, head in places)
    values = [[float("nan")] * most for _ in range(layers)]
    for (layer, head), value in zip(places, heads.by_head.tolist(), strict=True):
        values[layer][head] = value
    largest = max((value for value in heads.by_head.tolist() if math.isfinite(value)), default=1.0)
    return partial(
        heatmap, values, rows=range(layers), columns=[f"H{i}" for i in range(most)], y_label="layer",
        label="attribution's error, % of the effect", limits=(0.0, largest),
    )  # fmt: skip


def read_rows(
    lm: "LanguageModel", data: tuple[str, ...], field: str, samples: int, length: int, measure: str
) -> Tensor:
    """Return pieces of text as rows of length + 1 tokens, [samples or fewer, length + 1]. LabError for too little text."""
    if samples < 1 or length < 2:
        raise LabError(
            f"{measure}: samples must be at least 1 and length at least 2, got {samples} and {length}"
        )
    length = min(length, lm.model.context)
    tokenizer = corpus.need_tokenizer(lm, measure)
    found = corpus.stream(corpus.read_texts(data, field), tokenizer, limit=samples * (length + 1))
    ids = torch.tensor(found.ids)
    rows = len(ids) // (length + 1)
    if not rows:
        raise LabError(
            f"{measure}: the text has {len(ids)} tokens, one piece takes {length + 1}; give more or shorter pieces"
        )
    return ids[: min(rows, samples) * (length + 1)].view(-1, length + 1)
