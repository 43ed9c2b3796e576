"""What the seeds say of a claim."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gpt2lab.base.errors import LabError
from gpt2lab.base.interval import Interval
from gpt2lab.base.wording import count, listed, number
from gpt2lab.runs.verdicts import Status, Verdict
from gpt2lab.studies.claim import Claim
from gpt2lab.studies.evidence import (
    FEWEST_ITEMS,
    FEWEST_SEEDS,
    Evidence,
    Items,
    detectable,
    enough_to_part,
    level_of,
    over_items,
    over_seeds,
)
from gpt2lab.studies.expression import names_in


def judge(
    claim: Claim,
    seeds: Mapping[int, Mapping[str, float]],
    scale: str,
    items: Mapping[int, Items] | None = None,
    *,
    unfinished: Sequence[int] = (),
    seen: Sequence[int] = (),
) -> Verdict:
    """Return the verdict of `claim` over the results of the seeds that finished, at one scale.

    items: the test items of each seed, for a claim over items. unfinished: seeds that were asked for and failed, which may
    be those that would have spoken against the claim: nothing is decided until they have finished. seen: seeds that had run
    before the rule was changed and are not among `seeds`. Fewer than three seeds, or twenty items, are inconclusive.

    The 95 % interval of the quantity, two-sided, decides: wholly where the claim is true it holds; wholly elsewhere it does
    not hold, or holds in part where it lies wholly within the weaker threshold; else it is inconclusive. So a quantity that
    is really on the threshold gives a false `holds` in at most 2.5 % of studies. An interval without width decides nothing.

    Where the paper's effect is stated, a pilot whose spread says that so many seeds cannot find it makes the claim not
    tested; `does not hold` needs the power to find it, too. A missing or non-finite quantity is inconclusive, with the
    reason; nothing raises.

    A check passes if every seed's quantity lies where it should; one seed is enough.
    """
    if scale not in claim.scales:
        where = listed(claim.scales, "or")
        reason = f"It can be tested at {where} scale, not at {scale}."
        return _verdict(Status.NOT_TESTED, reason, _measurable(claim, seeds, items or {}))
    try:
        verdict = _judged(claim, seeds, scale, items or {}, tuple(unfinished), tuple(seen))
        return replace(verdict, precondition=_precondition(claim, seeds))
    except Exception as error:  # a slip in a claim must not lose the study that took an hour
        what = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        return Verdict(Status.INCONCLUSIVE, f"The claim cannot be judged: {what}.")


def _judged(
    claim: Claim,
    seeds: Mapping[int, Mapping[str, float]],
    scale: str,
    items: Mapping[int, Items],
    unfinished: tuple[int, ...],
    seen: tuple[int, ...],
) -> Verdict:
    """Return the verdict at a scale of the claim: preconditions, numbers, power, then the interval."""
    untestable = _untestable(claim, seeds)
    if untestable is not None:  # what it measures may not be there either
        return _verdict(Status.NOT_TESTED, untestable, _measurable(claim, seeds, items))
    found = _evidence(claim, seeds, items) if seeds else Evidence()
    if claim.is_check:
        return _checked(claim, found.values, unfinished)
    if unfinished:
        return _verdict(Status.INCONCLUSIVE, _not_finished(unfinished, len(seeds)), found)
    if few := _too_few(claim, seeds, found, seen):
        return _verdict(Status.INCONCLUSIVE, few, found)
    planned = planned_power(claim, scale, found.n or len(seeds))
    if planned is not None and planned.is_too_weak:
        return _verdict(Status.NOT_TESTED, f"{planned.words}: too weak a trial.", found)
    return _with_power(claim, _by_interval(claim, found), planned)


@dataclass(frozen=True)
class PlannedPower:
    """What a trial can find, by a pilot's spread: known before the run."""

    n: int
    """Seeds or items."""
    sd: float
    """The pilot's standard deviation."""
    detectable: float
    """Smallest distance from the threshold that is found with 80 % power."""
    effect: float | None
    """The distance that it must find; None if it is not stated."""
    whose: str
    """Whose distance that is: the paper's, or that of no effect."""
    over: str
    """`seeds` or `items`."""

    @property
    def is_too_weak(self) -> bool:
        """Whether the effect is smaller than what is found."""
        return self.effect is not None and self.effect < self.detectable

    @property
    def words(self) -> str:
        """The power in one sentence without its end."""
        text = (
            f"With the pilot's spread (s.d. {number(self.sd, 2)}) {count(self.n, self.over.removesuffix('s'))} find a "
            f"distance of {number(self.detectable, 2)} from the threshold with 80 % power"
        )
        return text if self.effect is None else f"{text}, and {self.whose} is {number(self.effect, 2)}"


def planned_power(claim: Claim, scale: str, n: int) -> PlannedPower | None:
    """Return what n seeds (items) find at a scale; None without a pilot there, or for a check."""
    sd = claim.spread(scale)
    if sd is None or claim.is_check:
        return None
    found = detectable(sd, n, level_of(claim))
    return PlannedPower(n, sd, found, claim.effect, claim.whose_effect, claim.over)


def _evidence(claim: Claim, seeds: Mapping[int, Mapping[str, float]], items: Mapping[int, Items]) -> Evidence:
    """Return the measured quantity. LabError if a result or array it reads was not reported."""
    if claim.over == "items":
        return over_items(claim, {seed: items[seed] for seed in seeds})
    values = [(seed, claim.value(results)) for seed, results in seeds.items()]
    return over_seeds(values, level_of(claim))


def _verdict(status: Status, reason: str, found: Evidence) -> Verdict:
    return Verdict(status, reason, found.values, found.interval, found.method)


def decide(claim: Claim, interval: Interval) -> Status:
    """Return the status that an interval gives a claim."""
    low, high = interval.low, interval.high
    if claim.holds_if.holds(low, high):
        return Status.HOLDS
    if not claim.holds_if.fails(low, high):
        return Status.INCONCLUSIVE
    if claim.holds_in_part_if is not None and claim.holds_in_part_if.holds(low, high):
        return Status.IN_PART
    return Status.DOES_NOT_HOLD


def _measurable(
    claim: Claim, seeds: Mapping[int, Mapping[str, float]], items: Mapping[int, Items]
) -> Evidence:
    """Return the measured quantity where it says nothing of the claim; seeds that have none are left out."""
    found: list[tuple[int, float]] = []
    for seed, results in seeds.items():  # a claim of another scale may read what this one does not report
        with contextlib.suppress(Exception):
            found += _evidence(claim, {seed: results}, items).values
    return over_seeds([(seed, value) for seed, value in found if math.isfinite(value)])


def _checked(claim: Claim, values: tuple[tuple[int, float], ...], unfinished: tuple[int, ...]) -> Verdict:
    """Return whether a check passes: in every seed."""
    wrong = [
        f"{number(value)} in seed {seed}" for seed, value in values if not claim.holds_if.holds(value, value)
    ]
    if wrong:
        return Verdict(Status.FAILS, f"It is {listed(wrong)}, not {claim.holds_if.words}.", values)
    if unfinished:
        return Verdict(Status.INCONCLUSIVE, _not_finished(unfinished, len(values)), values)
    if not values:
        return Verdict(Status.INCONCLUSIVE, "No seed finished.")
    where = _all(len(values), values[0][0])
    return Verdict(Status.PASSES, f"It is {claim.holds_if.words} in {where}.", values)


def _not_finished(unfinished: tuple[int, ...], finished: int) -> str:
    """Return why seeds that failed leave a claim open."""
    asked = count(len(unfinished) + finished, "seed")
    return (
        f"{len(unfinished)} of {asked} failed ({_which(unfinished)}); nothing is decided by the others alone."
    )


def _untestable(claim: Claim, seeds: Mapping[int, Mapping[str, float]]) -> str | None:
    """Return why the precondition fails, or None if every seed meets it."""
    failed = [seed for seed, results in seeds.items() if not claim.is_testable(results)]
    if not failed:
        return None
    detail = claim.needed(seeds[failed[0]])
    which = _which(failed)
    needed = claim.needs_words
    if not isinstance(claim.needs, str):
        needed = needed[:1].lower() + needed[1:]  # the sentence of a docstring inside another
    reason = f"It needs {needed}, which fails in {which}"
    if detail:
        reason += f" ({detail}" + (f" in seed {failed[0]})" if len(failed) > 1 else ")")
    return reason + "."


def _precondition(claim: Claim, seeds: Mapping[int, Mapping[str, float]]) -> str:
    """Return whether the precondition was met, and the results that it read over the seeds."""
    if claim.needs is None or not seeds:
        return ""
    failed = [seed for seed, results in seeds.items() if not claim.is_testable(results)]
    names = names_in(claim.needs) if isinstance(claim.needs, str) else []
    read = [f"{name} {_span([results[name] for results in seeds.values()])}" for name in names]
    where = f"not met in {_which(failed)}" if failed else f"met in {_all(len(seeds), next(iter(seeds)))}"
    return f"{where} ({', '.join(read)})" if read else where


def _span(values: Sequence[float]) -> str:
    """Return `2.9 to 3.1`, or the one value."""
    ends = [number(end, 3) for end in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _which(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {listed(seeds)}"


def _all(n: int, first: int) -> str:
    return f"all {count(n, 'seed')}" if n > 1 else f"seed {first}"


def _too_few(claim: Claim, seeds: Mapping[int, object], found: Evidence, seen: tuple[int, ...]) -> str | None:
    """Return why there are too few seeds or items for a verdict; None if there are enough."""
    n = len(seeds)
    if claim.over == "items" and seen and not n:
        return f"Its items had been seen when the rule was changed (seeds {listed(seen)}); a verdict takes others."
    if claim.over == "items" and n:
        few = f"Only {count(found.n, 'item')}; a verdict over items takes at least {FEWEST_ITEMS}."
        return few if found.n < FEWEST_ITEMS else None
    have = f"Only {count(n, 'seed')} finished" if n else "No seed finished"
    if seen:
        new = f"only {count(n, 'seed')} finished" if n else "no seed was run"
        have = f"After the rule was changed {new} (before it: {listed(seen)})"
    return f"{have}; a verdict takes at least {FEWEST_SEEDS}." if n < FEWEST_SEEDS else None


def _by_interval(claim: Claim, found: Evidence) -> Verdict:
    broken = [(seed, value) for seed, value in found.values if not math.isfinite(value)]
    if broken:
        values = listed([f"{number(value)} in seed {seed}" for seed, value in broken])
        return _verdict(Status.INCONCLUSIVE, f"The quantity is {values}.", found)
    assert found.interval is not None
    if found.interval.low == found.interval.high:
        reason = (
            f"Every {claim.over.removesuffix('s')} gave the same value, {number(found.interval.mean)}: without a spread "
            "there is no interval to decide; count items, or make it a check."
        )
        return _verdict(Status.INCONCLUSIVE, reason, found)
    status = decide(claim, found.interval)
    verdict = _verdict(status, _reason(claim, status, found.interval), found)
    return replace(verdict, detectable=detectable(found.interval.sd, found.interval.n, found.interval.level))


def _with_power(claim: Claim, verdict: Verdict, planned: PlannedPower | None) -> Verdict:
    """Add what the trial could find; `does not hold` without the power for the paper's effect becomes inconclusive."""
    said = [f"{planned.words}."] if planned is not None else []
    if verdict.detectable is not None and verdict.interval is not None:
        said.append(_power(claim, verdict.interval, verdict.detectable))
    verdict = replace(verdict, power=" ".join(said))
    found = planned.detectable if planned is not None else verdict.detectable
    if verdict.status is not Status.DOES_NOT_HOLD or claim.effect is None or found is None:
        return verdict
    if found <= claim.effect:
        return verdict
    reason = (
        f"{verdict.reason} But a distance of {number(found, 2)} is the smallest that so few find with 80 % power, and "
        f"{claim.whose_effect} is {number(claim.effect, 2)}."
    )
    if verdict.interval is not None:
        reason += _papers_value(claim, verdict.interval)
    return replace(verdict, status=Status.INCONCLUSIVE, reason=reason)


def _power(claim: Claim, interval: Interval, smallest: float) -> str:
    """Return the power by the spread that was seen, in one sentence."""
    n = count(interval.n, claim.over.removesuffix("s"))
    if smallest == 0:
        return ""  # a proportion of 0 or 1, whose spread says nothing
    return (
        f"With {n} and this spread (s.d. {number(interval.sd, 2)}) a true distance of "
        f"{number(smallest, 2)} from the threshold is detected with 80 % power."
    )


def _reason(claim: Claim, status: Status, interval: Interval) -> str:
    words = claim.holds_if.words
    level, ends = number(100 * interval.level, 4), (number(interval.low, 3), number(interval.high, 3))
    end = {
        Status.HOLDS: f" is wholly {words}",
        Status.INCONCLUSIVE: f" is partly {words}, partly not",
    }.get(status, f" has no value {words}")
    weaker = claim.holds_in_part_if
    if weaker is not None and status is not Status.HOLDS:
        low, high = interval.low, interval.high
        if weaker.holds(low, high):
            end += f", but every value is {weaker.words}"
        elif weaker.fails(low, high):
            end += f", nor {weaker.words}"
        else:
            end += f"; nor does it settle {weaker.words}"
    sentence = f"The {level} % interval from {ends[0]} to {ends[1]}{end}."
    return sentence + (_papers_value(claim, interval) if status is Status.INCONCLUSIVE else "")


def _papers_value(claim: Claim, interval: Interval) -> str:
    """Return where the paper's own value lies, seen from an interval that decides nothing, and how many would decide."""
    value, n = claim.paper_effect, claim.over.removesuffix("s")
    if value is None:
        return ""
    if not interval.contains(value):
        return f" The paper's own value, {number(value)}, lies outside it."
    said = f" The paper's own value, {number(value)}, lies inside it"
    if claim.effect is None or not interval.sd > 0:
        return f"{said}."
    enough = enough_to_part(interval.sd, claim.effect, interval.level)
    needed = count(enough, n) if enough is not None else f"more than 10,000 {n}s"
    other = "no effect" if claim.holds_if.inside(value) == 0 else "the threshold"
    return f"{said}: by this spread it takes {needed} to tell it from {other}."
