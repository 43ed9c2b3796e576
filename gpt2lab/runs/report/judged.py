"""Claims with their verdicts, read from verdicts.json for a report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.runs.report.document import STATUS_MARKS
from gpt2lab.runs.run_record import read_json

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


def judged_claims(path: Path) -> list[dict[str, Any]]:
    """Read what a study wrote of every claim (`gpt2lab.studies.judged`); [] if there is no such file.

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
