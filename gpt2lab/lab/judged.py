"""Claims with their verdicts: as plain values in verdicts.json, and read back for a report."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.lab.claim import Claim, Threshold
from gpt2lab.lab.document import STATUS_MARKS
from gpt2lab.lab.record import read_json
from gpt2lab.lab.verdict import Verdict

_TEXTS = (
    "name",
    "sentence",
    "status",
    "reason",
    "power",
    "measure",
    "quantity",
    "unit",
    "rule",
    "needs",
    "paper",
)
_BOUNDS = ("low", "high")


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


def judged_claims(path: Path) -> list[dict[str, Any]]:
    """Read what `JudgedClaim.to_plain` gave for every claim of a study; [] if there is no such file.

    Numbers that are not finite, texts in the file, are numbers again. LabError for a file of another form.
    """
    if not path.exists():
        return []
    try:
        return [_read(claim) for claim in read_json(path, list)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LabError(f"{path}: not written by this version of gpt2lab ({error!r})") from error


def _read(claim: Mapping[str, Any]) -> dict[str, Any]:
    claim = {"quantity": "", "rule": "", **claim}  # studies of before had neither
    wrong = [name for name in _TEXTS if not isinstance(claim[name], str)]
    if wrong or claim["status"] not in STATUS_MARKS:
        raise ValueError(wrong or claim["status"])
    detectable, interval = claim["detectable"], claim["interval"]
    return {
        **claim,
        "detectable": None if detectable is None else float(detectable),
        "values": [(int(seed), float(value)) for seed, value in claim["values"]],
        "interval": None if interval is None else _numbers(interval, ("mean", *_BOUNDS)),
        "holds_if": _range(claim["holds_if"]),
        "holds_in_part_if": _range(claim["holds_in_part_if"]),
        "own_rule": bool(claim["own_rule"]),
    }


def _range(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if given is None else {**_numbers(given, _BOUNDS), "words": str(given["words"])}


def _numbers(given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, float]:
    return {name: float(given[name]) for name in names}


def _plain_range(threshold: Threshold | None) -> dict[str, Any] | None:
    if threshold is None:
        return None
    return {"words": threshold.words, "low": threshold.low, "high": threshold.high}
