"""The figures of the study: loss against updates of every arm, final losses, and the updates that each saves."""

from statistics import fmean
from typing import TYPE_CHECKING, Any

from gpt2lab.papers.wechsel.study.settings import SCARCE, Settings
from gpt2lab.plots import figures
from gpt2lab.studies.seed_figures import interval_columns, seed_dots

if TYPE_CHECKING:
    from gpt2lab.studies.study import Study

_LOSS = "validation loss (nats per token)"


def add(settings: Settings, study: "Study") -> None:
    """Add figures and tables over all seeds."""
    there = [arm for arm in settings.arms if all(arm in run.arms for run in study.runs)]
    whole = [arm for arm in there if not arm.endswith(SCARCE)]
    series: dict[str, Any] = {}
    bands: dict[str, Any] = {}
    for arm in there:
        tables = [run.arms[arm].tables["curve"] for run in study.runs]
        seeds = [
            ([float(row["update"]) for row in rows], [float(row["loss"]) for row in rows]) for rows in tables
        ]
        series[arm], bands[arm] = figures.band_over_seeds(seeds)
    for name, arms, what in (
        ("curves", whole, "all of the text"),
        (
            "curves_scarce",
            [arm for arm in there if arm.endswith(SCARCE)],
            f"{settings.scarce:.0%} of the text",
        ),
    ):
        chart = figures.line_chart(
            {arm: series[arm] for arm in arms},
            bands={arm: bands[arm] for arm in arms},
            x_label="updates",
            y_label=_LOSS,
        )
        study.figure(
            name, chart, f"Loss in the target language while training on {what}; mean and range over seeds"
        )
    losses = {arm: [run.results[f"{arm}.loss"] for run in study.runs] for arm in there}
    study.figure(
        "losses",
        seed_dots(losses, label=_LOSS),
        "Final losses: mean over seeds with its 95 % interval, a ring a seed",
    )
    rows = []
    for arm in there:
        reached = [run.results.get(f"{arm}.updates_to_transinner") for run in study.runs]
        known = [float(value) for value in reached if value is not None]
        fewer = [settings.steps / value if value else None for value in known]
        rows.append(
            {
                "arm": arm,
                "loss": fmean(losses[arm]),
                **interval_columns("loss", losses[arm]),
                "bits per byte": fmean(run.results[f"{arm}.bits_per_byte"] for run in study.runs),
                "seeds that reach transinner's loss": len(known),
                "updates to it, mean": fmean(known) if known else None,
                "times fewer, mean": fmean(one for one in fewer if one) if any(fewer) else None,
            }
        )
    study.table(
        "updates", rows, "Updates until an arm's loss is the final one of random embeddings (transinner)"
    )
