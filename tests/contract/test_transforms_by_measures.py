"""Every registered transform under every registered measure, on one small model: a measurement, or one sentence why not."""

import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from gpt2lab.base.registry import parts
from gpt2lab.text.language_model import LanguageModel

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "transforms_by_measures.py"
PAGE = ROOT / "docs" / "guide" / "composition.md"

UNDEFINED = {"story-quality": {"grammar", "consistency", "plot"}}
"""Numbers that are NaN because a random model writes nothing that could be graded."""

SAME = (("merge-lora", "none"), ("dequantize", "quantize"), ("fold-layernorm", "remove-layernorm"))
"""Pairs of columns that are the same model: fresh adapters, rounded weights and frozen norms are folded without loss."""


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("transforms_by_measures", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def matrix(example: ModuleType) -> Iterator[Any]:
    with example.matrix() as made:
        yield made


@pytest.fixture(scope="module")
def before(matrix: Any, example: ModuleType) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of every transformed model before any measure has seen it."""
    made = {
        name: matrix.model(name)
        for name in (example.PLAIN, *(one.name for one in example.built("transform")))
    }
    assert not {name: why for name, why in made.items() if not isinstance(why, LanguageModel)}
    return {name: {key: x.clone() for key, x in lm.model.state_dict().items()} for name, lm in made.items()}


@pytest.fixture(scope="module")
def cells(matrix: Any, before: object) -> Any:
    return matrix.cells()


def test_every_part_of_the_registry_has_its_cells(cells: Any, example: ModuleType) -> None:
    assert list(cells) == [one.name for one in parts("measure") if one.built]
    columns = [example.PLAIN, *(one.name for one in parts("transform") if one.built)]
    assert all(list(row) == columns for row in cells.values())


def test_a_cell_is_a_measurement_of_finite_numbers_or_one_sentence(cells: Any) -> None:
    for measure, row in cells.items():
        for transform, cell in row.items():
            where = f"{measure} of {transform}"
            if cell.measured is None:
                assert (
                    len(cell.refused) > 20 and "\n" not in cell.refused and "Traceback" not in cell.refused
                ), where
            else:
                assert cell.measured.name == measure and json.loads(cell.measured.to_json())
                bad = {name for name, value in cell.measured.numbers.items() if not math.isfinite(value)}
                assert bad <= UNDEFINED.get(measure, set()), f"{where}: {bad}"


def test_the_plain_model_is_measured_by_every_measure_and_no_transform_refuses_it(
    cells: Any, example: ModuleType
) -> None:
    refused = {measure: row[example.PLAIN].refused for measure, row in cells.items()}
    assert not {measure: why for measure, why in refused.items() if why}
    for transform in next(iter(cells.values())):
        works = [row[transform].measured is not None for row in cells.values()]
        assert sum(works) > 0.8 * len(works), transform


def test_numbers_have_the_same_names_whatever_was_done_to_the_model(cells: Any, example: ModuleType) -> None:
    for measure, row in cells.items():
        known = set(row[example.PLAIN].measured.numbers)
        for transform, cell in row.items():
            assert cell.measured is None or set(cell.measured.numbers) == known, f"{measure} of {transform}"


@pytest.mark.parametrize(("transform", "source"), SAME)
def test_what_loses_nothing_changes_no_number(cells: Any, transform: str, source: str) -> None:
    for measure, row in cells.items():
        one, other = row[transform].measured, row[source].measured
        if one is not None and other is not None:
            assert one.numbers == pytest.approx(other.numbers, rel=1e-4, abs=1e-5, nan_ok=True), measure


def test_measures_leave_every_model_as_it_was(cells: Any, matrix: Any, before: Any) -> None:
    for name, weights in before.items():
        after = matrix.model(name).model.state_dict()
        assert after.keys() == weights.keys()
        assert all(torch.equal(after[key], x) for key, x in weights.items()), name


def test_the_page_holds_the_table_and_its_reasons(cells: Any, example: ModuleType) -> None:
    assert example.table(cells) in PAGE.read_text(encoding="utf-8"), (
        "put what `python examples/composition.py --matrix` prints into docs/guide/composition.md"
    )
