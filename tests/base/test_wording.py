"""How numbers and lists are written, and JSON that keeps what is not finite."""

import json
import math

import numpy as np
import pytest
import torch

from gpt2lab.base.json_numbers import as_number, decode_numbers, encode
from gpt2lab.base.wording import count, listed, number, visible


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.012345, "0.01235"),
        (-0.5, "-0.5"),
        (1234.5678, "1235"),
        (9999.0, "9999"),
        (1779840.0, "1,779,840"),
        (19833.4, "19,833"),
        (-123456.789, "-123,457"),
        (3.1e-7, "3.1e-07"),
        (6.02e23, "6.02e+23"),
        (True, "yes"),
        (None, "–"),
        (math.nan, "not a number"),
        (-math.inf, "-infinite"),
    ],
)
def test_a_number_has_four_significant_digits_and_no_exponent_where_none_is_needed(value, text):
    assert number(value) == text


def test_lists_and_counts_are_english():
    assert [listed(["a", "b", "c"][:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert [count(n, "seed") for n in (0, 1, 2)] == ["no seeds", "1 seed", "2 seeds"]
    assert count(2, "run differs", "runs differ") == "2 runs differ"


def test_numbers_that_are_not_finite_survive_strict_json():
    text = encode({"a": math.nan, "b": math.inf, "c": -math.inf, "d": np.float32(0.5), "e": torch.tensor(3)})
    assert json.loads(text) == {"a": "nan", "b": "inf", "c": "-inf", "d": 0.5, "e": 3}
    numbers = decode_numbers(text)
    assert math.isnan(numbers["a"])
    assert (numbers["b"], numbers["c"], numbers["d"]) == (math.inf, -math.inf, 0.5)


@pytest.mark.parametrize("value", [np.zeros(2), torch.zeros(2), np.zeros(0), "1", None, [1]])
def test_what_is_not_one_number_is_refused(value):
    with pytest.raises(TypeError, match="x must be one number"):
        as_number("x", value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x1b]8;;https://evil.example\x1b\\link", "\\x1b]8;;https://evil.example\\x1b\\link"),
        ("done\rfail", "done\\rfail"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("a\tb\nc é 😀 ⟶", "a\tb\nc é 😀 ⟶"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert visible(text) == shown
