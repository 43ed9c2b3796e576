"""A study's trial: planned before the first unit runs, compared when the study is resumed, then judged."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gpt2lab.runs.run import Run
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.runs.store import now
from gpt2lab.runs.trial import TRIAL, PlannedClaim, Trial, read_trial, write_plain
from gpt2lab.runs.verdicts import JudgedClaim, with_history
from gpt2lab.studies.claim import Claim
from gpt2lab.studies.evidence import RecordedItems, seen_seeds
from gpt2lab.studies.fingerprint import rule_fingerprint
from gpt2lab.studies.judge import judge, planned_power


def plan_study(run: Run, claims: Sequence[Claim], scale: str, seeds: Sequence[int]) -> Trial:
    """Record the rules of a study's claims in its folder before any unit runs, and return them."""
    ran = {piece.seed for piece in run.store.pieces(run.id) if piece.status == "finished"}
    trial = plan_trial(
        claims, scale, len(seeds), read_trial(run.folder), [seed for seed in seeds if seed in ran]
    )
    if claims:
        run.write_file(TRIAL, write_plain(trial))
    return trial


def plan_trial(
    claims: Sequence[Claim], scale: str, n_seeds: int, before: Trial | None, ran: Sequence[int]
) -> Trial:
    """Return the plan of a study over `n_seeds`.

    before: the plan recorded earlier, if the study is resumed. ran: the seeds of which something has finished. A claim
    whose rule differs from the one recorded is a new claim, to be judged on other seeds than those.
    """
    when = now()
    planned = tuple(_planned(claim, scale, n_seeds, before, tuple(ran), when) for claim in claims)
    if before is None:
        return Trial(when, planned, late=tuple(ran))
    return Trial(before.began, planned, before.late)


def _planned(
    claim: Claim, scale: str, n_seeds: int, before: Trial | None, ran: tuple[int, ...], when: str
) -> PlannedClaim:
    rule = rule_fingerprint(claim)
    seen: tuple[int, ...] = ()
    old = before.claim(claim.name) if before is not None else None
    is_same = old is not None and old.rule == rule
    if before is not None and not claim.is_check:  # a check says nothing of the paper and may be mended
        seen = tuple(sorted({*(old.seen if old is not None else ()), *(() if is_same else ran)}))
    n_judged = n_seeds - len(seen)
    power = planned_power(claim, scale, n_judged) if claim.over == "seeds" and n_judged > 0 else None
    since = old.since if old is not None and is_same else when
    return PlannedClaim(claim.name, rule, f"{power.words}." if power is not None else "", seen, since)


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
