"""Word vectors made from text: its words, line by line, counted or trained on."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from gpt2lab.text.skipgram import SkipgramOptions, train_skipgram
from gpt2lab.text.vector_files import Vectors
from gpt2lab.text.word_vectors import CountOptions, count_vectors

Kind = Literal["ppmi", "skipgram"]
COUNTING = CountOptions(window=4, least=3, weighting="harmonic", dimensions=50)
"""Counts of small text: words of a window of 4 by their distance, PPMI with the context exponent 0.75, 50 dimensions."""
TRAINING = SkipgramOptions()
"""Training with n-grams."""


@dataclass(frozen=True, kw_only=True)
class VectorOptions:
    """How word vectors are made of text."""

    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    vectors: Kind = "ppmi"
    """ppmi counts words, skipgram trains words with n-grams."""
    counting: CountOptions = COUNTING
    """How ppmi counts."""
    skipgram: SkipgramOptions = TRAINING
    """How skipgram trains."""


_SENTENCE = re.compile(r"[.!?…\n]+")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def sentences(documents: Iterable[str]) -> Iterator[list[str]]:
    """Yield the words of each sentence, in the case in which they are written; numbers and punctuation are left out."""
    for document in documents:
        for sentence in _SENTENCE.split(document):
            if words := _WORD.findall(sentence):
                yield words


def text_vectors(
    documents: Iterable[str],
    kind: Kind = "ppmi",
    *,
    counting: CountOptions = COUNTING,
    skipgram: SkipgramOptions = TRAINING,
) -> Vectors:
    """Return vectors of the words of a text: ppmi counts them, skipgram trains them with n-grams. LabError as these say."""
    if kind == "ppmi":
        return count_vectors(sentences(documents), counting)
    return train_skipgram(sentences(documents), skipgram)
