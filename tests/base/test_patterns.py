"""Regular expressions from files: what can take for ever is refused, what published tokenizers use is not."""

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.base.patterns import check_pattern
from gpt2lab.text.tokenizer_classes import QWEN2_RULE

PUBLISHED = [
    QWEN2_RULE,
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
    r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",  # Llama 3
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]*[\p{Ll}\p{M}]+(?i:'s|'t)?|[^\s\p{L}\p{N}]+[\r\n/]*",  # GPT-4o
    r"[!-/:-~]+[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",  # DeepSeek
    r"(?:of\ them,(?=\s|$)|\S+)",
    r"[(a+)+]+",  # a class of four characters
    r"(a+)?b(c*)",
    r"\(a+\)+",
]
FOR_EVER = [
    "(a+)+$",
    "(a*)*b",
    "(?:a+|b)+c",
    "((a+)b)*",
    "(a{2,})+",
    "([^x]+)*x",
    r"(\w+\s?)+$",
    "((((a+))))+",
    "(a|(b+))+",
]


@pytest.mark.parametrize("pattern", PUBLISHED)
def test_the_rules_of_published_tokenizers_are_accepted(pattern: str) -> None:
    check_pattern(pattern, "tokenizer.json")


@pytest.mark.parametrize("pattern", FOR_EVER)
def test_a_repeated_repetition_is_refused(pattern: str) -> None:
    with pytest.raises(LabError, match=r"tokenizer\.json: the regular expression .* can take for ever"):
        check_pattern(pattern, "tokenizer.json")


@pytest.mark.parametrize("pattern", ["(", ")", "[", "\\", "a{", "{,}", "(((", "]+)+", ""])
def test_what_is_no_pattern_is_left_to_the_library(pattern: str) -> None:
    check_pattern(pattern, "tokenizer.json")
