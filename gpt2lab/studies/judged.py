"""Claims with their verdicts, and the plain values that verdicts.json holds of them."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from gpt2lab.studies.claim import Claim, Threshold
from gpt2lab.studies.judge import Verdict


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdict."""

    claim: Claim
    """The claim."""
    verdict: Verdict
    """What the seeds say of it."""

    def to_plain(self) -> dict[str, Any]:
        """Return everything a report shows, as plain values."""
        claim, verdict = self.claim, self.verdict
        interval = verdict.interval
        return {
            "name": claim.name,
            "sentence": claim.sentence,
            "status": str(verdict.status),
            "reason": verdict.reason,
            "power": verdict.power,
            "detectable": verdict.detectable,
            "values": [list(pair) for pair in verdict.values],
            "interval": dataclasses.asdict(interval) if interval is not None else None,
            "measure": claim.measure_words,
            "quantity": claim.quantity,
            "unit": claim.unit,
            "needs": claim.needs_words,
            "expressions": [name for name in ("measure", "needs") if isinstance(getattr(claim, name), str)],
            "holds_if": _plain_range(claim.holds_if),
            "holds_in_part_if": _plain_range(claim.holds_in_part_if),
            "own_rule": claim.rule is not None,
            "rule": claim.rule_words,
            "paper": claim.paper,
        }


def _plain_range(threshold: Threshold | None) -> dict[str, Any] | None:
    if threshold is None:
        return None
    return {"words": threshold.words, "low": threshold.low, "high": threshold.high}
