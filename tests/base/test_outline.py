"""Settings read from their source are those of the class itself; what cannot be read so is imported."""

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest

from gpt2lab.actions.optimizer_options import OF_THE_LOOP
from gpt2lab.base.outline import arguments, outline, part_outline
from gpt2lab.base.registry import Part, papers, parts
from gpt2lab.base.settings import build, options
from gpt2lab.base.values import describe, show

PLACES = {
    **{f"{one.kind} {one.name}": one.object for one in parts() if one.built and one.kind != "optimizer"},
    **{paper.slug: f"{paper.module}.study:Settings" for paper in papers() if paper.built},
    **{
        f"compare {kind}": f"gpt2lab.studies.comparison.{kind}:Settings"
        for kind in ("optimizers", "decoders", "measures")
    },
    "train": "gpt2lab.actions.train_settings:TrainingSettings",
}

SOURCE = '''
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol

from torch import Tensor

from gpt2lab.base.settings import Model
from .other import Inner, Mode, LEAST

if TYPE_CHECKING:
    from .other import Unknown

class Base(Protocol):
    kind: str

@dataclass(frozen=True, kw_only=True)
class First:
    """Of the first."""
    size: int = 2 ** 3 if False else 8
    """Never read: a default that is computed."""

@dataclass(frozen=True, kw_only=True)
class Parent(Base):
    """What is inherited."""
    size: int = 4 * LEAST
    """How
    large."""
    draws: ClassVar[bool] = True

@dataclasses.dataclass(frozen=True, kw_only=True)
class Child(Parent):
    """What is added."""
    data: tuple[str, ...]
    """Read."""
    mode: Mode = "slow"
    """How."""
    model: "Model | None" = None
    ratio: float = -math.inf
    inner: Inner = field(default_factory=lambda: Inner(width=3))
    names: Mapping[str, int] = field(default_factory=dict)
    file: Path = Path("a")
    tensor: "Tensor | None" = None
    unknown: "Unknown" = None
    hidden: int = field(init=False, default=1)
'''

OTHER = '''
import torch  # importing this would end the test
from dataclasses import dataclass
from typing import Literal

raise SystemExit
LEAST = 2
Mode = Literal["slow", "fast"]

@dataclass(frozen=True)
class Inner:
    width: int = 1
    """Columns."""
    depth: int = 2

@dataclass(frozen=True)
class Needy:
    width: int
    inner: Inner = Inner()
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "outlined_pkg"
    folder.mkdir()
    for name, text in {"__init__": "raise SystemExit", "settings": SOURCE, "other": OTHER}.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return "outlined_pkg"


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_the_outline_has_the_names_types_defaults_and_docs_of_the_class(place: str) -> None:
    read = outline(place)
    assert read is not None, "this class is imported for every mistake; write it so that it can be read"
    module, _, name = place.partition(":")
    real = getattr(importlib.import_module(module), name)

    def told(cls: type) -> list[tuple[str, ...]]:
        return [
            (
                one.name,
                describe(one.type),
                "" if one.default is dataclasses.MISSING else show(one.default),
                one.doc,
            )
            for one in options(cls)
        ]

    assert told(read) == told(real)


@pytest.mark.parametrize("one", [one for one in parts("optimizer") if one.built], ids=lambda one: one.name)
def test_the_arguments_of_an_optimizer_are_those_of_the_class(one: Part) -> None:
    from gpt2lab.actions.parts import optimizer_defaults

    found = arguments(one.object, ("for_model", "__init__"))
    if one.name == "adamw":  # torch's, whose options are the loop's
        return
    assert found is not None and set(found) - set(OF_THE_LOOP) == set(optimizer_defaults(one.name))


def test_nothing_is_run_that_the_source_holds(package: str) -> None:
    read = outline(f"{package}.settings:Child")
    assert read is not None
    assert package not in sys.modules
    found = {one.name: one for one in options(read)}
    assert list(found) == [
        *("size", "data", "mode", "model", "ratio", "inner.width", "inner.depth", "names", "file", "tensor"),
        "unknown",
    ]
    assert (found["size"].default, found["size"].doc) == (8, "How large.")
    assert (found["inner.width"].default, found["inner.width"].doc) == (3, "Columns.")
    assert found["ratio"].default == float("-inf") and found["file"].default == Path("a")
    made = build(read, {"data": "a,b", "mode": "fast", "inner.depth": "5", "tensor": object()}, "x")
    assert (made.data, made.inner.width, made.inner.depth) == (("a", "b"), 3, 5)  # type: ignore[attr-defined]  # as read
    assert vars(read)["draws"] is True


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"data": "a", "mode": "fst"}, "mode must be one of slow, fast"),
        ({"data": "a", "inner.dept": "1"}, "did you mean inner.depth"),
        ({}, "data is missing"),
    ],
)
def test_a_mistake_has_the_sentence_of_the_class_itself(
    package: str, values: dict[str, object], sentence: str
) -> None:
    read = outline(f"{package}.settings:Child")
    assert read is not None
    with pytest.raises(ValueError, match=sentence):
        build(read, values, "x")


def test_what_presets_give_may_be_missing(package: str) -> None:
    read = outline(f"{package}.other:Needy", optional=True)
    assert read is not None and build(read, {"inner.width": "4"}, "x").inner.width == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["First", "Base", "Missing"])
def test_what_cannot_be_read_has_no_outline(package: str, name: str) -> None:
    assert outline(f"{package}.settings:{name}") is None
    assert outline("no_such_package.settings:Child") is None


def test_a_part_that_cannot_be_read_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "__init__.py").write_text(
        "import dataclasses\nMade = dataclasses.make_dataclass('Made', [('size', int, 3)])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    made = Part("measure", "made", "made_up:Made")
    monkeypatch.setattr("gpt2lab.base.outline.parts", lambda kind: (made,))
    monkeypatch.setattr("gpt2lab.base.outline.part", lambda kind, name: made.load())
    assert [one.name for one in options(part_outline("measure", "made"))] == ["size"]
    sys.modules.pop("made_up", None)
