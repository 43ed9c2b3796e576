"""Measure `codon-probe`: whether the states of each block tell that codon k of the DNA codes for residue k of the protein.

Every gene of the data is read with its own protein, of which about half of the residues were exchanged for others, each by
itself: what is told of one residue gives away nothing of the next, and right and wrong residues are of one distribution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.linear_probe import probe
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.prediction import encoder_for
from gpt2lab.measures.scoring import check_batch_size
from gpt2lab.measures.statistics import wilson_interval
from gpt2lab.model.evaluating import evaluating
from gpt2lab.papers.central_dogma.alignment import CODON, Aligned, align, states_of
from gpt2lab.plots.figures import line_chart
from gpt2lab.text import rows
from gpt2lab.text.encoding import padded
from gpt2lab.text.genetic_code import AMINO_ACIDS, CODE, SYNONYMS, clean_dna, translate
from gpt2lab.text.records import records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2lab.model import Transformer
    from gpt2lab.text.encoding import Encoder
    from gpt2lab.text.language_model import LanguageModel

_EMBED = "embed"
_FIFTH = 5
TASKS = ("match", "residue", "synonyms")
"""What is read off: at residue k whether codon k codes for it; at codon k its residue; the same for codons never fitted."""


@dataclass(frozen=True)
class Example:
    """A codon and the residue at its place in the protein that was read."""

    gene: int
    codon: str
    residue: str

    @property
    def codes(self) -> bool:
        """Whether the codon codes for the residue."""
        return CODE[self.codon] == self.residue

    def answer(self, task: str) -> str:
        """Return what a probe of the task is to say."""
        return str(self.codes) if task == "match" else CODE[self.codon]


def half_exchanged(proteins: Sequence[str], seed: int) -> list[str]:
    """Return proteins with each residue but the first exchanged with probability one half.

    The new residue is drawn as often as it occurs in all proteins, from those that differ. LabError for proteins of fewer
    than two kinds of residues.
    """
    kinds = [residue for residue in AMINO_ACIDS if any(residue in protein[1:] for protein in proteins)]
    if len(kinds) < 2:
        raise LabError(
            "codon-probe: the genes code for fewer than two kinds of residues after the first codon"
        )
    counts = np.array(
        [sum(protein[1:].count(kind) for protein in proteins) for kind in kinds], dtype=np.float64
    )
    generator = np.random.default_rng(seed)

    def other(residue: str) -> str:
        weights = counts * np.array([kind != residue for kind in kinds])
        return str(generator.choice(kinds, p=weights / weights.sum()))

    return [
        protein[:1] + "".join(other(one) if generator.random() < 0.5 else one for one in protein[1:])
        for protein in proteins
    ]


@torch.no_grad()
def unit_states(
    model: "Transformer", aligned: Sequence[Aligned], batch_size: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return by place in the model the states of all codons and of all residues after the first of each pair.

    Each is [examples, d_model] float64 on the CPU. Places: embed, what the first block reads, and the number of each block.
    """
    blocks = [f"blocks.{i}.hook_resid_post" for i in range(model.config.n_layers)]
    names = {_EMBED: "blocks.0.hook_resid_pre", **{str(i): name for i, name in enumerate(blocks)}}
    found: dict[str, tuple[list[Tensor], list[Tensor]]] = {place: ([], []) for place in names}
    with evaluating(model):
        for start in range(0, len(aligned), batch_size):
            picked = aligned[start : start + batch_size]
            tokens, mask = padded([one.row.ids for one in picked], 0)
            types = padded([one.row.types for one in picked], 0)[0]
            batch = {"tokens": tokens, "attention_mask": mask, "token_types": types}
            with model.tap(read=list(names.values())) as tap:
                model.hidden_of({name: tensor.to(model.device) for name, tensor in batch.items()})
            for place, name in names.items():
                for states, one in zip(tap[name].cpu(), picked, strict=True):
                    own = states[: len(one.row.ids)]
                    units = min(len(one.codons), len(one.residues))
                    for part, shares in zip(found[place], (one.codons, one.residues), strict=True):
                        part.append(states_of(shares[1:units], own))
    return {place: (torch.cat(codons), torch.cat(residues)) for place, (codons, residues) in found.items()}


def held_out_codons(codons: Sequence[str], seed: int) -> set[str]:
    """Return one codon of each residue that several of these code for, drawn by a seed."""
    generator, present = np.random.default_rng(seed), set(codons)
    several = [[one for one in synonyms if one in present] for synonyms in SYNONYMS.values()]
    return {str(generator.choice(own)) for own in several if len(own) > 1}


@dataclass(frozen=True, kw_only=True)
class CodonProbe:
    """Accuracy of linear probes for "codon k of the DNA codes for residue k", and for the residue that a codon codes for."""

    data: tuple[str, ...] = ("dna-protein:300:3",)
    """Coding DNA, its frame beginning at the first base: files, hub:ID or a built-in source."""
    first: str = "sentence1"
    """Field of the DNA in rows."""
    separator: str = ""
    """Text between DNA and protein, as the model was trained."""
    limit: int | None = None
    """Read at most this many genes."""
    seed: int = 0
    """Seed of the residues that are exchanged, of the fifth of the genes that is judged, and of the codons held out."""
    batch_size: int = 32
    """Pairs in one pass; changes speed and memory, not the numbers."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model; LabError for other letters than DNA's, genes that do not fit, and too few of them to judge."""
        check_batch_size(self.batch_size)
        if not lm.config.n_layers:
            raise LabError("codon-probe: this model has no blocks whose states could be read")
        aligned, examples = self._read(encoder_for(lm, separator=self.separator))
        states = unit_states(lm.model, aligned, self.batch_size)
        judged = self._judged(len(aligned))
        mask = torch.tensor([judged[one.gene] for one in examples])
        masks = {"match": (mask, mask), "residue": (mask, mask), "synonyms": self._synonyms(examples, mask)}
        table: Table = []
        right: dict[str, dict[str, Tensor]] = {task: {} for task in TASKS}
        for place, (codons, residues) in states.items():
            for task, (left_out, asked) in masks.items():
                kept = ~left_out | asked
                labels = [one.answer(task) for one, use in zip(examples, kept.tolist(), strict=True) if use]
                x = residues if task == "match" else codons
                right[task][place] = probe(x[kept], labels, ~left_out[kept])
            table.append(_row(place, {task: of[place] for task, of in right.items()}))
        return self._measurement(table, right, examples, masks)

    def _read(self, encoder: "Encoder") -> tuple[list[Aligned], list[Example]]:
        genes = list[str]()
        for where, row in islice(records(self.data, self.first), self.limit):
            dna = clean_dna(rows.text(row[self.first], where, self.first).strip(), where)
            genes.append(dna[: len(dna) - len(dna) % CODON])
            if not set(translate(dna)) <= set(AMINO_ACIDS) or len(dna) < 2 * CODON:
                raise LabError(
                    f"{where}: fewer than two codons, a base that is not known or a stop in the frame; the probe reads "
                    "coding DNA whose first base begins a codon"
                )
        if len(genes) < _FIFTH:
            raise LabError(f"codon-probe: a fifth of the genes is judged; give at least 5, got {len(genes)}")
        proteins = half_exchanged([translate(gene) for gene in genes], self.seed)
        aligned = [
            align(encoder, dna, protein, f"gene {number}")
            for number, (dna, protein) in enumerate(zip(genes, proteins, strict=True), start=1)
        ]
        examples = [
            Example(gene, dna[CODON * k : CODON * (k + 1)], protein[k])
            for gene, (dna, protein) in enumerate(zip(genes, proteins, strict=True))
            for k in range(1, len(protein))
        ]
        return aligned, examples

    def _judged(self, genes: int) -> list[bool]:
        order = np.random.default_rng(self.seed).permutation(genes)
        chosen = set(order[: genes // _FIFTH].tolist())
        return [gene in chosen for gene in range(genes)]

    def _synonyms(self, examples: Sequence[Example], judged: Tensor) -> tuple[Tensor, Tensor]:
        """Not fitted: the genes that are judged, and everywhere the codons held out; judged: those codons there."""
        out = held_out_codons([one.codon for one in examples], self.seed)
        held = torch.tensor([one.codon in out for one in examples])
        return judged | held, judged & held

    def _measurement(
        self,
        table: Table,
        right: dict[str, dict[str, Tensor]],
        examples: Sequence[Example],
        masks: dict[str, tuple[Tensor, Tensor]],
    ) -> Measurement:
        majority = {task: _most_frequent(task, examples, *masks[task]) for task in TASKS}
        last = table[-1]
        return Measurement(
            name="codon-probe",
            numbers={
                **{task: last[task] for task in TASKS},
                **{f"{task}_majority": majority[task] for task in TASKS},
            },
            units={
                "match": "accuracy after the last block: codon k codes for residue k, read at the residue",
                "residue": "accuracy there: the residue of a codon, read at the codon",
                "synonyms": "the same for codons that were never fitted",
                **{f"{task}_majority": "accuracy of the most frequent answer" for task in TASKS},
            },
            tables={"places": table},
            figures={"places": partial(places_figure, table, majority)},
            arrays={f"{task}.{place}": one.numpy() for task, of in right.items() for place, one in of.items()},
            about={
                "genes": len({one.gene for one in examples}), "codons": len(examples),
                "judged": {task: int(masks[task][1].sum()) for task in TASKS},
                "intervals": "95 %, Wilson", "first codon": "left out: it is the start of every gene",
            },
        )  # fmt: skip


def _most_frequent(task: str, examples: Sequence[Example], left_out: Tensor, asked: Tensor) -> float:
    """Return the accuracy of the answer that is most frequent among the fitted examples."""
    answers = [one.answer(task) for one in examples]
    known = [answer for answer, out in zip(answers, left_out.tolist(), strict=True) if not out]
    wanted = [answer for answer, one in zip(answers, asked.tolist(), strict=True) if one]
    return wanted.count(max(dict.fromkeys(known), key=known.count)) / len(wanted)


def _row(place: str, right: dict[str, Tensor]) -> dict[str, object]:
    row: dict[str, object] = {"place": place}
    for task, hits in right.items():
        found = wilson_interval(int(hits.sum()), len(hits))
        row |= {task: found.mean, f"{task} low": found.low, f"{task} high": found.high}
    return row


def places_figure(table: Table, majority: dict[str, float]) -> "Figure":
    """Draw the accuracy of each task by place, with intervals, and that of the most frequent answer to the first."""
    places = [float(i) for i in range(len(table))]
    words = {
        "match": "codon k codes for residue k",
        "residue": "residue of a codon",
        "synonyms": "of a new codon",
    }
    series = {words[task]: (places, [float(row[task]) for row in table]) for task in TASKS}
    bands = {
        words[task]: (
            [float(row[f"{task} low"]) for row in table],
            [float(row[f"{task} high"]) for row in table],
        )
        for task in TASKS
    }
    chance = {"most frequent: match": (places, [majority["match"]] * len(places))}
    return line_chart(
        {**series, **chance}, x_label="blocks read through", y_label="accuracy of the probe",
        bands=bands, markers=True, dashed=list(chance),
    )  # fmt: skip
