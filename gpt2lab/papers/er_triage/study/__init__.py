"""The ladder: strategies x label budgets x seeds, every rung a unit that resumes, and a world where nothing can be gained.

Of a seed, both strategies take the same labelled notes in the same order, make the same number of updates and are judged on
the same notes; every subset holds the smaller ones. `scratch` begins with the weights with which the pre-training began,
`pretrained` with those it ended with. Each strategy's learning rate is chosen once, by the same trials, on the notes of the
tuning seed.
"""

import math
from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gpt2lab.papers.er_triage.baselines import BASELINES, baseline_scores
from gpt2lab.papers.er_triage.efficiency import factor, labels_needed
from gpt2lab.papers.er_triage.notes import subset, truth
from gpt2lab.papers.er_triage.study import material, summary
from gpt2lab.papers.er_triage.study.claims import CLAIMS, FIVE
from gpt2lab.papers.er_triage.study.material import TEST, TUNING, prepare, pretrained, read_parts
from gpt2lab.papers.er_triage.study.settings import PRESETS, Settings
from gpt2lab.papers.er_triage.training import fine_tune, redrawn, rung_numbers, scores_of
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.studies.graph import UnitSpec
from gpt2lab.studies.sweep import best_on_grid
from gpt2lab.text.labelled_splits import Parts
from gpt2lab.text.language_model import LanguageModel, load

__all__ = ["CLAIMS", "PRESETS", "Settings", "ladder_of", "run", "rung", "summarise", "tune", "units"]

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

NOTES, CONTROL_NOTES, TUNING_NOTES, COUNTED = "pretraining", "control", "tuning_pretraining", "baselines"
TARGET, REACHED, UP_TO = 0.95, 0.97, 500
"""AUC of claim A, AUC of claim E, labelled notes of claim B."""


def units(settings: Settings) -> list[UnitSpec]:
    """Return the pre-trainings, the tuning of every strategy, the rungs of the ladder, the control and the baselines."""
    found = [
        UnitSpec(TUNING_NOTES, prepare, tuning=True),
        *(
            UnitSpec(tuning_of(name), partial(tune, strategy=name), needs=(TUNING_NOTES,), tuning=True)
            for name in settings.strategies
        ),
        UnitSpec(NOTES, prepare),
    ]
    if _has_control(settings):
        found.append(UnitSpec(CONTROL_NOTES, partial(prepare, control=True)))
    for name, budget in _rungs(settings):
        needs = (NOTES, tuning_of(name))
        found.append(
            UnitSpec(rung_of(name, budget), partial(rung, strategy=name, budget=budget), needs=needs)
        )
    for name, budget in _control_rungs(settings):
        needs = (CONTROL_NOTES, tuning_of(name))
        work = partial(rung, strategy=name, budget=budget, notes=CONTROL_NOTES)
        found.append(UnitSpec(f"control_{rung_of(name, budget)}", work, needs=needs))
    return [*found, UnitSpec(COUNTED, count_words, needs=(NOTES,))]


def _has_control(settings: Settings) -> bool:
    return bool(settings.control_budgets) and not settings.data


def _rungs(settings: Settings) -> list[tuple[str, int]]:
    """Return (strategy, budget) of the ladder, the longest first; the long one is of the fully supervised network."""
    budgets = sorted(settings.budgets, reverse=True)
    return [("scratch", settings.long), *((name, n) for n in budgets for name in settings.strategies)]


def _control_rungs(settings: Settings) -> list[tuple[str, int]]:
    budgets = settings.control_budgets if _has_control(settings) else ()
    return [(name, n) for n in budgets for name in ("scratch", "pretrained")]


def rung_of(strategy: str, budget: int) -> str:
    """Return the name of a rung's unit."""
    return f"{strategy}.n{budget}"


def tuning_of(strategy: str) -> str:
    """Return the name of the unit that chooses a strategy's learning rate."""
    return f"tuning_{strategy}"


def begin(settings: Settings, strategy: str, record: RunRecord, run: "Run") -> LanguageModel:
    """Return what a strategy begins to fine-tune: fresh weights, the pre-trained ones, or the model that was given."""
    if strategy == "given":
        assert settings.start is not None
        return load(settings.start, device=run.device)
    lm = pretrained(record, run.device)
    return lm if strategy == "pretrained" else redrawn(lm, run.seed)


def tune(settings: Settings, run: "Run", *, strategy: str) -> None:
    """Choose a strategy's learning rate by its mean AUC over the tuning budgets, on the tuning seed's notes."""
    run.chooses("learning rates", on=TUNING)
    record = run.needed[TUNING_NOTES]
    parts = read_parts(record)
    texts, answers = [one.text for one in parts.test], truth(parts.test)
    tried = list[dict[str, Any]]()
    total = len(settings.rates) + settings.further

    def loss_of(rate: float) -> float:
        found = dict[str, float]()
        for budget in settings.tuning_budgets:
            tuned = fine_tune(
                begin(settings, strategy, record, run),
                subset(parts.labelled, budget, run.seed),
                settings.fine_tuning,
                learning_rate=rate,
                seed=run.seed,
                label=f"{strategy} lr {rate:.2g}",
            )
            scores, _ = scores_of(tuned, texts, settings.fine_tuning)
            found[f"AUC, {budget} labels"] = rung_numbers(answers, scores, resamples=0)["auc"]
        tried.append({"learning rate": rate, **found, "mean AUC": fmean(found.values())})
        run.share(len(tried) / total)
        return 1 - fmean(found.values())

    rate, loss, at_edge = best_on_grid(settings.rates, loss_of, further=settings.further)
    run.table("sweep", tried, "Every learning rate tried, with its AUC on the tuning notes")
    run.result("learning_rate", rate)
    run.result("auc", 1 - loss)
    run.result("at_edge", at_edge)
    run.result("trials", len(tried))


def rung(settings: Settings, run: "Run", *, strategy: str, budget: int, notes: str = NOTES) -> None:
    """Fine-tune a strategy on one subset at its tuned rate, and judge it on the test notes."""
    run.judges("AUC, F1", on=TEST)
    parts = read_parts(run.needed[notes])
    rate = run.needed[tuning_of(strategy)].results["learning_rate"]
    how, labelled = settings.fine_tuning, subset(parts.labelled, budget, run.seed)
    texts, answers = [one.text for one in parts.test], truth(parts.test)
    is_long = budget == settings.long and notes == NOTES

    def auc(lm: LanguageModel) -> dict[str, float]:
        return {"auc": rung_numbers(answers, scores_of(lm, texts, how)[0], resamples=0)["auc"]}

    tuned = fine_tune(
        begin(settings, strategy, run.needed[notes], run),
        labelled,
        how,
        learning_rate=rate,
        seed=run.seed,
        evaluate=auc if is_long else None,
        every=settings.evaluate_every if is_long else 0,
        log=run.log,
        checkpoints=run.checkpoints / "model",
        label=f"{strategy} {budget}",
    )
    scores, cut = scores_of(tuned, texts, how)
    for name, value in rung_numbers(answers, scores).items():
        run.result(name, value)
    run.array("scores", scores, "Probability of class 1 of every test note")
    steps = how.steps(len(labelled))
    run.result("labels", len(labelled))
    run.result("added", len(labelled) - budget)
    run.result("updates", steps)
    run.result("processed", steps * min(how.batch_size, len(labelled)))
    run.result("truncated", cut)
    run.result("learning_rate", rate)
    _check_subset(run, settings, parts, budget)


def _check_subset(run: "Run", settings: Settings, parts: Parts, budget: int) -> None:
    """Report whether the subset holds the smaller ones of its seed, and how many test notes are in it."""
    ids = {one.id for one in subset(parts.labelled, budget, run.seed)}
    smaller = [n for n in settings.budgets if n < budget]
    run.result("nested", all({one.id for one in subset(parts.labelled, n, run.seed)} <= ids for n in smaller))
    run.result("leaked", sum(one.id in ids for one in parts.test))


def count_words(settings: Settings, run: "Run") -> None:
    """Fit the baselines to the same subsets."""
    run.judges("AUC, F1", on=TEST)
    parts = read_parts(run.needed[NOTES])
    texts, answers = [one.text for one in parts.test], truth(parts.test)
    for budget in (*settings.budgets, settings.long):
        notes = subset(parts.labelled, budget, run.seed)
        for name in BASELINES:
            scores = baseline_scores(name, notes, texts)
            run.array(f"{name}_n{budget}", scores, f"Probability of class 1, {name}, {budget} labels")
            for what, value in rung_numbers(answers, scores, resamples=0).items():
                run.result(f"{name}.n{budget}.{what}", value)


def ladder_of(settings: Settings, run: "Run | RunRecord") -> list[dict[str, Any]]:
    """Return a row for every strategy and budget of a finished seed: its numbers by name."""
    rows = list[dict[str, Any]]()
    for name, budget in sorted(_rungs(settings), key=lambda one: (one[0], one[1])):
        own = run.arms[rung_of(name, budget)].results
        rows.append({"strategy": name, "labels": budget, "repeat": run.seed, **own})
    for name in BASELINES:
        for budget in (*settings.budgets, settings.long):
            found = run.arms[COUNTED].results
            begins = f"{name}.n{budget}."
            own = {key.removeprefix(begins): value for key, value in found.items() if key.startswith(begins)}
            rows.append({"strategy": name, "labels": budget, "repeat": run.seed, **own})
    return rows


def run(settings: Settings, run: "Run") -> None:
    """Put the units of one seed together: the ladder, the labels that AUC 0.95 takes, the control."""
    rows = ladder_of(settings, run)
    run.table("ladder", rows, "Every rung: strategy, labelled notes, AUC, F1 at 0.5, best F1, ...")
    auc = {(row["strategy"], row["labels"]): float(row["auc"]) for row in rows}
    for (name, budget), value in auc.items():
        run.result(f"auc.{name}.n{budget}", value)
    for row in rows:
        run.result(f"f1.{row['strategy']}.n{row['labels']}", row["f1"])
    run.result("auc.scratch.largest", auc["scratch", settings.budgets[-1]])
    run.result("auc.scratch.base", auc["scratch", settings.base])
    run.result("auc.scratch.long", auc["scratch", settings.long])
    for name in settings.strategies:
        for what in ("learning_rate", "at_edge"):
            run.result(f"tuning.{name}.{what}", run.arms[tuning_of(name)].results[what])
    notes = run.arms[NOTES].results
    run.result("loss.pretraining", notes["loss"])
    run.result("loss.unigram", notes["unigram_loss"])
    _factor(settings, run, auc)
    small = [n for n in settings.budgets if n <= UP_TO]
    run.result("gap.lowest", min(auc["pretrained", n] - auc["scratch", n] for n in small))
    _processed(settings, run)
    _control(settings, run, auc)
    rungs = [run.arms[rung_of(name, budget)].results for name, budget in _rungs(settings)]
    run.result("subsets.nested", fmean(one["nested"] for one in rungs))
    run.result("subsets.leaked", sum(one["leaked"] for one in rungs))


def _factor(settings: Settings, run: "Run", auc: dict[tuple[Any, Any], float]) -> None:
    """Report the factor at AUC 0.95 as far as this seed's ladders tell it; a bound below 5 settles nothing."""
    needed = {
        name: labels_needed({n: auc[name, n] for n in settings.budgets}, TARGET)
        for name in ("scratch", "pretrained")
    }
    found = factor(needed["scratch"], needed["pretrained"])
    for name, labels in needed.items():
        run.result(f"labels.{name}", labels.count)
        run.result(f"labels.{name}_reached", labels.reached)
    log = math.log10(found.value) if found is not None else math.nan
    run.result("factor.log10", log)
    run.result("factor.bounded", found is not None and found.bounded)
    run.result("factor.settled", found is not None and (not found.bounded or log >= FIVE))


def _processed(settings: Settings, run: "Run") -> None:
    """Report how many notes the fully supervised network had processed when its AUC was first at 0.97."""
    record = run.arms[rung_of("scratch", settings.long)]
    steps, values = record.series("auc")
    first = _first(steps, values)
    size = min(settings.fine_tuning.batch_size, settings.long)
    run.result("processed.reached", first is not None)
    run.result("processed.log10", math.log10(first * size) if first else math.nan)


def _first(steps: Sequence[float], values: Sequence[float]) -> float | None:
    return next((step for step, value in zip(steps, values, strict=True) if value >= REACHED), None)


def _control(settings: Settings, run: "Run", auc: dict[tuple[Any, Any], float]) -> None:
    """Report the gain in the control's world beside that in the study's, at the same budgets."""
    budgets = [n for n in settings.control_budgets if n in settings.budgets]
    there = _has_control(settings) and bool(budgets)
    run.result("control.there", there)
    if not there:
        return
    own = {
        (name, n): run.arms[f"control_{rung_of(name, n)}"].results["auc"]
        for name, n in _control_rungs(settings)
    }
    rows = [
        {
            "labels": n,
            "scratch": own["scratch", n],
            "pretrained": own["pretrained", n],
            "gain": own["pretrained", n] - own["scratch", n],
            "gain, study": auc["pretrained", n] - auc["scratch", n],
        }
        for n in budgets
    ]
    run.table(
        "control", rows, "AUC where the text says nothing of the class, and the gain beside the study's"
    )
    run.result("control.gain", fmean(row["gain"] for row in rows))
    run.result("control.aligned", fmean(row["gain, study"] for row in rows))
    notes = run.arms[CONTROL_NOTES].results
    run.result("loss.control", notes["loss"])
    run.result("loss.control_unigram", notes["unigram_loss"])


def summarise(settings: Settings, study: "Study") -> None:
    """Add the figures and the table of factors over all seeds."""
    summary.add(settings, study, material.TEST)
