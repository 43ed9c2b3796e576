"""Generated genes: proteins of natural residue frequencies, and coding DNA that translates to them.

A protein begins with M; its other residues are independent draws from their frequencies in nature. Its DNA is drawn from the
codons of each residue, without a stop codon. Gene i is a pure function of the seed and i. All of it is generated.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from gpt2lab.base.errors import LabError
from gpt2lab.text.genetic_code import AMINO_ACIDS, UNIFORM, CodonUsage, reverse_translate

PERCENT = dict(
    zip(
        AMINO_ACIDS,
        (8.3, 1.4, 5.5, 6.8, 3.9, 7.1, 2.3, 5.9, 5.8, 9.7, 2.4, 4.1, 4.7, 3.9, 5.5, 6.6, 5.3, 6.9, 1.1, 2.9),
        strict=True,
    )
)
"""Share of each residue in natural proteins."""
_STEPS = np.cumsum(list(PERCENT.values())) / sum(PERCENT.values())
_GENE, _DOCUMENT = 0, 1
_LONGEST = 100_000


@dataclass(frozen=True)
class Gene:
    """A protein and DNA that codes for it."""

    protein: str
    """From M on, without a stop."""
    dna: str
    """Three bases a residue."""


@dataclass(frozen=True, kw_only=True)
class Genes:
    """The genes of a seed; the first n of more are the same n."""

    seed: int = 0
    """Of proteins and codons."""
    shortest: int = 10
    """Residues of the shortest protein."""
    longest: int = 40
    """Residues of the longest one; lengths between are equally likely."""
    usage: CodonUsage = field(default=UNIFORM)
    """How often each codon of a residue is used."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise LabError(f"genes: seed must be at least 0, got {self.seed}")
        if not 2 <= self.shortest <= self.longest <= _LONGEST:
            raise LabError(
                f"genes: proteins have from 2 to {_LONGEST:,} residues, the shortest no more than the longest; "
                f"got {self.shortest} to {self.longest}"
            )

    def __getitem__(self, number: int) -> Gene:
        """Return one gene. LabError for a negative number."""
        if number < 0:
            raise LabError(f"genes: numbers begin at 0, got {number}")
        generator = np.random.default_rng([self.seed, _GENE, number])
        protein = random_protein(int(generator.integers(self.shortest, self.longest + 1)), generator)
        return Gene(protein, reverse_translate(protein, generator, self.usage))


def random_protein(residues: int, generator: np.random.Generator) -> str:
    """Return M and residues - 1 independent draws from the natural frequencies."""
    drawn = np.searchsorted(_STEPS, generator.random(residues - 1), side="right").clip(
        max=len(AMINO_ACIDS) - 1
    )
    return "M" + "".join(AMINO_ACIDS[place] for place in drawn.tolist())


def coding(seed: int, size: int, residues: int) -> Iterator[str]:
    """Yield the DNA of genes, one a document; residues as for `of_length`."""
    genes = of_length(seed, residues)
    return (genes[number].dna for number in range(size))


def proteins(seed: int, size: int, residues: int) -> Iterator[str]:
    """Yield the proteins of genes, one a document; residues as for `of_length`."""
    genes = of_length(seed, residues)
    return (genes[number].protein for number in range(size))


def of_length(seed: int, residues: int) -> Genes:
    """Return genes of so many residues each, from 10 to 40 for 0."""
    return Genes(seed=seed) if residues == 0 else Genes(seed=seed, shortest=residues, longest=residues)


def documents(seed: int, size: int, parallel: int, residues: int = 0) -> Iterator[str]:
    """Yield DNA and proteins as documents of a corpus that never pairs them, except in `parallel` percent.

    There a document is the coding DNA of a gene directly followed by its protein. The others are in turn the DNA of one gene
    and the protein of another, so that nothing but the code's statistics connects the two.
    LabError unless 0 <= parallel <= 100.
    """
    if not 0 <= parallel <= 100:
        raise LabError(f"genes: the share of parallel documents is 0 to 100 percent, got {parallel}")
    return _documents(of_length(seed, residues), size, parallel)


def _documents(genes: Genes, size: int, parallel: int) -> Iterator[str]:
    paired = np.random.default_rng([genes.seed, _DOCUMENT]).random(size) < parallel / 100
    alone = 0
    for number, both in enumerate(paired.tolist()):
        gene = genes[number]
        alone += not both
        yield gene.dna + gene.protein if both else gene.dna if alone % 2 else gene.protein
