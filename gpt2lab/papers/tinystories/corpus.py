"""The two text formats of the TinyStories data, and what is in a corpus of them.

Stories: text files whose stories are separated by a line `<|endoftext|>`. Instruct: the same, each record with
lines of instruction before its story (`instruct.py`). Texts are kept as they are: the first version of the data
has curly quotes decoded wrongly, duplicates and empty stories, and a loader that mends them would hide it.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write
from gpt2lab.text import sources

SEPARATOR = "<|endoftext|>"
ARTEFACTS = re.compile("â€|Ã.|Â[\\u0080-\\u00bf]|\\ufffd")
"""Traces of UTF-8 read as Windows-1252 (`â€œ` for a curly quote), and of bytes already lost."""

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def iterate_stories(path: Path | str) -> Iterator[str]:
    """Yield the stories of a file one by one, without blank lines around them; empty ones as "".

    One story is in memory at a time. LabError if the file is missing, not UTF-8, or has no separator line (it
    would be one endless story).
    """
    path = Path(path)
    if not path.is_file():
        raise LabError(f"{path}: no such file; give a text file with stories separated by a line {SEPARATOR}")
    if not any(_is_separator(line) for line in _lines(path)):
        raise LabError(f"{path}: no line {SEPARATOR}; stories must be separated by such lines")
    story: list[str] = []
    for line in _lines(path):
        if _is_separator(line):
            yield "".join(story).strip()
            story = []
        else:
            story.append(line)
    if rest := "".join(story).strip():
        yield rest  # the last story of a file may have no separator after it


def read_stories(path: Path | str) -> list[str]:
    """Return the stories of a file that are not empty; LabError as `iterate_stories`, and if none is left."""
    stories = [story for story in iterate_stories(path) if story]
    if not stories:
        raise LabError(f"{path}: all stories are empty")
    return stories


def stories_of(source: str, *, field: str = "text") -> list[str]:
    """Return the stories of a text file with separator lines, or of any other source the lab knows.

    Such as `tinyworld:SIZE[:SEED]` or `hub:roneneldan/TinyStories:train`, whose rows have the story in `field`. LabError
    as `read_stories`.
    """
    if Path(source).suffix == ".txt":
        return read_stories(source)
    stories = [story for story in sources.documents(source, field=field) if story.strip()]
    if not stories:
        raise LabError(f"{source}: no stories there")
    return stories


def write_stories(path: Path | str, stories: Iterable[str]) -> None:
    """Write stories in the format that `read_stories` reads; LabError for one that holds a separator line."""
    parts = []
    for story in stories:
        if any(_is_separator(line) for line in story.splitlines()):
            raise LabError(f"a story must not hold a line {SEPARATOR}: {story[:40]!r}")
        parts.append(f"{story}\n{SEPARATOR}\n")
    atomic_write(path, "".join(parts))


@dataclass(frozen=True)
class CorpusStatistics:
    """What is in a corpus of stories."""

    stories: int
    empty: int
    duplicates: int
    """Stories whose text stood before, empty ones apart."""
    words: int
    """Running words, lower-cased, of letters and digits."""
    word_types: int
    words_a_story: float
    """Mean over stories that are not empty."""
    once_upon_a_time: float
    """Share of stories that open so."""
    with_dialogue: float
    """Share of stories with a quotation mark."""
    artefacts: int
    """Stories with traces of a wrong encoding."""
    common: tuple[tuple[str, int], ...]
    """The most frequent words with their counts."""


def corpus_statistics(stories: Iterable[str], *, common: int = 20) -> CorpusStatistics:
    """Count words, duplicates and artefacts in a stream of stories; LabError if there is none."""
    counts: Counter[str] = Counter()
    seen: set[bytes] = set()
    total = empty = duplicates = once = dialogue = artefacts = 0
    for story in stories:
        total += 1
        if not story.strip():
            empty += 1
            continue
        digest = hashlib.sha256(story.encode("utf-8", "surrogatepass")).digest()[:16]
        duplicates += digest in seen
        seen.add(digest)
        counts.update(words_of(story))
        once += story.lstrip().lower().startswith("once upon a time")
        dialogue += any(mark in story for mark in ('"', "“", "â€œ"))
        artefacts += ARTEFACTS.search(story) is not None
    if total == 0:
        raise LabError("no stories to count")
    written = max(total - empty, 1)
    return CorpusStatistics(
        stories=total,
        empty=empty,
        duplicates=duplicates,
        words=counts.total(),
        word_types=len(counts),
        words_a_story=counts.total() / written,
        once_upon_a_time=once / written,
        with_dialogue=dialogue / written,
        artefacts=artefacts,
        common=tuple(counts.most_common(common)),
    )


def words_of(text: str) -> list[str]:
    """Return the lower-cased words of a text; an apostrophe inside a word belongs to it."""
    return [word.lower() for word in _WORD.findall(text)]


def _is_separator(line: str) -> bool:
    return line.strip() == SEPARATOR


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", newline="") as handle:  # newline="": keep the line ends there are
            yield from handle
    except UnicodeDecodeError as error:
        raise LabError(f"{path}: not UTF-8 at byte {error.start} of a block: {error.reason}") from error
