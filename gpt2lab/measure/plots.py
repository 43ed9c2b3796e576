"""The few plots that measures draw, when somebody asks for them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError

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


def new_figure(width: float = 5.0, height: float = 3.2) -> "Figure":
    """Return an empty matplotlib figure (sizes in inches) that no global state knows of. LabError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LabError("figures need matplotlib; pip install 'gpt2lab[plots]'") from error
    return Figure(figsize=(width, height), layout="constrained")
