"""Run a paper's study over its seeds, judge its claims, write the report.

examples:
  gpt2lab reproduce tinystories --scale laptop --seeds 3
  gpt2lab reproduce tinystories --scale smoke --set NAME=VALUE
  gpt2lab reproduce tinystories --seed-list 7,8,9       these seeds, instead of 0, 1 and 2
  gpt2lab reproduce tinystories --help      the settings of a study
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.progress import duration, quiet
from gpt2lab.base.registry import paper, papers
from gpt2lab.base.settings import options
from gpt2lab.base.shipped import published_study, shipped_verdicts
from gpt2lab.base.wording import count, listed, number
from gpt2lab.cli.parser import Parser, add_device, add_set, settings_help, typed, whole
from gpt2lab.cli.seeds import add_seeds, seeds_of
from gpt2lab.cli.show import paragraph, print_json
from gpt2lab.runs.kinds import WORDS, by_kind
from gpt2lab.studies.claim import SCALES

if TYPE_CHECKING:
    from gpt2lab.runs.verdicts import JudgedClaim, RecordedClaim, Verdict
    from gpt2lab.studies.study import Study

_PLAIN = ("holds", "does not hold")  # verdicts that the interval and the threshold explain by themselves


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add the paper, the scale, the seeds; its settings, if --help is asked of a paper."""
    parser.add_argument("paper", metavar="PAPER", help="a paper's name; `gpt2lab papers` lists them")
    add_study(parser)
    if "--help" in argv or "-h" in argv:
        _add_settings(parser, argv)


def add_study(parser: Parser) -> None:
    """Add what every study takes: scale, seeds, workers, threads, device, settings."""
    parser.add_argument(
        "--scale",
        default="laptop",
        metavar="SCALE",
        help="smoke (seconds), laptop (meant for 2 idle cores and ten minutes a seed; `gpt2lab papers NAME` shows the "
        "time of the published study), gpu, paper (default: laptop)",
    )
    add_seeds(parser)
    parser.add_argument(
        "--workers",
        type=whole,
        metavar="N",
        help="parallel processes; no number depends on it (default: one a core)",
    )
    parser.add_argument(
        "--threads",
        type=whole,
        metavar="N",
        help="threads of one operation; sums may depend on it (default: 1 on a CPU)",
    )
    add_device(parser)
    add_set(parser)


def _add_settings(parser: Parser, argv: Sequence[str]) -> None:
    """Put the settings of the paper that was typed at the end of its --help."""
    from gpt2lab.studies.experiment import load_experiment

    named = [one for one in papers() if one.slug in argv and one.built]
    if not named:
        return
    experiment = load_experiment(named[0])
    scale = typed(argv, "--scale") or "laptop"
    listing = options(experiment.settings_class, default=experiment.settings(scale))
    title = f"settings of {named[0].slug} at {scale} scale"
    parser.epilog = f"{parser.epilog}\n\n{settings_help(title, listing)}"


def run(arguments: argparse.Namespace) -> None:
    """Run the study; print verdicts and where the report is. LabError after that if a seed failed."""
    if arguments.scale not in SCALES:
        raise unknown("scale", arguments.scale, SCALES)
    paper(arguments.paper)
    seeds = seeds_of(arguments)
    from gpt2lab.studies.study import reproduce  # slow to import, for which a wrong word need not wait

    device = _device(arguments.scale, arguments.device)
    _announce(arguments.paper, arguments.scale, seeds if isinstance(seeds, int) else len(seeds))
    study = reproduce(
        arguments.paper,
        scale=arguments.scale,
        seeds=seeds,
        workers=arguments.workers,
        settings=arguments.settings,
        device=device,
        threads=arguments.threads,
    )
    show_study(study, as_json=arguments.json)


def _announce(slug: str, scale: str, n_seeds: int) -> None:
    """Say on stderr how long the published study of this scale took, and what this one can find; nothing if unknown."""
    from gpt2lab.studies.experiment import load_experiment
    from gpt2lab.studies.judge import planned_power

    found = next((one for one in papers() if one.slug == slug and one.built), None)
    if found is None or quiet():
        return
    shipped = shipped_verdicts(found)
    if shipped is not None and shipped.scale == scale:
        print(f"the published study: {published_study(shipped)}", file=sys.stderr)
    for claim in load_experiment(found).claims:
        planned = planned_power(claim, scale, n_seeds) if claim.over == "seeds" else None
        if planned is not None and scale in claim.scales:
            print(f"{claim.name}: {planned.words}", file=sys.stderr)


def _device(scale: str, device: str | None) -> str | None:
    """Return the device that was asked for. LabError for a scale made for a GPU on a machine without, unless told so."""
    from gpt2lab.actions.models import pick_device

    if device is None and scale in ("gpu", "paper") and pick_device().type == "cpu":
        raise LabError(
            f"--scale {scale} is made for a GPU, and this machine has none; take --scale laptop, or --device cpu to let it "
            "run here for as long as it takes"
        )
    return str(pick_device(device)) if device else None


def show_study(study: "Study", as_json: bool) -> None:
    """Print a study; LabError with what went wrong, if anything did."""
    if as_json:
        print_json(study.to_plain())
    else:
        _print(study)
    if study.failures:
        raise LabError(f"{study.id}: {listed(study.failures)}; gpt2lab resume {study.id} tries them again")


def _print(study: "Study") -> None:
    took = f", {duration(study.seconds)}" if study.seconds >= 1 else ""
    print(f"{study.paper}, {study.scale} scale, {count(len(study.runs), 'seed')}{took}")
    if any(judged.verdict.interval is not None for judged in study.claims):
        print("measured: the mean over seeds, or over test items [its 95 % interval]")
    elsewhere = [judged for judged in study.claims if _of_another_scale(judged, study.scale)]
    here = [judged for judged in study.claims if judged not in elsewhere]
    for kind, those in by_kind(here).items():
        if kind == "claim":
            print(*(f"\n{_claim(judged, study.scale, study.earlier)}" for judged in those), sep="\n")
            continue
        title = WORDS[kind].title
        print(f"\n{title[0].lower()}{title[1:]}, no claim of the paper:")
        print(*(_check(judged, study.scale) for judged in those), sep="\n")
    if elsewhere:
        print("\nnothing to measure at this scale:")
    for judged in elsewhere:
        scales = listed(judged.claim.scales, "or")
        print(paragraph(f"{judged.claim.name}  {judged.claim.sentence} ({scales})", hanging=3))
    print(f"\nreport  {study.report}")
    print(f"run     {study.id}")
    if study.scale == "smoke" and any("laptop" in judged.claim.scales for judged in study.claims):
        print(f"next    gpt2lab reproduce {study.paper} --scale laptop")


def _of_another_scale(judged: "JudgedClaim", scale: str) -> bool:
    """Whether a claim is for another scale and nothing that it asks for was measured at this one."""
    return scale not in judged.claim.scales and not judged.verdict.values


def _claim(judged: "JudgedClaim", scale: str, earlier: "Sequence[JudgedClaim]") -> str:
    """Return a claim's lines: its sentence, the verdict and why, what was measured, what the paper says, what was said."""
    claim, verdict = judged.claim, judged.verdict
    said = [("verdict", f"{verdict.status}{_why(claim, verdict, scale)}")]
    if measured := _measured(claim, verdict):
        wanted = f"; the claim holds if {claim.holds_if.words}" if claim.holds_if is not None else ""
        said.append(("measured", measured + wanted))
    if judged.of_seen is not None:
        said.append(
            ("seen", f"not a verdict, of the seeds before the rule was changed: {judged.of_seen.status}")
        )
    if claim.paper:
        said.append(("paper", claim.paper))
    said += [("before", one.words_beside(judged)) for one in earlier if one.claim.name == claim.name]
    lines = [paragraph(f"{claim.name}  {claim.sentence}", hanging=3)]
    return "\n".join(
        [*lines, *(paragraph(f"{what:<8}  {text}", indent=3, hanging=13) for what, text in said)]
    )


def _check(judged: "JudgedClaim", scale: str) -> str:
    """Return a check's line: what it is, whether it passes, and why not."""
    claim, verdict = judged.claim, judged.verdict
    why = "" if verdict.status == "passes" else _why(claim, verdict, scale)
    return paragraph(f"{claim.name}  {claim.sentence}: {verdict.status}{why}", hanging=3)


def _why(claim: "RecordedClaim", verdict: "Verdict", scale: str) -> str:
    """Return what stands behind a verdict: the reason, unless the interval and the threshold give it by themselves."""
    if scale not in claim.scales:
        return f", but at {listed(claim.scales, 'or')} scale"
    if verdict.interval is not None and claim.holds_if is not None and verdict.status in _PLAIN:
        return ""
    return f". {verdict.reason}"


def _measured(claim: "RecordedClaim", verdict: "Verdict") -> str:
    """Return the measured quantity: its mean and interval over seeds, or the value of each; empty if there is none."""
    unit = f" {claim.unit}" if claim.unit else ""
    if verdict.interval is not None and verdict.interval.low == verdict.interval.high:
        return f"{number(verdict.interval.mean)}{unit}"
    if verdict.interval is not None:
        mean, low, high = (
            number(x) for x in (verdict.interval.mean, verdict.interval.low, verdict.interval.high)
        )
        over = f" ({verdict.method})" if claim.over == "items" else ""
        return f"{mean} [{low}, {high}]{unit}{over}"
    values = [f"{number(value)} (seed {seed})" for seed, value in verdict.values]
    return f"{', '.join(values)}{unit}" if values else ""
