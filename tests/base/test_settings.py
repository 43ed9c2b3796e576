"""Settings: text and JSON in, a frozen dataclass out, and an error that names the field."""

import argparse
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import (
    add_arguments,
    build,
    field_docs,
    from_plain,
    given,
    options,
    parse_assignments,
    show,
    to_plain,
    update,
)


@dataclass(frozen=True, kw_only=True)
class Inner:
    steps: int = 10
    """Updates."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the two
    moments."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, got {self.steps}")


@dataclass(frozen=True, kw_only=True)
class Base:
    seed: int = 0
    """Where every stream of randomness starts."""


@dataclass(frozen=True, kw_only=True)
class Outer(Base):
    learning_rate: float = 3e-3
    """Peak, 100% of it."""
    decoder: Literal["greedy", "beam"] = "greedy"
    """How text is chosen."""
    tied: bool = True
    """One table for both ends."""
    data: Path | None = None
    """Where the text is."""
    names: tuple[str, ...] = ()
    """Words."""
    widths: list[int] = field(default_factory=lambda: [1, 2])
    """Widths."""
    limit: int | None = None
    """Most."""
    cap: float = math.inf
    """Largest."""
    train: Inner = Inner()
    """The loop."""
    warm: Inner | None = None
    """An optional first stage."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Anything."""


@dataclass(frozen=True, kw_only=True)
class Needy:
    text: str
    """Must be given."""


def test_docstrings_under_fields_are_found_also_in_base_classes() -> None:
    docs = field_docs(Outer)
    assert docs["seed"] == "Where every stream of randomness starts."
    assert docs["learning_rate"] == "Peak, 100% of it."
    assert field_docs(Inner)["betas"] == "Decay of the two moments."


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("1e-2", "learning_rate", 0.01),
        ("3", "learning_rate", 3.0),
        ("beam", "decoder", "beam"),
        ("no", "tied", False),
        ("True", "tied", True),
        ("a/b.txt", "data", Path("a/b.txt")),
        ("none", "data", None),
        ("x, y", "names", ("x", "y")),
        ("", "names", ()),
        ("4,8", "widths", [4, 8]),
        ("1e3", "limit", 1000),
        ("1234567890123456789", "limit", 1234567890123456789),
        ("inf", "cap", math.inf),
        ("7", "train.steps", 7),
        ("0.5,0.6", "train.betas", (0.5, 0.6)),
        ("5", "warm.steps", 5),
        ("x", "extra.key", "x"),
    ],
)
def test_text_is_brought_to_the_type_of_the_field(text: str, name: str, value: object) -> None:
    settings: Any = build(Outer, {name: text}, "--set")
    for part in name.split("."):
        settings = settings[part] if isinstance(settings, dict) else getattr(settings, part)
    assert settings == value and type(settings) is type(value)


KNOWN = "seed, learning_rate, decoder, tied, data, names, widths, limit, cap, train.steps, train.betas, warm, extra"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"learning_rat": "1"}, "--set: no setting learning_rat; did you mean learning_rate?"),
        ({"train.stepz": "1"}, "--set: no setting train.stepz; did you mean train.steps?"),
        ({"steps": "1"}, "--set: no setting steps; did you mean train.steps?"),
        ({"learning_rate": "fast"}, "--set: learning_rate must be a number, got 'fast'"),
        ({"learning_rate": "nan"}, "--set: learning_rate must be a number, got 'nan'"),
        ({"train.steps": "1.5"}, "--set: train.steps must be a whole number, got '1.5'"),
        ({"train.steps": True}, "--set: train.steps must be a whole number, got true"),
        ({"tied": "maybe"}, "--set: tied must be true or false, got 'maybe'"),
        ({"decoder": "beem"}, "--set: decoder must be one of greedy, beam (did you mean beam?), got 'beem'"),
        ({"train.betas": "1"}, "--set: train.betas must be 2 numbers separated by commas, got '1'"),
        ({"widths": "1,x"}, "--set: widths must be whole numbers separated by commas, got '1,x'"),
        (
            {"train.steps": "9" * 30},
            f"--set: train.steps must be a whole number below 2^63, got '{'9' * 30}'",
        ),
        ({"train.steps": 10**30}, f"--set: train.steps must be a whole number below 2^63, got {10**30}"),
        ({"train.steps": "9" * 5000}, f"--set: train.steps must be a whole number, got '{'9' * 99}…"),
        (
            {"learning_rate": 10**400},
            f"--set: learning_rate must be a number below 1.8e308, got 1{'0' * 99}…",
        ),
        ({"x" * 5000: "1"}, f"--set: no setting '{'x' * 99}…; known: {KNOWN}"),
        ({"limit": "x"}, "--set: limit must be a whole number or none, got 'x'"),
        ({"train": "x"}, "--set: train must be a Inner, got 'x'"),
        ({"train.steps": "-1"}, "--set: steps must be at least 0, got -1"),
        ({"train.steps": "1", "train": "2"}, "--set: train is given twice"),
        ({"limit.x": "1"}, "--set: limit must be a whole number or none, got {'x': '1'}"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_name_and_what_would_be_right(
    values: dict[str, object], sentence: str
) -> None:
    with pytest.raises(LabError) as caught:
        build(Outer, values, "--set")
    assert str(caught.value) == sentence


def test_a_setting_without_default_must_be_given() -> None:
    with pytest.raises(LabError, match=r"^generate: text is missing; it has no default$"):
        build(Needy, {}, "generate")


def test_update_keeps_what_the_preset_says() -> None:
    preset = Outer(learning_rate=1.0, train=Inner(steps=99))
    changed = update(preset, {"train.betas": "0.1,0.2", "seed": 3}, "--set")
    assert changed == Outer(learning_rate=1.0, seed=3, train=Inner(steps=99, betas=(0.1, 0.2)))
    assert preset.seed == 0


def test_plain_values_survive_json_and_come_back_equal() -> None:
    settings = Outer(data=Path("a"), names=("none", "1"), warm=Inner(steps=1), extra={"a": [1, 2.5]}, limit=5)
    text = json.dumps(to_plain(settings), allow_nan=False)
    assert from_plain(Outer, json.loads(text)) == settings
    assert from_plain(Outer, json.loads(json.dumps(to_plain(Outer())))) == Outer()


def test_plain_text_is_not_read_as_another_type() -> None:
    assert from_plain(Needy, {"text": "none"}).text == "none"
    with pytest.raises(LabError, match="learning_rate must be a number, got '1'"):
        from_plain(Outer, {"learning_rate": "1"})


def test_a_value_without_plain_form_is_refused() -> None:
    with pytest.raises(TypeError, match="extra holds a set"):
        to_plain(Outer(extra={"a": {1}}))


def test_flags_are_made_from_fields_and_only_typed_ones_are_given() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser, Outer, skip=("extra",))
    typed = given(parser.parse_args(["--train.steps", "4", "--no-tied", "--learning-rate", "1e-4"]), Outer)
    assert typed == {"train.steps": "4", "tied": False, "learning_rate": "1e-4"}
    assert build(Outer, typed, "train") == Outer(tied=False, learning_rate=1e-4, train=Inner(steps=4))


def test_settings_that_may_be_none_have_a_flag_each_without_a_default() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser, Outer)
    typed = given(parser.parse_args(["--warm.steps", "4"]), Outer)
    assert build(Outer, typed, "train").warm == Inner(steps=4)
    assert build(Outer, {}, "train").warm is None
    help_of = {action.dest: str(action.help) for action in parser._actions}
    assert "default" in help_of["train.steps"] and "default" not in help_of["warm.steps"]


def test_a_flag_of_several_values_takes_several_words_or_one_with_commas() -> None:
    for words in (["--names", "a", "b"], ["--names", "a,b"]):
        parser = argparse.ArgumentParser()
        add_arguments(parser, Outer)
        assert build(Outer, given(parser.parse_args(words), Outer), "train").names == ("a", "b")


def test_help_shows_docstring_and_default() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Outer)
    text = " ".join(parser.format_help().split())
    assert "--learning-rate X Peak, 100% of it. (default: 0.003)" in text
    assert "--decoder {greedy,beam} How text is chosen. (default: greedy)" in text
    assert "--train.betas A [B ...] Decay of the two moments. (default: 0.9,0.95)" in text


def test_options_take_defaults_from_a_preset() -> None:
    found = {option.name: option.default for option in options(Outer, default=Outer(train=Inner(steps=3)))}
    assert found["train.steps"] == 3 and found["warm"] is None


def test_assignments_split_at_the_first_equals_sign() -> None:
    assert parse_assignments(["a.b=c=d", " x = 1 "]) == {"a.b": "c=d", "x": "1"}
    with pytest.raises(LabError, match="--set steps: a setting is given as NAME=VALUE"):
        parse_assignments(["steps"])


@pytest.mark.parametrize("value", [None, True, 0.003, 1 / 3, (1, 2), "text", 12345678.9])
def test_a_shown_value_can_be_typed_again(value: object) -> None:
    @dataclass(frozen=True)
    class Holder:
        value: Any

    if isinstance(value, float):
        assert float(show(value)) == value
    else:
        assert show(value) in {"none", "true", "1,2", "text"}
