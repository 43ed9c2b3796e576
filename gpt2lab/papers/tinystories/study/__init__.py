"""The study: how small can a model be and still tell a coherent story? In generated worlds, where the answer is exact.

Models of every size learn nested stories, whose grammar is hard (claim A), and a grid of them standard stories (claims B
and D); claim C compares models of equal size and different depth on the binding variant. What is chosen is chosen once,
on models of the tuning seed. With `data=FILE` the same commands run on real stories (`real_text`): loss curves, bits per
byte and the free-text grader, no verdicts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.ordering import or_worst
from gpt2lab.papers.tinystories.diversity import originality
from gpt2lab.papers.tinystories.grader import calibrate_tinyworld
from gpt2lab.papers.tinystories.models import Size, count_parameters
from gpt2lab.papers.tinystories.study import real_text, summary
from gpt2lab.papers.tinystories.study.claims import CLAIMS, LEARNT
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
from gpt2lab.studies.graph import UnitSpec
from gpt2lab.text.generators.stories import Variant, vocabulary

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.runs.run_record import RunRecord
    from gpt2lab.studies.study import Study

__all__ = ["CLAIMS", "PRESETS", "Settings", "run", "summarise", "units"]

SMALL = 1_000_000
"""Parameters below which claim A asks for grammatical stories."""
MARGIN = 0.02
"""By how much a model of the tuning seed must do better than claim A asks for: two sampling errors of its 500 sentences."""
VARIANTS: dict[str, Variant] = {
    "nested": "nested", "grid": "standard", "repeated": "standard", "binding": "binding"
}  # fmt: skip
"""What the models of a track learn: `repeated` is the control that learns a few stories by heart."""
_TUNING = "tuning_"


@dataclass(frozen=True)
class Model:
    """One model of the study."""

    track: str
    """nested, grid, repeated or binding."""
    size: Size
    learning_rate: float

    @property
    def shape(self) -> str:
        """Short name of the shape, as results have it."""
        return f"d{self.size.d_model}_l{self.size.n_layers}"

    @property
    def name(self) -> str:
        """Name of its run."""
        return f"{self.track}_{self.shape}"


def tinyworld_models(settings: Settings) -> list[Model]:
    """Return the judged models, the most expensive first; those of the binding variant are tuned before."""

    def models(track: str, widths: Sequence[int], depths: Sequence[int]) -> list[Model]:
        return [Model(track, Size(d, n), _rate(settings, d)) for d in widths for n in depths]

    largest = Size(max(settings.widths), max(settings.depths))
    found = [
        *models("nested", settings.nested_widths, settings.nested_depths),
        *models("grid", settings.widths, settings.depths),
        Model("repeated", largest, _rate(settings, largest.d_model)),
        *(Model("binding", size, math.nan) for size in _binding_sizes(settings)),
    ]
    return sorted(found, key=lambda model: -model.size.n_layers * model.size.d_model**1.5)


def _rate(settings: Settings, width: int) -> float:
    return settings.wide_learning_rate if width >= settings.wide else settings.learning_rate


def _binding_sizes(settings: Settings) -> list[Size]:
    return [Size(d, n) for d, n in zip(settings.binding_widths, settings.binding_depths, strict=True)]


def units(settings: Settings) -> list[UnitSpec]:
    """Return the models of the tuning seed and those of every seed; LabError if the binding models differ in size."""
    if settings.data:
        return [
            UnitSpec(name, partial(train_on_real_stories, name=name))
            for name in real_text.arms(settings.real)
        ]
    if len(settings.binding_widths) != len(settings.binding_depths) or len(settings.binding_depths) != 2:
        raise LabError("binding_widths and binding_depths are two each, one width for each depth")
    rows = len(vocabulary("binding")) + 1
    check_equal(
        [count_parameters(size, rows=rows, positions=128)["total"] for size in _binding_sizes(settings)]
    )
    tuning = list[UnitSpec]()
    judged = list[UnitSpec]()
    for model in tinyworld_models(settings):
        needs: tuple[str, ...] = ()
        if model.track in ("nested", "binding"):
            work = tune_binding if model.track == "binding" else train_for_bound
            needs = (_TUNING + model.name,)
            tuning.append(UnitSpec(needs[0], partial(work, model=model), tuning=True))
        judged.append(UnitSpec(model.name, partial(train_judged, model=model), needs))
    return [*tuning, *judged]


def train_for_bound(settings: Settings, run: "Run", *, model: Model) -> None:
    """Train a model of nested stories with the tuning seed: from which size on models pass is chosen on these."""
    run.chooses("the size from which on models pass", on="stories of the tuning seed")
    _report(_trained(settings, run, model), run)


def tune_binding(settings: Settings, run: "Run", *, model: Model) -> None:
    """Choose the learning rate of a binding model by the loss of held-out stories."""
    run.chooses("learning rate of the binding models", on="stories of the tuning seed")
    tried = []
    for rate in settings.binding_learning_rates:
        found = _trained(settings, run, replace(model, learning_rate=rate), name=f"rate_{rate:g}")
        tried.append({"learning_rate": rate, "loss": or_worst(found.held_out_loss, math.inf)})
    best = min(tried, key=lambda row: row["loss"])
    run.table("sweep", tried, "Loss of held-out stories at every rate tried")
    run.result("learning_rate", best["learning_rate"])
    run.result("trials", len(tried))


def train_judged(settings: Settings, run: "Run", *, model: Model) -> None:
    """Train one model and report its grades."""
    run.judges("grades of sampled stories", on="stories of the seed")
    if model.track == "binding":
        model = replace(model, learning_rate=run.needed[_TUNING + model.name].results["learning_rate"])
    trained = _trained(settings, run, model)
    run.result("learning_rate", model.learning_rate)
    _report(trained, run)
    run.model(trained.lm)


def train_on_real_stories(settings: Settings, run: "Run", *, name: str) -> None:
    """Train one model on real stories and report its loss."""
    real_text.run_arm(settings.real, settings.data, name, run)


def _trained(settings: Settings, run: "Run", model: Model, *, name: str = "model") -> Trained:
    return train_story_model(
        _corpus(settings, model.track, run.seed),
        _recipe(settings, model),
        seed=run.seed,
        log=run.log,
        checkpoints=run.checkpoints / name,
        device=run.device,
        label=run.id,
    )


def _corpus(settings: Settings, track: str, seed: int) -> TinyWorldCorpus:
    stories = settings.repeated_stories if track == "repeated" else settings.train_stories
    if track == "binding":
        # binding models see no story more than a few times: with repetition they learn them by heart instead
        stories = max(stories, settings.binding_steps * settings.batch_size // 2)
    return tinyworld_corpus(
        seed,
        variant=VARIANTS[track],
        train_stories=stories,
        held_out_stories=settings.held_out_stories,
    )


def _recipe(settings: Settings, model: Model) -> Recipe:
    binding = model.track == "binding"
    steps = settings.binding_steps if binding else settings.steps
    return Recipe(
        d_model=model.size.d_model,
        n_layers=model.size.n_layers,
        n_heads=settings.n_heads,
        learning_rate=model.learning_rate,
        steps=steps,
        batch_size=settings.batch_size,
        init_std=settings.binding_init_std if binding else settings.init_std,
        evaluate_every=settings.evaluate_every if model.track == "grid" else steps,
        samples=settings.binding_samples if binding else settings.samples,
        temperature=settings.temperature,
        checkpoint_every=settings.checkpoint_every,
    )


def _report(trained: Trained, run: "Run") -> None:
    grades = trained.grades
    counts = trained.lm.model.count_parameters()
    run.result("parameters", counts["total"])
    run.result("non_embedding", counts["non_embedding"])
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
    models = tinyworld_models(settings)
    tracks: dict[str, dict[str, RunRecord]] = {track: {} for track in VARIANTS}
    for model in models:
        tracks[model.track][model.shape] = run.arms[model.name]
    for shape, record in tracks["grid"].items():
        for name in ("grammar", "consistency", "plot", "stops", "loss", "bits_per_byte", "parameters"):
            run.result(f"{shape}.{name}", record.results[name])
    _calibrate(settings, run)
    tuned = {model.shape: run.arms[_TUNING + model.name] for model in models if model.track == "nested"}
    _sizes(tracks["nested"], tuned, run)
    _order(settings, tracks["grid"], run)
    _memory(settings, tracks, run)
    _binding(settings, tracks["binding"], run)


def _calibrate(settings: Settings, run: "Run") -> None:
    """The grader on stories of known quality: what is void of it."""
    for track, result in (("grid", "grader.void"), ("nested", "grader.void_nested")):
        corpus = _corpus(settings, track, run.seed)
        found = calibrate_tinyworld(corpus.held_out, corpus.train, variant=corpus.variant, seed=run.seed)
        name = "calibration" if track == "grid" else f"calibration_{track}"
        run.table(
            name,
            found.rows(),
            f"The offline grader on {corpus.variant} stories of known quality, grades of 10",
        )
        run.result(result, len(found.void()))


def _sizes(judged: Mapping[str, "RunRecord"], tuned: Mapping[str, "RunRecord"], run: "Run") -> None:
    """Claim A: the size from which on all models of the tuning seed pass, and the worst judged model from there on."""
    small = [shape for shape, record in judged.items() if record.results["parameters"] < SMALL]
    small.sort(key=lambda shape: judged[shape].results["parameters"])
    chosen = [_passing(tuned[shape]) for shape in small]
    first = first_passing(chosen)
    run.result("bound.parameters", judged[small[first]].results["parameters"])
    run.result("bound.lowest", min(_passing(judged[shape]) for shape in small[first:]))
    run.result("bound.models", len(small) - first)
    run.result("passing", sum(_passing(judged[shape]) >= LEARNT for shape in small))
    rows = [
        {
            "model": shape,
            **{
                name: judged[shape].results[name]
                for name in ("parameters", "grammar", "stops", "plot", "loss")
            },
            "passes": "yes" if _passing(judged[shape]) >= LEARNT else "",
            "with the tuning seed": score,
            "above the bound": "yes" if shape in small[first:] else "",
        }
        for shape, score in zip(small, chosen, strict=True)
    ]
    run.table("sizes", rows, f"Models of nested stories: grammar and stopping of at least {LEARNT} pass")


def first_passing(scores: Sequence[float]) -> int:
    """Return the place from which on all scores, ascending by size, pass with a margin; the last where none does."""
    failing = [place for place, score in enumerate(scores) if not score >= LEARNT + MARGIN]
    return min(failing[-1] + 1, len(scores) - 1) if failing else 0


def _passing(record: "RunRecord") -> float:
    """Return the lower of grammar and of the share that stops by itself."""
    return or_worst(min(record.results[name] for name in ("grammar", "stops")), -math.inf)


def _order(settings: Settings, grid: Mapping[str, "RunRecord"], run: "Run") -> None:
    """Claim B: how many octaves of width lie between grammar and consistency, at the grid's last depth."""
    depth = max(settings.depths)
    found = {}
    for name in ("grammar", "consistency"):
        grades = [(width, grid[f"d{width}_l{depth}"].results[name]) for width in sorted(settings.widths)]
        found[name] = width_reaching(grades)
        run.result(f"order.width_of_{name}", found[name])
        run.result(f"order.best_{name}", max(grade for _, grade in grades))
    run.result("order.octaves", math.log2(found["consistency"] / found["grammar"]))


def width_reaching(grades: Sequence[tuple[int, float]], level: float = REACHED) -> float:
    """Return the width at which a grade reaches `level`, between two widths linear in the width's logarithm.

    grades: (width, grade), ascending. Reached by the first: its width. Reached by none: the last width.
    """
    before: tuple[int, float] | None = None
    for width, grade in grades:
        if grade >= level:
            if before is None:
                return float(width)
            share = (level - before[1]) / (grade - before[1])
            return float(before[0] * (width / before[0]) ** share)
        before = width, grade
    return float(grades[-1][0])


def _memory(settings: Settings, tracks: Mapping[str, Mapping[str, "RunRecord"]], run: "Run") -> None:
    """Claim D: what the largest model's stories share with the nearest training story, beside held-out stories."""
    shape = f"d{max(settings.widths)}_l{max(settings.depths)}"
    rows: list[dict[str, Any]] = []
    for track, prefix in (("grid", "memory"), ("repeated", "memory.control")):
        texts = [text for text in tracks[track][shape].texts["samples"].split("\n") if text.strip()]
        if not texts:
            raise LabError(f"{track}_{shape} sampled only empty stories; train it longer")
        corpus = _corpus(settings, track, run.seed)
        held_out = originality(corpus.held_out[: len(texts)], corpus.train)
        samples = originality(texts, corpus.train)
        for name, found in (("samples", samples), ("held_out", held_out)):
            run.result(f"{prefix}.{name}", found.nearest_rouge_2)
            rows.append(
                {
                    "training stories": len(corpus.train),
                    "stories": "sampled" if name == "samples" else "held-out",
                    **vars(found),
                }
            )
        run.result(f"{prefix}.excess", samples.nearest_rouge_2 - held_out.nearest_rouge_2)
        run.result(f"{prefix}.copied_whole", samples.copied_whole)
    run.table(
        "originality", rows, f"Stories of {shape}, and as many held-out stories, beside the training stories"
    )


def _binding(settings: Settings, records: Mapping[str, "RunRecord"], run: "Run") -> None:
    """Claim C: binding accuracy of the deeper of two models of equal size, minus that of the other."""
    shallow, deep = (records[f"d{size.d_model}_l{size.n_layers}"] for size in _binding_sizes(settings))
    rows = []
    for size, record in zip(_binding_sizes(settings), (shallow, deep), strict=True):
        names = ("learning_rate", "parameters", "loss", "grammar", "consistency", "binding")
        found = {name: record.results.get(name, math.nan) for name in names}
        rows.append({"depth": size.n_layers, "width": size.d_model, **found})
        for name in names:
            run.result(f"binding_l{size.n_layers}.{name}", found[name])
    run.table("binding", rows, "Models of equal size on the binding variant")
    run.result("binding.difference", rows[1]["binding"] - rows[0]["binding"])
    run.result("binding.grammar", min(row["grammar"] for row in rows))
    run.result("binding.deep_consistency", rows[1]["consistency"])


def summarise(settings: Settings, study: "Study") -> None:
    """Add figures and tables over the seeds."""
    summary.real(study) if settings.data else summary.tinyworld(settings, study)
