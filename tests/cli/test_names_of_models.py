"""MODEL means the same everywhere: a folder, a run, the folder of a run; in every option that takes a model."""

import dataclasses
import importlib
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt2lab.actions.models import with_models
from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import papers, parts
from gpt2lab.base.settings import Model, ModelTokenizer, field_docs, replace_names
from gpt2lab.studies.experiment import load_experiment
from tests.cli.conftest import SMALL, Lab

KINDS = ("architecture", "decoder", "measure", "objective", "transform")


def _settings() -> Iterator[type]:
    """Yield the settings of every part, study and verb, nested ones too."""
    kinds: list[type] = [TrainingSettings]
    kinds += [one.load() for kind in KINDS for one in parts(kind) if one.built]
    kinds += [load_experiment(paper).settings_class for paper in papers() if paper.built]
    for kind in kinds:
        if dataclasses.is_dataclass(kind):
            yield kind
            yield from (
                hint for hint in typing.get_type_hints(kind).values() if dataclasses.is_dataclass(hint)
            )  # type: ignore[misc]  # a dataclass is a type


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    """Nested."""

    teacher: Model | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    """One field of every form."""

    one: Model = ""
    several: tuple[Model, ...] = ()
    none: Model | None = None
    text: str = "small-1"
    words: ModelTokenizer = "auto"
    inner: Inner = dataclasses.field(default_factory=Inner)


def test_names_are_replaced_in_fields_of_every_form_and_only_there() -> None:
    given = Outer(one="a", several=("b", "c"), inner=Inner(teacher="d"))
    found = replace_names(given, Model, str.upper)
    assert found == Outer(one="A", several=("B", "C"), inner=Inner(teacher="D"))
    assert replace_names(given, ModelTokenizer, str.upper).words == "AUTO"
    assert replace_names(Outer(), Model, str.upper) == Outer(), "what names no model stays"


def test_every_option_that_takes_a_model_says_so_and_is_resolved() -> None:
    checked = 0
    for kind in _settings():
        hints, docs = typing.get_type_hints(kind, include_extras=True), field_docs(kind)
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # only dataclasses are yielded
            doc = docs.get(field.name, "")
            is_model = "Annotated" in str(hints[field.name]) or (kind, field.name) == (
                TrainingSettings,
                "tokenizer",
            )
            assert is_model == bool(re.search(r"\bMODELs?\b", doc)), f"{kind.__name__}.{field.name}: {doc}"
            assert is_model or not re.search(r"\b(hub id|folder of a model)\b", doc), (
                f"{kind.__name__}.{field.name}"
            )
            checked += is_model
    assert checked >= 9


@pytest.mark.parametrize("form", ["small-1", "small", "small-1/model", "small-1/"])
def test_a_run_is_named_the_same_way_in_an_option(form: str, said: Lab, trained: Path) -> None:
    name = str(trained / form) if "/" in form else form
    line = (
        "measure",
        "generation-quality",
        "small-2",
        "--data",
        "tinyworld:20",
        "--prefix",
        "4",
        "--new",
        "4",
    )
    done = said(*line, "--texts", "3", "--scorer", name, "--json")
    assert done.status == 0, done.err
    assert Path(done.json["about"]["scorer"]).parts[-2:] in [("small-1", "model"), ("small-2", "model")]


def test_a_tokenizer_is_taken_from_a_run(said: Lab, trained: Path) -> None:
    words = [word for word in SMALL if word not in ("--vocab-size", "300")]
    done = said("train", *words, "--tokenizer", "small-1", "--name", "second", "--json")
    assert done.status == 0, done.err
    files = [trained / run / "model" / "tokenizer.json" for run in ("small-1", done.json["id"])]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("generate nothing-like-it-9 hello", "nor is it a run in HOME"),
        ("measure generation-quality small-1 --data tinyworld:9 --scorer nothing-like-it-9", "nor is it a run in HOME"),
        ("measure generation-quality small-1 --data tinyworld:9 --scorer smal-1", "did you mean the run small-1?"),
        ("export nothing-like-it-9 --to gguf --out x.gguf", "nor is it a run in HOME"),
        ("train --data tinyworld:9 --model nothing-like-it-9", "nor is it a run in HOME"),
    ],
)  # fmt: skip
def test_a_name_that_is_none_says_where_runs_were_looked_for(
    line: str, sentence: str, said: Lab, trained: Path
) -> None:
    done = said(*line.split())
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert sentence.replace("HOME", str(trained.resolve())) in done.err


def test_models_of_a_study_are_not_fetched_before_it_runs() -> None:
    named = with_models(Outer(one="owner/model"), fetch=False)
    assert named.one == "owner/model"
    with pytest.raises(LabError, match="owner/model"):
        with_models(Outer(one="owner/model"))
    assert importlib.import_module("gpt2lab.actions.models").find_model("owner/model") == "owner/model"
