"""Loss curves that a report draws from what runs have logged."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write
from gpt2lab.base.json_numbers import flat
from gpt2lab.base.wording import count, listed, number
from gpt2lab.plots.figures import PALETTE, Points, band_over_seeds, line_chart, to_svg
from gpt2lab.runs.report.document import Picture, Prose
from gpt2lab.runs.run_record import RunRecord

_NATS = "nats per token"
_METRICS = {"loss": "Training loss", "validation_loss": "Validation loss"}
_Bands = Mapping[str, tuple[Sequence[float], Sequence[float]]]
_DRAWN = 1000  # stretches of a longer curve, of which the lowest and the highest point are drawn: more than its pixels


def curves_of_run(run: RunRecord) -> Iterator[Picture | Prose]:
    """Yield one figure with a run's training and validation loss, if it has logged them."""
    series = {words.lower(): points for name, words in _METRICS.items() if (points := _points(run, name))}
    yield from _chart("Loss over updates", series, run.folder, unit=_unit([run]))


def curves_of_runs(runs: Mapping[str, RunRecord], folder: Path) -> Iterator[Picture | Prose]:
    """Yield a figure for each of training and validation loss, with a line for every run."""
    for name, words in _METRICS.items():
        series = {run: points for run, of in runs.items() if (points := _points(of, name))}
        alone = f": `{next(iter(series))}`" if len(series) == 1 else ""  # a single line has no name beside it
        unit = _unit([runs[run] for run in series])
        yield from _chart(f"{words} over updates{alone}", series, folder, unit=unit)


def curves_of_study(pieces: Sequence[RunRecord], folder: Path) -> Iterator[Picture | Prose]:
    """Yield the training loss of every arm, mean and range over seeds; nothing if there are too many arms to tell."""
    arms: dict[str, list[Points]] = {}
    for piece in pieces:
        if piece.status == "finished" and (points := _points(piece, "loss")):
            arms.setdefault(piece.arm or "all seeds", []).append(points)
    bands = {arm: band_over_seeds(seeds) for arm, seeds in arms.items()}
    series = {arm: mean for arm, (mean, _) in bands.items() if mean[0]}
    if len(series) <= len(PALETTE):
        caption = "Training loss over updates: mean over seeds, the shade from the lowest to the highest"
        yield from _chart(caption, series, folder, {arm: band for arm, (_, band) in bands.items()})


def _unit(runs: Sequence[RunRecord]) -> str:
    """Return what a loss is measured in: of a head, or an objective that is not the usual one, no more than `loss`."""
    settings = [flat(run.json("settings.json")) for run in runs]
    usual = all(
        one.get("objective") is None and one.get("task.kind", "language") == "language" for one in settings
    )
    return _NATS if usual else "loss"


def _points(run: RunRecord, name: str) -> Points | None:
    steps, values = run.series(name)
    return (steps, values) if any(map(math.isfinite, values)) else None


def _chart(
    caption: str,
    series: Mapping[str, Points],
    folder: Path,
    bands: _Bands | None = None,
    unit: str = _NATS,
) -> Iterator[Picture | Prose]:
    """Yield a chart, kept in the folder's figures; of single points, or without matplotlib, a sentence."""
    if not series:
        return
    if all(len(_finite(points)) == 1 for points in series.values()):
        yield _in_words(caption, series, unit)
        return
    shown = {name: _extremes(points) for name, points in series.items()}
    drawn = {name: _at(series[name], places) for name, places in shown.items()}
    shades = {name: _at(band, shown[name]) for name, band in (bands or {}).items() if name in shown}
    try:
        figure = line_chart(drawn, x_label="updates", y_label=unit, bands=shades)
    except LabError as error:  # a report without figures is still one
        yield Prose(f"{error}.")
        return
    svg = to_svg(figure, caption.replace("`", ""))
    file = folder / "figures" / f"{caption.partition(':')[0].lower().replace(' ', '-')}.svg"
    atomic_write(file, svg)
    yield Picture(file.stem, caption, svg, file)


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(step, value) for step, value in zip(*points, strict=True) if math.isfinite(value)]


def _in_words(caption: str, series: Mapping[str, Points], unit: str) -> Prose:
    """Say what a chart of single points would show."""
    ends = {name: _finite(points)[0] for name, points in series.items()}
    shown = [
        f"{name} {number(value)} after {count(int(step), 'update')}" for name, (step, value) in ends.items()
    ]
    measured = f" in {unit}" if unit == _NATS else ""
    return Prose(f"{caption.partition(' over ')[0]}{measured}: {listed(shown)}.")


def _extremes(points: Points) -> list[int]:
    """Return the places of the points to draw: all of a short curve, else the extremes of each stretch, in order."""
    values, count = points[1], len(points[1])
    if count <= 2 * _DRAWN:
        return list(range(count))
    places = {0, count - 1}
    for stretch in range(_DRAWN):
        here = range(stretch * count // _DRAWN, (stretch + 1) * count // _DRAWN)
        places |= {min(here, key=values.__getitem__), max(here, key=values.__getitem__)}
    return sorted(places)


def _at(pair: Points, places: Sequence[int]) -> Points:
    """Return both sequences at these places alone."""
    return [pair[0][i] for i in places], [pair[1][i] for i in places]
