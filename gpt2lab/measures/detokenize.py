"""Undo the spacing of corpora that were stored as separated words, so that a subword model sees natural text.

The rules are those of the public zero-shot evaluation of Megatron-LM (Shoeybi et al. 2019, appendix E), in its
order: each rule works on what the one before left.
"""

import re
from typing import Literal

from gpt2lab.base.errors import unknown

Style = Literal["none", "wikitext", "ptb"]
STYLES: tuple[Style, ...] = ("none", "wikitext", "ptb")

# A further regular expression of the original ("/' [0-9]/", slashes included) matches nothing in any text.
_WIKITEXT_BEFORE_PAIRS = [
    ("s '", "s'"),
    *((f" @{mark}@ ", mark) for mark in "-,."),
    *((f" {mark} ", f"{mark} ") for mark in ":;.!?,"),
]
_PAIRS = [("(", ")"), ("[", "]"), ("{", "}"), ('"', '"'), ("'", "'")]
_WIKITEXT_AFTER_PAIRS = [
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
]
_PTB = [
    (" '", "'"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" n't", "n't"),
    (" N ", "1 "),
    ("$ 1", "$1"),
    ("# 1", "#1"),
]


def detokenize(text: str, style: Style) -> str:
    """Return `text` as it was before its words were set apart; "none" leaves it. LabError for another style."""
    if style == "none":
        return text
    if style == "wikitext":
        return _replace(_close_pairs(_replace(text, _WIKITEXT_BEFORE_PAIRS)), _WIKITEXT_AFTER_PAIRS)
    if style == "ptb":
        return _replace(text, _PTB)
    raise unknown("detokeniser", style, STYLES)


def _replace(text: str, rules: list[tuple[str, str]]) -> str:
    for old, new in rules:
        text = text.replace(old, new)
    return text


def _close_pairs(text: str) -> str:
    """Remove blanks (line ends too, as the original does) just inside brackets and quotation marks.

    An opening mark belongs to the next closing one; nesting is not seen, and an apostrophe counts as a mark.
    """
    for opening, closing in _PAIRS:
        inside = re.compile(f"{re.escape(opening)}([^{re.escape(closing)}]*){re.escape(closing)}")
        pieces = inside.split(text)  # outside, inside, outside, inside, …, outside
        pieces[1::2] = [f"{opening}{piece.strip()}{closing}" for piece in pieces[1::2]]
        text = "".join(pieces)
    return text
