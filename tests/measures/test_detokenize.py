"""The WikiText and Penn Treebank rules, one by one and in their order."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lab.base.errors import LabError
from gpt2lab.measures.detokenize import detokenize


def _slow_pairs(text: str, opening: str, closing: str) -> str:
    """Strip inside each opening … next closing, reading from left to right."""
    out, position = [], 0
    while (start := text.find(opening, position)) >= 0 and (end := text.find(closing, start + 1)) >= 0:
        out.append(text[position:start] + opening + text[start + 1 : end].strip() + closing)
        position = end + 1
    return "".join(out) + text[position:]


def _slow_wikitext(text: str) -> str:
    text = text.replace("s '", "s'")
    for mark in ("-", ",", "."):
        text = text.replace(f" @{mark}@ ", mark)
    for mark in (":", ";", ".", "!", "?", ","):
        text = text.replace(f" {mark} ", f"{mark} ")
    for pair in ("()", "[]", "{}", '""', "''"):
        text = _slow_pairs(text, *pair)
    text = text.replace("= = = =", "====").replace("= = =", "===").replace("= =", "==").replace(" ° ", "°")
    return text.replace(" \n", "\n").replace("\n ", "\n").replace(" N ", " 1 ").replace(" 's", "'s")


@pytest.mark.parametrize(
    ("stored", "natural"),
    [
        ("the boys ' dog", "the boys' dog"),
        ("guest @-@ starring", "guest-starring"),
        ("1 @,@ 000 @.@ 5", "1,000.5"),
        ("one , two ; three : four . five ! six ? seven", "one, two; three: four. five! six? seven"),
        ("a ( b [ c ] ) { d }", "a (b [c]) {d}"),
        ('he said " no " twice', 'he said "no" twice'),
        ("called ' home ' by", "called 'home' by"),
        ("\n = = = = Deep = = = = \n \n = = Two = = \n", "\n==== Deep ====\n\n== Two ==\n"),
        (" = Title = \n", " = Title =\n"),
        ("90 ° N", "90°N"),
        ("about N years", "about 1 years"),
        ("Teddy 's story", "Teddy's story"),
    ],
)
def test_each_wikitext_rule(stored: str, natural: str) -> None:
    assert detokenize(stored, "wikitext") == natural


@given(st.text("s '@-,.:;!?()[]{}\"=°\nN1", max_size=40))
@settings(max_examples=500, deadline=None)
def test_the_rules_work_on_each_others_results(text: str) -> None:
    assert detokenize(text, "wikitext") == _slow_wikitext(text)


def test_the_real_file_reads_naturally(shared_data: Path) -> None:
    text = (shared_data / "megatron" / "wikitext2_test.txt").read_text(encoding="utf-8")
    natural = detokenize(text, "wikitext")
    assert natural == _slow_wikitext(text)
    assert natural.startswith(
        "\n= Robert <unk> =\n\nRobert <unk> is an English film, television and theatre actor."
    )
    assert not re.search(r" @[-,.]@ | , ", natural)


@pytest.mark.parametrize(
    ("stored", "natural"),
    [
        ("the firm 's plan", "the firm's plan"),
        ("did n't", "didn't"),
        ("rose N %", "rose1 %"),
        ("paid $ N billion", "paid $1 billion"),
        ("ranked # N here", "ranked #1 here"),
        ("end \n start", "end\nstart"),
    ],
)
def test_each_treebank_rule(stored: str, natural: str) -> None:
    assert detokenize(stored, "ptb") == natural


def test_none_leaves_the_text_and_another_style_is_refused() -> None:
    assert detokenize(" a , b ", "none") == " a , b "
    with pytest.raises(LabError, match="did you mean wikitext"):
        detokenize("a", "wikitxt")  # type: ignore[arg-type]  # on purpose
