"""Labelled texts: what a row's fields say for each head, names of labels, and a split that keeps their shares."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpt2lab.base.errors import LabError, nearest
from gpt2lab.model.task_heads import Kind
from gpt2lab.text import rows, sources
from gpt2lab.text.bounded import absent, string
from gpt2lab.text.records import records
from gpt2lab.text.rows import Row
from gpt2lab.text.spans import Span, units
from gpt2lab.text.splits import TRAIN, HashRule, by_hash

SHARES = HashRule(size=16, order="big")
"""By which rows are split where every class keeps its share."""
Value = str | tuple[str, ...] | tuple[float, ...] | None
"""classification: a label; tokens: a label a word; multilabel: labels; regression, or multilabel in columns: numbers."""


@dataclass(frozen=True)
class Target:
    """What one head learns: its name, its kind and the fields of a row that hold the answer."""

    name: str
    """Of the head."""
    kind: Kind
    """Of the head."""
    fields: tuple[str, ...]
    """One field; several for regression on several numbers, or for multilabel with a column of 0 and 1 for each label."""

    def __post_init__(self) -> None:
        if not self.fields:
            raise LabError(f"{self.name}: name the field of the data that holds the label")
        if len(self.fields) > 1 and self.kind in ("classification", "tokens"):
            raise LabError(f"{self.name}: {self.kind} reads one field, got {', '.join(self.fields)}")

    @property
    def in_columns(self) -> bool:
        """Whether the value is one number a field."""
        return self.kind == "regression" or (self.kind == "multilabel" and len(self.fields) > 1)


@dataclass(frozen=True)
class Example:
    """One labelled text."""

    text: str
    """The text; of token labels the words with a blank between them."""
    values: Mapping[str, Value] = field(default_factory=dict)
    """The answer for each target by name; None (in numbers NaN) where the row has none."""
    pair: str | None = None
    """The second text of a pair."""
    words: tuple[str, ...] = ()
    """The words that token labels belong to."""
    ranges: tuple[tuple[int, int], ...] = ()
    """Characters of the text that each word is, where it is not words with blanks between."""
    negatives: tuple[str, ...] = ()
    """Texts that do not match, for contrastive learning."""
    group: str = ""
    """Examples of one group are no negatives of each other."""
    where: str = ""
    """File and line, for messages."""


def read_examples(
    source: sources.SourceLike,
    *,
    field: str = "text",
    targets: Sequence[Target] = (),
    pair: str | None = None,
    negatives: str | None = None,
    group: str | None = None,
) -> list[Example]:
    """Read rows as examples; every name is that of a field. With a target of kind tokens, `field` holds the words, or text
    if the target's field holds spans of it, {"start", "end", "label"} in characters, which become BIO labels.

    A label that is absent (null, an empty cell, NaN) is None or NaN: such a row trains the other heads only. So may
    negatives and the group be; a second text may not, and a text is empty only if it says so. What is written "None",
    "nan" or "NA" is a label like others.
    LabError, with file and line, for a field that is missing or holds something else.
    """
    wanted = [field, *(name for target in targets for name in target.fields)]
    wanted += [name for name in (pair, negatives, group) if name is not None]
    with_words = any(target.kind == "tokens" for target in targets)
    found = []
    read = list(records(source, *wanted))
    tagged = [target.fields[0] for target in targets if target.kind == "tokens"]
    with_spans = any(_are_spans(row[name]) for _, row in read for name in tagged)
    for where, row in read:
        words: tuple[str, ...] = ()
        ranges: tuple[tuple[int, int], ...] = ()
        if with_spans:
            text = string(row[field], where, field)
            ranges, labels = _cut(text, {name: _spans(row[name], where, name) for name in tagged}, where)
            words, row = tuple(text[start:end] for start, end in ranges), {**row, **labels}
        elif with_words:
            words = _words(row[field], where, field)
            text = " ".join(words)
        else:
            text = string(row[field], where, field)
        found.append(
            Example(
                text=text,
                values={target.name: _value(row, target, where, len(words)) for target in targets},
                pair=rows.text(row[pair], where, pair) if pair is not None else None,
                words=words,
                ranges=ranges,
                negatives=_negatives(row[negatives], where, negatives) if negatives is not None else (),
                group=(rows.known(row, group, where) or "") if group is not None else "",
                where=where,
            )
        )
    return found


def _value(row: Row, target: Target, where: str, words: int) -> Value:
    if target.in_columns:
        return tuple(_number(row[name], where, name) for name in target.fields)
    name = target.fields[0]
    if absent(row[name]):
        return None
    if target.kind == "classification":
        return _label(row[name], where, name)
    items = _items(row[name], where, name, "|" if target.kind == "multilabel" else None)
    labels = tuple(_label(item, where, name) for item in items)
    if target.kind == "tokens" and len(labels) != words:
        raise LabError(f"{where}: {len(labels)} labels in {name!r} for {words} words; give one for each word")
    return labels


def _label(value: object, where: str, name: str) -> str:
    """Return a label as text. LabError for -100, which no class is called."""
    label = rows.named(value, where, name)
    if label == "-100":
        raise LabError(
            f"{where}: field {name!r} holds -100, with which other programs mark what has no label; write null for a "
            "row without one, and give each word of a text with labels its own"
        )
    return label


def _number(value: object, where: str, name: str) -> float:
    if absent(value):
        return math.nan
    try:
        if isinstance(value, str) and "_" in value:  # which Python reads as a number and nobody writes as one
            raise ValueError
        number = float(value)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError, OverflowError):
        raise LabError(f"{where}: field {name!r} should hold a number, found {str(value)[:40]!r}") from None
    if math.isinf(number):
        raise LabError(f"{where}: field {name!r} is infinite; a label must be a finite number, or empty")
    return number


def _words(value: object, where: str, name: str) -> tuple[str, ...]:
    """Return a list of words, or text cut at blanks."""
    if absent(value) or value == []:
        raise LabError(f"{where}: field {name!r} is empty; give it words, or leave the row out")
    return tuple(
        "" if isinstance(item, str) and not item.strip() else rows.named(item, where, name)
        for item in _items(value, where, name)
    )


def _are_spans(value: object) -> bool:
    """Tell whether token labels are written as spans of a text."""
    if isinstance(value, str):
        return re.match(r"\s*\[\s*\{", value) is not None
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _spans(value: object, where: str, name: str) -> list[Span] | None:
    """Return the spans of a field; None where the row has no labels."""
    if absent(value):
        return None
    found = []
    for item in _items(value, where, name):
        start, end = (item.get("start"), item.get("end")) if isinstance(item, Mapping) else (None, None)
        if not isinstance(item, Mapping) or type(start) is not int or type(end) is not int:
            raise LabError(f"{where}: field {name!r} should hold spans, objects with start, end and label")
        found.append(Span(start, end, _label(item.get("label"), where, name)))
    return found


def _cut(
    text: str, spans: Mapping[str, list[Span] | None], where: str
) -> tuple[tuple[tuple[int, int], ...], dict[str, list[str] | None]]:
    """Return the ranges of the words that a text is cut into, and by field a BIO label for each."""
    try:
        ranges, labels = units(text, *(own or [] for own in spans.values()))
    except LabError as error:
        raise LabError(f"{where}: {error}") from None
    if not ranges:
        raise LabError(f"{where}: the text has no words to label")
    given = zip(spans.items(), labels, strict=True)
    return tuple(ranges), {name: None if own is None else bio_labels for (name, own), bio_labels in given}


def _negatives(value: object, where: str, name: str) -> tuple[str, ...]:
    """Return a list of texts, or the single one of a field that holds text."""
    if absent(value):
        return ()
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return (value,)
    return tuple(rows.text(item, where, name) for item in _items(value, where, name))


def _items(value: object, where: str, name: str, separator: str | None = None) -> Sequence[object]:
    """Return the items of a list; in csv a JSON list, or pieces between blanks (or `separator`)."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise LabError(f"{where}: field {name!r} begins like a JSON list and is none") from None
    if isinstance(value, str):
        return [piece for piece in value.split(separator) if piece.strip()]
    if isinstance(value, list | tuple):
        return value
    raise LabError(f"{where}: field {name!r} should hold a list, found {type(value).__name__}")


def label_names(examples: Iterable[Example], target: Target) -> tuple[str, ...]:
    """Return the labels that occur, numbers by size and words by spelling; of columns their names.

    LabError if there are fewer than two classes to tell apart, and for one class under two names (1 and 1.0).
    """
    if target.kind == "regression":
        return target.fields if len(target.fields) > 1 else ()
    if target.in_columns:
        return target.fields
    found: set[str] = set()
    for example in examples:
        value = example.values[target.name]
        if isinstance(value, str):
            found.add(value)
        elif value is not None:
            found.update(str(label) for label in value)
    if len(found) < (1 if target.kind == "multilabel" else 2):
        have = f"only {next(iter(found))!r}" if found else "no label at all"
        raise LabError(
            f"{target.name}: the data have {have}; it takes two classes to learn to tell them apart"
        )
    for label in sorted(found):
        if label.endswith(".0") and label[:-2].removeprefix("-").isdecimal() and label[:-2] in found:
            raise LabError(
                f"{target.name}: the data have the labels {label[:-2]!r} and {label!r}, one class in two spellings; "
                "write it in one of them"
            )
    return tuple(sorted(found, key=_by_size_then_spelling))


def _by_size_then_spelling(label: str) -> tuple[float, str]:
    try:
        size = float(label)
    except ValueError:
        return math.inf, label
    return (size if math.isfinite(size) else math.inf), label  # "nan" is a word, which no number is less than


def label_index(label: str, names: Sequence[str], where: str) -> int:
    """Return the place of a label; LabError with the nearest for one the head does not know."""
    try:
        return names.index(label)
    except ValueError:
        match = nearest(label, names)
        hint = f"did you mean {match!r}?" if match else f"it knows {', '.join(names[:12])}"
        raise LabError(f"{where}: label {label!r} is not among the head's; {hint}") from None


def stratified_split(
    examples: Sequence[Example], fraction: float, target: Target | None = None
) -> tuple[list[Example], list[Example]]:
    """Split into training and validation so that each class keeps its share in both.

    Which texts are taken is decided by the hash of their text alone, so that order, seed and other rows do not matter
    and equal texts never stand on both sides. Of a class with two texts or more at least one is taken; other kinds of
    targets are split as one class. LabError unless 0 < fraction < 1 and both sides get something.
    """
    if not 0.0 < fraction < 1.0:
        raise LabError(f"valid_fraction must lie between 0 and 1, got {fraction}")

    def label(example: Example) -> str:
        value = (
            example.values.get(target.name) if target is not None and target.kind == "classification" else ""
        )
        return value if isinstance(value, str) else ""

    try:
        parts = by_hash(examples, {"valid": fraction}, key=_whole, rule=SHARES, stratum=label)
    except LabError:
        raise LabError(
            f"{len(examples)} examples are too few to keep {fraction:g} of them for validation; "
            "give more, or a file of their own (task.valid)"
        ) from None
    return parts[TRAIN], parts["valid"]


def _whole(example: Example) -> str:
    return example.text if example.pair is None else f"{example.text}\0{example.pair}"


def shared_texts(
    first: Iterable[Example], second: Iterable[Example], key: Callable[[str], str] = str.casefold
) -> int:
    """Count the examples of `second` whose text, after `key`, is among those of `first`: a leak if they are a test."""
    seen = {key(_whole(example)) for example in first}
    return sum(key(_whole(example)) in seen for example in second)
