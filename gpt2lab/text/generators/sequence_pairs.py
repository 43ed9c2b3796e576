"""Generated pairs of sequences with a label and a type: DNA and proteins, DNA and DNA, protein and protein.

Half of the pairs match. In those of DNA and protein the second text is the translation of the first; each kind of negative
spoils this in one way and leaves as much else as it can: all keep the start codon and M, and up to some fifty residues no
DNA has a stop codon in its reading frame, so that none is given away by these; the same is true of copies. Pair i is a
pure function of the seed, the kinds and i. All of it is generated.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.text import mutations
from gpt2lab.text.generators.genes import Gene, Genes, of_length, random_protein
from gpt2lab.text.genetic_code import (
    AMINO_ACIDS,
    STOP,
    UNIFORM,
    reverse_complement,
    reverse_translate,
    translate,
)

MATCH = "match"
"""Type of the pairs whose label is 1."""
_PAIR, _ORDER = 2, 3
_DIVERGED = 0.1
"""Share of the residues in which a protein of a sister species differs, at least two."""
_TRIES = 200
_CANDIDATES = 32
"""Genes among which the one of the nearest length is another gene's protein."""


@dataclass(frozen=True)
class Pair:
    """Two texts, whether they match, and how they were made."""

    first: str
    """Of DNA and protein the DNA."""
    second: str
    """The other text."""
    label: int
    """1 for a match, 0 for none."""
    type: str = ""
    """`match`, or the kind of negative."""

    def row(self) -> dict[str, Any]:
        """Return the pair as a row of a source: text (one directly after the other), sentence1, sentence2, label, type."""
        return {
            "text": self.first + self.second,
            "sentence1": self.first,
            "sentence2": self.second,
            "label": self.label,
            "type": self.type,
        }


Made = tuple[str, str]


def _same_length(gene: Gene, genes: Genes, number: int, draw: np.random.Generator) -> Made:
    """A random protein of the same length."""
    return gene.dna, random_protein(len(gene.protein), draw)


def _any_length(gene: Gene, genes: Genes, number: int, draw: np.random.Generator) -> Made:
    """A random protein of another length, from half to twice that of the right one."""
    length = len(gene.protein)
    others = [n for n in range(max(2, length // 2), 2 * length + 1) if n != length]
    return gene.dna, random_protein(others[int(draw.integers(len(others)))], draw)


def _shuffled(gene: Gene, genes: Genes, number: int, draw: np.random.Generator) -> Made:
    """The right protein with its residues in another order; M stays first."""
    return gene.dna, mutations.shuffle(gene.protein, draw, keep=1)


def _substituted(gene: Gene, genes: Genes, number: int, draw: np.random.Generator) -> Made:
    """The right protein with one residue exchanged."""
    return gene.dna, mutations.substitute(gene.protein, 1, AMINO_ACIDS, draw, keep=1)


def _shifted(gene: Gene, genes: Genes, number: int, draw: np.random.Generator) -> Made:
    """The DNA has one or two bases more after its start codon and as many less at its end; the protein stays."""

    def made() -> str:
        count = int(draw.integers(1, 3))
        added = "".join(mutations.DNA[i] for i in draw.integers(4, size=count).tolist())
        dna = reverse_translate(gene.protein, draw, genes.usage)
        return dna[:3] + added + dna[3:-count]

    return _readable(made), gene.protein


def _other_strand(gene: Gene, genes: Genes, number: int, draw: np.random.Generator) -> Made:
    """What follows the start codon is the reverse complement of what codes for the protein."""

    def made() -> str:
        dna = reverse_translate(gene.protein, draw, genes.usage)
        return dna[:3] + reverse_complement(dna[3:])

    return _readable(made), gene.protein


def _other_gene(gene: Gene, genes: Genes, number: int, draw: np.random.Generator) -> Made:
    """The protein of another gene, of the nearest length among some: one that also occurs in pairs that match."""
    near = max(0, number - _CANDIDATES)
    others = [genes[i].protein for i in range(near, number + _CANDIDATES) if i != number]
    shortest = min(abs(len(protein) - len(gene.protein)) for protein in others)
    nearest = [protein for protein in others if abs(len(protein) - len(gene.protein)) == shortest]
    return gene.dna, nearest[int(draw.integers(len(nearest)))]


def _sister(gene: Gene, genes: Genes, number: int, draw: np.random.Generator) -> Made:
    """The protein of the same gene in a sister species: a tenth of its residues exchanged, at least two."""
    count = max(2, round(_DIVERGED * len(gene.protein)))
    return gene.dna, mutations.substitute(
        gene.protein, min(count, len(gene.protein) - 1), AMINO_ACIDS, draw, keep=1
    )


NEGATIVES: Mapping[str, Callable[[Gene, Genes, int, np.random.Generator], Made]] = {
    "random_same_length": _same_length,
    "random_any_length": _any_length,
    "shuffled_composition": _shuffled,
    "one_substitution": _substituted,
    "frame_shift": _shifted,
    "reverse_complement": _other_strand,
    "other_gene": _other_gene,
    "sister_species": _sister,
}
"""How each kind of negative is made from a gene."""


@dataclass(frozen=True, kw_only=True)
class TranslationPairs:
    """Coding DNA and a protein; half of the pairs match, the other half are the kinds of negatives in equal parts."""

    genes: Genes = field(default_factory=Genes)
    """The genes; pair i is of gene i."""
    negatives: Sequence[str] = ("random_same_length",)
    """Kinds of negatives."""

    def __post_init__(self) -> None:
        if not self.negatives:
            raise LabError(f"pairs: name a kind of negative: {', '.join(NEGATIVES)}")
        for name in self.negatives:
            if name not in NEGATIVES:
                raise unknown("kind of negative", name, NEGATIVES)
        if self.genes.shortest < 3:
            raise LabError(f"pairs: proteins need 3 residues or more, got {self.genes.shortest}")

    def __getitem__(self, number: int) -> Pair:
        """Return one pair."""
        gene, kind = self.genes[number], self._kind(number)
        if kind == MATCH:
            return Pair(gene.dna, gene.protein, 1, MATCH)
        draw = np.random.default_rng([self.genes.seed, _PAIR, number])
        for _ in range(_TRIES):
            dna, protein = NEGATIVES[kind](gene, self.genes, number, draw)
            if translate(dna) != protein:
                return Pair(dna, protein, 0, kind)
            # Such as MCC, which has no other order: another gene of this length is taken.
            other = random_protein(len(gene.protein), draw)
            gene = Gene(other, reverse_translate(other, draw, self.genes.usage))
        raise LabError(f"pairs: no negative of kind {kind} was found for pair {number}; take longer proteins")

    def _kind(self, number: int) -> str:
        """Every block of 2 · kinds pairs holds each kind of negative once, and as many matches, in an order of its own."""
        block, place = divmod(number, 2 * len(self.negatives))
        order = np.random.default_rng([self.genes.seed, _ORDER, block]).permutation(2 * len(self.negatives))
        drawn = int(order[place])
        return self.negatives[drawn] if drawn < len(self.negatives) else MATCH


def _readable(made: Callable[[], str]) -> str:
    """Draw DNA that has no stop codon in its reading frame; of a long protein hardly any is, and the last try is taken."""
    found = ""
    for _ in range(_TRIES):
        found = made()
        if STOP not in translate(found):
            break
    return found


@dataclass(frozen=True, kw_only=True)
class SimilarityPairs:
    """A sequence and a mutated copy of it, type `mutated`; or an unrelated one of the same length, type `random`.

    A copy keeps the start codon or M and gets no stop codon into its reading frame: unrelated sequences are such too.
    """

    genes: Genes = field(default_factory=Genes)
    """Whose DNA or proteins they are."""
    protein: bool = False
    """Proteins instead of coding DNA."""
    rate: float = 0.12
    """Share of the letters behind the start that a copy changes, each with this probability; a copy of DNA with a stop codon
    is drawn again, so that a little less is changed there."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise LabError(f"pairs: rate must lie in [0, 1], got {self.rate}")

    def __getitem__(self, number: int) -> Pair:
        """Return one pair."""
        gene, draw = self.genes[number], np.random.default_rng([self.genes.seed, _PAIR, number])
        block, place = divmod(number, 2)
        first = int(np.random.default_rng([self.genes.seed, _ORDER, block]).integers(2))
        text = gene.protein if self.protein else gene.dna
        if place == first:
            return Pair(text, self._copy(text, draw), 1, "mutated")
        other = random_protein(len(gene.protein), draw)
        return Pair(text, other if self.protein else reverse_translate(other, draw, UNIFORM), 0, "random")

    def _copy(self, text: str, draw: np.random.Generator) -> str:
        if self.protein:
            return mutations.mutate(text, self.rate, AMINO_ACIDS, draw, keep=1)
        return _readable(lambda: mutations.mutate(text, self.rate, mutations.DNA, draw, keep=3))


def translation_rows(
    seed: int, size: int, residues: int, negatives: Sequence[str] = ("random_same_length",)
) -> Iterator[dict[str, Any]]:
    """Yield pairs of DNA and protein as rows; residues as for `genes.of_length`."""
    pairs = TranslationPairs(genes=of_length(seed, residues), negatives=negatives)
    return (pairs[number].row() for number in range(size))


def similarity_rows(seed: int, size: int, residues: int, protein: bool = False) -> Iterator[dict[str, Any]]:
    """Yield pairs of two sequences as rows; residues as for `genes.of_length`."""
    pairs = SimilarityPairs(genes=of_length(seed, residues), protein=protein)
    return (pairs[number].row() for number in range(size))
