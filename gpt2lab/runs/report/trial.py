"""How a study met each rule of a fair trial, in its report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from gpt2lab.base.progress import duration
from gpt2lab.base.wording import listed, number
from gpt2lab.runs.kinds import WORDS, by_kind
from gpt2lab.runs.report.document import DataTable, Prose, Section
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.runs.trial import Trial, merged, use_words
from gpt2lab.runs.verdicts import JudgedClaim

_INTRODUCTION = (
    "What makes a verdict worth having, and what this study can say of it. What is not stated is not met."
)


def trial_section(
    judged: Sequence[JudgedClaim],
    trial: Trial | None,
    units: Sequence[RunRecord],
    earlier: Sequence[JudgedClaim] = (),
) -> Section:
    """Return the section: a row for each rule. units: the runs of all seeds and arms. earlier: verdicts of before."""
    claims = [one for one in judged if not one.claim.is_check]
    rules = [
        (
            "the rules were fixed before the run",
            " ".join([_fixed(claims, trial), *_history(claims, earlier)]),
        ),
        ("the baseline has learnt", _preconditions(claims)),
        ("the trial could find the effect", _power(claims, trial)),
        ("nothing is chosen on what is judged", _splits(units)),
        ("what cannot fail is a check", _checks(judged)),
        ("equal conditions", _conditions(units)),
        ("intervals", _intervals(claims)),
    ]
    rows = [{"": place, "rule": rule, "here": how} for place, (rule, how) in enumerate(rules, 1)]
    return Section("How each rule of a fair trial was met", [Prose(_INTRODUCTION), DataTable("", rows)])


def _fixed(claims: Sequence[JudgedClaim], trial: Trial | None) -> str:
    said = [
        f"{names}: fixed on {day}."
        for day, names in _grouped(claims, lambda one: one.claim.fixed).items()
        if day
    ]
    if undated := [one for one in claims if not one.claim.fixed]:
        said.append(f"{_names(undated)}: no day is stated.")
    if trial is None:
        return " ".join([*said, "The rules were not recorded with the run."])
    when = "before the first unit" if not trial.late else f"when seeds {listed(trial.late)} had run"
    said.append(f"The rules were recorded on {trial.began[:10]}, {when}.")
    if late := [one for one in claims if one.claim.fixed > trial.began[:10]]:
        said.append(f"**{_names(late)}: fixed after the run began.**")
    said += [
        f"**{one.claim.name}: the rule was changed after seeds {listed(one.claim.seen)} had run; it is a new claim, judged "
        "on the other seeds alone.**"
        for one in claims
        if one.claim.seen
    ]
    return " ".join(said)


def _history(claims: Sequence[JudgedClaim], earlier: Sequence[JudgedClaim]) -> list[str]:
    """Return what was said of the claims before, and what a changed rule says of the seeds that it may not judge."""
    now = {one.claim.name: one for one in claims}
    said = [
        f"{one.claim.name} was judged before: {one.words_beside(now.get(one.claim.name))}."
        for one in earlier
        if not one.claim.is_check
    ]
    said += [
        f"{one.claim.name}, not a verdict, for these seeds were seen before the rule: {one.of_seen.status}. "
        f"{one.of_seen.reason}"
        for one in claims
        if one.of_seen is not None
    ]
    return said


def _preconditions(claims: Sequence[JudgedClaim]) -> str:
    with_one = [one for one in claims if one.claim.needs]
    without = [one for one in claims if not one.claim.needs]
    said = [f"{_names(with_one)}: a precondition; where it fails, not tested." if with_one else ""]
    said.append(f"{_names(without)}: none is stated." if without else "")
    return " ".join(filter(None, said))


def _power(claims: Sequence[JudgedClaim], trial: Trial | None) -> str:
    planned = {claim.name: claim.power for claim in trial.claims} if trial is not None else {}
    said = [f"{name}: {words}" for name, words in planned.items() if words]
    if without := [one for one in claims if not planned.get(one.claim.name)]:
        said.append(f"{_names(without)}: no pilot, so the power is known from this run's spread alone.")
    if unsaid := [one for one in claims if one.claim.effect is None]:
        said.append(f"{_names(unsaid)}: the paper's effect is not stated as a number of this quantity.")
    return " ".join(said)


def _splits(units: Sequence[RunRecord]) -> str:
    used = merged(unit.splits for unit in units)
    if not used.chosen and not used.judged:
        return "The study does not state on which data anything was chosen and judged."
    chosen = f"Chosen: {use_words(used.chosen)}." if used.chosen else "Nothing is chosen on data."
    judged = f"Judged: {use_words(used.judged)}." if used.judged else "What is judged is not stated."
    shared = f"**Both on {listed(used.shared)}: the rule is broken.**" if used.shared else ""
    return " ".join(filter(None, [chosen, judged, shared]))


def _checks(judged: Sequence[JudgedClaim]) -> str:
    kinds = by_kind(judged)
    kinds.pop("claim", None)
    said = [
        f"{_names(ones)}: {WORDS[kind].title[0].lower()}{WORDS[kind].title[1:]}"
        for kind, ones in kinds.items()
    ]
    return f"{'; '.join(said)}. They get no verdict." if said else "No claim is a check."


def _conditions(units: Sequence[RunRecord]) -> str:
    times: dict[str, list[float]] = {}
    for unit in units:
        if unit.arm is not None and unit.seconds is not None:
            times.setdefault(unit.arm, []).append(unit.seconds)
    if not times:
        return "The study has no arms."
    spent = listed([f"{arm} {duration(fmean(seconds))}" for arm, seconds in times.items()])
    return f"The arms of a seed share that seed. Time of each arm, mean over seeds: {spent}."


def _intervals(claims: Sequence[JudgedClaim]) -> str:
    said = [f"{names}: {how}." for how, names in _grouped(claims, _how).items() if how]
    return " ".join(said) or "No interval was made."


def _how(one: JudgedClaim) -> str:
    claim, interval = one.claim, one.verdict.interval
    if claim.own_rule:
        return "a rule of its own"
    if interval is not None and claim.best_of > 1:
        return f"{one.verdict.method}, at {number(100 * interval.level, 4)} % for the best of {claim.best_of}"
    return one.verdict.method


def _grouped(claims: Iterable[JudgedClaim], key: Callable[[JudgedClaim], str]) -> Mapping[str, str]:
    """Return the names of the claims, as words, by what they have in common."""
    groups: dict[str, list[JudgedClaim]] = {}
    for one in claims:
        groups.setdefault(key(one), []).append(one)
    return {common: _names(ones) for common, ones in groups.items()}


def _names(claims: Sequence[JudgedClaim]) -> str:
    return listed([one.claim.name for one in claims])
