"""Bilingual dictionaries: pairs of a source word and a target word, from files or from words that both languages have."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import user_path
from gpt2lab.text.vector_files import Vectors

IDENTICAL = "identical"
"""In place of a file: the words that both vocabularies have."""
_LARGEST = 1 << 30  # bytes

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Dictionary:
    """Pairs in the order of the file, and the lines that hold none."""

    pairs: Pairs
    skipped: tuple[int, ...] = ()
    """Numbers of the lines that are neither empty nor a pair, from 1."""


def read_dictionary(path: Path | str) -> Dictionary:
    """Read `source TAB target` a line, or two words between blanks, in UTF-8; further columns are not read.

    Lines of another form are skipped and listed. LabError for a file that cannot be read, is not UTF-8, or holds no pair.
    """
    file = user_path(path)
    try:
        if file.stat().st_size > _LARGEST:
            raise LabError(f"{file}: more than {_LARGEST >> 30} GiB; a dictionary has a pair a line")
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabError(f"{file}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise LabError(f"{file}: not UTF-8 (byte {error.start})") from None
    pairs, skipped = list[tuple[str, str]](), list[int]()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        pair = _pair(line)
        if pair is None:
            skipped.append(number)
        else:
            pairs.append(pair)
    if not pairs:
        raise LabError(f"{file}: holds no pair; a line is SOURCE TAB TARGET, or two words between blanks")
    return Dictionary(pairs, tuple(skipped))


def _pair(line: str) -> tuple[str, str] | None:
    """Return the two words of a line; between tabs a word may hold blanks."""
    words = [word.strip() for word in line.split("\t")] if "\t" in line else line.split()
    fits = len(words) >= 2 if "\t" in line else len(words) == 2
    return (words[0], words[1]) if fits and words[0] and words[1] else None


def identical_words(source: Vectors, target: Vectors) -> Pairs:
    """Return the pairs of words that both vocabularies have, in the order of the source's."""
    return [(word, word) for word in source.words if word in target]


def expanded(pairs: Pairs, source: Vectors, target: Vectors) -> Iterator[tuple[str, str]]:
    """Yield the 3 x 3 product of each pair as written, in lower case and in title case, where both words have vectors.

    Repetitions stay, as in the authors' package: a pair that is in lower case already counts four times or more.
    """
    for one, other in pairs:
        for first in (one, one.lower(), one.title()):  # 3 x 3 product
            for second in (other, other.lower(), other.title()):
                if first in source and second in target:
                    yield first, second
