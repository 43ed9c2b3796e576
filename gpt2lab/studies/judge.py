"""What the seeds say of a claim."""

import contextlib
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gpt2lab.base.errors import LabError
from gpt2lab.base.interval import Interval
from gpt2lab.base.wording import count, listed, number
from gpt2lab.measures.statistics import minimum_detectable_difference, t_interval
from gpt2lab.runs.verdicts import Status, Verdict
from gpt2lab.studies.claim import Claim, Results, Rule
from gpt2lab.studies.expression import evaluate, names_in

FEWEST_SEEDS = 3
LEVEL = 0.95
POWER = 0.8


def judge(claim: Claim, seeds: Mapping[int, Mapping[str, float]], scale: str) -> Verdict:
    """Return the verdict of `claim` over the results of the seeds that finished, at one scale.

    Fewer than three seeds are inconclusive. The 95 % t interval of the quantity, two-sided, decides: wholly
    where the claim is true it holds; wholly elsewhere it does not hold, or holds in part where it lies wholly
    within the weaker threshold; else it is inconclusive. So a quantity that is really on the threshold gives
    a false `holds` in at most 2.5 % of studies. A claim's own rule replaces the interval. A missing or
    non-finite quantity is inconclusive, with the reason; nothing raises.

    A check passes if every seed's quantity lies where it should; one seed is enough.
    """
    if scale not in claim.scales:
        where = listed(claim.scales, "or")
        measured = _measurable(claim, seeds)
        reason = f"It can be tested at {where} scale, not at {scale}.{_by_rule(claim, seeds)}"
        return Verdict(Status.NOT_TESTED, reason, measured, _interval(measured))
    try:
        values = tuple((seed, claim.value(results)) for seed, results in seeds.items())
        untestable = _untestable(claim, seeds)
        measured = values if claim.measure is not None else ()
        if untestable is not None:
            return Verdict(Status.NOT_TESTED, untestable, measured, _interval(measured))
        if claim.kind == "check":
            return _checked(claim, values)
        if len(seeds) < FEWEST_SEEDS:
            return replace(_too_few(len(seeds)), values=measured, interval=_interval(measured))
        if claim.rule is not None:
            ruled = claim.rule([Results(results) for results in seeds.values()])
            interval = ruled.interval or _interval(measured)
            return replace(ruled, values=ruled.values or measured, interval=interval)
    except Exception as error:  # a slip in a claim must not lose the study that took an hour
        what = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        return Verdict(Status.INCONCLUSIVE, f"The claim cannot be judged: {what}.")
    return _by_interval(claim, measured)


def decide(claim: Claim, interval: Interval) -> Status:
    """Return the status that an interval gives a claim with a threshold."""
    low, high = interval.low, interval.high
    if claim.holds_if is None:
        raise LabError(f"claim {claim.sentence!r} has no threshold")
    if claim.holds_if.holds(low, high):
        return Status.HOLDS
    if not claim.holds_if.fails(low, high):
        return Status.INCONCLUSIVE
    if claim.holds_in_part_if is not None and claim.holds_in_part_if.holds(low, high):
        return Status.IN_PART
    return Status.DOES_NOT_HOLD


def in_seeds(
    condition: str,
    *,
    at_least: int | None = None,
    against: str | None = None,
    against_in: int | None = None,
) -> Rule:
    """Return the rule that counts seeds: it holds if `condition` is true in `at_least` of them (None: all).

    It does not hold if `against` (None: the opposite of `condition`) is true in `against_in` seeds (None: in
    all); else it is inconclusive. Both are expressions over results.
    """

    def rule(seeds: Sequence[Results]) -> Verdict:
        n = len(seeds)
        opposite = against or f"not ({condition})"
        true = sum(_is_true(condition, results) for results in seeds)
        false = sum(_is_true(opposite, results) for results in seeds)
        reason = f"{condition} is true in {true} of {n} seeds"
        if against is not None:
            reason += f", {against} in {false}"
        if true >= (at_least or n):
            return Verdict(Status.HOLDS, reason + ".")
        if false >= (against_in or n):
            return Verdict(Status.DOES_NOT_HOLD, reason + ".")
        return Verdict(Status.INCONCLUSIVE, f"{reason}: the seeds disagree.")

    needed = "all seeds" if at_least is None else count(at_least, "seed")
    refuted = "all seeds" if against_in is None else count(against_in, "seed")
    rule.__doc__ = f"{condition} in {needed}; does not hold if {against or 'it is untrue'} in {refuted}"
    return rule


def _is_true(condition: str, results: Results) -> bool:
    """Tell whether a condition is true; a result that is not a number makes it and its opposite untrue."""
    numbers = (results[name] for name in names_in(condition))
    return not any(math.isnan(value) for value in numbers) and bool(evaluate(condition, results))


def _measurable(claim: Claim, seeds: Mapping[int, Mapping[str, float]]) -> tuple[tuple[int, float], ...]:
    """Return the measured quantity of each seed, also where it says nothing of the claim; without those that have none."""
    found = []
    for seed, results in seeds.items():
        with contextlib.suppress(
            Exception
        ):  # a claim of another scale may read what this one does not report
            found.append((seed, claim.value(results)))
    return tuple((seed, value) for seed, value in found if math.isfinite(value))


def _by_rule(claim: Claim, seeds: Mapping[int, Mapping[str, float]]) -> str:
    """Return what a claim's own rule says of seeds at a scale that settles nothing; empty where it cannot be asked."""
    if claim.rule is None or claim.measure is not None or len(seeds) < FEWEST_SEEDS:
        return ""
    with contextlib.suppress(Exception):
        return f" Here: {claim.rule([Results(results) for results in seeds.values()]).reason}"
    return ""


def _checked(claim: Claim, values: tuple[tuple[int, float], ...]) -> Verdict:
    """Return whether a check passes: in every seed."""
    assert claim.holds_if is not None
    if not values:
        return Verdict(Status.INCONCLUSIVE, "No seed finished.")
    wrong = [
        f"{number(value)} in seed {seed}" for seed, value in values if not claim.holds_if.holds(value, value)
    ]
    if wrong:
        return Verdict(Status.FAILS, f"It is {listed(wrong)}, not {claim.holds_if.words}.", values)
    where = f"all {count(len(values), 'seed')}" if len(values) > 1 else f"seed {values[0][0]}"
    return Verdict(Status.PASSES, f"It is {claim.holds_if.words} in {where}.", values)


def _untestable(claim: Claim, seeds: Mapping[int, Mapping[str, float]]) -> str | None:
    """Return why the precondition fails, or None if every seed meets it."""
    failed = [seed for seed, results in seeds.items() if not claim.is_testable(results)]
    if not failed:
        return None
    detail = claim.needed(seeds[failed[0]])
    which = f"seed {failed[0]}" if len(failed) == 1 else f"seeds {listed(failed)}"
    needed = claim.needs_words
    if not isinstance(claim.needs, str):
        needed = needed[:1].lower() + needed[1:]  # the sentence of a docstring inside another
    reason = f"It needs {needed}, which fails in {which}"
    if detail:
        reason += f" ({detail}" + (f" in seed {failed[0]})" if len(failed) > 1 else ")")
    return reason + "."


def _too_few(n: int) -> Verdict:
    have = f"Only {count(n, 'seed')} finished" if n else "No seed finished"
    return Verdict(Status.INCONCLUSIVE, f"{have}; a verdict takes at least {FEWEST_SEEDS}.")


def _by_interval(claim: Claim, values: tuple[tuple[int, float], ...]) -> Verdict:
    broken = [(seed, value) for seed, value in values if not math.isfinite(value)]
    if broken:
        told = listed([f"{number(value)} in seed {seed}" for seed, value in broken])
        return Verdict(Status.INCONCLUSIVE, f"The quantity is {told}.", values)
    interval = _interval(values)
    assert interval is not None
    status = decide(claim, interval)
    detectable = _standard_detectable(interval.n) * interval.sd
    reason = _reason(claim, status, interval)
    return Verdict(status, reason, values, interval, detectable, _power(interval, detectable))


def _interval(values: tuple[tuple[int, float], ...]) -> Interval | None:
    """Return the t interval over seeds, or None if there are fewer than two or one is not finite."""
    numbers = [value for _, value in values]
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)):
        return None
    if min(numbers) == max(numbers):
        # the mean of equal numbers can differ from them in the last digit, and fall on the wrong side
        return Interval(numbers[0], numbers[0], numbers[0], len(numbers), 0.0, LEVEL)
    return t_interval(numbers, LEVEL)


@functools.lru_cache(maxsize=64)
def _standard_detectable(n: int) -> float:
    """Return the detectable difference in standard deviations."""
    return minimum_detectable_difference(1.0, n, POWER, LEVEL)


def _power(interval: Interval, detectable: float) -> str:
    """Return the power in one sentence."""
    seeds = count(interval.n, "seed")
    if detectable == 0:
        return f"All {seeds} gave the same value; the interval has no width and says nothing of power."
    return (
        f"With {seeds} and this spread (s.d. {number(interval.sd, 2)}) a true distance of "
        f"{number(detectable, 2)} from the threshold is detected with 80 % power."
    )


def _reason(claim: Claim, status: Status, interval: Interval) -> str:
    assert claim.holds_if is not None
    words = claim.holds_if.words
    if interval.sd == 0:
        span = f"all {interval.n} seeds gave {number(interval.mean)}"
        end = {Status.HOLDS: f", which is {words}"}.get(status, f", which is not {words}")
    else:
        span = f"the 95 % interval from {number(interval.low, 3)} to {number(interval.high, 3)}"
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
    sentence = span + end + "."
    return sentence[0].upper() + sentence[1:]
