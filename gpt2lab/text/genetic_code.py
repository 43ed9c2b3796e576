"""The standard genetic code: translation, six frames, reverse translation, open reading frames.

DNA is text of the letters A, C, G, T; N is a base that is not known, U is read as T, and small letters are read as large
ones. Proteins are one letter a residue; X is a residue that is not known, `*` a stop.
NCBI translation table 1.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product

import numpy as np

from gpt2lab.base.errors import LabError

BASES = "TCAG"
"""In the order in which the code table is written."""
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
"""The twenty residues."""
STOP = "*"
UNKNOWN_RESIDUE = "X"
START = "ATG"
"""The usual start codon; table 1 lists CTG and TTG too."""

_TABLE = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
CODE: Mapping[str, str] = {
    "".join(codon): residue for codon, residue in zip(product(BASES, repeat=3), _TABLE, strict=True)
}
"""Residue, or `*`, of each of the 64 codons."""
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    residue: tuple(codon for codon, other in CODE.items() if other == residue)
    for residue in dict.fromkeys(_TABLE)
}
"""The codons of each residue and of the stop."""
STOPS = frozenset(SYNONYMS[STOP])

_NOT_DNA = re.compile(r"[^ACGTUNacgtun]")
_NOT_PROTEIN = re.compile(
    rf"[^{AMINO_ACIDS}{AMINO_ACIDS.lower()}{UNKNOWN_RESIDUE}{UNKNOWN_RESIDUE.lower()}{re.escape(STOP)}]"
)
_COMPLEMENT = str.maketrans("ACGT", "TGCA")


def clean_dna(dna: str, where: str = "DNA") -> str:
    """Return DNA in capital letters with T for U. LabError for any other letter than A, C, G, T, U, N."""
    if wrong := _NOT_DNA.search(dna):
        raise LabError(
            f"{where}: {dna[wrong.start()]!r} at base {wrong.start() + 1} is none of A, C, G, T, U and N"
        )
    return dna.upper().replace("U", "T")


def clean_protein(protein: str, where: str = "protein") -> str:
    """Return a protein in capital letters. LabError for a letter that is no residue, X or `*`."""
    if wrong := _NOT_PROTEIN.search(protein):
        raise LabError(
            f"{where}: {protein[wrong.start()]!r} at residue {wrong.start() + 1} is none of the twenty residues, "
            f"{UNKNOWN_RESIDUE} and {STOP}"
        )
    return protein.upper()


def translate(dna: str, *, offset: int = 0, to_stop: bool = False) -> str:
    """Return the protein that codons from base `offset` on code for; a codon cut off at the end codes for nothing.

    A codon with N is X. to_stop: end before the first stop, which else is `*`. LabError for other letters than DNA's.
    """
    if not 0 <= offset <= 2:
        raise LabError(f"translate: offset must be 0, 1 or 2, got {offset}")
    clean = clean_dna(dna)
    codons = (clean[i : i + 3] for i in range(offset, len(clean) - 2, 3))
    protein = "".join(CODE.get(codon, UNKNOWN_RESIDUE) for codon in codons)
    return protein.partition(STOP)[0] if to_stop else protein


def reverse_complement(dna: str) -> str:
    """Return the other strand in its own direction: A and T, C and G exchanged, reversed."""
    return clean_dna(dna).translate(_COMPLEMENT)[::-1]


def six_frames(dna: str) -> tuple[str, ...]:
    """Return the translations at offsets 0, 1, 2 of the strand, then at those of its reverse complement."""
    return tuple(
        translate(strand, offset=offset) for strand in (dna, reverse_complement(dna)) for offset in range(3)
    )


@dataclass(frozen=True)
class CodonUsage:
    """How often each codon is used; only the shares among the codons of one residue matter."""

    weights: Mapping[str, float]
    """Of codons; one that is missing is never used."""

    def __post_init__(self) -> None:
        for codon, weight in self.weights.items():
            if codon not in CODE:
                raise LabError(f"codon usage: {codon!r} is no codon; codons are three letters of A, C, G, T")
            if not 0 <= weight < float("inf"):
                raise LabError(
                    f"codon usage: the weight of {codon} must be finite and not negative, got {weight}"
                )

    def shares(self, residue: str) -> list[float]:
        """Return the probability of each of `SYNONYMS[residue]`. LabError if the weights of all are 0."""
        weights = [self.weights.get(codon, 0.0) for codon in SYNONYMS[residue]]
        if not sum(weights):
            raise LabError(
                f"codon usage: no codon of {residue} has a weight; give one of {', '.join(SYNONYMS[residue])}"
            )
        return [weight / sum(weights) for weight in weights]

    @cached_property
    def steps(self) -> dict[str, list[float]]:
        """Return the cumulative `shares` of each residue that has a codon, as they are drawn from."""
        has = {CODE[codon] for codon, weight in self.weights.items() if weight}
        return {residue: list(accumulate(self.shares(residue))) for residue in has}


UNIFORM = CodonUsage(dict.fromkeys(CODE, 1.0))
"""Every codon of a residue alike."""


def codon_usage(coding: Iterable[str], *, pseudocount: float = 0.0) -> CodonUsage:
    """Count the codons of coding sequences from their first base on; codons with N are left out."""
    counts = Counter[str]()
    for dna in coding:
        clean = clean_dna(dna)
        counts.update(clean[i : i + 3] for i in range(0, len(clean) - 2, 3))
    return CodonUsage({codon: counts[codon] + pseudocount for codon in CODE})


def reverse_translate(protein: str, generator: np.random.Generator, usage: CodonUsage = UNIFORM) -> str:
    """Return DNA that codes for a protein, each codon drawn from its residue's by `usage`; `*` gives a stop codon.

    LabError for X, which no codon is known for.
    """
    clean = clean_protein(protein)
    if UNKNOWN_RESIDUE in clean:
        raise LabError(
            f"reverse_translate: residue {clean.index(UNKNOWN_RESIDUE) + 1} is X, which no codon is known for"
        )
    steps = usage.steps
    for residue in sorted(set(clean) - steps.keys()):
        usage.shares(residue)  # says that it has none
    drawn = generator.random(len(clean)).tolist()
    return "".join(_codon(residue, steps[residue], draw) for residue, draw in zip(clean, drawn, strict=True))


def _codon(residue: str, steps: list[float], draw: float) -> str:
    """Return the codon in whose step a draw of [0, 1) lies; the last step may end below 1 by rounding."""
    return SYNONYMS[residue][min(bisect_right(steps, draw), len(steps) - 1)]


@dataclass(frozen=True)
class OpenReadingFrame:
    """A stretch of one frame from a start codon up to a stop codon."""

    start: int
    """First base on the strand that was given, counted from 0, whichever strand is read."""
    stop: int
    """Base after the last one, the stop codon included."""
    strand: int
    """1: as given; -1: the reverse complement, whose start codon lies at the end."""
    protein: str
    """Without the stop."""
    complete: bool
    """Whether there is a stop codon, or the DNA ends first."""


def open_reading_frames(
    dna: str,
    *,
    shortest: int = 1,
    starts: Iterable[str] = (START,),
    both_strands: bool = True,
    complete_only: bool = True,
) -> list[OpenReadingFrame]:
    """Return the open reading frames of all frames by start: each from the first start codon after a stop to the next stop.

    shortest: residues. complete_only=False also takes those that the end of the DNA cuts off.
    """
    codons = frozenset(starts)
    if shortest < 1 or not codons or not codons <= CODE.keys():
        raise LabError("open_reading_frames: shortest must be at least 1, and starts codons such as ATG")
    clean, found = clean_dna(dna), []
    for strand in (1, -1) if both_strands else (1,):
        read = clean if strand == 1 else reverse_complement(clean)
        for offset in range(3):
            for start, stop, complete in _stretches(read, offset, codons):
                protein = translate(read[start : stop - 3 if complete else stop])
                if len(protein) >= shortest and (complete or not complete_only):
                    ends = (start, stop) if strand == 1 else (len(read) - stop, len(read) - start)
                    # The start codon codes for M whatever its letters.
                    found.append(OpenReadingFrame(*ends, strand, "M" + protein[1:], complete))
    return sorted(found, key=lambda frame: (frame.start, frame.stop, -frame.strand))


def _stretches(read: str, offset: int, starts: frozenset[str]) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, stop, whether there is a stop codon) of one frame."""
    begun: int | None = None
    place = offset
    while place + 3 <= len(read):
        codon = read[place : place + 3]
        if begun is None and codon in starts:
            begun = place
        elif begun is not None and codon in STOPS:
            yield begun, place + 3, True
            begun = None
        place += 3
    if begun is not None:
        yield begun, place, False
