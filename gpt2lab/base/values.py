"""How text and plain values are brought to the type of a field, and back."""

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from gpt2lab.base.errors import nearest, shown

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
_NOTHING = {"none", "null", ""}
_WORDS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
}
_SEQUENCES = (tuple, list, Sequence)
_MAPPINGS = (dict, Mapping)


class Mismatch(Exception):
    """A value that does not fit its type; the message says in words what would."""


def is_union(hint: Any) -> bool:
    """Return whether a type is `A | B`."""
    return get_origin(hint) in (Union, types.UnionType)


def fit(value: object, hint: Any, text: bool) -> object:
    """Return `value` as the type `hint`; with `text`, strings are read as that type.

    Mismatch if it does not fit.
    """
    if hint is Any or hint is object:
        return value
    if is_union(hint):
        return _fit_union(value, get_args(hint), text)
    origin = get_origin(hint) or hint
    if origin is Literal:
        return _fit_literal(value, get_args(hint), text)
    if origin in _SEQUENCES:
        return _fit_sequence(value, hint, text)
    if origin in _MAPPINGS and isinstance(value, Mapping):
        of = get_args(hint)[1] if get_args(hint) else Any
        return {key: fit(item, of, text) for key, item in _entries(value, of)}
    if origin is types.NoneType:
        if value is None or (text and isinstance(value, str) and value.lower() in _NOTHING):
            return None
        raise Mismatch("none")
    if origin is str and isinstance(value, Path):
        return str(value)
    if origin is Path and isinstance(value, (str, Path)):
        return Path(value)
    if origin in (int, float, bool):
        return _fit_number(value, origin, text)
    if isinstance(origin, type) and isinstance(value, origin):
        return value
    raise Mismatch(describe(hint))


def _entries(value: Mapping[Any, object], of: Any, before: str = "") -> Iterator[tuple[str, object]]:
    """Yield the entries of a mapping; where values are no mappings, `a.b` that was taken for b inside a is one key."""
    for key, item in value.items():
        if isinstance(item, Mapping) and (get_origin(of) or of) in (int, float, str, bool):
            yield from _entries(item, of, f"{before}{key}.")
        else:
            yield f"{before}{key}", item


def _fit_number(value: object, kind: type, text: bool) -> object:
    if kind is bool:
        if isinstance(value, bool):
            return value
        if text and isinstance(value, str) and value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE
    elif isinstance(value, str) and (text or (kind is float and value in ("inf", "-inf"))):
        with_point = _number(value)
        if with_point is not None and kind is float:
            return with_point
        if with_point is not None and with_point.is_integer():
            return _within(int(value) if value.lstrip("+-").isdigit() else int(with_point))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if kind is float and not math.isnan(_floated(value)):
            return _floated(value)
        if isinstance(value, int):
            return _within(value)
    raise Mismatch(_WORDS[kind])


def _floated(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise Mismatch("a number below 1.8e308") from None


def _within(value: int) -> int:
    """Return a whole number of at most 63 bits, which seeds, sizes and every library take."""
    if abs(value) >= 2**63:
        raise Mismatch("a whole number below 2^63")
    return value


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _fit_union(value: object, members: tuple[Any, ...], text: bool) -> object:
    exact = [m for m in members if isinstance(m, type) and type(value) is m and m is not str]
    for member in [*exact, *sorted(members, key=lambda m: m is not types.NoneType)]:
        try:
            return fit(value, member, text)
        except Mismatch:
            continue
    raise Mismatch(" or ".join(describe(m) for m in members))


def _fit_literal(value: object, choices: tuple[Any, ...], text: bool) -> object:
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
        if text and isinstance(value, str) and show(choice) == value:
            return choice
    match = nearest(str(value), [show(choice) for choice in choices])
    hint = f" (did you mean {match}?)" if match else ""
    raise Mismatch(f"one of {', '.join(show(choice) for choice in choices)}{hint}")


def _fit_sequence(value: object, hint: Any, text: bool) -> object:
    arguments = get_args(hint)
    make = list if (get_origin(hint) or hint) is list else tuple
    if text and isinstance(value, str):
        value = [piece.strip() for piece in value.strip("()[] ").split(",") if piece.strip()]
    if not isinstance(value, (list, tuple)):
        raise Mismatch(describe(hint))
    if make is tuple and arguments and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        fixed = get_origin(hint) is tuple
        if fixed and len(value) != len(arguments):
            raise Mismatch(describe(hint))
        kinds: Sequence[Any] = arguments if fixed else [arguments[0]] * len(value)
    else:
        kinds = [arguments[0] if arguments else Any] * len(value)
    try:
        return make(fit(item, kind, text) for item, kind in zip(value, kinds, strict=True))
    except Mismatch:
        raise Mismatch(describe(hint)) from None


def describe(hint: Any) -> str:
    """Say in words what a type accepts."""
    if hint in _WORDS:
        return _WORDS[hint]
    if hint is types.NoneType:
        return "none"
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if is_union(hint):
        return " or ".join(describe(member) for member in arguments)
    if origin is Literal:
        return f"one of {', '.join(show(choice) for choice in arguments)}"
    if origin in _SEQUENCES and arguments:
        plural = {int: "whole numbers", float: "numbers", str: "texts", bool: "true or false", Path: "paths"}
        inner = plural.get(arguments[0], "values")
        open_ended = origin is not tuple or arguments[-1] is Ellipsis
        return (
            f"{inner} separated by commas" if open_ended else f"{len(arguments)} {inner} separated by commas"
        )
    return f"a {getattr(origin, '__name__', origin)}"


def holds_several(hint: Any) -> bool:
    """Return whether a type is, or may be, a sequence of values."""
    if is_union(hint):
        return any(holds_several(member) for member in get_args(hint))
    return (get_origin(hint) or hint) in _SEQUENCES


def metavar(hint: Any) -> str | tuple[str, str]:
    """Return the word for a value in --help, two where several values are taken: N, X, PATH, {a,b}, (A, B)."""
    if holds_several(hint):
        return "A", "B"
    members = [m for m in get_args(hint) if m is not types.NoneType] if is_union(hint) else [hint]
    origin = get_origin(members[0]) or members[0]
    if origin is Literal:
        return "{" + ",".join(show(choice) for choice in get_args(members[0])) + "}"
    return {int: "N", float: "X", Path: "PATH"}.get(origin, "TEXT")


def show(value: Any) -> str:
    """Write a value the way it is typed after `--set`: `0.003`, `1,2,4`, `none`, `true`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return ",".join(show(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__
    return str(value)


def quote(value: object) -> str:
    """Write a wrong value in an error: text in quotes."""
    text = shown(value) if isinstance(value, str) else show(value)
    return text if len(text) <= 100 and text.isprintable() else shown(value)


def plain(value: Any, name: str) -> Any:
    """Return `value` in JSON's own types; TypeError, with the field's `name`, for what has no such form."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), f.name) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"  # JSON has no infinity
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [plain(item, name) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item, name) for key, item in value.items()}
    raise TypeError(f"setting {name} holds a {type(value).__name__}, which has no plain form")
