"""The figures that papers about optimizers show, from a study whose arms are the contestants of `contest`."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gpt2lab.base.wording import number
from gpt2lab.lab import figures
from gpt2lab.lab.contest import step_ratio
from gpt2lab.measure.statistics import t_interval

if TYPE_CHECKING:
    from gpt2lab.lab.study import Study


def add(study: "Study", arms: Sequence[str], lengths: Sequence[int], *, baseline: str) -> None:
    """Add training curves, final losses by length, learning-rate sweeps and the table of means to a study."""
    _curves(study, arms)
    _lengths(study, arms, lengths)
    _sweeps(study, arms)
    longest = max(lengths)
    rows = list[dict[str, Any]]()
    for arm in arms:
        losses = [run.results[f"{arm}.loss.s{longest}"] for run in study.runs]
        ratios = [
            step_ratio(
                {n: run.results[f"{baseline}.loss.s{n}"] for n in lengths},
                {n: run.results[f"{arm}.loss.s{n}"] for n in lengths},
            )
            for run in study.runs
        ]
        times = [
            run.results[f"{arm}.seconds_per_step"] / run.results[f"{baseline}.seconds_per_step"]
            for run in study.runs
        ]
        rows.append(
            {
                "optimizer": arm,
                f"loss after {longest}": fmean(losses),
                "95 % interval": interval_words(losses),
                f"above {baseline}, paired": interval_words(
                    [
                        run.results[f"{arm}.loss.s{longest}"] - run.results[f"{baseline}.loss.s{longest}"]
                        for run in study.runs
                    ]
                ),
                f"times fewer updates than {baseline}": fmean(ratios),
                f"time an update / {baseline}'s": fmean(times),
                "share in the optimizer": fmean(run.results[f"{arm}.optimizer_share"] for run in study.runs),
            }
        )
    rows.sort(key=lambda row: row[f"loss after {longest}"])
    study.table(
        "optimizers",
        rows,
        "Validation loss in nats per token, mean over seeds; each at its tuned learning rate",
    )


def interval_words(values: Sequence[float]) -> str:
    """Write the 95 % t interval of one value a seed; "" where fewer than two are finite numbers or all are equal."""
    if len(values) < 2 or not all(map(math.isfinite, values)) or min(values) == max(values):
        return ""
    found = t_interval(values)
    return f"{number(found.low, 3)} to {number(found.high, 3)}"


def _curves(study: "Study", arms: Sequence[str]) -> None:
    series, bands = {}, {}
    for arm in arms:
        curves = [run.arms[arm].series("loss") for run in study.runs if arm in run.arms]
        if curves:
            smooth = [_smoothed(x, y) for x, y in curves]
            series[arm], bands[arm] = figures.band_over_seeds(smooth)
    if series:
        study.figure(
            "training_loss",
            figures.line_chart(
                series, bands=bands, x_label="updates", y_label="training loss (nats per token)"
            ),
            "Training loss of the longest schedule, smoothed over 25 updates; mean and range over seeds",
        )


def _smoothed(x: Sequence[float], y: Sequence[float], width: int = 5) -> tuple[list[float], list[float]]:
    """Means of `width` neighbours, without the first of them."""
    means = [fmean(y[max(0, i - width + 1) : i + 1]) for i in range(len(y))]
    return list(x[width - 1 :]), means[width - 1 :]


def _lengths(study: "Study", arms: Sequence[str], lengths: Sequence[int]) -> None:
    series = {
        arm: (
            [float(n) for n in lengths],
            [fmean(run.results[f"{arm}.loss.s{n}"] for run in study.runs) for n in lengths],
        )
        for arm in arms
    }
    ranges = {
        arm: (
            [min(run.results[f"{arm}.loss.s{n}"] for run in study.runs) for n in lengths],
            [max(run.results[f"{arm}.loss.s{n}"] for run in study.runs) for n in lengths],
        )
        for arm in arms
    }
    study.figure(
        "loss_by_length",
        figures.line_chart(
            series, bands=ranges, x_label="updates of the complete schedule",
            y_label="validation loss (nats per token)", log_x=True, markers=True,
        ),
        "Validation loss after complete schedules of each length; mean and range over seeds",
    )  # fmt: skip


def _sweeps(study: "Study", arms: Sequence[str]) -> None:
    """Loss against learning rate in the sweeps, the best over the other options, mean over the seeds that tried it."""
    series = {}
    for arm in arms:
        found: dict[float, list[float]] = {}
        for run in study.runs:
            best: dict[float, float] = {}
            for row in run.arms[arm].tables["sweep"]:
                rate, loss = float(row["learning_rate"]), float(row["loss"])
                best[rate] = min(loss, best.get(rate, loss))
            for rate, loss in best.items():
                found.setdefault(rate, []).append(loss)
        rates = sorted(found)
        series[arm] = (rates, [fmean(found[rate]) for rate in rates])
    study.figure(
        "sweeps",
        figures.line_chart(
            series,
            x_label="learning rate",
            y_label="validation loss (nats per token)",
            log_x=True,
            markers=True,
        ),
        "The sweeps by which every optimizer's learning rate was chosen; mean over seeds",
    )
