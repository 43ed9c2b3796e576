"""Isotropy: how little the hidden states of a text resemble each other. Contrastive search needs them spread out.

With S(x) the sum of cos(h_i, h_j) over the ordered pairs i ≠ j of a text x of n tokens:

    pairs:  1 - Σ_x S(x) / Σ_x n (n - 1)              long texts weigh more (the published code)
    texts:  1 - mean over x of S(x) / (n (n - 1))     every text weighs the same (SimCTG, Su et al. 2022)

S(x) = |Σ_i u_i|² - n for states u of length 1, so no matrix of pairs is needed.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.measures.corpus import need_tokenizer, start_token
from gpt2lab.measures.measurement import Measurement
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating, unseen
from gpt2lab.plots.heatmaps import heatmap
from gpt2lab.text import sources
from gpt2lab.text.pieces import beginning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2lab.text.language_model import LanguageModel

Weighting = Literal["pairs", "texts"]
Span = tuple[int, int | None]
"""Positions from the first to before the second; None: to the end."""

_SMALLEST_NORM = 1e-12
LAST, BEFORE = "final", "before final norm"
"""Names of the last states after the final norm, and before it."""


def unit_states(states: Tensor) -> Tensor:
    """Return states [..., d_model] at length 1, float64. Warns of a state of zeros, whose cosines are taken as 0.

    LabError for states that are not numbers.
    """
    states = states.double()
    norms = states.norm(dim=-1, keepdim=True)
    if not bool(norms.isfinite().all()):
        raise LabError("isotropy: the model's states are not numbers (NaN); its weights hold some")
    if bool((norms < _SMALLEST_NORM).any()):
        warnings.warn("isotropy: a state is zero; its cosines are taken as 0", stacklevel=3)
    return states / norms.clamp_min(_SMALLEST_NORM)


def similarity(states: Tensor) -> Tensor:
    """Return the cosines of all pairs of one text's states, [n, d_model] → [n, n] float64."""
    unit = unit_states(states)
    return unit @ unit.T


def pair_sum(states: Tensor) -> tuple[float, int]:
    """Return S(x) and n (n - 1) of one text's states [n, d_model]; (0, 0) for fewer than two tokens."""
    n = len(states)
    if n < 2:
        return 0.0, 0
    unit = unit_states(states)
    return float(unit.sum(0).square().sum() - unit.square().sum()), n * (n - 1)  # formula: S(x)


def isotropy(texts: Sequence[Tensor], *, weighting: Weighting = "pairs") -> float:
    """Return the isotropy of several texts' states, each [n, d_model]: from 0 (all alike) over 1 to at most 2.

    A text of one token has no pair and does not count. LabError if no text has two.
    """
    return of_sums([pair_sum(states) for states in texts], weighting)


def of_sums(sums: Sequence[tuple[float, int]], weighting: Weighting) -> float:
    """Return the isotropy from each text's S(x) and number of pairs; errors as `isotropy`."""
    if weighting not in get_args(Weighting):
        raise unknown("weighting", weighting, get_args(Weighting))
    counted = [(total, pairs) for total, pairs in sums if pairs]
    if not counted:
        raise LabError("isotropy: no text has two tokens in these positions; there is no pair to compare")
    if weighting == "pairs":
        # formula: isotropy
        value = 1.0 - sum(total for total, _ in counted) / sum(pairs for _, pairs in counted)
    else:
        value = 1.0 - sum(total / pairs for total, pairs in counted) / len(counted)
    assert -1e-6 <= value <= 2.0 + 1e-6, value
    return value


def last_states(model: Transformer, rows: Sequence[Sequence[int]], *, batch_size: int = 16) -> list[Tensor]:
    """Return the states after the final norm of each row of token ids, each [n, d_model] float32 on the CPU."""
    return [states[LAST] for states in _read(model, rows, batch_size, layers=False, before=False)]


def model_sums(
    model: Transformer, rows: Sequence[Sequence[int]], *, batch_size: int = 16
) -> list[tuple[float, int]]:
    """Return S(x) and the number of pairs of each row's last states, for `of_sums`; no more than a batch is held."""
    return [pair_sum(states[LAST]) for states in _read(model, rows, batch_size, layers=False, before=False)]


def _read(
    model: Transformer, rows: Sequence[Sequence[int]], batch_size: int, *, layers: bool, before: bool
) -> Iterator[dict[str, Tensor]]:
    """Yield each row's states by name, in order: those of every block, before and after the final norm."""
    depth = model.config.n_layers
    wanted = {
        f"blocks.{i}.hook_resid_post": _layer(i, depth)
        for i in range(depth)
        if layers or (before and i == depth - 1)
    }
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        longest = max(len(row) for row in some)
        tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in some], device=model.device)
        mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in some])
        with evaluating(model), unseen(model), torch.no_grad():
            with model.tap(read=list(wanted)) as tap:
                last = model.hidden(tokens, attention_mask=mask.to(model.device))
            states = {name: tap[hook].float().cpu() for hook, name in wanted.items()} | {
                LAST: last.float().cpu()
            }
        for i, row in enumerate(some):
            yield {name: tensor[i, : len(row)] for name, tensor in states.items()}


def _layer(i: int, depth: int) -> str:
    return BEFORE if i == depth - 1 else f"layer {i + 1}"


class Directions:
    """The directions of largest variance of states, added text by text, and how to take them out."""

    def __init__(self, d_model: int) -> None:
        self.n, self.sum = 0, torch.zeros(d_model, dtype=torch.float64)
        self.products = torch.zeros(d_model, d_model, dtype=torch.float64)

    def add(self, states: Tensor) -> None:
        """Take the states of one text into account, [n, d_model]."""
        wide = states.double()
        self.n, self.sum = self.n + len(wide), self.sum + wide.sum(0)
        self.products += wide.T @ wide

    def first(self, m: int) -> Tensor:
        """Return the m principal directions of the centred states, [d_model, m] float64, orthonormal."""
        mean = self.sum / max(self.n, 1)
        covariance = self.products / max(self.n, 1) - mean.outer(mean)
        return torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :m]


def without(states: Tensor, directions: Tensor) -> Tensor:
    """Return states [n, d_model] with their parts along orthonormal directions [d_model, m] taken out."""
    wide = states.double()
    return wide - wide @ directions @ directions.T


@dataclass(frozen=True, kw_only=True)
class Isotropy:
    """Isotropy of a model's hidden states: both weightings, ranges of positions, layers, and what few directions do.

    The headline is that of the last states after the final norm (what transformers calls hidden_states[-1]), over the
    first range, nothing taken out, in the weighting that is asked for. The paper: first 256 tokens of at most 2000 texts,
    weighting pairs. The other figures are the lab's own: GPT-2 small and medium are said to be anisotropic because
    of position 0 and a few huge dimensions.
    """

    data: tuple[str, ...] = ("docstrings",)
    """Texts: files, folders, hub:ID or names of built-in sources."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    texts: int = 200
    """Largest number of texts (the paper: 2000); texts of less than two characters are skipped."""
    max_tokens: int = 256
    """Tokens of each text that are read."""
    bos: bool = False
    """Put a start token before each text (the paper does so for OPT only)."""
    weighting: Weighting = "pairs"
    """Weighting of the headline number: pairs (long texts weigh more) or texts."""
    positions: tuple[str, ...] = ("0:", "1:", "0:8", "8:32")
    """Ranges of positions, FIRST:END as in Python; the headline uses the first one."""
    layers: bool = False
    """Also the states after every block."""
    before_norm: bool = False
    """Also the last states before the final norm."""
    remove: tuple[int, ...] = ()
    """Also remove this many directions of largest variance from the states, such as 1,3."""
    batch_size: int = 16
    """Texts in a forward pass; changes no number."""

    def __post_init__(self) -> None:
        for name, least in (("texts", 1), ("max_tokens", 2), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise LabError(f"isotropy: {name} must be at least {least}, got {getattr(self, name)}")
        if self.weighting not in get_args(Weighting):
            raise unknown("weighting", self.weighting, get_args(Weighting))
        if not self.positions:
            raise LabError("isotropy: give at least one range of positions, such as 0:")
        for text in self.positions:
            read_span(text)
        if any(m < 1 for m in self.remove):
            raise LabError(f"isotropy: remove counts directions from 1, got {self.remove}")

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure; LabError for a model without tokenizer, texts without two tokens, states that are NaN."""
        if self.remove and max(self.remove) >= lm.config.d_model:
            raise LabError(f"isotropy: {max(self.remove)} of {lm.config.d_model} directions leave nothing")
        rows = self._rows(lm)
        sums = self._sums(lm.model, rows)
        table = [
            {
                "states": layer,
                "positions": span,
                "removed": removed,
                "pairs": of_sums(found, "pairs"),
                "texts": of_sums(found, "texts"),
            }
            for (layer, span, removed), found in sums.items()
            if any(pairs for _, pairs in found)
        ]
        main = sums[LAST, self.positions[0], 0]
        other: Weighting = "texts" if self.weighting == "pairs" else "pairs"
        return Measurement(
            name="isotropy",
            numbers={
                "isotropy": of_sums(main, self.weighting),
                f"isotropy_by_{other}": of_sums(main, other),
            },
            tables={"isotropy": table},
            figures={"token_similarity": _map(lm, rows[0][:64])},
            about={
                "weighting": self.weighting,
                "positions": self.positions[0],
                "texts": len(rows),
                "tokens": sum(len(row) for row in rows),
                "data": list(self.data),
                "bos": self.bos,
            },
        )

    def _rows(self, lm: "LanguageModel") -> list[list[int]]:
        """Return the first tokens of each text."""
        tokenizer = need_tokenizer(lm, "isotropy")
        start = [start_token(tokenizer)] if self.bos else []
        most = min(self.max_tokens, lm.model.context)
        rows = list[list[int]]()
        for text in sources.documents(list(self.data), field=self.field):
            if len(text) >= 2 and len(rows) < self.texts:
                rows.append([*start, *beginning(tokenizer, text, most)[0]][:most])
            if len(rows) == self.texts:
                break
        if not any(len(row) > 1 for row in rows):
            raise LabError(f"{', '.join(self.data)}: no text has two tokens; isotropy compares pairs")
        return [row for row in rows if row]

    def _sums(
        self, model: Transformer, rows: Sequence[Sequence[int]]
    ) -> dict[tuple[str, str, int], list[tuple[float, int]]]:
        """Return every text's S(x) and number of pairs, by states, range of positions and directions taken out."""

        def texts() -> Iterator[dict[str, Tensor]]:
            return _read(model, rows, self.batch_size, layers=self.layers, before=self.before_norm)

        found: dict[tuple[str, str, int], list[tuple[float, int]]] = {}
        spans = {text: read_span(text) for text in self.positions}
        out: dict[str, Tensor] = {}
        if self.remove:
            directions: dict[str, Directions] = {}
            for states in texts():
                for name, tensor in states.items():
                    directions.setdefault(name, Directions(model.config.d_model)).add(tensor)
            out = {name: one.first(max(self.remove)) for name, one in directions.items()}
        for states in texts():
            for name, tensor in states.items():
                for removed in (0, *self.remove):
                    left = without(tensor, out[name][:, :removed]) if removed else tensor
                    for text, (first, end) in spans.items():
                        found.setdefault((name, text, removed), []).append(pair_sum(left[first:end]))
        return found


def read_span(text: str) -> Span:
    """Read FIRST:END. LabError for anything else, and for a range without two positions."""
    first, colon, end = text.partition(":")
    if not colon or not all(part == "" or part.isdecimal() for part in (first, end)):
        raise LabError(f"isotropy: {text!r} is no range of positions; FIRST:END, such as 8:32 or 1:")
    span = (int(first or 0), int(end) if end else None)
    if span[1] is not None and span[1] - span[0] < 2:
        raise LabError(f"isotropy: {text} holds fewer than two positions, so no pair")
    return span


def _map(lm: "LanguageModel", tokens: Sequence[int]) -> "Callable[[], Figure]":
    """Return a function that draws the cosines of a text's states."""
    return partial(token_similarity, lm, tokens)


def token_similarity(lm: "LanguageModel", tokens: Sequence[int]) -> "Figure":
    """Draw the cosines of all pairs of last states of a text, token by token: repetition shows as bright side diagonals."""
    values = similarity(last_states(lm.model, [tokens])[0]).tolist()
    names = [lm.tokenizer.decode([token]) if lm.tokenizer is not None else str(token) for token in tokens]
    return heatmap(values, rows=names, columns=names, label="cosine", limits=(0.0, 1.0), numbers=False)
