"""The study: does the chain of measurements find a bias that is known by construction, and does a model reflect it?

A small GPT-2 learns sentences of a world with a stated P*(job | category, gender); its completions go through all
statistics with P* in the place of labour statistics. The same statistics are taken of a pretrained model, where it is at
hand.
"""

from typing import TYPE_CHECKING

from gpt2lab.papers.occupational_bias.analysis import concentration_table
from gpt2lab.papers.occupational_bias.released import deviations, released_numbers, xlnet_counts
from gpt2lab.papers.occupational_bias.study import generated, real
from gpt2lab.papers.occupational_bias.study.claims import CLAIMS
from gpt2lab.papers.occupational_bias.study.settings import PRESETS, Settings
from gpt2lab.runs.run import Run
from gpt2lab.studies.graph import UnitSpec
from gpt2lab.studies.seed_figures import seed_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2lab.studies.study import Study

__all__ = ["CLAIMS", "PRESETS", "Settings", "run", "summarise", "units"]


def units(settings: Settings) -> list[UnitSpec]:
    """Return the measurement of the pretrained model, which all seeds share, and each seed's trained model."""
    found = [UnitSpec("real", real.measure, shared=True)] if settings.real else []
    return [*found, UnitSpec("world", generated.measure)] if settings.trained else found


def run(settings: Settings, run: Run) -> None:
    """Check the statistics on what the authors released, and gather what the units found."""
    quoted = released_numbers()
    for name, value in quoted.items():
        run.result(name, value)
    for name, value in deviations(quoted).items():
        run.result(f"{name}.deviation", value)
    run.table("released", concentration_table(xlnet_counts()), "XLNet's sentences about names, as released")
    if settings.real:
        real.hand_over(run)
    else:
        run.result("real.at_hand", False)
    if settings.trained:
        for name, value in run.arms["world"].results.items():
            run.result(name, value)


def summarise(settings: Settings, study: "Study") -> None:
    """Add the truth against the models of all seeds, and how decoding changes the slope."""
    if not settings.trained or not study.runs:
        return
    study.figure(
        "reflection", _reflection(study), "Share of women by job: the models of all seeds against the truth"
    )
    names = {"model": "sampled", "exact": "exact", "cold": f"temperature {settings.cold:g}",
             "narrow": f"top {settings.narrow}", "ideal": "draws from the truth"}  # fmt: skip
    values = {label: [run.results[f"{name}.slope"] for run in study.runs] for name, label in names.items()}
    study.figure(
        "slopes",
        seed_dots(values, label="slope of women's shares on the truth", reference={"as in the truth": 1.0}),
        "Below 1 the model is pulled to parity, above 1 it amplifies; a ring a seed, the line is the 95 % interval",
    )


def _reflection(study: "Study") -> "Figure":
    from gpt2lab.plots import figures as charts

    figure, axes = charts.empty_figure(4.6, 4.2)
    axes.plot([0, 1], [0, 1], color=charts.MUTED, linewidth=0.8)
    for name, colour, marker in (("cold", charts.PALETTE[1], "x"), ("model", charts.PALETTE[0], "o")):
        label = "sampled as it is" if name == "model" else "at the lower temperature"
        rows = [row for run in study.runs for row in run.arms["world"].tables["women"]]
        x, y = [float(row["world"]) for row in rows], [float(row[name] or "nan") for row in rows]
        axes.plot(x, y, marker, color=colour, markersize=4, alpha=0.7, label=label)
    axes.set_xlabel("women's share in the world")
    axes.set_ylabel("women's share in the model")
    axes.legend(fontsize=8, loc="upper left")
    return figure
