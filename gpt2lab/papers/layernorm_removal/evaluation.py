"""What the removal costs beyond the mean loss: its tails, the output's entropy and calibration, sinks, lengths of states."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import Model
from gpt2lab.measures.measurement import Measurement
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.papers.layernorm_removal.fold import export_errors, is_frozen
from gpt2lab.papers.layernorm_removal.measure import read_rows

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

QUANTILES = {"low_99.9": 0.0005, "low_95": 0.025, "median": 0.5, "high_95": 0.975, "high_99.9": 0.9995}
_SINK = 0.3
_BINS = 10
_ELEMENTS = 1 << 25
"""Logits held at a time."""


@dataclass(frozen=True)
class Tokens:
    """What a model says of every token of some text; all [tokens], float64 on the CPU."""

    loss: Tensor
    """Cross entropy, nats."""
    entropy: Tensor
    """Entropy of the output, nats."""
    confidence: Tensor
    """Probability of the likeliest token."""
    hit: Tensor
    """1 where that is the right one."""
    divergence: Tensor
    """Jensen-Shannon divergence from the reference model's output, nats; zeros without one."""

    @property
    def calibration_error(self) -> float:
        """Σ over 10 equal bins of confidence of share · |accuracy - mean confidence| (Guo et al. 2017, eq. 3)."""
        gap = torch.zeros(_BINS, dtype=torch.float64).index_add(0, self.bins, self.hit - self.confidence)
        return float(gap.abs().sum() / max(len(self.bins), 1))

    @property
    def bins(self) -> Tensor:
        """The bin of each token's confidence, [tokens] int64."""
        return (self.confidence * _BINS).long().clamp_max(_BINS - 1)

    def quantiles(self) -> dict[str, float]:
        """Return the middle and the ends of the ranges that hold 95 % and 99.9 % of the losses."""
        return {name: _quantile(self.loss, share) for name, share in QUANTILES.items()}


@torch.no_grad()
def token_statistics(
    model: Transformer, rows: Tensor, *, reference: Transformer | None = None, batch_size: int = 16
) -> Tokens:
    """Score every token but the first of each row; rows [samples, length + 1] int64."""
    found = list[tuple[Tensor, ...]]()
    size = max(1, _ELEMENTS // model.config.vocab_size)
    with evaluating(model), evaluating(reference or model):
        for part in rows.split(batch_size):
            ids, targets = part[:, :-1], part[:, 1:].flatten()
            states = model.hidden(ids.to(model.device)).flatten(0, 1)
            others = states if reference is None else reference.hidden(ids.to(reference.device)).flatten(0, 1)
            pieces = (tensor.split(size) for tensor in (states, others, targets.to(model.device)))
            for own, other, right in zip(*pieces, strict=True):
                log = _log_probabilities(model, own)
                there = log if reference is None else _log_probabilities(reference, other).to(log.device)
                found.append(_of_tokens(log, there, right))
    return Tokens(*(torch.cat(kind).double().cpu() for kind in zip(*found, strict=True)))


def _log_probabilities(model: Transformer, states: Tensor) -> Tensor:
    return model.unembed(states).float().log_softmax(-1)


def _of_tokens(log: Tensor, other: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """What `Tokens` holds, of some tokens; log and other [tokens, vocab]. LabError for two vocabularies."""
    if other.shape != log.shape:
        raise LabError(
            f"the models have {log.shape[-1]} and {other.shape[-1]} tokens; their outputs do not compare"
        )
    best, middle = log.max(-1), torch.logaddexp(log, other) - math.log(2)
    return (
        F.nll_loss(log, targets, reduction="none"),
        -(log.exp() * log).sum(-1),
        best.values.exp(),
        (best.indices == targets).float(),
        ((log.exp() * (log - middle)).sum(-1) + (other.exp() * (other - middle)).sum(-1)) / 2,
    )


def intervals(
    found: Tokens, rows: int, others: Mapping[str, Tensor], *, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Return means over tokens with 95 % intervals, found by drawing the `rows` pieces of text anew, with replacement.

    The calibration error of a draw is that of its tokens; others: further numbers of each token, [tokens], by name.
    """
    draws = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    weights = torch.from_numpy(draws).double() / rows  # [resamples, rows]
    shown = {"loss": found.loss, "entropy": found.entropy, **others}
    samples = {name: weights @ values.view(rows, -1).mean(1) for name, values in shown.items()}
    means = {name: float(values.mean()) for name, values in shown.items()}
    gaps = F.one_hot(found.bins, _BINS) * (found.hit - found.confidence)[:, None]  # [tokens, bins]
    samples["calibration error"] = (weights @ gaps.view(rows, -1, _BINS).mean(1).flatten(1)).abs().sum(1)
    means["calibration error"] = found.calibration_error
    return [
        {"of each token": name, "mean": mean, "low": _quantile(samples[name], 0.025),
         "high": _quantile(samples[name], 0.975)}
        for name, mean in means.items()
    ]  # fmt: skip


@torch.no_grad()
def sink_rate(model: Transformer, rows: Tensor, *, first_query: bool = False, batch_size: int = 4) -> float:
    """Return the share of (layer, head, query) whose attention to position 0 is above 0.3.

    first_query: query 0 counts too. It can look nowhere else, so that it adds one sink to each row of each head: a number
    that depends on the length of the rows, and the one that the paper's 55.3 % and 45.3 % can be compared with.
    """
    above, count = 0, 0
    with evaluating(model):
        for part in rows.split(batch_size):
            with model.tap(read=["attn.hook_pattern"], reduce=_first_key) as tap:
                model.hidden(part[:, :-1].to(model.device))
            for name in tap.asked["attn.hook_pattern"]:
                above += int((tap[name] > _SINK).sum())
                count += tap[name].numel()
                if first_query:  # its pattern is 1 at position 0
                    sinks = tap[name].shape[:2].numel()
                    above, count = above + sinks, count + sinks
    return above / max(count, 1)


def _first_key(old: Tensor | None, new: Tensor, name: str) -> Tensor:
    return new[:, :, 1:, 0]


@torch.no_grad()
def stream_norms(model: Transformer, rows: Tensor) -> list[dict[str, Any]]:
    """Return the mean length of the residual stream at position 0 and elsewhere, at every place where it is read."""
    names = [
        name for name in model.activation_names() if name.endswith(("resid_pre", "resid_mid", "resid_post"))
    ]
    names = [
        name for name in names if ":" not in name and not (name.endswith("resid_pre") and ".0." not in name)
    ]
    with evaluating(model), model.tap(read=names, reduce=_lengths) as tap:
        model.hidden(rows[:, :-1].to(model.device))
    return [
        {
            "place": name,
            "position 0": float(tap[name][:, 0].mean()),
            "elsewhere": float(tap[name][:, 1:].mean()),
        }
        for name in names
    ]


def _lengths(old: Tensor | None, new: Tensor, name: str) -> Tensor:
    return new.float().norm(dim=-1)


@dataclass(frozen=True, kw_only=True)
class RemovalEffects:
    """Loss with its tails, entropy, calibration, sinks and lengths of states, beside an original and a control."""

    data: tuple[str, ...] = ("docstrings",)
    """Text to read: files, folders, hub:ID or names of built-in sources."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    original: Model | None = None
    """MODEL before the removal, with which loss and output are compared."""
    control: Model | None = None
    """MODEL that was fine-tuned with its norms."""
    samples: int = 64
    """Pieces of text."""
    length: int = 128
    """Tokens of a piece, at most the model's positions."""
    texts: int = 3
    """Number of pieces whose beginnings are continued greedily."""
    resamples: int = 1000
    """Draws of the bootstrap over pieces, for the intervals."""
    batch_size: int = 8
    """Pieces in one pass; changes speed and memory, not the numbers."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model. LabError for too little text, NaN, and models of other vocabularies."""
        rows = read_rows(lm, self.data, self.field, self.samples, self.length, "removal-effects")
        others = {name: self._other(name, lm) for name in ("original", "control") if getattr(self, name)}
        own = token_statistics(lm.model, rows, reference=others.get("original"), batch_size=self.batch_size)
        if not bool(own.loss.isfinite().all()):
            raise LabError("removal-effects: losses are not finite; the model gives NaN or infinite logits")
        numbers = {
            "loss": float(own.loss.mean()), **{f"loss_{name}": value for name, value in own.quantiles().items()},
            "entropy": float(own.entropy.mean()), "calibration_error": own.calibration_error,
            "sink_rate": sink_rate(lm.model, rows[:16]),
            "sink_rate_with_first": sink_rate(lm.model, rows[:16], first_query=True),
        }  # fmt: skip
        beside = {"divergence": own.divergence} if "original" in others else {}
        for name, model in others.items():
            there = token_statistics(model, rows, batch_size=self.batch_size)
            beside[f"above_{name}"] = own.loss - there.loss
        numbers |= {name: float(values.mean()) for name, values in beside.items()}
        if is_frozen(lm.model):
            errors = export_errors(lm.model, rows[:2, :-1].to(lm.model.device))
            numbers |= {f"export_{name}": value for name, value in errors.items()}
        means = intervals(own, len(rows), beside, resamples=self.resamples, seed=self.seed)
        return Measurement(
            name="removal-effects",
            numbers=numbers,
            units={name: _unit(name) for name in numbers if _unit(name)},
            tables={
                "means": means,
                "stream": stream_norms(lm.model, rows[:16]),
                "texts": self._texts(lm, rows),
            },
            about={
                "tokens": len(own.loss),
                "original": self.original or "none",
                "control": self.control or "none",
            },
        )

    def _other(self, name: str, lm: "LanguageModel") -> Transformer:
        from gpt2lab.text.language_model import load

        model = load(getattr(self, name), device=lm.model.device).model
        if model.config.vocab_size != lm.config.vocab_size:
            raise LabError(
                f"removal-effects: {name} has {model.config.vocab_size} tokens, this model {lm.config.vocab_size}"
            )
        return model

    def _texts(self, lm: "LanguageModel", rows: Tensor) -> list[dict[str, Any]]:
        from gpt2lab.decode import Greedy, Limits

        assert lm.tokenizer is not None
        half = max(1, min(16, rows.shape[1] // 2, lm.model.context // 2))
        prompts: Sequence[list[int]] = rows[: self.texts, :half].tolist()
        if not prompts:
            return []
        limits = Limits(max_new_tokens=min(32, lm.model.context - half))
        found = Greedy().decode(lm.model, prompts, limits)
        decode = lm.tokenizer.decode
        return [
            {"beginning": decode(p), "continuation": decode(list(t))}
            for p, t in zip(prompts, found, strict=True)
        ]


def _unit(name: str) -> str:
    if name.startswith("export"):
        return "largest difference from the frozen model's logits"
    if name.startswith(("loss", "entropy", "above", "divergence")):
        return "nats per token"
    sinks = {
        "sink_rate": "share of queries behind the first with more than 0.3 on position 0",
        "sink_rate_with_first": "alike, of all queries",
    }
    return sinks.get(name, "")


def _quantile(values: Tensor, share: float) -> float:
    """As torch's, for any number of values (torch refuses more than 16 million)."""
    ordered = values.sort().values
    place = share * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return float(low + (high - low) * (place - math.floor(place)))
