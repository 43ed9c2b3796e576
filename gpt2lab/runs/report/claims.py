"""The claims of a study in its report: verdicts, then each in full, then every kind of checks."""

from collections.abc import Sequence
from pathlib import Path

from gpt2lab.base.files import atomic_write
from gpt2lab.plots.interval_strip import Shade, interval_strip
from gpt2lab.runs.home import is_name
from gpt2lab.runs.kinds import WORDS, by_kind
from gpt2lab.runs.report.document import Block, ClaimDetail, Picture, Prose, Section, Verdicts
from gpt2lab.runs.verdicts import JudgedClaim, Range

_LEGEND = (
    "On each number line a dot is a seed, the bar is the mean with its interval, the green shade is where the claim holds "
    "(the paler one: in part). A line marks the threshold, a dashed one no effect, or zero, a dotted one the paper's own "
    "value; an arrow points to what lies further out."
)


def claim_sections(judged: Sequence[JudgedClaim], folder: Path) -> list[Block | Section]:
    """Return the sections, one for each kind of check; the picture of each line is written into the run's folder."""
    details = {
        one.claim.name: _detail(one, folder, place) for place, one in enumerate(judged, 1)
    }  # two of one name are refused when a study is loaded
    kinds = by_kind(judged)
    claims = kinds.pop("claim", [])
    sections: list[Block | Section] = [
        Section("Verdicts", [Verdicts(claims)] if claims else [Prose("No claim was judged.")]),
    ]
    if claims:
        sections.append(
            Section("Claim by claim", [Prose(_LEGEND), *(details[one.claim.name] for one in claims)])
        )
    sections += [
        Section(
            WORDS[kind].title,
            [
                Prose(WORDS[kind].meaning),
                Verdicts(checks, checks=True),
                *(details[one.claim.name] for one in checks),
            ],
        )
        for kind, checks in kinds.items()
    ]
    return sections


def _detail(judged: JudgedClaim, folder: Path, place: int) -> Section:
    """Return one claim, its picture a file named after it, or after its place where the name cannot be a file's."""
    claim, verdict = judged.claim, judged.verdict
    wanted = "passes" if claim.is_check else "holds"
    of_items = (
        claim.over == "items" and verdict.interval is not None
    )  # a fixed model's one dot is the mean again
    what = claim.quantity or claim.measure
    strip = interval_strip(
        [] if of_items else [value for _, value in verdict.values],
        interval=verdict.interval,
        wanted=_shade(claim.holds_if, wanted),
        weaker=_shade(claim.holds_in_part_if, "in part"),
        paper=claim.paper_value,
        no_effect=claim.no_effect,
        label=f"{what} ({claim.unit})" if what and claim.unit else what or claim.unit,
        title=f"{claim.name}: {verdict.status}. {verdict.reason}",
    )
    picture = None
    if strip:
        name = claim.name if is_name(claim.name) else f"at-{place}"
        file = folder / "figures" / f"claim-{name}.svg"
        atomic_write(file, strip)
        picture = Picture(f"claim {claim.name}", "", strip, file)
    return Section(f"{claim.name}. {claim.sentence}", [ClaimDetail(judged, picture)])


def _shade(given: Range | None, wanted: str) -> Shade | None:
    return None if given is None else Shade(given.low, given.high, f"{wanted} if {given.words}")
