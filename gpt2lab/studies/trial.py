"""The plan of a study's trial: recorded before the first unit runs, kept and compared when the study is resumed."""

from collections.abc import Sequence

from gpt2lab.runs.store import now
from gpt2lab.runs.trial import PlannedClaim, Trial
from gpt2lab.studies.claim import Claim
from gpt2lab.studies.fingerprint import rule_fingerprint
from gpt2lab.studies.judge import planned_power


def plan_trial(
    claims: Sequence[Claim], scale: str, n_seeds: int, before: Trial | None, ran: Sequence[int]
) -> Trial:
    """Return the plan of a study over `n_seeds`.

    before: the plan recorded earlier, if the study is resumed. ran: the seeds of which something has finished. A claim
    whose rule differs from the one recorded is a new claim, to be judged on other seeds than those.
    """
    planned = tuple(_planned(claim, scale, n_seeds, before, tuple(ran)) for claim in claims)
    if before is None:
        return Trial(now(), planned, late=tuple(ran))
    return Trial(before.began, planned, before.late)


def _planned(
    claim: Claim, scale: str, n_seeds: int, before: Trial | None, ran: tuple[int, ...]
) -> PlannedClaim:
    rule = rule_fingerprint(claim)
    power = planned_power(claim, scale, n_seeds) if claim.over == "seeds" else None
    seen: tuple[int, ...] = ()
    if before is not None and claim.kind == "claim":  # a check says nothing of the paper and may be mended
        old = before.claim(claim.name)
        same = old is not None and old.rule == rule
        seen = tuple(sorted({*(old.seen if old is not None else ()), *(() if same else ran)}))
    return PlannedClaim(claim.name, rule, f"{power.words}." if power is not None else "", seen)
