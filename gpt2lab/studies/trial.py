"""A study's trial: planned before the first unit runs, compared when the study is resumed, then judged."""

import contextlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gpt2lab.base.errors import LabError
from gpt2lab.base.wording import listed
from gpt2lab.runs.run import Run
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.runs.store import Store, now
from gpt2lab.runs.trial import TRIAL, PlannedClaim, Trial, read_trial, write_plain
from gpt2lab.runs.verdicts import JudgedClaim, with_history
from gpt2lab.studies.claim import Claim
from gpt2lab.studies.evidence import RecordedItems, seen_seeds
from gpt2lab.studies.fingerprint import rule_fingerprint
from gpt2lab.studies.judge import judge, planned_power


@dataclass(frozen=True)
class Past:
    """Rules that were recorded before, and what ran under them."""

    run: str
    """The study."""
    trial: Trial
    """Its plan."""
    ran: tuple[int, ...]
    """The seeds of which something has finished."""


def plan_study(run: Run, claims: Sequence[Claim], scale: str, seeds: Sequence[int]) -> Trial:
    """Record the rules of a study's claims in its folder before any unit runs, and return them.

    A rule that differs from the one under which seeds have run, in this study or in an earlier one of the same settings, is
    a new claim: it is judged on other seeds, with a warning where the study begins.
    """
    ran = tuple(seed for seed in _ran(run.store, run.id) if seed in seeds)
    before = read_trial(run.folder)
    if before is not None:
        trial = plan_trial(claims, scale, seeds, [Past(run.id, before, ran)])
        trial = replace(trial, began=before.began, late=before.late)
    else:
        pasts = _earlier_studies(run, scale) if claims else []
        trial = replace(plan_trial(claims, scale, seeds, pasts), late=ran)
        _warn(trial, pasts)
    if claims:
        run.write_file(TRIAL, write_plain(trial))
    return trial


def _ran(store: Store, study: str) -> tuple[int, ...]:
    pieces = store.pieces(study)
    return tuple(sorted({one.seed for one in pieces if one.status == "finished" and one.seed is not None}))


def _earlier_studies(run: Run, scale: str) -> list[Past]:
    """Return the plans of earlier studies of the same paper, scale and settings, oldest first."""
    own = json.loads(run.row.settings)["settings"]
    found = []
    for row in reversed(run.store.rows(kind="study", paper=run.row.paper)):
        if row.id == run.id or row.scale != scale or json.loads(row.settings).get("settings") != own:
            continue
        with contextlib.suppress(LabError):  # a damaged file of another study
            if (trial := read_trial(row.folder(run.store.home))) is not None:
                found.append(Past(row.id, trial, _ran(run.store, row.id)))
    return found


def _warn(trial: Trial, pasts: Sequence[Past]) -> None:
    """Say before the work which seeds it cannot be judged on."""
    if changed := [claim for claim in trial.claims if claim.seen]:
        seeds = sorted({seed for claim in changed for seed in claim.seen})
        warnings.warn(
            f"the rules of {listed([claim.name for claim in changed])} were changed after {listed([p.run for p in pasts])} "
            f"had run seeds {listed(seeds)}: they are judged on other seeds, which --seed-list names",
            stacklevel=2,
        )


def plan_trial(claims: Sequence[Claim], scale: str, seeds: Sequence[int], pasts: Sequence[Past]) -> Trial:
    """Return the plan of a study.

    pasts: the rules recorded earlier, oldest first. A claim whose rule differs from them is a new claim, to be judged on
    other seeds than those that ran before its rule was recorded.
    """
    when = now()
    return Trial(when, tuple(_planned(claim, scale, seeds, pasts, when) for claim in claims))


def _planned(
    claim: Claim, scale: str, seeds: Sequence[int], pasts: Sequence[Past], when: str
) -> PlannedClaim:
    rule, since = rule_fingerprint(claim), when
    seen: set[int] = set()
    for past in pasts:
        old = past.trial.claim(claim.name)
        seen |= set(old.seen) if old is not None else set()
        if old is not None and old.rule == rule:
            since = old.since
            break
        seen |= set(past.ran)
    if claim.is_check:  # it says nothing of the paper and may be mended
        seen = set()
    n_judged = len(set(seeds) - seen)
    power = planned_power(claim, scale, n_judged) if claim.over == "seeds" and n_judged else None
    words = f"{power.words}." if power is not None else ""
    return PlannedClaim(claim.name, rule, words, tuple(sorted(seen & set(seeds))), since)


def judge_claims(
    claims: Sequence[Claim],
    trial: Trial,
    runs: Sequence[RunRecord],
    seeds: Sequence[int],
    scale: str,
    before: Sequence[JudgedClaim],
) -> list[JudgedClaim]:
    """Return what the seeds that finished say of every claim, then what was said before and does not stand any more.

    runs: the records of those seeds. seeds: all that were asked for. before: every judgement of this study until now.
    """
    finished = {run.seed: run for run in runs if run.seed is not None}
    judged = [
        _judged(claim, planned, finished, seeds, scale)
        for claim, planned in zip(claims, trial.claims, strict=True)
    ]
    return with_history(before, judged, now())


def _judged(
    claim: Claim, planned: PlannedClaim, finished: Mapping[int, RunRecord], seeds: Sequence[int], scale: str
) -> JudgedClaim:
    """Judge one claim; one whose rule was changed after some seeds had run, on the others alone."""
    items = {seed: RecordedItems(run) for seed, run in finished.items()}
    seen = seen_seeds(claim, planned.seen, items)
    new = {seed: run.results for seed, run in finished.items() if seed not in seen}
    old = {seed: run.results for seed, run in finished.items() if seed in seen}
    unfinished = [seed for seed in seeds if seed not in finished and seed not in seen]
    return JudgedClaim(
        replace(claim.recorded(), seen=seen),
        judge(claim, new, scale, items, unfinished=unfinished, seen=seen),
        fingerprint=planned.rule,
        of_seen=judge(claim, old, scale, items) if old and not new else None,
    )
