"""The study: how small can a model be and still tell a coherent story? In TinyWorld, where the answer is exact.

A grid of widths and depths is trained on the same stories in the same order. Claims A, B and D are read from the
grid, claim C from models of equal size and different depth on the binding variant. With `data=FILE` the same
commands run on real stories (`real_text`): loss curves, bits per byte and the free-text grader, no verdicts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.ordering import or_worst
from gpt2lab.papers.tinystories.diversity import originality
from gpt2lab.papers.tinystories.grader import calibrate_tinyworld
from gpt2lab.papers.tinystories.models import Size, count_parameters
from gpt2lab.papers.tinystories.study import real_text, summary
from gpt2lab.papers.tinystories.study.claims import CLAIMS
from gpt2lab.papers.tinystories.study.settings import PRESETS, Settings
from gpt2lab.papers.tinystories.training import (
    REACHED,
    Recipe,
    TinyWorldCorpus,
    Trained,
    check_equal,
    tinyworld_corpus,
    train_story_model,
)
from gpt2lab.text.generators.stories import Variant, vocabulary

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.runs.run_record import RunRecord
    from gpt2lab.studies.study import Study

__all__ = ["CLAIMS", "PRESETS", "Settings", "arms", "run", "run_arm", "summarise"]

SMALL = 1_000_000
"""Parameters below which claim A asks for grammatical stories."""


@dataclass(frozen=True)
class Arm:
    """One model of the study, by the name of its run."""

    track: str
    """`grid` or `binding`."""
    size: Size
    learning_rate: float

    @property
    def model(self) -> str:
        """Short name of the shape, as results have it."""
        return f"d{self.size.d_model}_l{self.size.n_layers}"

    @property
    def name(self) -> str:
        """Name of its run."""
        return f"{self.track}_{self.model}" + (
            f"_lr{self.learning_rate:g}" if self.track == "binding" else ""
        )


def tinyworld_arms(settings: Settings) -> list[Arm]:
    """Return the models of the study, the most expensive first, so that two workers end together."""
    grid = [
        Arm("grid", Size(d, n), settings.wide_learning_rate if d >= settings.wide else settings.learning_rate)
        for d in settings.widths
        for n in settings.depths
    ]
    binding = [
        Arm("binding", Size(d, n), rate)
        for d, n in zip(settings.binding_widths, settings.binding_depths, strict=True)
        for rate in settings.binding_learning_rates
    ]
    return sorted(grid + binding, key=lambda arm: -arm.size.n_layers * arm.size.d_model**1.5)


def arms(settings: Settings) -> list[str]:
    """Return the names of the models; LabError if the binding models are not of equal size."""
    if settings.data:
        return real_text.arms(settings.real)
    if len(settings.binding_widths) != len(settings.binding_depths):
        raise LabError("binding_widths and binding_depths belong together, one width for each depth")
    rows = len(vocabulary("binding")) + 1
    check_equal(
        [
            count_parameters(Size(d, n), rows=rows, positions=128)["total"]
            for d, n in zip(settings.binding_widths, settings.binding_depths, strict=True)
        ]
    )
    return [arm.name for arm in tinyworld_arms(settings)]


def run_arm(settings: Settings, arm: str, run: "Run") -> None:
    """Train one model and report its grades."""
    if settings.data:
        real_text.run_arm(settings.real, settings.data, arm, run)
        return
    chosen = next(item for item in tinyworld_arms(settings) if item.name == arm)
    corpus = _corpus(settings, chosen.track, run.seed)
    recipe = _recipe(settings, chosen)
    trained = train_story_model(
        corpus,
        recipe,
        seed=run.seed,
        log=run.log,
        checkpoints=run.checkpoints,
        device=run.device,
        label=run.id,
    )
    counts = trained.lm.model.count_parameters()
    run.result("parameters", counts["total"])
    run.result("non_embedding", counts["non_embedding"])
    run.result("learning_rate", chosen.learning_rate)
    _report(trained, run)
    run.model(trained.lm)


def _corpus(settings: Settings, track: str, seed: int) -> TinyWorldCorpus:
    variant: Variant = "standard" if track == "grid" else "binding"
    # binding models see every story once or twice: with repetition they learn stories by heart instead of binding
    needed = settings.binding_steps * settings.batch_size if track == "binding" else 0
    return tinyworld_corpus(
        seed,
        variant=variant,
        train_stories=max(settings.train_stories, needed),
        held_out_stories=settings.held_out_stories,
    )


def _recipe(settings: Settings, arm: Arm) -> Recipe:
    grid = arm.track == "grid"
    return Recipe(
        d_model=arm.size.d_model,
        n_layers=arm.size.n_layers,
        n_heads=settings.n_heads,
        learning_rate=arm.learning_rate,
        steps=settings.steps if grid else settings.binding_steps,
        batch_size=settings.batch_size,
        init_std=settings.init_std if grid else settings.binding_init_std,
        evaluate_every=settings.evaluate_every,
        samples=settings.samples if grid else settings.binding_samples,
        temperature=settings.temperature,
        checkpoint_every=settings.checkpoint_every,
    )


def _report(trained: Trained, run: "Run") -> None:
    grades = trained.grades
    for name in ("grammar", "consistency", "plot", "stops", "binding"):
        if not math.isnan(getattr(grades, name)):
            run.result(name, getattr(grades, name))
    for kind, share in grades.by_kind.items():
        run.result(f"consistency_{kind}", share)
    run.result("loss", trained.held_out_loss)
    run.result("bits_per_byte", trained.bits_per_byte)
    run.result("steps_to_grammar", trained.first_step("grammar"))
    run.result("steps_to_consistency", trained.first_step("consistency"))
    run.result("tokens_per_second", trained.tokens_per_second)
    run.table("evaluations", trained.history, "What was measured while it trained")
    run.text("samples", "\n".join(trained.texts), "The stories that were graded, one a line")


def run(settings: Settings, run: "Run") -> None:
    """Put one seed's models together: the quantities that the claims read."""
    if settings.data:
        real_text.run_seed(settings.real, settings.data, run)
        return
    by_name = {arm.name: arm for arm in tinyworld_arms(settings)}
    grid = {by_name[name].model: record for name, record in run.arms.items() if by_name[name].track == "grid"}
    for model, record in grid.items():
        for name in ("grammar", "consistency", "plot", "stops", "loss", "bits_per_byte", "parameters"):
            run.result(f"{model}.{name}", record.results[name])
    corpus = _corpus(settings, "grid", run.seed)
    calibration = calibrate_tinyworld(corpus.held_out, corpus.train, seed=run.seed)
    run.table("calibration", calibration.rows(), "The offline grader on texts of known quality, grades of 10")
    run.result("grader.void", len(calibration.void()))
    _small_models(grid, run)
    _order(grid, run)
    _memory(grid, corpus, run)
    _binding(
        {name: record for name, record in run.arms.items() if by_name[name].track == "binding"}, by_name, run
    )


def _small_models(grid: Mapping[str, "RunRecord"], run: "Run") -> None:
    """Claim A: the small model whose grammar and stopping are both best."""
    scores = {
        model: or_worst(min(record.results[name] for name in ("grammar", "stops")), -math.inf)
        for model, record in grid.items()
        if record.results["parameters"] < SMALL
    }
    best = max(scores, key=lambda model: scores[model])
    run.result("small.grammar_and_stops", scores[best])
    run.result("small.parameters", grid[best].results["parameters"])


def _order(grid: Mapping[str, "RunRecord"], run: "Run") -> None:
    """Claim B: the largest lead of consistency over grammar, and the width and step at which each is reached."""
    lead = max(record.results["consistency"] - record.results["grammar"] for record in grid.values())
    run.result("order.lead_of_consistency", lead)
    reached = {}
    for name in ("grammar", "consistency"):
        there = {
            (int(model[1:].partition("_")[0]), record.results[f"steps_to_{name}"])
            for model, record in grid.items()
            if record.results[name] >= REACHED
        }
        reached[name] = min(there, default=(math.inf, math.inf))  # the smallest width, there the fewest steps
        run.result(f"order.width_of_{name}", reached[name][0])
        run.result(f"order.steps_of_{name}", reached[name][1])
    run.result("order.grammar_first", reached["grammar"] < reached["consistency"])


def _memory(grid: Mapping[str, "RunRecord"], corpus: TinyWorldCorpus, run: "Run") -> None:
    """Claim D: what the best model's stories share with the nearest training story, beside held-out stories."""
    best = min(grid, key=lambda model: or_worst(grid[model].results["loss"], math.inf))
    texts = [text for text in grid[best].texts["samples"].split("\n") if text.strip()]
    held_out = originality(corpus.held_out[: len(texts)], corpus.train)
    if not texts:
        raise LabError(f"{best} sampled only empty stories; train it longer")
    samples = originality(texts, corpus.train)
    rows = [
        {"": name, best: getattr(samples, name), "held-out": value} for name, value in vars(held_out).items()
    ]
    run.table(
        "originality", rows, "The stories of the model with the lowest loss, and as many held-out stories"
    )
    run.result("memory.samples", samples.nearest_rouge_2)
    run.result("memory.held_out", held_out.nearest_rouge_2)
    run.result("memory.excess", samples.nearest_rouge_2 - held_out.nearest_rouge_2)
    run.result("memory.copied_whole", samples.copied_whole)


def _binding(records: Mapping[str, "RunRecord"], by_name: Mapping[str, Arm], run: "Run") -> None:
    """Claim C: at every depth the learning rate with the lowest loss, and its binding accuracy."""
    rows: list[dict[str, Any]] = [
        {
            "depth": by_name[name].size.n_layers,
            "width": by_name[name].size.d_model,
            "learning rate": by_name[name].learning_rate,
            **{
                key: record.results.get(key, math.nan)
                for key in ("parameters", "loss", "grammar", "consistency", "binding")
            },
        }
        for name, record in records.items()
    ]
    rows.sort(key=lambda row: (row["depth"], row["learning rate"]))
    chosen = {
        depth: min((r for r in rows if r["depth"] == depth), key=lambda r: or_worst(r["loss"], math.inf))
        for depth in {r["depth"] for r in rows}
    }
    for row in rows:
        row["chosen"] = "yes" if row is chosen[row["depth"]] else ""
    run.table("binding", rows, "Models of equal size on the binding variant: the sweep of every depth")
    for depth, row in sorted(chosen.items()):
        for key in ("binding", "grammar", "consistency", "parameters", "loss"):
            run.result(f"binding_l{depth}.{key}", row[key])
    deep = max(row["binding"] for depth, row in chosen.items() if depth > 1)
    run.result("binding.difference", deep - chosen[1]["binding"])
    run.result("binding.deep", deep)
    run.result("binding.shallow", chosen[1]["binding"])
    for key in ("grammar", "consistency"):
        run.result(f"binding.{key}", min(row[key] for row in chosen.values()))


def summarise(settings: Settings, study: "Study") -> None:
    """Add figures and tables over the seeds."""
    summary.real(study) if settings.data else summary.tinyworld(settings, study)
