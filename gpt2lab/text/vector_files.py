"""Files of word vectors: the text form of fastText and word2vec, fastText's binary form with subwords, and word2vec's."""

import gzip
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write, user_path
from gpt2lab.text.word_vectors import Floats, WordVectors

_MOST_WORDS, _MOST_NUMBERS, _LONGEST_LINE = 5_000_000, 2**31, 2**20
"""Limits of what is read: words, numbers (8 GiB in float32), bytes of a line."""
_MAGIC, _VERSIONS = 793_712_314, (11, 12)
_ARGUMENTS = (
    "dim",
    "ws",
    "epoch",
    "min_count",
    "neg",
    "word_ngrams",
    "loss",
    "model",
    "bucket",
    "minn",
    "maxn",
    "rate",
)
_SKIPGRAM, _SUPERVISED, _NEGATIVE_SAMPLING = 2, 3, 2


def read_vec(path: Path | str, *, most: int | None = None) -> WordVectors:
    """Read a text file of vectors: a line "WORDS DIMENSIONS", then a word and its numbers a line; `.vec`, `.txt`, also .gz.

    That is the format of fastText and word2vec; a file without its first line (GloVe) is read too. most: words to read, the
    most frequent first. LabError, with the line, for anything else, and beyond 5,000,000 words or 2,147,483,648 numbers.
    """
    path = user_path(path)
    limit = _MOST_WORDS if most is None else min(most, _MOST_WORDS)
    words: list[str] = []
    rows: list[Floats] = []
    size: int | None = None
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            number = 0
            while len(words) < limit and (line := file.readline(_LONGEST_LINE + 1)):
                number += 1
                if len(line) > _LONGEST_LINE:
                    raise LabError(
                        f"{path}, line {number}: more than {_LONGEST_LINE:,} bytes; this is no file of vectors"
                    )
                parts = line.decode("utf-8").rstrip("\r\n ").split(" ")
                if number == 1 and len(parts) == 2 and parts[0].isdecimal() and parts[1].isdecimal():
                    size = int(parts[1])
                    _check_size(f"{path}, line 1", min(int(parts[0]), limit), size)
                    continue
                size = len(parts) - 1 if size is None else size
                rows.append(_numbers(f"{path}, line {number}", parts, size))
                words.append(" ".join(parts[:-size]))
                _check_size(f"{path}, line {number}", len(words), size)
    except (OSError, EOFError) as error:
        raise LabError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except UnicodeDecodeError as error:
        raise LabError(f"{path}, line {number}: not UTF-8 (byte {error.start})") from None
    if not words:
        raise LabError(f"{path}: no vectors there")
    return WordVectors(*_first_of_each(words, np.stack(rows)))


def _numbers(where: str, parts: Sequence[str], size: int) -> Floats:
    """Return the last `size` pieces of a line as numbers; a word may hold blanks, as fastText's of other scripts do."""
    if size < 1 or len(parts) < size + 1:
        raise LabError(f"{where}: expected a word and {max(size, 1)} numbers, found {len(parts)} pieces")
    try:
        row = np.array(parts[-size:], dtype=np.float32)
    except ValueError:
        raise LabError(f"{where}: expected a word and {size} numbers") from None
    if not np.isfinite(row).all():
        raise LabError(f"{where}: a number is not finite")
    return row


def _check_size(where: str, words: int, size: int) -> None:
    if size < 1 or words * size > _MOST_NUMBERS:
        raise LabError(
            f"{where}: {words:,} words of {size:,} numbers; at most {_MOST_NUMBERS:,} numbers are read"
        )


def _first_of_each(words: Sequence[str], vectors: Floats) -> tuple[tuple[str, ...], Floats]:
    """Leave out further vectors of a word that has one: word2vec's files hold some after their blanks are removed."""
    first: dict[str, int] = {}
    for place, word in enumerate(words):
        first.setdefault(word, place)
    return tuple(first), vectors[list(first.values())] if len(first) < len(words) else vectors


def write_vec(vectors: WordVectors, path: Path | str) -> None:
    """Write vectors as `read_vec` and fastText read them, in as many digits as give float32 back exactly."""
    lines = [f"{len(vectors.words)} {vectors.vectors.shape[1]}"]
    for word, row in zip(vectors.words, vectors.vectors.astype(np.float32), strict=True):
        if not word or any(character in word for character in "\r\n"):
            raise LabError(f"{word!r} cannot stand in a text file of vectors")
        lines.append(f"{word} {' '.join(np.format_float_positional(number, trim='-') for number in row)}")
    atomic_write(user_path(path), "\n".join(lines) + "\n")


@dataclass(frozen=True)
class SubwordVectors:
    """fastText vectors: a word's is the mean of its own row and those of its character n-grams; unknown words have some too.

    Bojanowski et al. 2017, section 3.2, with the hashed n-grams of the public program.
    """

    words: tuple[str, ...]
    rows: Floats
    """[words + buckets, dimensions] float32, read from the file when needed."""
    buckets: int
    shortest: int
    """Characters of the shortest n-gram, < and > around the word counted."""
    longest: int
    counts: tuple[int, ...] | None = None
    """How often each word stands in the text that they were trained on."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_place", {word: place for place, word in enumerate(self.words)})

    def __contains__(self, word: str) -> bool:
        place: dict[str, int] = self.__dict__["_place"]
        return word in place

    def __getitem__(self, word: str) -> Floats:
        """Return the vector of any word, [dimensions]; LabError for an unknown one without an n-gram."""
        rows = self.rows_of(word)
        if not rows:
            raise LabError(
                f"{word!r} has no vector and is too short for n-grams of {self.shortest} characters"
            )
        found: Floats = np.asarray(self.rows[rows], dtype=np.float32).mean(0)
        return found

    @property
    def has_ngrams(self) -> bool:
        """Whether unknown words have vectors too."""
        return self.longest > 0 and self.buckets > 0

    def rows_of(self, word: str) -> list[int]:
        """Return the rows whose mean is the vector of a word; none for an unknown one that is too short."""
        place: dict[str, int] = self.__dict__["_place"]
        own = [place[word]] if word in place else []
        return own + [len(self.words) + h % self.buckets for h in self._hashes(word)]

    def known(self, most: int | None = None) -> WordVectors:
        """Return the vectors of the words of the file, the most frequent first."""
        words = self.words if most is None else self.words[:most]
        counts = None if self.counts is None else self.counts[: len(words)]
        return WordVectors(words, np.stack([self[word] for word in words]), counts)

    def _hashes(self, word: str) -> list[int]:
        """Return the hashes of the n-grams of <word>; a single < or > is none."""
        if not self.has_ngrams or word == "</s>":  # the end of a line is one row
            return []
        marked = f"<{word}>"
        return [
            subword_hash(marked[start : start + n])
            for start in range(len(marked))
            for n in range(1, min(self.longest, len(marked) - start) + 1)
            if n >= self.shortest and not (n == 1 and start in (0, len(marked) - 1))
        ]


Vectors = WordVectors | SubwordVectors
"""Word vectors of either kind."""


def subword_hash(text: str) -> int:
    """Return fastText's hash of an n-gram: 32-bit FNV-1a in which each byte is a signed number."""
    value = 2_166_136_261
    for byte in text.encode("utf-8", "surrogatepass"):
        value ^= byte if byte < 128 else byte | 0xFFFFFF00
        value = value * 16_777_619 & 0xFFFFFFFF
    return value


def read_vectors(path: Path | str) -> Vectors:
    """Read word vectors of any of these files: fastText's `.bin`, word2vec's binary form, and text (`read_vec`).

    LabError as each of them says.
    """
    path = user_path(path)
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_LINE)
            after = file.read(4096)
    except OSError as error:
        raise LabError(f"{path}: cannot be read ({error.strerror or error})") from None
    if line.startswith(struct.pack("<i", _MAGIC)):
        return read_bin(path)
    if path.suffix == ".bin":
        return _read_word2vec(path, line, after)
    return read_vec(path)


def _read_word2vec(path: Path, line: bytes, after: bytes) -> WordVectors:
    """Read the binary form of word2vec: a line "WORDS DIMENSIONS", then each word, a blank and its numbers as float32."""
    numbers = line.split()
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers) or b" " not in after:
        raise LabError(f"{path}: neither a model file of fastText nor vectors of word2vec")
    count, size = map(int, numbers)
    if count > _MOST_WORDS:
        raise LabError(f"{path}: {count:,} words; at most {_MOST_WORDS:,} are read")
    _check_size(str(path), count, size)
    raw = path.read_bytes()
    place, words, rows = len(line), list[str](), list[Floats]()
    for number in range(count):
        blank = raw.find(b" ", place, place + _LONGEST_LINE)
        end = blank + 1 + 4 * size
        if blank < 0 or end > len(raw):
            raise LabError(f"{path}: truncated at word {number + 1} of {count}; load the file again")
        words.append(raw[place:blank].lstrip(b"\n").decode("utf-8", "replace"))
        rows.append(np.frombuffer(raw, dtype="<f4", count=size, offset=blank + 1))
        place = end
    if not count or not np.isfinite(vectors := np.stack(rows)).all():
        raise LabError(f"{path}: {'a number is not finite' if count else 'no vectors there'}")
    return WordVectors(*_first_of_each(words, vectors))


def read_bin(path: Path | str) -> SubwordVectors:
    """Read a model file of fastText, versions 11 and 12; the matrix stays in the file until it is used.

    LabError for another format, a quantised or pruned model (.ftz), a damaged file, and beyond 5,000,000 words or
    2,147,483,648 numbers.
    """
    path = user_path(path)
    try:
        with path.open("rb") as file:
            magic, version = _unpack(path, file, "<2i")
            if magic != _MAGIC or version not in _VERSIONS:
                raise LabError(
                    f"{path}: no model file of fastText, version {' or '.join(map(str, _VERSIONS))}"
                )
            given = dict(zip(_ARGUMENTS, _unpack(path, file, "<12i"), strict=True))
            _unpack(path, file, "<d")
            if version == 11 and given["model"] == _SUPERVISED:
                given["maxn"] = 0  # these models had no n-grams of characters
            size, n_words, _, _, pruned = _unpack(path, file, "<3i2q")
            if not 0 < n_words <= size <= _MOST_WORDS:
                raise LabError(
                    f"{path}: {n_words:,} words of {size:,} entries; at most {_MOST_WORDS:,} are read"
                )
            entries = [_entry(path, file) for _ in range(size)][:n_words]
            quantised = _unpack(path, file, "<?")[0]
            if quantised or pruned > 0:
                raise LabError(f"{path}: a quantised model; read the .bin that it was made from")
            height, width = _unpack(path, file, "<2q")
            start = file.tell()
    except OSError as error:
        raise LabError(f"{path}: cannot be read ({error.strerror or error})") from None
    buckets = given["bucket"] if given["maxn"] > 0 else 0
    if width != given["dim"] or height < n_words + buckets or not 0 < width * height <= _MOST_NUMBERS:
        raise LabError(
            f"{path}: damaged: a matrix of {height} x {width} for {n_words} words and {buckets} n-grams"
        )
    if path.stat().st_size < start + 4 * width * height:
        raise LabError(f"{path}: truncated; load the file again")
    rows = np.memmap(path, dtype="<f4", mode="r", offset=start, shape=(height, width))
    words, counts = zip(*entries, strict=True)
    return SubwordVectors(words, rows, buckets, given["minn"], given["maxn"], counts)


def write_bin(vectors: Vectors, path: Path | str) -> None:
    """Write vectors as a model file of fastText, version 12, which keeps counts and n-grams, in float32.

    The matrix of contexts, which vectors do not need, is written as zeros. LabError without counts, and for a word that no
    file can hold.
    """
    if vectors.counts is None:
        raise LabError(f"{path}: a model file keeps counts, and these vectors have none; write them as .vec")
    counts = vectors.counts
    rows = np.asarray(vectors.rows if isinstance(vectors, SubwordVectors) else vectors.vectors, dtype="<f4")
    grams = isinstance(vectors, SubwordVectors) and vectors.has_ngrams
    buckets, shortest, longest = (
        (vectors.buckets, vectors.shortest, vectors.longest)
        if grams and isinstance(vectors, SubwordVectors)
        else (0, 0, 0)
    )
    height, width = rows.shape
    given = (width, 5, 5, 1, 5, 1, _NEGATIVE_SAMPLING, _SKIPGRAM, buckets, shortest, longest, 100)
    parts = [struct.pack("<2i12id", _MAGIC, _VERSIONS[-1], *given, 1e-4)]
    parts.append(struct.pack("<3i2q", len(vectors.words), len(vectors.words), 0, sum(counts), -1))
    for word, count in zip(vectors.words, counts, strict=True):
        if not word or "\0" in word:
            raise LabError(f"{word!r} cannot stand in a model file of fastText")
        parts.append(word.encode() + b"\0" + struct.pack("<qb", count, 0))
    parts += [struct.pack("<?2q", False, height, width), rows.tobytes()]
    parts += [struct.pack("<?2q", False, len(vectors.words), width), bytes(4 * len(vectors.words) * width)]
    atomic_write(user_path(path), b"".join(parts))


def _unpack(path: Path, file: Any, form: str) -> tuple[Any, ...]:
    content = file.read(struct.calcsize(form))
    if len(content) < struct.calcsize(form):
        raise LabError(f"{path}: truncated; load the file again")
    return struct.unpack(form, content)


def _entry(path: Path, file: Any) -> tuple[str, int]:
    """Read an entry of the dictionary: a text that ends with a zero byte, its count and its kind; return the first two."""
    text = bytearray()
    while (byte := file.read(1)) != b"\0":
        text += byte
        if not byte or len(text) > _LONGEST_LINE:
            raise LabError(f"{path}: damaged or truncated among its words")
    count = int(_unpack(path, file, "<qb")[0])
    return text.decode("utf-8", "replace"), count
