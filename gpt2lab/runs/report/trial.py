"""How a study met each rule of a fair trial, in its report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from gpt2lab.base.progress import duration
from gpt2lab.base.wording import listed, number
from gpt2lab.runs.kinds import WORDS, by_kind
from gpt2lab.runs.report.document import DataTable, Prose, Section
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.runs.trial import TUNING_SEED, Trial, merged, use_words
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
    """Return the section: a line for each rule, and what each unit cost.

    units: the runs of all seeds, arms and of tuning. earlier: verdicts of before.
    """
    claims = [one for one in judged if not one.claim.is_check]
    rules = (
        (
            "The rules were fixed before the run",
            " ".join([_fixed(claims, trial), *_history(claims, earlier)]),
        ),
        ("The baseline has learnt", _preconditions(claims)),
        ("The trial could find the effect", _power(claims, trial)),
        ("Nothing is chosen on what is judged", _splits(units)),
        ("What cannot fail is a check", _checks(judged)),
        ("Equal conditions", _conditions(units)),
        ("Intervals", _intervals(claims)),
    )
    lines = [Prose(f"**{place}. {rule}.** {how}") for place, (rule, how) in enumerate(rules, 1)]
    cost = _cost(units)
    table = [DataTable("What each unit cost, mean over the seeds that ran it", cost)] if cost else []
    return Section("How each rule of a fair trial was met", [Prose(_INTRODUCTION), *lines, *table])


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
    needed = [one for one in claims if one.claim.needs]
    said = [f"{names}: {words}." for words, names in _grouped(needed, _precondition).items()]
    without = [one for one in claims if not one.claim.needs]
    said.append(f"{_names(without)}: none is stated." if without else "")
    return " ".join(filter(None, said))


def _precondition(one: JudgedClaim) -> str:
    """Return a claim's precondition, and whether it was met."""
    claim, verdict = one.claim, one.verdict
    words = f"`{claim.needs}`" if "needs" in claim.expressions else claim.needs
    if not verdict.precondition:
        return words  # it was not asked: the claim is of another scale
    met = verdict.precondition.startswith("met")
    return f"{words}, {verdict.precondition}" if met else f"{words}, **{verdict.precondition}**"


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
    chosen = (
        f"Chosen: {use_words(used.chosen)}, {_when_chosen(units)}."
        if used.chosen
        else "Nothing is chosen on data."
    )
    judged = f"Judged: {use_words(used.judged)}." if used.judged else "What is judged is not stated."
    shared = f"**Both on {listed(used.shared)}: the rule is broken.**" if used.shared else ""
    return " ".join(filter(None, [chosen, judged, shared]))


def _when_chosen(units: Sequence[RunRecord]) -> str:
    """Return whether the choice was made once, or by every seed for itself."""
    choosing = [unit for unit in units if unit.splits.chosen]
    if all(unit.seed == TUNING_SEED for unit in choosing):
        return f"once for all seeds, on the tuning seed {TUNING_SEED}, which no claim judges"
    if any(unit.seed == TUNING_SEED for unit in choosing):
        return f"on the tuning seed {TUNING_SEED}, and again within seeds"
    return "within every seed anew"


def _checks(judged: Sequence[JudgedClaim]) -> str:
    kinds = by_kind(judged)
    kinds.pop("claim", None)
    said = [
        f"{_names(ones)}: {WORDS[kind].title[0].lower()}{WORDS[kind].title[1:]}"
        for kind, ones in kinds.items()
    ]
    return f"{'; '.join(said)}. They get no verdict." if said else "No claim is a check."


def _conditions(units: Sequence[RunRecord]) -> str:
    if not any(unit.arm is not None for unit in units):
        return "The study has no arms."
    said = ["The arms of a seed share that seed."]
    trials = {_name(unit): int(unit.results["trials"]) for unit in units if "trials" in unit.results}
    if len(set(trials.values())) == 1:
        said.append(
            f"Each choice was made among {next(iter(trials.values()))} trials: {listed(list(trials))}."
        )
    elif trials:
        said.append(f"**Unequal trials: {listed([f'{name} {n}' for name, n in trials.items()])}.**")
    elif any(unit.splits.chosen for unit in units):
        said.append("How many trials each arm had is not reported.")
    if edges := list(dict.fromkeys(_name(unit) for unit in units if unit.results.get("at_edge"))):
        said.append(f"**The best setting lies at the edge of what was tried in {listed(edges)}.**")
    said.append("What each cost is in the table below.")
    return " ".join(said)


def _name(unit: RunRecord) -> str:
    """Return the name of a unit without its seed; of one that is a seed's end, what it is."""
    return unit.arm or "the end of a seed"


_COSTS = {"seconds": "processor time", "flops": "TFLOP"}
"""Results of a unit that say what it cost, with the names of their columns."""


def _cost(units: Sequence[RunRecord]) -> list[dict[str, str | int | float]]:
    """Return a row for each unit that the seeds have: how long it ran and the cost that it reports itself."""
    runs: dict[str, list[RunRecord]] = {}
    for unit in units:
        if unit.arm is not None and unit.seconds is not None:
            runs.setdefault(unit.arm, []).append(unit)
    rows = []
    for arm, ones in runs.items():
        row: dict[str, str | int | float] = {
            "unit": arm, "runs": len(ones), "time": duration(fmean(one.seconds or 0.0 for one in ones)),
        }  # fmt: skip
        for name, column in _COSTS.items():
            found = [one.results[name] for one in ones if name in one.results]
            if found:
                mean = fmean(found)
                row[column] = duration(mean) if name == "seconds" else mean / 1e12
        rows.append(row)
    return rows


def _intervals(claims: Sequence[JudgedClaim]) -> str:
    said = [f"{names}: {how}." for how, names in _grouped(claims, _how).items() if how]
    return " ".join(said) or "No interval was made."


def _how(one: JudgedClaim) -> str:
    claim, interval = one.claim, one.verdict.interval
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
