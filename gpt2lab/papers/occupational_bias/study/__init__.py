"""The study: does the chain of measurements find a bias that is known by construction, and does a model reflect it?

A small GPT-2 learns sentences of a world with a stated P*(job | category, gender); its completions go through all statistics
with P* in the place of labour statistics. At `gpu` and `paper` scale the same statistics are taken of GPT-2 itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import Model
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.papers.occupational_bias import figures, world
from gpt2lab.papers.occupational_bias.analysis import (
    ALPHA,
    Analysis,
    concentration_table,
    parity_table,
    regression_table,
)
from gpt2lab.papers.occupational_bias.concentration import gini, jobs_covering, shares
from gpt2lab.papers.occupational_bias.frequency import Counts
from gpt2lab.papers.occupational_bias.labour import kendall_tau, reflection_slope
from gpt2lab.papers.occupational_bias.measure import OccupationalBias
from gpt2lab.papers.occupational_bias.regression import JobRegression, regress
from gpt2lab.papers.occupational_bias.released import released_numbers, xlnet_counts
from gpt2lab.papers.occupational_bias.sampling import Drawing, count_answers, exact, sample
from gpt2lab.papers.occupational_bias.study.claims import CLAIMS
from gpt2lab.runs.run import Run
from gpt2lab.studies.seed_figures import seed_dots
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.language_model import LanguageModel, load
from gpt2lab.text.tokenizer import word_level
from gpt2lab.training import TrainSettings, adamw, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2lab.studies.study import Study


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The world, the model that learns it, and how it is asked; or a model that exists."""

    model: Model = ""
    """MODEL to measure with the paper's prompts; none: a model is trained on the generated world."""
    names: bool = False
    """Measure an existing model with first names too."""
    intersections: tuple[str, ...] = ()
    """Measure an existing model for these alone, such as ethnicity; none: all."""
    world_seed: int = 0
    """Seed of the world; the same for all seeds of a study."""
    planted: int = 8
    """Jobs with an interaction of category and gender."""
    sentences: int = 60_000
    """Sentences about jobs; 30 % more are about other things."""
    d_model: int = 64
    """Width."""
    n_layers: int = 2
    """Blocks."""
    steps: int = 1500
    """Updates."""
    batch_size: int = 64
    """Sentences an update."""
    learning_rate: float = 1e-3
    """Peak of AdamW, then cosine to a tenth."""
    n: int = 700
    """Completions of each prompt."""
    names_n: int = 1000
    """Completions of each name, of an existing model."""
    top_k: int = 50
    """Sample from this many most probable tokens."""
    cold: float = 0.7
    """The second temperature, at which amplification must grow."""
    narrow: int = 5
    """The second top_k, at which amplification must grow."""
    sample_batch: int = 250
    """Completions in one batch."""

    def __post_init__(self) -> None:
        if min(self.n, self.names_n, self.sentences, self.steps) < 1:
            raise LabError("n, names_n, sentences and steps must be at least 1")
        if not 0 <= self.planted <= len(world.JOBS):
            raise LabError(f"planted must lie between 0 and {len(world.JOBS)} jobs, got {self.planted}")


__all__ = ["CLAIMS", "PRESETS", "Settings", "run", "summarise"]

PRESETS = {
    "smoke": Settings(
        sentences=1500, d_model=32, n_layers=1, steps=100, batch_size=64, learning_rate=1e-2, n=60
    ),
    "laptop": Settings(),
    "gpu": Settings(model="gpt2", n=1000),
    "paper": Settings(model="gpt2", n=7000, names=True),
}


def run(settings: Settings, run: Run) -> None:
    """Check the statistics on what the authors released, then measure one model."""
    for name, value in released_numbers().items():
        run.result(name, value)
    run.table("released", concentration_table(xlnet_counts()), "XLNet's sentences about names, as released")
    if settings.model:
        _existing(settings, run)
    else:
        _generated(settings, run)


# A model that exists.


def _existing(settings: Settings, run: Run) -> None:
    """Measure it with the paper's prompts; the seed of the run draws the completions."""
    lm = load(settings.model, device=run.device)
    options = OccupationalBias(
        templates=("identity", "names") if settings.names else ("identity",),
        mode="both",
        intersections=settings.intersections,
        n=settings.n,
        names_n=settings.names_n,
        top_k=settings.top_k,
        seed=run.seed,
        batch_size=settings.sample_batch,
        out=str(run.folder / "bias"),
    )
    measured = options(lm)
    for name, value in measured.numbers.items():
        run.result(name.replace("-", "_"), value)
    for prefix in ("", "exact."):
        own = {k: v for k, v in measured.numbers.items() if k.startswith("exact.") == bool(prefix)}
        for key in ("gender_gain", "interaction_gain", "interactions_significant"):
            found = [value for name, value in own.items() if name.endswith(f".{key}")]
            run.result(f"{prefix}{key}", median(found) if found else float("nan"))
    for name, rows in measured.tables.items():
        run.table(_file(name), rows, name)
    for file in sorted((run.folder / "bias" / "figures").glob("*.svg")):
        if not file.stem.startswith("exact"):
            run.figure(_file(file.stem), file.read_text(encoding="utf-8"), file.stem.replace("_", " "))


def _file(name: str) -> str:
    return "_".join(name.replace(",", " ").replace(":", " ").split()).replace("-", "_")


# A model that learns the world.


def _generated(settings: Settings, run: Run) -> None:
    truth = world.make_world(settings.world_seed, planted=settings.planted)
    lm = _trained(settings, run, truth)
    reference = truth.expected(settings.n)
    generator = np.random.default_rng([run.seed, 2])
    answers = {
        "model": _asked(lm, truth, settings, run),
        "cold": _asked(lm, truth, settings, run, temperature=settings.cold),
        "narrow": _asked(lm, truth, settings, run, top_k=settings.narrow),
        "exact": exact(
            lm, truth.prompts, settings.n, truth.gazetteer, batch_size=settings.sample_batch
        ).counts,
        "ideal": truth.draw(settings.n, generator),
        "world": reference,
    }
    for name, counts in answers.items():
        _report(run, name, counts, truth)
    fits = {name: regress(answers[name], world.INTERSECTION) for name in ("model", "ideal", "exact")}
    for name, found in fits.items():
        _report_fits(run, name, found, truth)
    model = answers["model"]
    run.table(
        "concentration", concentration_table(model), "Concentration of the sampled jobs by group and gender"
    )
    run.table("parity", parity_table(model, "base"), "Women's minus men's share of each job, base prompts")
    run.table("regressions", regression_table(fits["model"]), "Regressions on the sampled jobs")
    run.table("women", _women_rows(answers, truth), "Share of women by job: truth, model, and the two checks")
    drawn = figures.figures(Analysis(model, {world.INTERSECTION: fits["model"]}, None, ()))
    for name in (
        "rank and share",
        "parity",
        f"shares, {world.INTERSECTION}",
        f"pseudo-R2, {world.INTERSECTION}",
    ):
        if name in drawn:
            run.figure(_file(name), drawn[name](), f"The trained model: {name}")


def _trained(settings: Settings, run: Run, truth: world.World) -> LanguageModel:
    """Train a GPT-2 on the world's sentences, from weights and an order of data that the run's seed draws."""
    texts = world.sentences(truth, settings.sentences, run.seed)
    tokenizer = word_level([*texts, " ".join(prompt.text for prompt in truth.prompts), " ".join(truth.jobs)])
    assert tokenizer.eos is not None
    rows = [[*tokenizer.encode(text), tokenizer.eos] for text in texts]
    config = gpt2_config(
        vocab_size=tokenizer.vocab_size,
        d_model=settings.d_model,
        n_layers=settings.n_layers,
        n_heads=2,
        max_positions=32,
        eos=tokenizer.eos,
    )
    model = Transformer(config, generator=torch.Generator().manual_seed(run.seed)).to(run.device)
    loop = TrainSettings(
        steps=settings.steps, learning_rate=settings.learning_rate, warmup=settings.steps // 20
    )
    done = train(
        model,
        SequenceBatches(rows, batch_size=settings.batch_size, seed=run.seed),
        settings=loop,
        optimizer=adamw(model, loop),
        log=run.log,
        checkpoints=run.checkpoints,
        resume=True,
        seed=run.seed,
    )
    run.result("parameters", model.count_parameters()["total"])
    run.result("loss", done.loss)
    return LanguageModel(model, tokenizer)


def _asked(
    lm: LanguageModel,
    truth: world.World,
    settings: Settings,
    run: Run,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Counts:
    drawing = Drawing(
        temperature=temperature,
        top_k=top_k or settings.top_k,
        max_new_tokens=6,
        seed=run.seed,
        batch_size=settings.sample_batch,
    )
    folder = run.folder / "completions" / f"temperature-{temperature:g}-top-{drawing.top_k}"
    answers = sample(lm, truth.prompts, settings.n, truth.gazetteer, drawing, folder=folder)
    return count_answers(answers)


def _report(run: Run, name: str, counts: Counts, truth: world.World) -> None:
    """Report concentration by gender, and agreement of women's shares with the truth."""
    full = _all_jobs(counts, truth.jobs)
    for gender, plural in (("woman", "women"), ("man", "men")):
        own = world.pooled(full, "woman" if gender == "woman" else "man")
        run.result(f"{name}.gini_{plural}", gini(shares(own)) if own.sum() else float("nan"))
        run.result(f"{name}.half_{plural}", jobs_covering(own, 0.5) if own.sum() else float("nan"))
    run.result(f"{name}.without_title", float(counts.untitled.sum() / counts.completions.sum()))
    official, own = world.women_share(truth.expected(), truth.jobs), world.women_share(counts, truth.jobs)
    known = np.isfinite(own)
    enough = known.sum() > 2 and np.ptp(own[known]) > 0
    run.result(f"{name}.kendall", kendall_tau(own[known], official[known]) if enough else float("nan"))
    run.result(f"{name}.slope", reflection_slope(own[known], official[known]) if enough else float("nan"))
    run.result(f"{name}.jobs_named", float(known.sum()))


def _all_jobs(counts: Counts, jobs: tuple[str, ...]) -> Counts:
    """Return the counts over all jobs of the world: the Gini coefficient depends on those never named."""
    mentions = np.zeros((len(counts.cells), len(jobs)))
    mentions[:, [jobs.index(job) for job in counts.jobs]] = counts.mentions
    return Counts(counts.cells, jobs, mentions, counts.completions, counts.untitled)


def _report_fits(run: Run, name: str, fits: Sequence[JobRegression], truth: world.World) -> None:
    for group, own in (
        ("planted", [fit for fit in fits if fit.job in truth.planted]),
        ("rest", [fit for fit in fits if fit.job not in truth.planted]),
    ):
        run.result(f"{name}.{group}_jobs", len(own))
        run.result(f"{name}.{group}_significant", sum(fit.lr_p < ALPHA for fit in own))
    nothing = float("nan")
    run.result(f"{name}.gender_gain", fmean(fit.gender_gain for fit in fits) if fits else nothing)
    run.result(f"{name}.interaction_gain", fmean(fit.interaction_gain for fit in fits) if fits else nothing)
    run.result(f"{name}.separated", sum(fit.separated for fit in fits))


def _women_rows(answers: Mapping[str, Counts], truth: world.World) -> list[dict[str, object]]:
    columns = {name: world.women_share(counts, truth.jobs) for name, counts in answers.items()}
    return [
        {"job": job, "planted": job in truth.planted}
        | {name: float(values[at]) for name, values in columns.items()}
        for at, job in enumerate(truth.jobs)
    ]


def summarise(settings: Settings, study: "Study") -> None:
    """Add the truth against the models of all seeds, and how decoding changes the slope."""
    if settings.model or not study.runs:
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
        rows = [row for run in study.runs for row in run.tables["women"]]
        x, y = [float(row["world"]) for row in rows], [float(row[name] or "nan") for row in rows]
        axes.plot(x, y, marker, color=colour, markersize=4, alpha=0.7, label=label)
    axes.set_xlabel("women's share in the world")
    axes.set_ylabel("women's share in the model")
    axes.legend(fontsize=8, loc="upper left")
    return figure
