"""Measure `codon-attribution`: how much each codon and each residue adds to a judge's verdict that the pair matches.

Integrated gradients (Sundararajan et al. 2017) of the logit of a match over the other, from embeddings of zero on.
What falls to a token is shared among the codons or residues that its letters lie in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.prediction import encoder_for
from gpt2lab.measures.scoring import check_batch_size
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.task_heads import find_head, read_out
from gpt2lab.papers.central_dogma.alignment import Aligned, align
from gpt2lab.papers.central_dogma.measure import match_place
from gpt2lab.papers.central_dogma.pairs import Fields, read_pairs, require_sequences
from gpt2lab.plots.figures import line_chart
from gpt2lab.text.encoding import padded
from gpt2lab.text.generators.sequence_pairs import Pair
from gpt2lab.text.genetic_code import translate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2lab.model import Transformer
    from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True)
class Attributed:
    """What is attributed to the tokens of one pair."""

    tokens: Tensor
    """Of each token, [time] float64."""
    whole: float
    """The logit of a match over the other, less the same of embeddings of zero: what the tokens should sum to."""


def integrated_gradients(
    model: "Transformer", rows: Sequence[Aligned], head: str, match: int, *, steps: int, batch_size: int = 32
) -> list[Attributed]:
    """Attribute a judge's answer to the tokens of each pair: Σ_d e_td · mean over steps of ∂F(α e) / ∂(α e)_td.

    F is the logit of class `match` less that of the other class; α goes through the midpoints of `steps` equal parts of
    [0, 1]. LabError for numbers that are not finite.
    """
    found: list[Attributed] = []
    with evaluating(model):
        for start in range(0, len(rows), batch_size):
            found += _batch(model, rows[start : start + batch_size], head, match, steps)
    return found


def _batch(
    model: "Transformer", rows: Sequence[Aligned], head: str, match: int, steps: int
) -> list[Attributed]:
    tokens, mask = (one.to(model.device) for one in padded([row.row.ids for row in rows], 0))
    types = padded([row.row.types for row in rows], 0)[0].to(model.device)
    with torch.no_grad():
        whole = model.embed(tokens)

    def answer(embeddings: Tensor) -> Tensor:
        said = read_out(model, (head,), embeddings=embeddings, attention_mask=mask, token_types=types)[head]
        return said[:, match].double() - said[:, 1 - match].double()

    total = torch.zeros_like(whole, dtype=torch.float64)
    for step in range(steps):
        scaled = (whole * ((step + 0.5) / steps)).requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(answer(scaled).sum(), scaled)
        total += gradient.double()
    shares = (whole.double() * total / steps).sum(-1)  # integrated gradients
    with torch.no_grad():
        difference = answer(whole) - answer(torch.zeros_like(whole))
    if not shares.isfinite().all():
        raise LabError("codon-attribution: a gradient is NaN or infinite; look at the model's weights")
    return [
        Attributed(share[: len(row.row.ids)].cpu(), value)
        for share, row, value in zip(shares, rows, difference.tolist(), strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class CodonAttribution:
    """Integrated gradients of a judge's answer by codon of the DNA and residue of the protein."""

    data: tuple[str, ...] = ("dna-protein-typed:320:2",)
    """Pairs of DNA and protein with labels 1 and 0: files, hub:ID or a built-in source of pairs."""
    first: str = "sentence1"
    """Field of the DNA."""
    second: str = "sentence2"
    """Field of the protein."""
    label: str = "label"
    """Field of the label."""
    type: str = "type"
    """Field of the kind of negative, if there is one."""
    head: str | None = None
    """Name of the head, if the model has several."""
    match: str = "1"
    """The head's class that means match."""
    separator: str = ""
    """Text between the two."""
    steps: int = 16
    """Points of the path from embeddings of zero to the pair's."""
    limit: int | None = 200
    """Read at most this many pairs."""
    batch_size: int = 32
    """Pairs in one pass; changes speed and memory, not the numbers."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise LabError(f"codon-attribution: steps must be at least 1, got {self.steps}")

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a judge; LabError for letters outside the alphabets, pairs that do not fit, a head of other classes."""
        check_batch_size(self.batch_size)
        fields = Fields(first=self.first, second=self.second, label=self.label, type=self.type)
        pairs = read_pairs(self.data, fields, limit=self.limit)
        require_sequences(pairs)
        spec = find_head(lm.model, self.head, ("classification",))
        place, encoder = match_place(spec, self.match), encoder_for(lm, separator=self.separator)
        rows = [
            align(encoder, pair.first, pair.second, f"pair {number}") for number, pair in enumerate(pairs, start=1)
        ]  # fmt: skip
        found = integrated_gradients(
            lm.model, rows, spec.name, place, steps=self.steps, batch_size=self.batch_size
        )
        return _measurement(pairs, rows, found, self.steps)


def _measurement(
    pairs: Sequence[Pair], rows: Sequence[Aligned], found: Sequence[Attributed], steps: int
) -> Measurement:
    codons = [row.codons @ one.tokens for row, one in zip(rows, found, strict=True)]
    residues = [row.residues @ one.tokens for row, one in zip(rows, found, strict=True)]
    size = sum(float(one.tokens.abs().sum()) for one in found)
    wrong = [abs(float(one.tokens.sum()) - one.whole) for one in found]
    shares = {
        "dna_share": sum(float(one.abs().sum()) for one in codons) / size if size else 0.0,
        "protein_share": sum(float(one.abs().sum()) for one in residues) / size if size else 0.0,
    }
    spotted = _spotted(pairs, residues)
    numbers = {**shares, "incomplete": sum(wrong) / len(wrong), **spotted}
    units = {
        "dna_share": "of all attribution, without its sign",
        "protein_share": "of all attribution, without its sign",
        "incomplete": "nats: mean |attributed − difference of the logits|, which more steps make smaller",
        "substitution_found": "pairs of one wrong residue in which it speaks most against a match",
        "substitution_chance": "the same by chance",
    }
    table = _positions(pairs, codons, residues)
    return Measurement(
        name="codon-attribution",
        numbers=numbers,
        units={name: unit for name, unit in units.items() if name in numbers},
        tables={"positions": table},
        figures={"positions": partial(positions_figure, table)},
        about={"pairs": len(pairs), "steps": steps, "baseline": "embeddings of zero"},
    )


def _spotted(pairs: Sequence[Pair], residues: Sequence[Tensor]) -> dict[str, float]:
    """Of pairs that differ from the translation in one residue: how often that residue has the lowest attribution."""
    hits: list[float] = []
    chance: list[float] = []
    for pair, values in zip(pairs, residues, strict=True):
        coded, given = translate(pair.first), pair.second.upper()
        places = [k for k, (a, b) in enumerate(zip(coded, given, strict=False)) if a != b]
        if len(coded) == len(given) and len(places) == 1:
            hits.append(float(int(values.argmin()) == places[0]))
            chance.append(1 / len(given))
    if not hits:
        return {}
    return {
        "substitution_found": sum(hits) / len(hits),
        "substitution_chance": sum(chance) / len(chance),
    }


def _positions(pairs: Sequence[Pair], codons: Sequence[Tensor], residues: Sequence[Tensor]) -> Table:
    """Mean attribution by place, counted from 1: with its sign for matches and others, and without it."""
    table: Table = []
    for part, values in (("codon", codons), ("residue", residues)):
        for k in range(max(map(len, values))):
            own = {
                label: [
                    float(one[k])
                    for one, pair in zip(values, pairs, strict=True)
                    if len(one) > k and pair.label == label
                ]
                for label in (1, 0)
            }  # fmt: skip
            both = own[1] + own[0]
            table.append(
                {
                    "part": part,
                    "place": k + 1,
                    "pairs": len(both),
                    "matches": sum(own[1]) / len(own[1]) if own[1] else None,
                    "others": sum(own[0]) / len(own[0]) if own[0] else None,
                    "without sign": sum(map(abs, both)) / len(both),
                }
            )
    return table


def positions_figure(table: Table) -> "Figure":
    """Draw the mean attribution without its sign by place in the DNA and in the protein."""
    series = {
        f"{part}s": (
            [float(row["place"]) for row in table if row["part"] == part],
            [float(row["without sign"]) for row in table if row["part"] == part],
        )
        for part in ("codon", "residue")
    }
    return line_chart(series, x_label="place in the gene", y_label="mean |attribution|, nats", markers=True)
