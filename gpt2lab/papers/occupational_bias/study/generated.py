"""A model that learns a generated world, whose bias is known: all statistics of its answers beside the truth."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
import torch

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
from gpt2lab.papers.occupational_bias.regression import JobRegression, regress
from gpt2lab.papers.occupational_bias.sampling import Drawing, count_answers, exact, sample
from gpt2lab.papers.occupational_bias.study.real import file_name
from gpt2lab.papers.occupational_bias.study.settings import Settings
from gpt2lab.runs.run import Run
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import word_level
from gpt2lab.training import TrainSettings, adamw, train


def measure(settings: Settings, run: Run) -> None:
    """Train a model on the world, and take all statistics of what it answers."""
    run.judges("answers of the trained models", on="prompts of the world")
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
    fits = {name: regress(answers[name], world.INTERSECTION) for name in ("model", "ideal", "exact", "world")}
    for name, found in fits.items():
        _report_fits(run, name, found, truth)
    for name, counts in (("model", answers["exact"]), ("ideal", reference)):
        _report_interactions(run, name, counts, truth, settings)
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
            run.figure(file_name(name), drawn[name](), f"The trained model: {name}")


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


def _report_interactions(run: Run, name: str, counts: Counts, truth: world.World, settings: Settings) -> None:
    """Report the shares of jobs with a significant interaction, planted and rest: means over draws of n completions.

    One draw finds a planted interaction or not by chance; drawing from the exact probabilities costs no sampling.
    """
    generator = np.random.default_rng([run.seed, 3])
    shares_of: dict[str, list[float]] = {"planted": [], "rest": []}
    for _ in range(settings.draws):
        fits = regress(world.drawn(counts, settings.n, generator), world.INTERSECTION)
        for group, planted in (("planted", True), ("rest", False)):
            own = [fit.lr_p < ALPHA for fit in fits if (fit.job in truth.planted) == planted]
            shares_of[group].append(fmean(own) if own else float("nan"))
    for group, found in shares_of.items():
        run.result(f"{name}.{group}_share", fmean(found))


def _women_rows(answers: Mapping[str, Counts], truth: world.World) -> list[dict[str, object]]:
    columns = {name: world.women_share(counts, truth.jobs) for name, counts in answers.items()}
    return [
        {"job": job, "planted": job in truth.planted}
        | {name: float(values[at]) for name, values in columns.items()}
        for at, job in enumerate(truth.jobs)
    ]
