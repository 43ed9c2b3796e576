"""The files of a vocabulary without tokenizer.json: vocab.json with merges.txt, vocab.txt, and a vocab.json of words."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from gpt2lab.base.errors import LabError, shown
from gpt2lab.base.json_files import read_object, read_text
from gpt2lab.text.tokenizer_classes import Pieces

_HOLES = 100_000


def read_bpe(folder: Path) -> Pieces:
    """Read vocab.json and merges.txt, GPT-2's own layout. LabError for a merge that leaves the vocabulary."""
    vocabulary = read_vocabulary(folder / "vocab.json")
    merges = _merges(folder / "merges.txt")
    check_merges(folder / "merges.txt", vocabulary, merges)
    return Pieces(vocabulary=vocabulary, merges=merges)


def read_lines(path: Path) -> Pieces:
    """Read vocab.txt, one piece a line, whose number from 0 is its id (of a piece that stands there twice, the last)."""
    return Pieces(vocabulary={line.rstrip(): id for id, line in enumerate(_lines(path))})


def read_vocabulary(path: Path) -> dict[str, int]:
    """Read a JSON object of ids by piece. LabError unless all ids are whole numbers from 0, none twice."""
    vocabulary = read_object(path)
    check_ids(path, vocabulary)
    if len(set(vocabulary.values())) < len(vocabulary):
        raise LabError(f"{path}: two words share an id")
    if not vocabulary:
        raise LabError(f"{path}: the vocabulary is empty")
    return vocabulary


def check_ids(path: Path, vocabulary: Mapping[str, Any]) -> None:
    """LabError unless all ids are whole numbers from 0, and not far beyond the number of pieces.

    The library makes tables up to the largest id, whatever is in between.
    """
    limit = len(vocabulary) + _HOLES
    for word, id in vocabulary.items():
        if not isinstance(id, int) or isinstance(id, bool) or id < 0:
            raise LabError(
                f"{path}: the id of {shown(word)} should be a whole number from 0, found {shown(id)}"
            )
        if id >= limit:
            raise LabError(
                f"{path}: the id of {shown(word)} is {id:,}, and there are only {len(vocabulary):,} pieces; at most "
                f"{_HOLES:,} ids may be free"
            )


def check_merges(
    path: Path, vocabulary: Mapping[str, int], merges: Iterable[Sequence[str]], prefix: str = ""
) -> None:
    """LabError if a merge leaves the vocabulary; checked here because the library aborts on it."""
    for left, right in merges:
        for piece in (left, right, left + right.removeprefix(prefix)):
            if piece not in vocabulary:
                raise LabError(
                    f"{path}: merges {shown(left)} and {shown(right)}, but {shown(piece)} is not in the vocabulary"
                )


def word_backend(
    path: Path, vocabulary: Mapping[str, int], unknown: str | None, special: set[int]
) -> tokenizers.Tokenizer:
    """Make a tokenizer of a plain list of words: they are separated by blanks, but may hold blanks themselves.

    A vocabulary of single characters, not counting the `special` ids, splits at every character instead.
    """
    if any("Ġ" in word for word in vocabulary):
        raise LabError(f"{path}: a byte-level vocabulary without its merges.txt")
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(dict(vocabulary), unk_token=unknown or "<unk>")
    )
    words = [word for word, id in vocabulary.items() if id not in special]
    if all(len(word) == 1 for word in words):
        pattern = r"[\s\S]"
        backend.decoder = tokenizers.decoders.Fuse()
    else:
        spaced = sorted((word for word in words if re.search(r"\s", word)), key=len, reverse=True)
        pattern = "|".join([*(re.escape(word) + r"(?=\s|$)" for word in spaced), r"\S+"])
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "removed", invert=True)
    return backend


def _merges(path: Path) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(_lines(path), start=1):
        if line.startswith("#version"):
            continue  # wherever it stands, as in the library; an empty line is refused there
        parts = line.split(" ")
        if len(parts) != 2 or not all(parts):
            raise LabError(
                f"{path}, line {number}: expected two pieces with one blank between, found {line[:40]!r}"
            )
        pairs.append((parts[0], parts[1]))
    return pairs


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file, of which a line end closes the last."""
    *lines, last = read_text(path).split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    return [*lines, last] if last else lines
