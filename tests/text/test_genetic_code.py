"""The genetic code against a table written by degenerate codons, and frames, reverse translation and reading frames."""

from functools import cache
from itertools import product

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text.genetic_code import (
    AMINO_ACIDS,
    CODE,
    STOPS,
    SYNONYMS,
    CodonUsage,
    codon_usage,
    open_reading_frames,
    reverse_complement,
    reverse_translate,
    six_frames,
    translate,
)

LETTERS = {"N": "ACGT", "R": "AG", "Y": "CT", "H": "ACT", "A": "A", "C": "C", "G": "G", "T": "T"}
DEGENERATE = {
    "A": "GCN", "R": "CGN AGR", "N": "AAY", "D": "GAY", "C": "TGY", "Q": "CAR", "E": "GAR", "G": "GGN", "H": "CAY",
    "I": "ATH", "L": "CTN TTR", "K": "AAR", "M": "ATG", "F": "TTY", "P": "CCN", "S": "TCN AGY", "T": "ACN", "W": "TGG",
    "Y": "TAY", "V": "GTN", "*": "TAR TGA",
}  # fmt: skip
"""The code as textbooks write it, by IUPAC letters."""


@cache
def slow_code() -> dict[str, str]:
    return {
        "".join(codon): residue
        for residue, patterns in DEGENERATE.items()
        for pattern in patterns.split()
        for codon in product(*(LETTERS[letter] for letter in pattern))
    }


def slow_translate(dna: str, offset: int = 0) -> str:
    code, protein = slow_code(), ""
    while offset + 3 <= len(dna):
        protein += code.get(dna[offset : offset + 3], "X")
        offset += 3
    return protein


def random_dna(length: int, seed: int, letters: str = "ACGT") -> str:
    return "".join(np.random.default_rng(seed).choice(list(letters), size=length))


def test_the_table_is_that_of_the_degenerate_codons() -> None:
    assert dict(CODE) == slow_code()
    assert frozenset({"TAA", "TAG", "TGA"}) == STOPS
    sizes = {residue: len(codons) for residue, codons in SYNONYMS.items()}
    assert all(sizes[r] == 6 for r in "LSR") and all(sizes[r] == 4 for r in "AGPTV")
    assert sizes["I"] == sizes["*"] == 3 and sizes["M"] == sizes["W"] == 1
    assert all(sizes[r] == 2 for r in "CDEFHKNQY") and sum(sizes.values()) == 64


@pytest.mark.parametrize("seed", range(5))
def test_six_frames_are_those_of_a_slow_translation(seed: int) -> None:
    dna = random_dna(71 + seed, seed, "ACGTN")
    other = "".join({"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}[base] for base in reversed(dna))
    assert reverse_complement(dna) == other
    assert six_frames(dna) == tuple(slow_translate(strand, i) for strand in (dna, other) for i in range(3))


def test_lower_case_u_unknown_bases_and_codons_cut_off() -> None:
    assert translate("augGCNtga a".replace(" ", "")) == "MX*"
    assert translate("ATGTAAATG", to_stop=True) == "M"
    assert translate("AT") == translate("") == ""
    assert translate("CCATGA", offset=2) == "M"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: translate("ATGJ"), r"'J' at base 4"),
        (lambda: translate("ATG", offset=3), "offset must be 0, 1 or 2"),
        (lambda: reverse_translate("MB", np.random.default_rng(0)), r"'B' at residue 2"),
        (lambda: reverse_translate("MßZ", np.random.default_rng(0)), r"'ß' at residue 2"),
        (lambda: reverse_translate("MX", np.random.default_rng(0)), "residue 2 is X"),
        (lambda: CodonUsage({"ATJ": 1.0}), "is no codon"),
        (lambda: CodonUsage({"ATG": -1.0}), "not negative"),
        (
            lambda: reverse_translate("MK", np.random.default_rng(0), CodonUsage({"ATG": 1.0})),
            "no codon of K",
        ),
        (lambda: open_reading_frames("ATG", shortest=0), "shortest must be at least 1"),
    ],
)
def test_a_mistake_gets_one_sentence(call: object, said: str) -> None:
    with pytest.raises(LabError, match=said):
        call()  # type: ignore[operator]


def test_reverse_translation_translates_back_and_draws_codons_by_their_shares() -> None:
    generator = np.random.default_rng(3)
    protein = "".join(generator.choice(list(AMINO_ACIDS), size=400))
    assert translate(reverse_translate(protein + "*", generator)) == protein + "*"
    leucines = reverse_translate("L" * 60_000, generator)
    counts = codon_usage([leucines]).weights
    assert all(abs(counts[codon] - 10_000) < 5 * 10_000**0.5 for codon in SYNONYMS["L"])
    skewed = reverse_translate("L" * 20_000, generator, CodonUsage({"CTG": 3.0, "TTA": 1.0, "ATG": 9.0}))
    counts = codon_usage([skewed]).weights
    assert counts["CTG"] + counts["TTA"] == 20_000 and abs(counts["TTA"] - 5000) < 5 * 3750**0.5


def slow_frames(dna: str, shortest: int) -> set[tuple[int, int, int, str]]:
    """Every ATG ... stop without a stop between and without an ATG before it since the last stop, by trying all."""
    found = set()
    for strand, read in ((1, dna), (-1, reverse_complement(dna))):
        for start in range(len(read) - 5):
            for stop in range(start + 6, len(read) + 1, 3):
                protein = slow_translate(read[start:stop])
                before = slow_translate(read[start % 3 : start])
                framed = protein[0] == "M" and protein.endswith("*") and protein.count("*") == 1
                if framed and "M" not in before.rpartition("*")[2] and len(protein) > shortest:
                    ends = (start, stop) if strand == 1 else (len(read) - stop, len(read) - start)
                    found.add((*ends, strand, protein[:-1]))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_open_reading_frames_are_all_that_a_slow_search_finds(seed: int) -> None:
    dna = random_dna(160, 30 + seed, "AATTGGC")
    found = open_reading_frames(dna, shortest=1)
    assert {(f.start, f.stop, f.strand, f.protein) for f in found} == slow_frames(dna, 1)
    assert len(found) == len({(f.start, f.stop, f.strand) for f in found}) and found
    for frame in found:
        own = dna[frame.start : frame.stop]
        assert translate(own if frame.strand == 1 else reverse_complement(own)) == frame.protein + "*"


def test_frames_that_the_end_cuts_off_are_found_on_demand_and_other_starts_code_for_m() -> None:
    assert open_reading_frames("ATGAAA") == []
    (frame,) = open_reading_frames("CATGAAAC", complete_only=False, both_strands=False)
    assert (frame.start, frame.stop, frame.protein, frame.complete) == (1, 7, "MK", False)
    (other,) = open_reading_frames("CTGAAATAA", starts=("ATG", "CTG"), both_strands=False)
    assert other.protein == "MK" and other.complete
