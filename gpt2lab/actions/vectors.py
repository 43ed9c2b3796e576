"""The verb `vectors`: word vectors made of text become a file that fastText reads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError, shown
from gpt2lab.base.files import check_place, size_of, user_path
from gpt2lab.base.progress import progress
from gpt2lab.base.settings import build
from gpt2lab.text import sources

READ_BY = {"ppmi": "counting", "skipgram": "skipgram"}
"""The group of options that each kind of vectors reads."""
_NO_NGRAMS = "a .vec file has no n-grams, which give unknown words a vector; a .bin file has them"


@dataclass(frozen=True)
class WrittenVectors:
    """What `vectors` has written."""

    path: Path
    size: int
    """Bytes."""
    words: int
    dimensions: int
    """Numbers of a vector."""
    ngrams: bool
    """Whether the file has vectors of n-grams, which give unknown words one too."""
    notes: tuple[str, ...] = ()
    """What the file does not hold."""


def vectors(data: sources.SourceLike, *, out: str | Path, **options: Any) -> WrittenVectors:
    """Make vectors of the words of a text and write them; nothing appears before all of them are there.

    data: files, folders, hub:ID, built-in sources. out: a new file, `.bin`, fastText's model file, which keeps counts and
    n-grams, or `.vec`, text. options: those of `gpt2lab.text.text_vectors.VectorOptions`, inner ones also by dotted name.
    LabError, before the text is read, for another ending, a file that exists, a source that does not, and an option that
    the chosen kind of vectors does not read; later as `text_vectors` and the writers say.
    """
    place = _new_file(user_path(out))
    _refuse_unread(options)
    sources.files(data)
    # These import torch, of which a mistake need not wait.
    from gpt2lab.text.text_vectors import VectorOptions, text_vectors
    from gpt2lab.text.vector_files import SubwordVectors, write_bin, write_vec

    chosen = build(VectorOptions, options, "vectors")
    texts: Iterable[str] = progress(
        sources.documents(data, field=chosen.field), label="reading", unit="documents"
    )
    made = text_vectors(texts, chosen.vectors, counting=chosen.counting, skipgram=chosen.skipgram)
    known = made.known() if isinstance(made, SubwordVectors) else made
    ngrams, whole = isinstance(made, SubwordVectors) and made.has_ngrams, place.suffix == ".bin"
    if whole:
        write_bin(made, place)
    else:
        write_vec(known, place)
    words, dimensions = known.vectors.shape
    return WrittenVectors(
        place,
        size_of(place),
        words,
        dimensions,
        ngrams=ngrams and whole,
        notes=(_NO_NGRAMS,) if ngrams and not whole else (),
    )


def _new_file(place: Path) -> Path:
    """Return the place of the file. LabError for another ending, a file that exists, a folder that cannot be written in."""
    if place.suffix not in (".bin", ".vec"):
        raise LabError(f"out {shown(str(place))}: the name of the file ends in .bin or .vec")
    if place.exists():
        raise LabError(f"{place}: exists already; give another name")
    check_place(place.parent)
    return place


def _refuse_unread(options: Mapping[str, object]) -> None:
    """LabError for an option of the kind of vectors that is not made."""
    kind = options.get("vectors", "ppmi")
    unread = {group: other for other, group in READ_BY.items() if other != kind and kind in READ_BY}
    for name in options:
        if (other := unread.get(name.partition(".")[0])) is not None:
            raise LabError(f"vectors: {name} is an option of {other} vectors, and {kind} ones are made")
