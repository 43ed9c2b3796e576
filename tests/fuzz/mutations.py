"""Ways to damage a file: bits, pieces, and values of JSON exchanged for others that a reader may not expect."""

import json
import random
from typing import Any

EXTREMES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 2**31 - 1, 2**31, 2**53, 2**63, 10**9, 10**12, 10**30, 0.0, -0.5, 0.5, 1e-30, 1e300,
    float("nan"), float("inf"), float("-inf"), "", "x", "2", "none", "../x", "/etc/passwd", "a\0b", "\ud800", "é" * 300,
    [], {}, [[]], [None], [0, 0], ["x"], {"x": 1}, {"content": "x"}, "[" * 3000,
]  # fmt: skip
TOKENS = [
    b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b"[", b"{", b"]", b"}", b",", b"\n", b"\r\n", b"\r", b"\t",
    b"=", b"[[",
    b"\\u0000", b"\\ud800", b"-", b"1e999", b"9" * 400, b"9" * 5000, b"[" * 5000, b'{"a":' * 3000, b"nan", b"null",
    b" " * 1000, b"\xe2\x82", b"\xf0\x9f\x98\x80", b"(a+)+$",
]  # fmt: skip


def mutate(data: bytes, name: str, others: list[bytes], rng: random.Random) -> bytes:
    """Return damaged `data`; what its `name` says decides which kinds of damage make sense."""
    if name.endswith(".safetensors") and rng.random() < 0.5:
        return _header(data, rng)
    if name.endswith(".json") and rng.random() < 0.75:
        return _json(data, rng)
    if name.endswith(".jsonl") and rng.random() < 0.5:
        lines = data.split(b"\n")
        at = rng.randrange(len(lines))
        lines[at] = _json(lines[at], rng)
        return b"\n".join(lines)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_BYTES)(data, others, rng)
    return data


def _json(data: bytes, rng: random.Random) -> bytes:
    try:
        content = json.loads(data)
    except ValueError:
        return _insert(data, [], rng)
    try:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            content = _changed(content, rng)
        return json.dumps(content, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return data


def _changed(content: Any, rng: random.Random) -> Any:
    """Change one value, key or place of a JSON tree."""
    places = list(_places(content))
    if not places:
        return rng.choice(EXTREMES)
    holder, key = rng.choice(places)
    how = rng.randrange(8)
    if how <= 2:
        holder[key] = rng.choice(EXTREMES)
    elif how == 3:
        del holder[key]
    elif how == 4:
        holder[key] = _nudged(holder[key], rng)
    elif how == 5:
        other, where = rng.choice(places)
        holder[key], other[where] = other[where], holder[key]
    elif how == 6:
        holder[key] = [holder[key]] if rng.random() < 0.5 else {"x": holder[key]}
    elif isinstance(holder, dict):
        holder[rng.choice(("", "x", f"{key}x", str(rng.choice(places)[1])))] = rng.choice(
            (holder[key], *EXTREMES)
        )
    else:
        holder.extend(holder[:2000])
    return content


def _places(content: Any) -> Any:
    if isinstance(content, dict):
        for key in list(content):
            yield content, key
            yield from _places(content[key])
    elif isinstance(content, list):
        for index in range(min(len(content), 200)):
            yield content, index
            yield from _places(content[index])


def _nudged(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, value - 1, value * 2, -value, value * 1.0, str(value), value + 0.5))
    if isinstance(value, str):
        return rng.choice((value[1:], value + value, value.upper(), value[:-1], f" {value}", value[::-1]))
    return rng.choice(EXTREMES)


def _header(data: bytes, rng: random.Random) -> bytes:
    """Change the header of a safetensors file, its length told anew, or rightly not."""
    size = int.from_bytes(data[:8], "little")
    header = _json(data[8 : 8 + size], rng)
    told = len(header) if rng.random() < 0.8 else rng.choice((0, 1, size, 2**31, 2**40, 2**63, 2**64 - 1))
    return told.to_bytes(8, "little") + header + data[8 + size :]


def _flip(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _without(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 2, 8, 64, 512)) :]


def _twice(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    stop = start + rng.choice((1, 8, 64, 512))
    return data[:stop] + data[start:stop] * rng.choice((1, 2, 50)) + data[stop:]


def _splice(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    other = rng.choice(others or [data])
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _insert(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(TOKENS) + data[at:]


def _number(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Write an extreme whole number over some bytes."""
    width = rng.choice((1, 2, 4, 8))
    at = rng.randrange(max(len(data) - width, 0) + 1)
    value = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)) % 256**width
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


def _digits(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Exchange a digit for many."""
    places = [at for at, byte in enumerate(data[:5000]) if 48 <= byte <= 57]
    if not places:
        return _insert(data, others, rng)
    at = rng.choice(places)
    return data[:at] + rng.choice((b"9", b"-1", b"99999999999", b"1e400", b"0.5", b"")) + data[at + 1 :]


_BYTES = (_flip, _flip, _cut, _without, _twice, _splice, _insert, _number, _digits)
