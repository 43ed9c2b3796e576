"""What a measurement shows, writes and reads back."""

import hashlib
import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write
from gpt2lab.measures import Measurement
from gpt2lab.measures.arrays import npy_bytes
from gpt2lab.measures.measurement import show, show_table
from gpt2lab.plots.figures import column_chart

ROWS = [{"context": 1, "loss": 3.25}, {"context": 2, "loss": 2.5}]
SAMPLE = Measurement(
    name="perplexity",
    numbers={"perplexity": 23.456789, "loss": 3.1551, "tokens_seen": 278364, "worst": math.inf},
    units={"loss": "nats/token"},
    tables={"by_context": ROWS},
    figures={"by_context": partial(column_chart, ROWS, "context", "loss", x_label="x", y_label="y")},
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
    assert with_figures.figure_svg("by_context").startswith(b"<svg")


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
        "  perplexity         23.457",
        "  loss                3.1551  nats/token",
        "  tokens_seen   278,364",
        "  worst        infinite",
    ]
    assert "  data    a.txt, b.txt" in lines and "  bos     no" in lines
    assert lines[-3:] == ["  context  loss", "        1  3.25", "        2   2.5"]


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
        (0.0, "0"),
        (1e-7, "1e-07"),
        (99.5, "99.5"),
        (1234.5678, "1234.6"),
        (278_364.0, "278,364"),
        (True, "yes"),
        ([1, 0.25], "1, 0.25"),
        (3e12, "3e+12"),
        (None, "none"),
    ],
)
def test_numbers_are_shown_with_a_sensible_number_of_digits(value: object, text: str) -> None:
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
        "import sys; from gpt2lab.measures import measurement, statistics, text_metrics, spectra, permutation_tests; "
        "assert not {'torch', 'matplotlib', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


ARRAYS = {
    "scores": np.arange(6, dtype=np.float32).reshape(2, 3),
    "flags": np.array([True, False]),
    "phases": np.array([1 + 2j, 3]),
    "one": np.float64(2.5),
    "none": np.empty((0, 4), dtype=np.int16),
}


def kept(measurement: Measurement, folder: Path) -> None:
    """Lay arrays and files where a run lays them."""
    for name, array in measurement.arrays.items():
        atomic_write(folder / "arrays" / f"{name}.npy", npy_bytes(array))
    for name, content in measurement.files.items():
        assert isinstance(content, bytes)
        atomic_write(folder / "files" / name, content)


def test_arrays_and_files_come_back_from_the_folder_that_holds_them(tmp_path: Path) -> None:
    found = Measurement(name="m", numbers={"a": 1}, arrays=ARRAYS, files={"x.bin": b"\0\xff"})
    content = json.loads(found.to_json())
    assert content["arrays"]["scores"]["shape"] == [2, 3]
    assert content["arrays"]["scores"]["dtype"] == "float32"
    assert content["files"]["x.bin"] == {"bytes": 2, "sha256": hashlib.sha256(b"\0\xff").hexdigest()}
    kept(found, tmp_path)
    read = Measurement.from_json(found.to_json(), tmp_path)
    assert read.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read.arrays[name], array)
        assert read.arrays[name].dtype == array.dtype
    assert read.files == {"x.bin": tmp_path / "files" / "x.bin"}
    assert json.loads(read.to_json()) == content
    assert Measurement.from_json(found.to_json()).arrays == {}


def test_the_terminal_and_a_notebook_list_arrays_by_shape_and_type() -> None:
    found = Measurement(name="m", numbers={"a": 1}, arrays=ARRAYS, files={"x.bin": b""})
    lines = [line.split() for line in str(found).splitlines()]
    assert ["scores", "2", "×", "3", "float32"] in lines
    assert ["x.bin"] in lines
    assert "<td>2 × 3</td>" in found._repr_html_()
    assert "<caption>arrays" not in SAMPLE._repr_html_()


def test_an_array_that_is_damaged_or_another_is_refused(tmp_path: Path) -> None:
    found = Measurement(name="m", numbers={"a": 1}, arrays={"x": np.ones(3)}, files={"f": b"12"})
    text = found.to_json()
    with pytest.raises(LabError, match=r"x\.npy: this is no array"):
        Measurement.from_json(text, tmp_path)
    kept(found, tmp_path)
    (tmp_path / "files" / "f").write_bytes(b"13")
    with pytest.raises(LabError, match="not the file that was measured"):
        Measurement.from_json(text, tmp_path)
    np.save(tmp_path / "arrays" / "x.npy", np.zeros(3))
    with pytest.raises(LabError, match="not the array that was measured"):
        Measurement.from_json(text, tmp_path)
    np.save(tmp_path / "arrays" / "x.npy", np.array([{"pickled": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(LabError, match="this is no array of numbers"):
        Measurement.from_json(text, tmp_path)
    with pytest.raises(LabError, match="not a measurement"):
        Measurement.from_json(text.replace('"x"', '"../x"'), tmp_path)


def test_only_numbers_are_arrays_and_names_are_file_names() -> None:
    for bad in (np.array(["a"]), np.array([object()]), ["x", 1]):
        with pytest.raises(LabError, match="array x: must hold numbers"):
            Measurement(name="m", numbers={"a": 1}, arrays={"x": bad})
    for name in ("../x", "a/b", "", ".x", "a..b", "x" * 200):
        with pytest.raises(LabError, match="cannot name an array or a file"):
            Measurement(name="m", numbers={"a": 1}, files={name: b""})
