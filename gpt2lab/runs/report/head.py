"""The head of a study's report: three sentences and one figure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpt2lab.base.files import atomic_write
from gpt2lab.base.interval import Interval
from gpt2lab.base.wording import count, listed, number
from gpt2lab.plots.claims_overview import Row, claims_overview
from gpt2lab.plots.interval_strip import Shade
from gpt2lab.runs.head import Head
from gpt2lab.runs.kinds import by_kind
from gpt2lab.runs.report.document import STATUS_MARKS, Block, Picture, Prose
from gpt2lab.runs.verdicts import JudgedClaim, Range, Status

_VERBS: Mapping[Status, tuple[str, str]] = {
    Status.HOLDS: ("holds", "hold"),
    Status.IN_PART: ("holds in part", "hold in part"),
    Status.DOES_NOT_HOLD: ("is refuted", "are refuted"),
    Status.INCONCLUSIVE: ("is neither shown nor refuted", "are neither shown nor refuted"),
    Status.NOT_TESTED: ("could not be tested at this scale", "could not be tested at this scale"),
}
"""What a sentence says of one claim, and of several."""
_CAPTION = (
    "The claims of the paper. Each row has a scale of its own: the middle is the claim's threshold, the green side is where "
    "it holds (paler: in part), the bar is the interval with its mean, the diamond (at the edge an arrow) is the paper's "
    "own value; grey is what decides nothing"
)


def head_blocks(
    judged: Sequence[JudgedClaim],
    head: Head,
    scale: str,
    summary: str,
    pictures: Sequence[Picture],
    folder: Path,
) -> list[Block]:
    """Return the sentences and the figure; without claims only what the experiment said.

    head: what it said itself. summary: what it does, in one or more sentences. pictures: its figures.
    """
    claims = by_kind(judged).get("claim", [])
    sentences = (
        ("What was asked", head.asked or (_asked(claims, scale) if claims else summary)),
        ("What was found", head.found or (_found(claims) if claims else "")),
        ("What it means", head.means or (_means(claims, scale) if claims else "")),
    )
    blocks: list[Block] = [Prose(f"**{what}.** {words}") for what, words in sentences if words]
    own = next((picture for picture in pictures if picture.name == head.figure), None)
    if own is not None:
        blocks.append(own)
    elif claims:
        blocks.append(_overview(claims, folder))
    return blocks


def _asked(claims: Sequence[JudgedClaim], scale: str) -> str:
    first = claims[0].claim
    more = f", and {count(len(claims) - 1, 'further claim')} of the paper" if len(claims) > 1 else ""
    return f"Does this hold at {scale} scale: “{first.sentence.rstrip('.')}” ({first.name}){more}?"


def _found(claims: Sequence[JudgedClaim]) -> str:
    """Return how many claims got which verdict, and the numbers of the main one."""
    counted = Counter(one.verdict.status for one in claims)
    many = {status: counted[status] for status in _VERBS if counted[status]}
    tally = f"Of {len(claims)} claims of the paper, {listed([f'{n} {_VERBS[status][n > 1]}' for status, n in many.items()])}"
    if len(claims) == 1:
        tally = f"The claim of the paper {_VERBS[claims[0].verdict.status][0]}"
    main = _main(claims)
    claim, verdict = main.claim, main.verdict
    if verdict.interval is None or verdict.status is Status.NOT_TESTED or claim.holds_if is None:
        return f"{tally}."
    paper = (
        f", and the paper's value is {number(claim.paper_value, 3)}" if claim.paper_value is not None else ""
    )
    what, numbers = claim.quantity or "the quantity", _numbers(verdict.interval, claim.unit)
    return f"{tally}; in {claim.name}, {what} is {numbers}, the claim holds if that is {claim.holds_if.words}{paper}."


def _numbers(interval: Interval, unit: str) -> str:
    """Return mean and interval with the unit; of equal values the mean alone."""
    mean = f"{number(interval.mean, 3)} {unit}".rstrip()
    if interval.low == interval.high:
        return mean
    level, low, high = number(100 * interval.level, 4), number(interval.low, 3), number(interval.high, 3)
    return f"{mean} ({level} % interval {low} to {high})"


def _main(claims: Sequence[JudgedClaim]) -> JudgedClaim:
    """Return the first claim that was tested, the first of all if none was."""
    return next((one for one in claims if one.verdict.status is not Status.NOT_TESTED), claims[0])


def _means(claims: Sequence[JudgedClaim], scale: str) -> str:
    """Return what the verdict on the main claim is worth."""
    main = _main(claims)
    claim, verdict = main.claim, main.verdict
    here = "" if scale == "paper" else " at this scale, which is not the paper's"
    power = _power(main)
    match verdict.status:
        case Status.HOLDS:
            return f"{claim.name} is supported{here}{_beside_the_papers(main)}."
        case Status.IN_PART:
            weaker = (
                f", but it is {claim.holds_in_part_if.words}" if claim.holds_in_part_if is not None else ""
            )
            return f"{claim.name} is not supported in full{here}{weaker}{_beside_the_papers(main)}."
        case Status.DOES_NOT_HOLD:
            return f"{claim.name} is refuted{here}{f'; {power}' if power else ''}."
        case Status.INCONCLUSIVE:
            return f"Nothing follows for {claim.name}, or against it: {power or _clause(main)}."
    return f"Nothing follows for the paper: {_clause(main)}."


def _power(main: JudgedClaim) -> str:
    """Return what such a study finds; "" if that is not known."""
    smallest, effect, interval = main.verdict.detectable, main.claim.effect, main.verdict.interval
    if not smallest or interval is None:
        return ""
    n = count(interval.n, main.claim.over.removesuffix("s"))
    paper = f", and the paper's is {number(effect, 2)}" if effect is not None else ""
    return f"with this spread {n} find a true distance of {number(smallest, 2)} from the threshold with 80 % power{paper}"


def _beside_the_papers(main: JudgedClaim) -> str:
    """Return where the paper's own value lies; "" if it or the interval is not known."""
    value, interval = main.claim.paper_value, main.verdict.interval
    if value is None or interval is None:
        return ""
    where = "inside" if interval.contains(value) else "outside"
    return f"; the paper's value, {number(value, 3)}, lies {where} the interval"


def _clause(main: JudgedClaim) -> str:
    """Return the reason of a verdict as the end of a sentence; what "it" is is said."""
    reason = main.verdict.reason.rstrip(".")
    if reason.startswith("It "):
        return f"{main.claim.name}{reason.removeprefix('It')}"
    return f"{reason[:1].lower()}{reason[1:]}"


def _overview(claims: Sequence[JudgedClaim], folder: Path) -> Picture:
    rows = [_row(one) for one in claims]
    title = "; ".join(f"{one.claim.name}: {one.verdict.status}" for one in claims)
    svg = claims_overview(rows, title)
    file = folder / "figures" / "claims-overview.svg"
    atomic_write(file, svg)
    return Picture(file.stem, _CAPTION, svg, file)


def _row(one: JudgedClaim) -> Row:
    claim, verdict = one.claim, one.verdict
    return Row(
        name=claim.name,
        words=claim.sentence,
        answer=f"{STATUS_MARKS[verdict.status][1]} {verdict.status.removesuffix(' at this scale')}",
        wanted=_shade(claim.holds_if),
        weaker=_shade(claim.holds_in_part_if),
        values=[value for _, value in verdict.values],
        interval=verdict.interval,
        paper=claim.paper_value,
        tested=verdict.status is not Status.NOT_TESTED,
    )


def _shade(given: Range | None) -> Shade | None:
    return None if given is None else Shade(given.low, given.high, given.words)
