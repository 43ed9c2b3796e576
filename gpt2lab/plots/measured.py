"""The few plots that measures draw, when somebody asks for them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.extras import install
from gpt2lab.base.wording import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def line_plot(
    rows: Sequence[Mapping[str, Any]], x: str, y: str, *, x_label: str, y_label: str, log_x: bool = True
) -> Callable[[], "Figure"]:
    """Return a function that draws column `y` of a table against column `x`.

    matplotlib is imported when the function is called; LabError then if it is missing.
    """

    def draw() -> "Figure":
        figure = new_figure()
        axes = figure.subplots()
        axes.plot(
            [row[x] for row in rows], [row[y] for row in rows], marker="o", color="#2a6f97", linewidth=1.5
        )
        if log_x:
            axes.set_xscale("log", base=2)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        return figure

    return draw


def heat_map(
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_label: str,
    value_label: str,
    cells: Sequence[Sequence[str]] | None = None,
    signed: bool = False,
    low: float | None = None,
    high: float | None = None,
    upwards: bool = False,
) -> Callable[[], "Figure"]:
    """Return a function that draws values [rows][columns] as colours, with `cells` written into them.

    signed: white is 0, and both sides reach equally far, to `high` if given. upwards: the first row is at the bottom.
    NaN stays grey. Drawn as `line_plot` is; so are its errors.
    """

    def draw() -> "Figure":
        wide = 0.72 if cells is not None else 0.34
        figure = new_figure(max(4.0, 1.9 + wide * len(columns)), max(2.2, 1.3 + 0.26 * len(rows)))
        axes = figure.subplots()
        known = [value for row in values for value in row if value == value]
        reach = max((abs(value) for value in known), default=1.0) or 1.0
        if signed and high is not None:
            reach = high
        bounds = (-reach, reach) if signed else (low, high)
        image = axes.imshow(
            values, cmap="RdBu_r" if signed else "Blues", vmin=bounds[0], vmax=bounds[1], aspect="auto",
            origin="lower" if upwards else "upper",
        )  # fmt: skip
        axes.set_facecolor("#d9d9d9")
        upright = max(map(len, columns), default=0) > (8 if cells is not None else 3)
        axes.set_xticks(
            range(len(columns)), [_plain(name) for name in columns], rotation=90 if upright else 0, fontsize=7
        )
        axes.set_yticks(range(len(rows)), rows, fontsize=7)
        axes.set_ylabel(row_label)
        for i, row in enumerate(cells or ()):
            for j, text in enumerate(row):
                dark = values[i][j] > 0.6 * (high if high is not None else reach)
                axes.text(
                    j,
                    i,
                    _plain(text[:9]),
                    ha="center",
                    va="center",
                    fontsize=6,
                    color="white" if dark else "black",
                )
        bar = figure.colorbar(image)
        bar.set_label(value_label, fontsize=8)
        bar.ax.tick_params(labelsize=7)
        return figure

    return draw


def _plain(text: str) -> str:
    """Make blanks, line breaks and control characters of a token visible; keep matplotlib from reading formulas in it."""
    return printable(text).replace("\n", "↵").replace("\t", "→").replace("$", r"\$").strip() or "␣"


def new_figure(width: float = 5.0, height: float = 3.2) -> "Figure":
    """Return an empty matplotlib figure (sizes in inches) that no global state knows of. LabError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LabError(f"figures need matplotlib; {install('plots')}") from error
    return Figure(figsize=(width, height), layout="constrained")
