"""The intervals of figures and tables over seeds."""

import math

import pytest

from gpt2lab.studies.seed_figures import interval_columns, seed_dots, seed_interval


def test_the_interval_is_students() -> None:
    found = seed_interval([1.0, 2.0, 3.0])
    assert found is not None
    assert (found.low, found.high) == (
        pytest.approx(2 - 2.4841, abs=1e-4),
        pytest.approx(2 + 2.4841, abs=1e-4),
    )


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.0, 1.0], [1.0, math.inf]])
def test_values_without_a_spread_have_none(values: list[float]) -> None:
    assert seed_interval(values) is None
    assert set(interval_columns("loss", values).values()) <= {None}


def test_dots_get_their_intervals() -> None:
    lines = seed_dots({"a": [1.0, 2.0, 3.0], "b": [2.0]}, label="x").axes[0].lines
    assert [
        line for line in lines if list(line.get_xdata()) == pytest.approx([2 - 2.4841, 2 + 2.4841], abs=1e-4)
    ]


def test_columns_are_named_after_what_they_are_of() -> None:
    assert list(interval_columns("loss", [1.0, 2.0])) == ["loss, 95 % low", "loss, 95 % high"]
    assert list(interval_columns("", [1.0, 2.0])) == ["95 % low", "95 % high"]
    assert interval_columns("loss", [1.0]) == {}
