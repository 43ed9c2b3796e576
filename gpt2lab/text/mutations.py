"""Mutations of DNA, proteins and any other text of a fixed alphabet: substitutions, insertions, deletions, shuffles.

Each draws from the generator that it is given and returns a new text.
"""

import numpy as np

from gpt2lab.base.errors import LabError
from gpt2lab.text.genetic_code import CODE, SYNONYMS, clean_dna

DNA = "ACGT"


def substitute(text: str, count: int, alphabet: str, generator: np.random.Generator, *, keep: int = 0) -> str:
    """Replace letters at `count` different places by others of the alphabet; the first `keep` letters stay.

    LabError for more places than there are.
    """
    if len(set(alphabet)) < 2:
        raise LabError(f"substitute: an alphabet of two letters or more is needed, got {alphabet!r}")
    letters = list(text)
    for place in _places(len(text) - keep, count, generator, "substitute"):
        others = [letter for letter in alphabet if letter != letters[keep + place]]
        letters[keep + place] = others[int(generator.integers(len(others)))]
    return "".join(letters)


def mutate(text: str, rate: float, alphabet: str, generator: np.random.Generator, *, keep: int = 0) -> str:
    """Replace each letter behind the first `keep` with probability `rate` by another of the alphabet.

    LabError unless 0 <= rate <= 1.
    """
    if not 0 <= rate <= 1:
        raise LabError(f"mutate: rate must lie in [0, 1], got {rate}")
    count = int((generator.random(max(0, len(text) - keep)) < rate).sum())
    return substitute(text, count, alphabet, generator, keep=keep)


def insert(text: str, count: int, alphabet: str, generator: np.random.Generator, *, keep: int = 0) -> str:
    """Insert `count` letters, each at a place of its own draw, after the first `keep` letters."""
    for _ in range(count):
        place = int(generator.integers(min(keep, len(text)), len(text) + 1))
        text = text[:place] + alphabet[int(generator.integers(len(alphabet)))] + text[place:]
    return text


def delete(text: str, count: int, generator: np.random.Generator, *, keep: int = 0) -> str:
    """Delete the letters of `count` different places after the first `keep`. LabError for more than there are."""
    gone = {keep + place for place in _places(len(text) - keep, count, generator, "delete")}
    return "".join(letter for place, letter in enumerate(text) if place not in gone)


def shuffle(text: str, generator: np.random.Generator, *, keep: int = 0) -> str:
    """Return the letters in another order; the first `keep` stay. Equal to the text only if no other order exists."""
    rest = list(text[keep:])
    if len(set(rest)) < 2:
        return text
    while True:
        found = text[:keep] + "".join(rest[place] for place in generator.permutation(len(rest)).tolist())
        if found != text:
            return found


def synonymous(dna: str, rate: float, generator: np.random.Generator) -> str:
    """Exchange each codon with probability `rate` for another of the same residue, if it has another.

    The translation at offset 0 stays. LabError unless 0 <= rate <= 1, and for other letters than DNA's.
    """
    if not 0 <= rate <= 1:
        raise LabError(f"synonymous: rate must lie in [0, 1], got {rate}")
    clean, whole = clean_dna(dna), len(dna) // 3 * 3
    codons = [clean[i : i + 3] for i in range(0, whole, 3)]
    for place in np.flatnonzero(generator.random(len(codons)) < rate).tolist():
        others = [other for other in SYNONYMS.get(CODE.get(codons[place], ""), ()) if other != codons[place]]
        if others:
            codons[place] = others[int(generator.integers(len(others)))]
    return "".join(codons) + clean[whole:]


def _places(length: int, count: int, generator: np.random.Generator, what: str) -> list[int]:
    if not 0 <= count <= max(length, 0):
        raise LabError(f"{what}: {count} places of {max(length, 0)}; ask for no more than there are")
    return sorted(generator.choice(length, size=count, replace=False).tolist()) if count else []
