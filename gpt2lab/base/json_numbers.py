"""JSON that keeps numbers that are not finite, as the texts "nan", "inf" and "-inf"."""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePath
from typing import Any

_HALVES = re.compile("[\ud800-\udfff]")
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""Numbers that strict JSON has no form for, by the text that stands for them."""


def encode(value: object, indent: int | None = None) -> str:
    """Write plain values, and the scalars of numpy and torch, as strict JSON.

    TypeError for what has no plain form.
    """
    text = json.dumps(json_value(value), indent=indent, ensure_ascii=False, allow_nan=False)
    # A file name that is not UTF-8 comes with halves of characters, which JSON can hold as escapes and UTF-8 cannot.
    return _HALVES.sub(lambda found: ascii(found[0])[1:-1], text)


def json_value(
    value: Any, *, not_finite: Callable[[float], object] = str, other: Callable[[Any], object] | None = None
) -> Any:
    """Return a value in JSON's own types.

    not_finite: what stands for NaN and the infinities, by default the texts "nan", "inf" and "-inf". other: gives what has
    no form in JSON one; by default scalars of numpy and torch become numbers, and all else is a TypeError.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else not_finite(value)
    if isinstance(value, Mapping):
        return {str(key): json_value(item, not_finite=not_finite, other=other) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item, not_finite=not_finite, other=other) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    formed = as_number("a value", value) if other is None else other(value)
    return json_value(formed, not_finite=not_finite, other=other)


def decode_numbers(text: str) -> dict[str, float]:
    """Read what `encode` wrote for a mapping of names to numbers."""
    return {name: NOT_FINITE.get(value, value) for name, value in json.loads(text or "{}").items()}


def as_number(name: str, value: Any) -> float | int | bool:
    """Return a result as one plain number. TypeError if it is none: an array, a text."""
    if isinstance(value, (bool, int, float)):
        return value
    if hasattr(value, "item") and getattr(value, "size", 1) != 0:
        try:
            item = value.item()
        except (ValueError, RuntimeError):  # numpy and torch, for more than one element
            item = None
        if isinstance(item, (bool, int, float)):
            return item
    raise TypeError(f"{name} must be one number, got {type(value).__name__} {value!r:.60}")


def flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in plain.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def without(plain: Mapping[str, Any], names: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Return nested settings without those of the given dotted names."""
    return {
        name: without(value, names, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in plain.items()
        if prefix + name not in names
    }
