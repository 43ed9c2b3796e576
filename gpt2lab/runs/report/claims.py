"""The claims of a study in its report: verdicts, then each in full, then the checks of the implementation."""

from collections.abc import Sequence
from pathlib import Path

from gpt2lab.base.files import atomic_write
from gpt2lab.plots.interval_strip import interval_strip
from gpt2lab.runs.home import is_name
from gpt2lab.runs.report.document import Block, ClaimDetail, Picture, Prose, Section, Verdicts
from gpt2lab.runs.verdicts import JudgedClaim, Range

_LEGEND = (
    "Dots are seeds, the bar is the 95 % interval around their mean, the shade is where the claim holds "
    "(the paler one: in part)."
)
_CHECKS = (
    "They say whether the code does what it should, not whether the paper is right: each passes if the quantity lies "
    "in its range in every seed."
)


def claim_sections(judged: Sequence[JudgedClaim], folder: Path) -> list[Block | Section]:
    """Return the sections; the picture of each claim is written into the run's folder."""
    claims = [one for one in judged if not one.claim.is_check]
    checks = [one for one in judged if one.claim.is_check]
    details = [_detail(one, folder, place) for place, one in enumerate(judged, 1)]
    of_claims = [detail for detail, one in zip(details, judged, strict=True) if not one.claim.is_check]
    of_checks = [detail for detail, one in zip(details, judged, strict=True) if one.claim.is_check]
    sections: list[Block | Section] = [
        Section("Verdicts", [Verdicts(claims)] if claims else [Prose("No claim was judged.")]),
        Section("Claim by claim", [Prose(_LEGEND), *of_claims]),
    ]
    if checks:
        sections.append(
            Section(
                "Checks of the implementation", [Prose(_CHECKS), Verdicts(checks, checks=True), *of_checks]
            )
        )
    return sections


def _detail(judged: JudgedClaim, folder: Path, place: int) -> Section:
    """Return one claim, its picture a file named after it, or after its place where the name cannot be a file's."""
    claim, verdict = judged.claim, judged.verdict
    strip = interval_strip(
        [value for _, value in verdict.values],
        interval=verdict.interval,
        inner=_ends(claim.holds_if),
        outer=_ends(claim.holds_in_part_if),
        title=f"{claim.name}: {verdict.status}. {verdict.reason}",
    )
    picture = None
    if strip:
        name = claim.name if is_name(claim.name) else f"at-{place}"
        file = folder / "figures" / f"claim-{name}.svg"
        atomic_write(file, strip)
        picture = Picture(f"claim {claim.name}", "", strip, file)
    return Section(f"{claim.name}. {claim.sentence}", [ClaimDetail(judged, picture)])


def _ends(given: Range | None) -> tuple[float, float] | None:
    return None if given is None else (given.low, given.high)
