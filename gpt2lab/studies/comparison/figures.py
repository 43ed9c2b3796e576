"""The figures that papers about optimizers show, from a study whose arms are the candidates of `comparison`."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gpt2lab.base.wording import number
from gpt2lab.plots import figures
from gpt2lab.plots.over_seeds import mean_curves
from gpt2lab.studies.race import step_ratio
from gpt2lab.studies.seed_figures import interval_columns
from gpt2lab.studies.sweep import sweep_of

if TYPE_CHECKING:
    from gpt2lab.studies.study import Study


def add(
    study: "Study",
    arms: Sequence[str],
    lengths: Sequence[int],
    *,
    baseline: str,
    names: Mapping[str, str] | None = None,
) -> None:
    """Add training curves, final losses by length and by time, learning-rate sweeps and the table of means to a study.

    names: what the arms are called in the report; by default as they are.
    """
    names = {arm: (names or {}).get(arm, arm) for arm in arms}
    _curves(study, names)
    _lengths(study, names, lengths)
    _sweeps(study, names)
    longest = max(lengths)
    rows = [_row(study, arm, names, lengths, baseline) for arm in arms]
    rows.sort(key=lambda row: row[f"loss after {longest}"])
    study.table(
        "optimizers",
        rows,
        "Validation loss in nats per token, mean over seeds, each optimizer at its tuned learning rate "
        "(+ where the best one tried lies at the edge of all that were)",
    )


def _row(
    study: "Study", arm: str, names: Mapping[str, str], lengths: Sequence[int], baseline: str
) -> dict[str, Any]:
    """Return an optimizer's line of the table."""
    longest = max(lengths)

    def over_seeds(name: str, of: str = arm) -> list[float]:
        return [run.results[f"{of}.{name}"] for run in study.runs]

    losses = over_seeds(f"loss.s{longest}")
    above = [own - other for own, other in zip(losses, over_seeds(f"loss.s{longest}", baseline), strict=True)]
    ratios = [
        step_ratio(*({n: run.results[f"{of}.loss.s{n}"] for n in lengths} for of in (baseline, arm)))
        for run in study.runs
        if _raced(study, arm, lengths) == list(lengths)
    ]
    own, other = over_seeds("seconds_per_step"), over_seeds("seconds_per_step", baseline)
    times = [mine / theirs for mine, theirs in zip(own, other, strict=True)]
    beside = names.get(baseline, baseline)
    return {
        "optimizer": names[arm],
        f"loss after {longest}": fmean(losses),
        **interval_columns("", losses),
        **interval_columns(f"above {beside}, paired", above),
        "learning rate": _rate(study, arm),
        f"updates of {beside} / its": fmean(ratios) if ratios else None,
        f"time / {beside}'s": fmean(times),
        "time inside": fmean(over_seeds("optimizer_share")),
        "seconds a seed": fmean(over_seeds("seconds")),
        "seconds of its sweep": study.runs[0].arms[sweep_of(arm)].results["seconds"],
    }


def _raced(study: "Study", arm: str, lengths: Sequence[int]) -> list[int]:
    """Return the lengths over which an arm has raced."""
    return [n for n in lengths if f"{arm}.loss.s{n}" in study.runs[0].results]


def _rate(study: "Study", arm: str) -> str:
    """Write the learning rate that the sweep chose; one that lies at the edge of all that were tried has a +."""
    results = study.runs[0].results
    return f"{number(results[f'{arm}.learning_rate'], 3)}{'+' if results[f'{arm}.at_edge'] else ''}"


def _curves(study: "Study", names: Mapping[str, str]) -> None:
    series, bands = {}, {}
    for arm, name in names.items():
        curves = [run.arms[arm].series("loss") for run in study.runs if arm in run.arms]
        if curves:
            smooth = [_smoothed(x, y) for x, y in curves]
            series[name], bands[name] = figures.band_over_seeds(smooth)
    if series:
        study.figure(
            "training_loss",
            figures.line_chart(
                series, bands=bands, x_label="updates", y_label="training loss (nats per token)"
            ),
            "Training loss of the longest schedule, smoothed over 25 updates; mean and range over seeds",
        )


def _smoothed(x: Sequence[float], y: Sequence[float], width: int = 5) -> tuple[list[float], list[float]]:
    """Means of `width` neighbours, without the first of them; of a short curve, of fewer."""
    width = max(1, min(width, len(y) // 2))
    means = [fmean(y[max(0, i - width + 1) : i + 1]) for i in range(len(y))]
    return list(x[width - 1 :]), means[width - 1 :]


def _lengths(study: "Study", names: Mapping[str, str], lengths: Sequence[int]) -> None:
    """Loss after complete schedules, by their updates and by the time that they took."""
    updates, times, ranges = {}, {}, {}
    for arm, name in names.items():
        raced = _raced(study, arm, lengths)
        losses = [[run.results[f"{arm}.loss.s{n}"] for run in study.runs] for n in raced]
        seconds = fmean(run.results[f"{arm}.seconds_per_step"] for run in study.runs)
        means = [fmean(values) for values in losses]
        updates[name] = ([float(n) for n in raced], means)
        times[name] = ([n * seconds for n in raced], means)
        ranges[name] = ([min(values) for values in losses], [max(values) for values in losses])
    for key, series, x_label in (
        ("loss_by_length", updates, "updates of the complete schedule"),
        ("loss_by_time", times, "seconds in updates of the complete schedule"),
    ):
        study.figure(
            key,
            figures.line_chart(
                series,
                bands=ranges,
                x_label=x_label,
                y_label="validation loss (nats per token)",
                log_x=True,
                markers=True,
            ),
            f"Validation loss by {x_label}; mean and range over seeds",
        )


def _sweeps(study: "Study", names: Mapping[str, str]) -> None:
    """Loss against learning rate in the sweeps, the best over the other options."""
    curves: dict[str, list[figures.Points]] = {}
    for arm, name in names.items():
        best: dict[float, float] = {}
        for row in study.runs[0].arms[sweep_of(arm)].tables["sweep"]:
            rate, loss = float(row["learning_rate"]), float(row["loss"])
            best[rate] = min(loss, best.get(rate, loss))
        rates = sorted(best)
        curves[name] = [(rates, [best[rate] for rate in rates])]
    study.figure(
        "sweeps",
        mean_curves(
            curves, x_label="learning rate", y_label="loss on the tuning windows (nats per token)", log_x=True
        ),
        "The sweeps by which every optimizer's learning rate was chosen, once for all seeds, on a seed that is not judged; "
        "a rate at which training diverged has no point",
    )
