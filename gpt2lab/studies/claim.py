"""A claim: a sentence of a paper beside the rule by which a program checks it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date

from gpt2lab.base.errors import LabError
from gpt2lab.base.wording import listed, number
from gpt2lab.runs.verdicts import Kind, Over, Range, RecordedClaim
from gpt2lab.studies.expression import evaluate, missing_result, names_in

SCALES = ("smoke", "laptop", "gpu", "paper")


class Results(dict[str, float]):
    """One seed's numbers by dotted name; a name that was not reported is a LabError with the nearest one."""

    def __missing__(self, name: str) -> float:
        raise missing_result(name, self)


class Below(Range):
    """Numbers smaller than `value`."""

    def __init__(self, value: float) -> None:
        super().__init__(-math.inf, value, closed=False, words=f"below {number(value)}")


class AtMost(Range):
    """Numbers not greater than `value`."""

    def __init__(self, value: float) -> None:
        super().__init__(-math.inf, value, closed=True, words=f"at most {number(value)}")


class Above(Range):
    """Numbers greater than `value`."""

    def __init__(self, value: float) -> None:
        super().__init__(value, math.inf, closed=False, words=f"above {number(value)}")


class AtLeast(Range):
    """Numbers not smaller than `value`."""

    def __init__(self, value: float) -> None:
        super().__init__(value, math.inf, closed=True, words=f"at least {number(value)}")


class Between(Range):
    """Numbers from `low` to `high`, both included."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__(low, high, closed=True, words=f"between {number(low)} and {number(high)}")


Measure = str | Callable[[Results], float]
Condition = str | Callable[[Results], bool]


@dataclass(frozen=True)
class Claim:
    """A headline sentence of a paper as something a program can check.

    LabError when it is made if an expression is malformed or it cannot be meant so.
    """

    sentence: str
    """The claim in the reader's words."""
    measure: Measure
    """The measured quantity of one seed: an expression over results, or a function of them."""
    quantity: str = ""
    """The measured quantity in words, shown beside its expression: `final loss of Conda minus that of AdamW`."""
    holds_if: Range = field(kw_only=True)
    """Where the quantity lies if the claim is true."""
    holds_in_part_if: Range | None = None
    """A weaker threshold that still says something; without one there is no `holds in part`."""
    needs: Condition | None = None
    """What must be true in every seed for the claim to be testable at all: the baseline has learnt, ..."""
    paper: str = ""
    """The paper's own figure, with its place: `Fig. 2: 0.6 of the updates at 125M`."""
    unit: str = ""
    """Unit of the quantity: nats per token, %, s; empty for a plain number."""
    name: str = ""
    """Short name, such as the letter the specification uses; empty: A, B, C ... by position."""
    scales: tuple[str, ...] = SCALES
    """Where the claim can be tested."""
    over: Over = "seeds"
    """What the interval is over. `items`: the test items of a fixed model; `measure` is then an expression over arrays
    that the runs reported (`run.array`), or columns of their tables (`table.column`), evaluated for each item."""
    best_of: int = 1
    """How many comparisons the claim picks the best of; the interval is widened by Holm's correction. The choice must be
    the same for all seeds: the best of each seed is above 0 even where there is nothing."""
    paper_effect: float | None = None
    """The paper's own value of the quantity. Its distance from the threshold is the effect that a trial must be able to
    find: where it cannot, the claim is not tested."""
    no_effect: float | None = None
    """The quantity's value where the method does nothing: 0 for a difference, 1 for a ratio. Figures mark it. Where the
    paper's value is the threshold itself, this one's distance from it is the effect."""
    pilot_sd: float | Mapping[str, float] | None = None
    """Standard deviation of the quantity over the seeds (items) of a pilot, not those that are judged; by scale if it
    differs."""
    fixed: str = ""
    """Day on which the claim and its rule were fixed, before the run: `2026-11-30`."""
    kind: Kind = "claim"
    """What it speaks of. Everything but a claim is a check, which passes if the quantity of every seed lies where
    `holds_if` says: of the `instrument` (does the measure find what was planted), of the `implementation` (an identity, an
    unbiased estimator, our cache against none: it cannot fail if the code is right), of our own `engineering` (speed)."""

    def __post_init__(self) -> None:
        short = self.sentence if len(self.sentence) < 60 else self.sentence[:57] + "..."
        if self.is_check and self.holds_in_part_if is not None:
            raise LabError(f"claim {short!r}: a check passes or fails by holds_if alone")
        if self.over == "items" and not isinstance(self.measure, str):
            raise LabError(f"claim {short!r}: over items the measure is an expression over arrays")
        if self.over == "items" and self.is_check:
            raise LabError(
                f"claim {short!r}: over items the interval decides; a check is judged seed by seed"
            )
        if self.best_of < 1:
            raise LabError(f"claim {short!r}: best_of counts comparisons, at least 1, got {self.best_of}")
        if self.fixed:
            _check_day(self.fixed, short)
        if self.paper_effect is not None:
            self._check_effect(self.paper_effect, short)
        wrong = [scale for scale in self.scales if scale not in SCALES]
        if wrong or not self.scales:
            raise LabError(f"claim {short!r}: scales must be among {listed(SCALES)}, got {listed(wrong)}")
        for expression in (self.measure, self.needs):
            if isinstance(expression, str):
                names_in(expression)

    def _check_effect(self, value: float, short: str) -> None:
        if not self.holds_if.holds(value, value):
            raise LabError(
                f"claim {short!r}: the paper's own value, {value:g}, does not meet {self.holds_if}"
            )
        if self.effect is None:
            raise LabError(
                f"claim {short!r}: the paper's own value, {value:g}, is the threshold; give no_effect, which must not meet "
                "it"
            )

    def value(self, results: Mapping[str, float]) -> float:
        """Return the measured quantity of one seed. LabError if a result it reads was not reported."""
        if isinstance(self.measure, str):
            return float(evaluate(self.measure, results))
        return float(self.measure(Results(results)))

    def is_testable(self, results: Mapping[str, float]) -> bool:
        """Tell whether one seed meets the precondition. LabError if a result it reads was not reported.

        A comparison with a result that is not a number is false, so such a seed is not testable.
        """
        if self.needs is None:
            return True
        if isinstance(self.needs, str):
            return bool(evaluate(self.needs, results))
        return bool(self.needs(Results(results)))

    @property
    def effect(self) -> float | None:
        """The distance from the threshold that a trial must be able to find; None if it is not stated.

        It is that of the paper's own value or, where this is the threshold, that of no effect.
        """
        if self.paper_effect is None:
            return None
        distance = self.holds_if.inside(self.paper_effect)
        if distance == 0 and self.no_effect is not None:
            distance = -self.holds_if.inside(self.no_effect)
        return distance if distance > 0 else None

    @property
    def whose_effect(self) -> str:
        """Whose distance `effect` is, for a sentence."""
        value = self.paper_effect
        on_threshold = value is not None and self.holds_if.inside(value) == 0
        return "that of no effect" if on_threshold else "the paper's"

    @property
    def is_check(self) -> bool:
        """Whether it passes or fails and says nothing of the paper."""
        return self.kind != "claim"

    def spread(self, scale: str) -> float | None:
        """Return the pilot's standard deviation at a scale; None if there was no pilot."""
        return self.pilot_sd.get(scale) if isinstance(self.pilot_sd, Mapping) else self.pilot_sd

    @property
    def needs_words(self) -> str:
        """The precondition as text."""
        return _words(self.needs)

    def recorded(self) -> RecordedClaim:
        """Return the claim as a run's record keeps it: everything but code."""
        given = {"measure": self.measure, "needs": self.needs}
        return RecordedClaim(
            name=self.name,
            sentence=self.sentence,
            measure=_words(self.measure),
            quantity=self.quantity,
            unit=self.unit,
            needs=self.needs_words,
            expressions=tuple(name for name, value in given.items() if isinstance(value, str)),
            holds_if=self.holds_if,
            holds_in_part_if=self.holds_in_part_if,
            scales=self.scales,
            paper=self.paper,
            kind=self.kind,
            over=self.over,
            best_of=self.best_of,
            effect=self.effect,
            paper_value=self.paper_effect,
            no_effect=self.no_effect,
            fixed=self.fixed,
        )

    def needed(self, results: Mapping[str, float]) -> str:
        """Say what the results read by the precondition were: `loss.adamw = 3.2`."""
        if not isinstance(self.needs, str):
            return ""
        return ", ".join(f"{name} = {number(results.get(name))}" for name in names_in(self.needs))


def _check_day(day: str, claim: str) -> None:
    try:
        date.fromisoformat(day)
    except ValueError:
        raise LabError(f"claim {claim!r}: fixed is a day such as 2026-11-30, got {day!r}") from None


def _words(what: Measure | Condition | None) -> str:
    if what is None or isinstance(what, str):
        return what or ""
    first = (what.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    return first or getattr(what, "__name__", "a function of the results").strip("_").replace("_", " ")
