"""Figures and tables of the study's report, over its seeds."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gpt2lab.papers.tinystories import interpretability as circuits
from gpt2lab.papers.tinystories.study.settings import Settings
from gpt2lab.plots import figures
from gpt2lab.plots.heatmaps import heatmap
from gpt2lab.studies.seed_figures import seed_dots
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.language_model import load

if TYPE_CHECKING:
    from gpt2lab.runs.run_record import RunRecord
    from gpt2lab.studies.study import Study

_GRADES = {"grammar": "Grammar", "consistency": "Consistency"}
_MAP_TOKENS = 36


def tinyworld(settings: Settings, study: "Study") -> None:
    """Add the figures of the grid, of the binding models, of attention and neurons, and samples."""
    for name, title in _GRADES.items():
        values = [[study.mean(f"d{d}_l{n}.{name}") for d in settings.widths] for n in settings.depths]
        study.figure(
            f"{name}_grid",
            heatmap(
                values, rows=settings.depths, columns=settings.widths, x_label="width d", y_label="layers",
                label=f"{name} (share)", limits=(0.0, 1.0),
            ),
            f"{title} of sampled stories after {settings.steps} updates, by width and depth; mean over seeds",
        )  # fmt: skip
    _sizes(settings, study)
    _scores(settings, study)
    _curves(settings, study)
    _binding(settings, study)
    _table(settings, study)
    _circuits(settings, study)
    _samples(settings, study)


def _models(settings: Settings) -> list[str]:
    return [f"d{d}_l{n}" for d in settings.widths for n in settings.depths]


def _scores(settings: Settings, study: "Study") -> None:
    """Grades against size."""
    models = sorted(_models(settings), key=lambda model: study.mean(f"{model}.parameters"))
    sizes = [study.mean(f"{model}.parameters") for model in models]
    series = {
        name: (sizes, [study.mean(f"{model}.{name}") for model in models]) for name in (*_GRADES, "stops")
    }
    study.figure(
        "scores_by_size",
        figures.line_chart(series, x_label="parameters", y_label="share", log_x=True, markers=True),
        "Grades of every model of the grid against its size; mean over seeds",
    )


def _curves(settings: Settings, study: "Study") -> None:
    """Held-out loss of every width at one depth, and the order in which grammar and consistency come."""
    depth = settings.depths[len(settings.depths) // 2]
    losses = {}
    for d in settings.widths:
        arm = f"grid_d{d}_l{depth}"
        curves = [run.arms[arm].series("validation_loss") for run in study.runs]
        losses[f"d = {d}"] = figures.band_over_seeds(curves)[0]
    study.figure(
        "loss_curves",
        figures.line_chart(losses, x_label="updates", y_label="held-out loss (nats per token)", markers=True),
        f"Held-out loss while training, {depth} layers; mean over seeds",
    )
    widest = max(settings.widths[:-1] or settings.widths)
    arm = f"grid_d{widest}_l{depth}"
    order = {}
    bands = {}
    for name in _GRADES:
        order[name], bands[name] = figures.band_over_seeds([run.arms[arm].series(name) for run in study.runs])
    study.figure(
        "grammar_before_consistency",
        figures.line_chart(order, bands=bands, x_label="updates", y_label="share", markers=True),
        f"Grammar and consistency while the model of width {widest} with {depth} layers trains; mean and range of seeds",
    )


def _sizes(settings: Settings, study: "Study") -> None:
    """Grammar of the models of nested stories by size, and how often each size passes."""
    rows = [row for run in study.runs for row in run.tables["sizes"]]
    models = sorted({str(row["model"]) for row in rows}, key=lambda name: _first(rows, name, "parameters"))
    table: list[dict[str, Any]] = []
    for name in models:
        own = [row for row in rows if row["model"] == name]
        table.append(
            {
                "model": name,
                "parameters": _first(rows, name, "parameters"),
                "with the tuning seed": _first(rows, name, "with the tuning seed"),
                "seeds that pass": sum(row["passes"] == "yes" for row in own),
                **{
                    key: fmean(float(row[key]) for row in own) for key in ("grammar", "stops", "plot", "loss")
                },
            }
        )
    study.table(
        "sizes", table, f"Models of nested stories over {len(study.runs)} seeds; grades are means over seeds"
    )
    series = {
        f"{depth} layer{'s' if depth > 1 else ''}": (
            [float(row["parameters"]) for row in table if row["model"].endswith(f"_l{depth}")],
            [float(row["grammar"]) for row in table if row["model"].endswith(f"_l{depth}")],
        )
        for depth in settings.nested_depths
    }
    study.figure(
        "grammar_by_size",
        figures.line_chart(series, x_label="parameters", y_label="grammar (share)", log_x=True, markers=True),
        "Grammar of sampled nested stories against size; mean over seeds",
    )


def _first(rows: Sequence[Any], model: str, key: str) -> Any:
    return next(row[key] for row in rows if row["model"] == model)


def _binding(settings: Settings, study: "Study") -> None:
    """Binding accuracy by depth at equal size."""
    names = {
        f"{n} layer{'s' if n > 1 else ''}, d = {d}": f"binding_l{n}.binding"
        for d, n in zip(settings.binding_widths, settings.binding_depths, strict=True)
    }
    points = {label: [run.results[name] for run in study.runs] for label, name in names.items()}
    if any(math.isfinite(value) for values in points.values() for value in values):  # a pair was told
        study.figure(
            "binding",
            seed_dots(points, label="binding accuracy", reference={"blind choice of two": 0.5}),
            "Binding accuracy of models of equal size: mean over seeds with its 95 % interval, a ring a seed",
        )
    rows = [{"seed": run.seed, **row} for run in study.runs for row in run.tables["binding"]]
    study.table("binding", rows, "Binding variant: two depths of equal size, each at its tuned learning rate")


def _table(settings: Settings, study: "Study") -> None:
    columns = ("parameters", "loss", "bits_per_byte", "grammar", "consistency", "plot", "stops")
    rows = [
        {"model": model, **{name: study.mean(f"{model}.{name}") for name in columns}}
        for model in _models(settings)
    ]
    study.table("grid", rows, f"Every model of the grid after {settings.steps} updates; mean over seeds")
    first = study.runs[0]
    for name in ("calibration", "calibration_nested"):
        study.table(name, first.tables[name], first.captions("tables")[name])
    study.table("originality", first.tables["originality"], f"What is copied (seed {first.seed})")


def _circuits(settings: Settings, study: "Study") -> None:
    """Heads and neurons of some models of the first seed."""
    first = study.runs[0]
    texts = documents(2 * (first.seed or 0) + 1, 20)
    for model in settings.circuits:
        record = first.arms.get(f"grid_{model}")
        if record is None:
            continue
        lm = load(record.folder / "model")
        assert lm.tokenizer is not None
        ids, words = circuits.encode_stories(lm.tokenizer, texts, lm.config.max_positions)
        heads = circuits.head_reports(lm.model, ids, words)
        neurons = circuits.neuron_reports(lm.model, ids, words, neurons=8)
        study.table(
            f"heads_{model}",
            circuits.head_rows(heads),
            f"Heads of {model}: R² of attention on distance, and attention on each class against uniform",
        )
        study.table(
            f"neurons_{model}", circuits.neuron_rows(neurons), f"The most influential neurons of {model}"
        )
        _attention_figures(study, record, model, heads, ids[0], words[0])


def _attention_figures(
    study: "Study",
    record: "RunRecord",
    model: str,
    heads: Sequence[circuits.HeadReport],
    ids: Sequence[int],
    words: Sequence[str],
) -> None:
    """Draw the head that follows distance most and the one that follows it least on the first words of a story."""
    lm = load(record.folder / "model")
    ranked = sorted(heads, key=lambda head: head.r_squared)
    for what, head in zip(("most", "least"), (ranked[-1], ranked[0]), strict=True):
        kept = list(ids[:_MAP_TOKENS])
        pattern = circuits.attention_map(lm.model, kept, head.layer, head.head)
        labels = [word.strip() or "<start>" for word in words[: len(kept)]]
        study.figure(
            f"attention_{model}_{what}_distance",
            heatmap(
                pattern, rows=labels, columns=labels, x_label="key", y_label="query", label="attention",
                limits=(0.0, 1.0), numbers=False,
            ),
            f"{model}, layer {head.layer}, head {head.head}: {what} explained by distance (R² {head.r_squared:.2f}), "
            f"kind {head.kind}",
        )  # fmt: skip


def _samples(settings: Settings, study: "Study") -> None:
    """A few stories of a small, a middling and the best model of the first seed."""
    first = study.runs[0]
    models = sorted(_models(settings), key=lambda model: -first.results[f"{model}.loss"])
    parts = []
    for model in (models[0], models[len(models) // 2], models[-1]):
        lines = first.arms[f"grid_{model}"].texts["samples"].split("\n")
        texts = [text for text in lines if text.strip()][:3]
        grades = ", ".join(f"{name} {first.results[f'{model}.{name}']:.2f}" for name in _GRADES)
        parts.append(f"{model} ({grades})\n" + "\n".join(f"  {text}" for text in texts))
    study.text(
        "stories",
        "\n\n".join(parts),
        f"Stories sampled at temperature {settings.temperature}: the worst, a middling and the best model",
    )


def real(study: "Study") -> None:
    """Add the loss curves, grades and samples of real stories."""
    first = study.runs[0]
    curves = {
        name.removeprefix("real_"): figures.band_over_seeds(
            [run.arms[name].series("bits_per_byte") for run in study.runs]
        )[0]
        for name in first.arms
    }
    study.figure(
        "bits_per_byte",
        figures.line_chart(
            curves, x_label="updates", y_label="bits per byte of held-out stories", markers=True
        ),
        "Held-out stories while training; every model has the same vocabulary",
    )
    for name in ("models", "calibration"):
        rows = [{"seed": run.seed, **row} for run in study.runs for row in run.tables[name]]
        study.table(name, rows, first.captions("tables")[name])
    study.table("corpus", first.tables["corpus"], first.captions("tables")["corpus"])
    for name, text in first.texts.items():
        study.text(name, text, first.captions("texts")[name])
