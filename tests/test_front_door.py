"""`import gpt2lab`: typed functions that an editor completes, without torch until one is used."""

import ast
import importlib
import inspect
from pathlib import Path
from typing import get_type_hints

import pytest

import gpt2lab
from gpt2lab.actions.train_arguments import TrainOptions
from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.training import TrainSettings

SOURCE = Path(gpt2lab.__file__)
FUNCTIONS = [name for name in gpt2lab.__all__ if name.islower()]


def _seen_by_type_checkers() -> dict[str, str]:
    """The names that the TYPE_CHECKING block imports, each with its place."""
    block = next(
        node for node in ast.parse(SOURCE.read_text(encoding="utf-8")).body if isinstance(node, ast.If)
    )
    assert isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
    lines = [line for line in block.body if isinstance(line, ast.ImportFrom)]
    return {name.asname or name.name: f"{line.module}:{name.name}" for line in lines for name in line.names}


def test_type_checkers_and_python_find_the_same_names_at_the_same_places() -> None:
    assert _seen_by_type_checkers() == gpt2lab._PLACES
    assert sorted(gpt2lab._PLACES) == gpt2lab.__all__
    for name, place in gpt2lab._PLACES.items():
        module, _, attribute = place.partition(":")
        assert getattr(gpt2lab, name) is getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_what_it_takes_and_returns(name: str) -> None:
    signature = inspect.signature(getattr(gpt2lab, name))
    assert signature.return_annotation is not signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, parameter
        assert parameter.kind is not parameter.VAR_POSITIONAL, parameter
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    assert own, f"{name} says nothing of what it takes"


@pytest.mark.parametrize("name", ["apply", "embed", "export", "generate", "measure", "predict"])
def test_what_leaves_a_run_can_be_told_not_to(name: str) -> None:
    assert inspect.signature(getattr(gpt2lab, name)).parameters["keep"].default is True


def test_a_misspelt_name_is_an_error_for_python_and_for_type_checkers() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        gpt2lab.lod  # type: ignore[attr-defined]


def test_the_arguments_of_train_are_its_settings() -> None:
    own, loop = get_type_hints(TrainingSettings), get_type_hints(TrainSettings)
    named = {"data", "model"}
    assert named <= own.keys() & inspect.signature(gpt2lab.train).parameters.keys()
    wanted = loop | {name: kind for name, kind in own.items() if name not in named}
    assert get_type_hints(TrainOptions) == wanted
    with pytest.raises(gpt2lab.LabError, match="step"):
        gpt2lab.train("tinyworld:10", stepz=3)  # type: ignore[call-arg]
