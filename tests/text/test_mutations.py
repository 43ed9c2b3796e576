"""Mutations change what they say and nothing else."""

from collections import Counter

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text import mutations
from gpt2lab.text.genetic_code import AMINO_ACIDS, translate

DNA = "ATGGCCGATTTAACGCGCTGGTGTCAACAC"


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(20))
def test_substitutions_are_as_many_as_asked_and_spare_the_first_letters(seed: int) -> None:
    text = mutations.substitute(DNA, 5, "ACGT", draw(seed), keep=3)
    assert sum(a != b for a, b in zip(text, DNA, strict=True)) == 5
    assert text[:3] == "ATG"
    assert mutations.substitute("MMM", 2, AMINO_ACIDS, draw(seed), keep=1)[1:].count("M") == 0


def test_a_rate_is_the_share_of_letters_that_change() -> None:
    text = mutations.mutate("A" * 100_000, 0.12, "ACGT", draw())
    counts = Counter(text)
    assert abs(counts["A"] - 88_000) < 5 * (100_000 * 0.12 * 0.88) ** 0.5
    assert all(abs(counts[base] - 4000) < 5 * 4000**0.5 for base in "CGT")
    spared = mutations.mutate("ATGATG", 1.0, "ACGT", draw(), keep=3)
    assert spared[:3] == "ATG" and all(a != b for a, b in zip(spared[3:], "ATG", strict=True))
    assert mutations.mutate("AT", 1.0, "ACGT", draw(), keep=3) == "AT"


@pytest.mark.parametrize("seed", range(20))
def test_insertions_and_deletions_leave_the_rest_in_order(seed: int) -> None:
    longer = mutations.insert(DNA, 2, "N", draw(seed), keep=3)
    assert longer.replace("N", "") == DNA and len(longer) == len(DNA) + 2 and longer[:3] == "ATG"
    shorter = mutations.delete(DNA, 4, draw(seed), keep=3)
    assert len(shorter) == len(DNA) - 4 and shorter[:3] == "ATG"
    rest = iter(DNA)
    assert all(letter in rest for letter in shorter), "a subsequence"


def test_a_shuffle_is_another_order_wherever_there_is_one() -> None:
    for seed in range(50):
        text = mutations.shuffle("MKK" + "L", draw(seed), keep=1)
        assert text != "MKKL" and sorted(text) == sorted("MKKL") and text[0] == "M"
    assert mutations.shuffle("MKKK", draw(), keep=1) == "MKKK"


def test_synonymous_mutations_keep_the_protein_and_change_every_codon_that_can() -> None:
    text = mutations.synonymous(DNA + "AT", 1.0, draw())
    assert translate(text) == translate(DNA) and text.endswith("AT")
    changed = [text[i : i + 3] != DNA[i : i + 3] for i in range(0, len(DNA), 3)]
    assert changed == [residue not in "MW" for residue in translate(DNA)]
    assert mutations.synonymous(DNA, 0.0, draw()) == DNA


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: mutations.substitute("ACG", 4, "ACGT", draw()), "4 places of 3"),
        (lambda: mutations.substitute("ACG", 1, "AA", draw()), "two letters"),
        (lambda: mutations.delete("ACG", 2, draw(), keep=2), "2 places of 1"),
        (lambda: mutations.mutate("ACG", 1.5, "ACGT", draw()), r"\[0, 1\]"),
        (lambda: mutations.synonymous("ACG", -1, draw()), r"\[0, 1\]"),
    ],
)
def test_a_mistake_gets_one_sentence(call: object, said: str) -> None:
    with pytest.raises(LabError, match=said):
        call()  # type: ignore[operator]
