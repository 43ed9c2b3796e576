"""Words of a text that are too long to learn a BPE from whole: genes, base64, blanks."""

import re
from collections.abc import Iterator

from tokenizers.pre_tokenizers import PreTokenizer

_LONGEST_WORD = 1000
_LONG_RUN = re.compile(rf"(?<!\S)\S{{{_LONGEST_WORD + 1}}}|(?<!\s)\s{{{_LONGEST_WORD + 1}}}")
"""What a word that is too long lies in; it is looked for only where a run begins, so that the search is linear."""


def with_bounded_words(document: str, splitter: PreTokenizer) -> Iterator[str]:
    """Yield a document whole, or cut within its words of more than _LONGEST_WORD characters.

    The trainer removes what a merge joins from the middle of an array, which takes the square of a word's length.
    """
    start = 0
    if _LONG_RUN.search(document) is not None:
        for _, (begin, end) in splitter.pre_tokenize_str(document):
            for cut in range(begin + _LONGEST_WORD, end, _LONGEST_WORD):
                yield document[start:cut]
                start = cut
    yield document[start:]


def in_pieces(document: str) -> Iterator[str]:
    """Yield a document that is one word, in pieces of at most _LONGEST_WORD characters."""
    for start in range(0, max(len(document), 1), _LONGEST_WORD):
        yield document[start : start + _LONGEST_WORD]
