"""A second language of known meaning: every word of a text is replaced by an invented one, so that only the words differ."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from gpt2lab.base.errors import LabError

_CONSONANTS, _VOWELS, _ENDS = "bdfgklmnprstvz", "aeiouy", "nrst"
_WORD = re.compile(r"[a-z']+")
_OTHER = re.compile(r"[^a-z'.,!?\n]")
_QUOTE = re.compile(r"(?<![a-z])'|'(?![a-z])")
_BLANKS = re.compile(r" +")


def plain_lines(documents: Iterable[str], *, shortest: int = 21) -> list[str]:
    """Return the lines of texts in lower case with a-z and .,!? alone, each once; lines of fewer characters are dropped.

    An apostrophe stays between two letters only: elsewhere it is a quotation mark.
    """
    found = dict[str, None]()
    for document in documents:
        for line in _OTHER.sub(" ", document.lower().replace("’", "'")).split("\n"):
            line = _BLANKS.sub(" ", _QUOTE.sub(" ", line)).strip()
            if len(line) >= shortest:
                found.setdefault(line)
    return list(found)


def word_cipher(lines: Iterable[str], seed: int = 5) -> dict[str, str]:
    """Return an invented word for every word of plain lines, the most frequent words first.

    Each has max(1, round(letters / 2)) syllables of a consonant and a vowel and with probability 0.4 a final n, r, s or t;
    no two are alike, and none is a word of the lines. The same lines and seed give the same cipher.
    """
    counts = Counter(word for line in lines for word in _WORD.findall(line))
    draw, taken, cipher = np.random.default_rng(seed), set(counts), dict[str, str]()
    for word in sorted(counts, key=lambda one: (-counts[one], one)):
        syllables = max(1, round(len(word) / 2))
        for attempt in range(1000):
            # a short word may find all short ones taken
            made = "".join(
                str(draw.choice(list(letters)))
                for _ in range(syllables + attempt // 100)
                for letters in (_CONSONANTS, _VOWELS)
            )
            made += str(draw.choice(list(_ENDS))) if draw.random() < 0.4 else ""
            if made not in taken:
                break
        else:
            raise LabError(f"no invented word is left for {word!r}")
        taken.add(made)
        cipher[word] = made
    return cipher


def ciphered(lines: Sequence[str], cipher: dict[str, str]) -> list[str]:
    """Return lines with every word replaced; punctuation stays. LabError for a word that the cipher lacks."""
    try:
        return [_WORD.sub(lambda found: cipher[found.group()], line) for line in lines]
    except KeyError as error:
        raise LabError(
            f"the cipher has no word for {error.args[0]!r}; make it from all of the text"
        ) from None
