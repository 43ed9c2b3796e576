"""How numbers and lists are written, and JSON that keeps what is not finite."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt2lab.base.json_numbers import as_number, decode_numbers, encode, json_value
from gpt2lab.base.tables import columns_of, number_columns, padded
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


def test_a_number_of_numpy_that_is_not_finite_is_written_as_pythons():
    assert json.loads(encode([np.float64("nan"), np.float32("inf"), np.float64(2.5)])) == ["nan", "inf", 2.5]


def test_who_writes_json_says_what_stands_for_what_it_cannot_hold():
    value = {1: (math.nan, 2), "path": Path("a/b"), "set": {3}, "deep": [{"inf": math.inf}]}
    made = json_value(value, not_finite=lambda number: None, other=sorted)
    assert made == {"1": [None, 2], "path": "a/b", "set": [3], "deep": [{"inf": None}]}


def test_columns_are_those_of_all_rows_and_a_column_of_numbers_may_have_gaps():
    rows = [{"a": 1, "b": "x"}, {"c": None, "a": 2.5}, {"b": 3, "c": 4, "d": ""}]
    assert columns_of(rows) == ["a", "b", "c", "d"]
    assert number_columns(rows, columns_of(rows)) == [True, False, True, True]
    assert padded(["x", "12"], [3, 4], [False, True]) == ["x  ", "  12"]


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
