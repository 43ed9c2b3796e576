"""Which tokens of a pair are which codons of its DNA and which residues of its protein."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.text.encoding import Encoder, TokenRow

CODON = 3
"""Bases of a codon."""


@dataclass(frozen=True)
class Aligned:
    """A pair as a model reads it, with the share of every token that lies in each codon and in each residue."""

    row: TokenRow
    """The tokens."""
    codons: Tensor
    """Share of the letters of each token that are those of a codon, [codons, time] float64."""
    residues: Tensor
    """The same of residues, [residues, time] float64."""


def align(encoder: Encoder, dna: str, protein: str, what: str = "pair") -> Aligned:
    """Encode DNA and protein as a pair; bases left over after the last whole codon belong to none.

    LabError for a pair that must be cut to fit, and for letters that no token stands for.
    """
    cut = encoder.truncated
    row = encoder.text(dna, protein)
    if encoder.truncated > cut:
        raise LabError(
            f"{what}: more than the {encoder.limit} tokens that the model reads; take shorter pairs or a longer context"
        )
    codons = [(start, start + CODON) for start in range(0, len(dna) - CODON + 1, CODON)]
    residues = [(place, place + 1) for place in range(len(protein))]
    found = Aligned(row, _shares(row, 0, codons), _shares(row, 1, residues))
    if not bool((found.codons.sum(1) > 0).all() and (found.residues.sum(1) > 0).all()):
        raise LabError(f"{what}: no token stands for some of its letters; take a tokenizer that spells DNA")
    return found


def _shares(row: TokenRow, text: int, ranges: Sequence[tuple[int, int]]) -> Tensor:
    shares = torch.zeros(len(ranges), len(row.ids), dtype=torch.float64)
    for place, (owner, start, stop) in enumerate(row.letters):
        if owner != text:
            continue
        for unit, (low, high) in enumerate(ranges):
            shares[unit, place] = max(0, min(stop, high) - max(start, low)) / max(stop - start, 1)
    return shares


def states_of(shares: Tensor, states: Tensor) -> Tensor:
    """Return the mean state of the tokens of each codon or residue, [units, d_model] float64; states [time, d_model].

    A token counts by the share of its letters that lie in it.
    """
    return (shares @ states.double()) / shares.sum(1, keepdim=True)  # Σ share · state / Σ share
