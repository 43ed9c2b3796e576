"""Training, validation and test parts of texts: by hash, time, group or position; leave-one-out folds.

The part `train` takes what no other part is given. An item never stands in two parts, nor do two items of one key, which is
the text unless another is given. Sizes of the held-out parts are shares of what is split (numbers below 1) or counts of
different keys (whole numbers).
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from gpt2lab.base.errors import LabError
from gpt2lab.text import rows
from gpt2lab.text.bounded import absent

T = TypeVar("T")
Sizes = Mapping[str, float]
"""Share (0 < x < 1) or count (a whole number of 1 or more) of each held-out part, in the order in which they are filled."""
TRAIN = "train"


@dataclass(frozen=True)
class HashRule:
    """How a text becomes a number, by which alone its part is chosen: other texts and their order do not matter."""

    algorithm: Literal["blake2b", "sha256"] = "blake2b"
    size: int = 8
    """Bytes of the digest that make the number."""
    order: Literal["little", "big"] = "little"
    """Which of them counts most: the last or the first."""
    salt: str = ""
    """Stands before the text with a line feed between: each salt gives a split of its own."""
    modulus: int | None = None
    """Take the remainder by it instead of the number; a share of 1/modulus holds what leaves 0."""

    def number(self, text: str) -> int:
        """Return the number of a text, at least 0 and less than `span`."""
        content = (f"{self.salt}\n{text}" if self.salt else text).encode("utf-8", "surrogatepass")
        if self.algorithm == "blake2b":
            digest = hashlib.blake2b(content, digest_size=self.size).digest()
        else:
            digest = hashlib.sha256(content).digest()[: self.size]
        value = int.from_bytes(digest, self.order)
        return value if self.modulus is None else value % self.modulus

    @property
    def span(self) -> int:
        """One more than the highest number."""
        return self.modulus or 256**self.size

    def below(self, text: str, share: float) -> bool:
        """Tell whether a text is among the `share` of all texts with the lowest numbers."""
        return self.number(text) < share * self.span


@dataclass(frozen=True)
class PositionRule:
    """Hold out one item in `every`, the first of them at index `at`.

    For streams whose items have no text to hash. Items that come or go in front of an item may move it into the other part,
    and equal items may stand in both.
    """

    every: int
    at: int

    def __post_init__(self) -> None:
        if not 0 <= self.at < self.every or self.every < 2:
            raise LabError(
                f"a split by position needs every ≥ 2 and 0 ≤ at < every, got {self.every} and {self.at}"
            )

    def held_out(self, index: int) -> bool:
        """Tell whether the item at an index is held out."""
        return index % self.every == self.at


def by_hash(
    items: Iterable[T],
    sizes: Sizes,
    *,
    key: Callable[[T], str],
    rule: HashRule = HashRule(),
    stratum: Callable[[T], Hashable] | None = None,
) -> dict[str, list[T]]:
    """Split by the hash of each key; parts by name, `train` last, items in their order.

    With shares and no stratum an item's part depends on its key alone: it stays the same when items come, go or change
    places. With a stratum, and with counts, the keys with the lowest hashes of each stratum are taken: of a stratum of n
    keys round(share · n), at least one for each part but never the last key for `train`; a count is that of each stratum.
    A key in several strata is held out if one of them holds it out. LabError for sizes that make no sense, an empty part.
    """
    found = list(items)
    _check_sizes(sizes)
    keys = [key(item) for item in found]
    if stratum is None and all(_is_share(size) for size in sizes.values()):
        bounds = _bounds(sizes, rule.span)
        place = {one: _first_below(rule.number(one), bounds) for one in dict.fromkeys(keys)}
        return _parts(found, keys, place, sizes)
    strata: dict[Hashable, dict[str, None]] = {}
    for one, item in zip(keys, found, strict=True):
        strata.setdefault(stratum(item) if stratum is not None else None, {})[one] = None
    place = {}
    for names in strata.values():
        ordered = sorted(names, key=lambda one: (rule.number(one), one))
        for one, part in zip(ordered, _filled(len(ordered), sizes), strict=True):
            place.setdefault(one, part)
            if part != TRAIN and place[one] == TRAIN:  # held out in one stratum: held out in all
                place[one] = part
    return _parts(found, keys, place, sizes)


def by_time(
    items: Iterable[T], sizes: Sizes, *, key: Callable[[T], str], time: Callable[[T], Any]
) -> dict[str, list[T]]:
    """Split by time: `train` is the earliest part, the held-out ones follow in the order of `sizes`; items in their order.

    Items of one moment stay together, and a text that returns later counts where it stood first; so a part may be a little
    smaller than asked for, the one before it larger. `time` gives a number, a date or a text in the form of ISO 8601.
    LabError for a time that is none of these, times that cannot be compared, sizes that make no sense, an empty part.
    """
    found = list(items)
    _check_sizes(sizes)
    keys = [key(item) for item in found]
    first: dict[str, Any] = {}
    kinds = set()
    for one, item in zip(keys, found, strict=True):
        moment = _moment(time(item))
        kinds.add((type(moment), isinstance(moment, datetime) and moment.tzinfo is not None))
        if len(kinds) > 1:
            raise LabError(
                "the times cannot be compared: give all of them as numbers, or as dates, all or none with a time zone"
            )
        first[one] = min(moment, first.get(one, moment))
    ordered = sorted(first, key=lambda one: first[one])
    counts = [_count(size, len(ordered)) for size in sizes.values()]
    place, end = dict.fromkeys(ordered, TRAIN), len(ordered)
    for name, count in reversed(list(zip(sizes, counts, strict=True))):
        start = max(end - count, 0)
        while 0 < start < end and first[ordered[start]] == first[ordered[start - 1]]:
            start += 1
        place.update(dict.fromkeys(ordered[start:end], name))
        end = start
    return _parts(found, keys, place, sizes)


def by_group(
    items: Iterable[T],
    sizes: Sizes,
    *,
    group: Callable[[T], str],
    key: Callable[[T], str] | None = None,
    rule: HashRule = HashRule(),
) -> dict[str, list[T]]:
    """Split whole groups (authors, patients, files) by the hash of their name; items in their order.

    With `key`, groups that hold the same text count as one, under the first of their names, so that no text stands in two
    parts. A count is that of groups. LabError as `by_hash`.
    """
    found = list(items)
    head = _joined(found, group, key)
    return by_hash(found, sizes, key=lambda item: head[group(item)], rule=rule)


def by_position(items: Sequence[T], rule: PositionRule, *, held_out: str = "valid") -> dict[str, list[T]]:
    """Split by index. LabError for an empty part."""
    place = {index: held_out if rule.held_out(index) else TRAIN for index in range(len(items))}
    return _parts(items, range(len(items)), place, {held_out: 1})


@dataclass(frozen=True)
class Fold:
    """One fold of a leave-one-out split."""

    name: str
    """The group that is left out."""
    train: list[Any]
    held_out: list[Any]


def leave_one_out(
    items: Iterable[T], *, group: Callable[[T], str], key: Callable[[T], str] | None = None
) -> Iterator[Fold]:
    """Yield a fold for each group, by name: its items held out, all others for training.

    With `key`, a training item with the text of a held-out one is left out of that fold. LabError for fewer than two groups,
    and for a fold that leaves nothing to train on.
    """
    found = list(items)
    names = sorted({group(item) for item in found})
    if len(names) < 2:
        raise LabError(f"leaving one group out needs at least two, found {len(names)}")
    for name in names:
        held_out = [item for item in found if group(item) == name]
        texts = {key(item) for item in held_out} if key is not None else set()
        train = [item for item in found if group(item) != name and (key is None or key(item) not in texts)]
        if not train:
            raise LabError(
                f"group {name!r} holds every text of the others: nothing is left to train on without it"
            )
        yield Fold(name, train, held_out)


def field(name: str) -> Callable[[tuple[str, rows.Row]], str]:
    """Return what reads a field of `(place, row)`, as `text.records` yields them, as text.

    LabError, with the place, for a row that lacks it or in which it is empty.
    """

    def read(record: tuple[str, rows.Row]) -> str:
        where, row = record
        rows.require(row, (name,), where)
        return rows.named(row[name], where, name)

    return read


def _check_sizes(sizes: Sizes) -> None:
    if not sizes or TRAIN in sizes:
        raise LabError(f"name the held-out parts and their sizes; {TRAIN} takes the rest, got {dict(sizes)}")
    for name, size in sizes.items():
        if not (_is_share(size) or (isinstance(size, int) and size >= 1)):
            raise LabError(
                f"{name}: a size is a share between 0 and 1 or a whole number of at least 1, got {size}"
            )
    if (taken := math.fsum(size for size in sizes.values() if _is_share(size))) >= 1:
        raise LabError(f"the held-out parts take {taken:g} of the data; leave some for training")


def _is_share(size: float) -> bool:
    return 0 < size < 1


def _bounds(sizes: Sizes, span: int) -> list[tuple[str, float]]:
    """Return the end of each part on the numbers from 0 to `span`."""
    ends, total = list[tuple[str, float]](), 0.0
    for name, size in sizes.items():
        total += size
        ends.append((name, total * span))
    return ends


def _first_below(number: int, bounds: Iterable[tuple[str, float]]) -> str:
    return next((name for name, end in bounds if number < end), TRAIN)


def _count(size: float, n: int) -> int:
    return max(1, round(size * n)) if _is_share(size) else int(size)


def _filled(n: int, sizes: Sizes) -> list[str]:
    """Return the parts of `n` keys in the order of their hashes; the last key is for training."""
    names = [name for name, size in sizes.items() for _ in range(_count(size, n))][: n - 1]
    return [*names, *[TRAIN] * (n - len(names))]


def _parts(
    items: Sequence[T], keys: Iterable[Hashable], place: Mapping[Any, str], sizes: Sizes
) -> dict[str, list[T]]:
    parts: dict[str, list[T]] = {name: [] for name in (*sizes, TRAIN)}
    for item, one in zip(items, keys, strict=True):
        parts[place[one]].append(item)
    empty = [name for name, part in parts.items() if not part]
    if empty:
        raise LabError(
            f"{len(items)} items are too few for this split: nothing is left for {' and '.join(empty)}; "
            "give more items, or other shares"
        )
    return parts


def _moment(value: Any) -> Any:
    """Return a time as what can be compared: a number or a datetime."""
    if not isinstance(value, bool) and not absent(value):
        if isinstance(value, datetime):
            return value
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            if math.isfinite(number := float(value)):
                return number
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return datetime.fromisoformat(value)
    raise LabError(f"{str(value)[:40]!r} is no time: give a number or a date such as 2026-11-30T22:45:00")


def _joined(items: Iterable[T], group: Callable[[T], str], key: Callable[[T], str] | None) -> dict[str, str]:
    """Return, for each group, the first by name of all that share a text with it, directly or through others."""
    head: dict[str, str] = {}

    def root(name: str) -> str:
        while head.setdefault(name, name) != name:
            head[name] = name = head[head[name]]
        return name

    owner: dict[str, str] = {}
    for item in items:
        name = root(group(item))
        if key is not None:
            other = root(owner.setdefault(key(item), name))
            low, high = min(name, other), max(name, other)
            head[high] = low
    return {name: root(name) for name in list(head)}
