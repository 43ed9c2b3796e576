"""A report before it is HTML or Markdown: sections of blocks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2lab.base.wording import number

STATUS_MARKS = {
    "holds": ("holds", "✓"),
    "holds in part": ("part", "◐"),
    "does not hold": ("fails", "✗"),
    "inconclusive": ("open", "?"),
    "not tested at this scale": ("untested", "–"),
    "finished": ("holds", "✓"),
    "failed": ("fails", "✗"),
    "interrupted": ("open", "!"),
    "running": ("open", "…"),
}
"""Status → (CSS class, mark): a status is never told by colour alone."""


@dataclass(frozen=True)
class Prose:
    """A paragraph; `backticks` mark code."""

    text: str
    strong: bool = False
    """A warning that must not be overlooked."""


@dataclass(frozen=True)
class Command:
    """A command line to copy."""

    text: str


@dataclass(frozen=True)
class Verdicts:
    """The table of claims with their verdicts."""

    claims: Sequence[Mapping[str, Any]]
    """As `JudgedClaim.to_plain` gives them."""


@dataclass(frozen=True)
class DataTable:
    """Rows of a table."""

    caption: str
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Picture:
    """A figure."""

    name: str
    caption: str
    svg: str
    """The SVG element."""
    file: Path | None = None
    """Where the figure lies, if it is a file of the run."""


@dataclass(frozen=True)
class ClaimDetail:
    """One claim in full."""

    claim: Mapping[str, Any]
    """As `JudgedClaim.to_plain` gives it."""
    picture: Picture | None = None
    """Its number line."""


@dataclass(frozen=True)
class Passage:
    """A text that the run reported, such as samples; line breaks are kept."""

    caption: str
    text: str


@dataclass(frozen=True)
class Fact:
    """A name with a value."""

    name: str
    value: str
    note: str = ""
    """What the name means."""
    changed_from: str | None = None
    """The usual value, that of the preset or the default, if this one differs."""


@dataclass(frozen=True)
class Facts:
    """Names with values: settings, environment."""

    caption: str
    facts: Sequence[Fact]


Block = Prose | Command | Verdicts | ClaimDetail | DataTable | Picture | Passage | Facts


@dataclass(frozen=True)
class Section:
    """A heading with blocks under it."""

    title: str
    blocks: Sequence["Block | Section"]
    folded: bool = False
    """Shown folded in HTML: what few readers want."""


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    """The heading."""
    byline: Sequence[str]
    """Short facts under the heading: scale, seeds, time."""
    blocks: Sequence[Block | Section]
    """The content."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Words → address, shown after the byline."""


def claim_facts(claim: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a reader wants to know of one claim, name and text; an empty text is left out."""

    def as_code(name: str) -> str:
        return f"`{claim[name]}`" if name in claim.get("expressions", ()) else str(claim[name])

    rule = ""
    if claim["own_rule"]:
        rule = claim["rule"] or "a rule of its own"
    elif claim["holds_if"]:
        rule = claim["holds_if"]["words"]
        if claim["holds_in_part_if"]:
            rule += f"; in part if {claim['holds_in_part_if']['words']}"
    seeds = ", ".join(f"{shown(value, 4)} (seed {seed})" for seed, value in claim["values"])
    return [
        (
            "measured",
            _measure_words(claim["quantity"], as_code("measure"), claim["unit"]) if claim["measure"] else "",
        ),
        ("holds if", rule),
        ("needs", as_code("needs")),
        ("mean and 95 % interval", interval_words(claim)),
        ("seeds", seeds if seed_words(claim) else ""),
        ("power", claim["power"]),
        ("the paper", claim["paper"]),
    ]


def _measure_words(quantity: str, measure: str, unit: str) -> str:
    """Return `quantity (measure), unit`, of which the first and the last may be missing."""
    return ", ".join(filter(None, [f"{quantity} ({measure})" if quantity else measure, unit]))


def measured(claim: Mapping[str, Any]) -> str:
    """Return the measured quantity in short: mean, interval, seeds."""
    text = interval_words(claim)
    seeds = seed_words(claim)
    return "; ".join(filter(None, [text, seeds]))


def seed_words(claim: Mapping[str, Any]) -> str:
    """Return the quantity of every seed in short; "" if no seed has one."""
    values = [value for _, value in claim["values"]]
    if all(map(math.isnan, values)):
        return ""
    return "seeds " + ", ".join(shown(value, 3) for value in values)


def shown(value: float, digits: int = 4) -> str:
    """Write a number; one that is none as a dash."""
    return "–" if math.isnan(value) else number(value, digits)


def interval_words(claim: Mapping[str, Any]) -> str:
    """Return mean and interval with the unit."""
    interval = claim["interval"]
    if interval is None:
        return ""
    unit = f" {claim['unit']}" if claim["unit"] else ""
    mean = f"{number(interval['mean'], 3)}{unit}"
    if interval["low"] == interval["high"]:
        return mean
    return f"{mean} ({number(interval['low'], 3)} to {number(interval['high'], 3)})"


def cell(value: Any) -> str:
    """Write one cell of a table."""
    if not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    return shown(value)
