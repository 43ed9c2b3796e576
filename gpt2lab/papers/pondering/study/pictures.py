"""The figures of the study."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gpt2lab.papers.pondering.study.settings import Settings
from gpt2lab.plots import figures
from gpt2lab.studies.seed_figures import seed_dots

if TYPE_CHECKING:
    from gpt2lab.runs.run_record import RunRecord
    from gpt2lab.studies.study import Study

_PASSES = {
    "kl": "KL from one pass to the next (nats)",
    "cosine": "cosine of one pass's input and the next's",
    "entropy": "entropy of a pass's distribution (nats)",
    "loss": "loss of a pass's distribution (nats per token)",
    "raised": "share of targets that the next pass finds likelier",
    "gradient": "norm of the gradient at a pass's input",
}


def add(settings: Settings, study: "Study") -> None:
    """Add losses by arm and by compute, curves, the step sweep, and what every pass does."""
    runs = study.runs
    arms = [arm for arm in settings.arms if all(arm in run.arms for run in runs)]
    losses = {arm: [run.results[f"{arm}.loss"] for run in runs] for arm in arms}
    order = sorted(arms, key=lambda arm: fmean(losses[arm]))
    study.figure(
        "losses",
        seed_dots({arm: losses[arm] for arm in order}, label="validation loss (nats per token)"),
        "Validation loss of every arm: mean over seeds with its 95 % interval, a ring a seed; the compute of each is in the "
        "next figure",
    )
    compute = {arm: fmean(run.results[f"{arm}.flops"] for run in runs) for arm in arms}
    study.figure(
        "compute",
        figures.line_chart(
            {arm: ([compute[arm] / compute["vanilla"]], [fmean(losses[arm])]) for arm in order},
            x_label="training compute, vanilla = 1", y_label="validation loss (nats per token)", markers=True,
        ),
        "Loss against training compute, mean over seeds",
    )  # fmt: skip
    study.table(
        "compute",
        [
            {
                "arm": arm,
                "loss": fmean(losses[arm]),
                "lowest": min(losses[arm]),
                "highest": max(losses[arm]),
                "parameters": int(runs[0].results[f"{arm}.parameters"]),
                "training compute, vanilla = 1": compute[arm] / compute["vanilla"],
            }
            for arm in order
        ],
        "Losses in nats per token, always beside what they cost",
    )
    _curves(study, order)
    _sweep(study, settings)
    _passes(study, runs)


def _curves(study: "Study", arms: Sequence[str]) -> None:
    series, bands = {}, {}
    for arm in arms:
        tables = [run.arms[arm].tables["curve"] for run in study.runs]
        seeds = [_columns(table, "update", "loss") for table in tables]
        series[arm], bands[arm] = figures.band_over_seeds(seeds)
    study.figure(
        "curves",
        figures.line_chart(
            series, bands=bands, x_label="updates", y_label="validation loss (nats per token)"
        ),
        "Validation loss on a quarter of the windows while training; mean and range over seeds",
    )


def _sweep(study: "Study", settings: Settings) -> None:
    steps = list(range(settings.swept + 1))
    series: dict[str, Any] = {}
    for arm in ("ponder", "ponder_random"):
        if all(arm in run.arms for run in study.runs):
            values = [fmean(run.results[f"{arm}.sweep.s{count}"] for run in study.runs) for count in steps]
            series[arm] = ([float(count) for count in steps], values)
    study.figure(
        "steps",
        figures.line_chart(
            series,
            x_label="steps at evaluation",
            y_label="validation loss (nats per token)",
            markers=True,
        ),
        f"The trained models with other numbers of steps; ponder was trained with {settings.pondering_steps}",
    )


def _passes(study: "Study", runs: Sequence["RunRecord"]) -> None:
    for name, label in _PASSES.items():
        tables = [
            [row for row in run.arms["ponder"].tables["passes"] if row.get(name, "") != ""] for run in runs
        ]
        seeds = [_columns(table, "pass", name) for table in tables]
        line, band = figures.band_over_seeds(seeds)
        study.figure(
            f"passes_{name}",
            figures.line_chart({"ponder": line}, bands={"ponder": band}, x_label="pass", y_label=label, markers=True),
            f"{label[0].upper()}{label[1:]}; mean and range over seeds",
        )  # fmt: skip


def _columns(rows: Sequence[Any], x: str, y: str) -> tuple[list[float], list[float]]:
    return [float(row[x]) for row in rows], [float(row[y]) for row in rows]
