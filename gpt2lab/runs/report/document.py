"""A report before it is HTML or Markdown: sections of blocks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2lab.base.interval import Interval
from gpt2lab.base.tables import cell
from gpt2lab.base.wording import listed, number
from gpt2lab.runs.verdicts import JudgedClaim, Status

STATUS_MARKS: Mapping[str, tuple[str, str]] = {
    Status.HOLDS: ("holds", "✓"),
    Status.IN_PART: ("part", "◐"),
    Status.DOES_NOT_HOLD: ("fails", "✗"),
    Status.INCONCLUSIVE: ("open", "?"),
    Status.NOT_TESTED: ("untested", "–"),
    Status.PASSES: ("holds", "✓"),
    Status.FAILS: ("fails", "✗"),
    "finished": ("holds", "✓"),
    "failed": ("fails", "✗"),
    "interrupted": ("open", "!"),
    "running": ("open", "…"),
}
"""Status → (CSS class, mark): a status is never told by colour alone."""
_SAME = "the same in every seed"
"""What is said of a fixed model's items: no seed has any others."""


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
    """A table of claims, or of checks, with their verdicts."""

    claims: Sequence[JudgedClaim]
    """The claims, in order."""
    checks: bool = False
    """Whether they are checks, which pass or fail."""


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

    judged: JudgedClaim
    """The claim with its verdict."""
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


def claim_facts(judged: JudgedClaim) -> list[tuple[str, str]]:
    """Return what a reader wants to know of one claim, name and text; an empty text is left out."""
    claim, verdict = judged.claim, judged.verdict

    def as_code(name: str, text: str) -> str:
        return f"`{text}`" if name in claim.expressions else text

    rule = claim.holds_if.words if claim.holds_if is not None else ""
    if claim.holds_in_part_if is not None:
        rule += f"; in part if {claim.holds_in_part_if.words}"
    seeds = seed_words(judged)
    if seeds and seeds != _SAME:
        seeds = ", ".join(f"{cell(value)} (seed {seed})" for seed, value in verdict.values)
    measure = as_code("measure", claim.measure)
    facts = [
        ("measured", _measure_words(claim.quantity, measure, claim.unit) if claim.measure else ""),
        ("passes if" if claim.is_check else "holds if", rule),
        ("needs", as_code("needs", claim.needs) if claim.needs else ""),
        (_interval_name(judged), interval_words(verdict.interval, claim.unit)),
        ("seeds", seeds),
        ("power", verdict.power),
        ("rule fixed on", claim.fixed),
        ("rule changed", _changed_words(claim.seen)),
        ("source" if claim.is_check else "the paper", claim.paper),
    ]
    return [(name, text) for name, text in facts if text]


def _changed_words(seen: Sequence[int]) -> str:
    if not seen:
        return ""
    which = f"{'seed' if len(seen) == 1 else 'seeds'} {listed(seen)}"
    return f"after {which} had run; it is a new claim, judged on the other seeds alone"


def _interval_name(judged: JudgedClaim) -> str:
    """Return what stands before the interval: `mean and 95 % interval (bootstrap over 200 items)`."""
    interval, method = judged.verdict.interval, judged.verdict.method
    level = number(100 * interval.level, 4) if interval is not None else "95"
    best = f", the best of {judged.claim.best_of}" if judged.claim.best_of > 1 else ""
    return f"mean and {level} % interval" + (f" ({method}{best})" if method else "")


def _measure_words(quantity: str, measure: str, unit: str) -> str:
    """Return `quantity (measure), unit`, of which the first and the last may be missing."""
    return ", ".join(filter(None, [f"{quantity} ({measure})" if quantity else measure, unit]))


def measured(judged: JudgedClaim) -> str:
    """Return the measured quantity in short: mean, interval, seeds."""
    text = interval_words(judged.verdict.interval, judged.claim.unit)
    return "; ".join(filter(None, [text, seed_words(judged)]))


def seed_words(judged: JudgedClaim) -> str:
    """Return the quantity of every seed in short; "" if no seed has one, one phrase where none can differ."""
    values = [value for _, value in judged.verdict.values]
    if all(map(math.isnan, values)):
        return ""
    if judged.claim.over == "items" and len(values) > 1 and len(set(values)) == 1:
        return _SAME
    return "seeds " + ", ".join(cell(value, 3) for value in values)


def interval_words(interval: Interval | None, unit: str) -> str:
    """Return mean and interval with the unit; "" without an interval."""
    if interval is None:
        return ""
    mean = f"{number(interval.mean, 3)} {unit}".rstrip()
    if interval.low == interval.high:
        return mean
    return f"{mean} ({number(interval.low, 3)} to {number(interval.high, 3)})"
