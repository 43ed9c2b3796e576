"""What a measurement shows, writes and reads back."""

import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures import Measurement
from gpt2lab.measures.measurement import show, show_table
from gpt2lab.plots.measured import line_plot

ROWS = [{"context": 1, "loss": 3.25}, {"context": 2, "loss": 2.5}]
SAMPLE = Measurement(
    name="perplexity",
    numbers={"perplexity": 23.456789, "loss": 3.1551, "tokens_seen": 278364, "worst": math.inf},
    units={"loss": "nats/token"},
    tables={"by_context": ROWS},
    figures={"by_context": line_plot(ROWS, "context", "loss", x_label="x", y_label="y")},
    about={"window": 1024, "data": ["a.txt", "b.txt"], "bos": False},
)


def test_it_reads_back_what_it_wrote() -> None:
    read = Measurement.from_json(SAMPLE.to_json())
    assert (read.name, read.numbers, read.units, read.tables, read.about) == (
        SAMPLE.name,
        SAMPLE.numbers,
        SAMPLE.units,
        SAMPLE.tables,
        SAMPLE.about,
    )
    with_figures = Measurement.from_json(SAMPLE.to_json(figures=True))
    assert with_figures.figure_svg("by_context").lstrip().startswith(b"<?xml")


def test_json_is_strict_and_numbers_of_numpy_and_torch_become_plain() -> None:
    numbers: Any = {"a": np.float32(0.5), "b": torch.tensor(2), "c": math.nan}
    found = Measurement(
        name="m",
        numbers=numbers,
        tables={"t": [{"x": np.int64(3), "y": math.nan, "z": torch.tensor(0.25)}]},
        about={"scale": np.float64(1.5), "path": (1, 2)},
    )
    content = json.loads(found.to_json(), parse_constant=lambda word: pytest.fail(word))
    assert content["numbers"] == {"a": 0.5, "b": 2.0, "c": "nan"}
    assert content["tables"] == {"t": [{"x": 3, "y": None, "z": 0.25}]}
    assert content["about"] == {"scale": 1.5, "path": [1, 2]}
    assert math.isnan(Measurement.from_json(found.to_json())["c"])


def test_the_terminal_text_has_points_in_one_column_and_units() -> None:
    lines = str(SAMPLE).splitlines()
    assert lines[0] == "perplexity"
    assert lines[1:5] == [
        "  perplexity        23.4568",
        "  loss               3.1551  nats/token",
        "  tokens_seen  278,364.0",
        "  worst            inf",
    ]
    assert "  data    a.txt, b.txt" in lines and "  bos     no" in lines
    assert lines[-3:] == ["  context    loss", "        1  3.2500", "        2  2.5000"]


def test_long_tables_say_how_much_is_left_out() -> None:
    lines = show_table([{"word": "ab", "n": i} for i in range(30)], limit=5).splitlines()
    assert lines == [
        "  word   n", "  ab     0", "  ab     1", "  ab     2", "  … 25 more rows", "  ab    28", "  ab    29",
    ]  # fmt: skip
    assert len(show_table([{"n": i} for i in range(20)]).splitlines()) == 21
    assert show_table([]) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (1e-7, "1e-07"),
        (99.5, "99.5000"),
        (1234.5678, "1,234.57"),
        (3e12, "3e+12"),
        (None, "none"),
    ],
)
def test_numbers_are_shown_with_a_sensible_number_of_digits(value: float, text: str) -> None:
    assert show(value) == text


def test_a_missing_number_or_figure_is_one_sentence() -> None:
    with pytest.raises(LabError, match="no number bits; it has perplexity, loss"):
        SAMPLE["bits"]
    with pytest.raises(LabError, match="no figure heat; it has by_context"):
        SAMPLE.figure_svg("heat")
    with pytest.raises(LabError, match="a unit for x"):
        Measurement(name="m", numbers={"a": 1}, units={"x": "m"})
    with pytest.raises(LabError, match="needs a number or a table"):
        Measurement(name="m", numbers={})
    with pytest.raises(LabError, match="not a measurement"):
        Measurement.from_json('{"numbers": 3}')


def test_measurement_and_statistics_import_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys; import gpt2lab.measure, gpt2lab.measures.statistics, gpt2lab.measures.text_metrics; "
        "assert not {'torch', 'matplotlib', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
