"""`train` with an objective that reads rows of its own, such as pairs of answers: `--objective dpo --data pairs.jsonl`."""

from collections.abc import Callable
from functools import partial

from torch.optim import Optimizer

from gpt2lab.actions.train_data import note_data, report_validation
from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.model import Transformer
from gpt2lab.runs.run import Run
from gpt2lab.text import sources
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.training import train
from gpt2lab.training.objectives import Objective
from gpt2lab.training.rows import ReadsRows, validation_numbers


def train_rows(
    run: Run,
    settings: TrainingSettings,
    lm: LanguageModel,
    objective: Objective,
    optimizer: Callable[[Transformer], Optimizer],
    *,
    again: bool,
) -> None:
    """Train all that trains on the objective's rows, and report the results in the run.

    LabError for rows that do not fit the objective or have changed since the run began.
    """
    assert isinstance(objective, ReadsRows) and lm.tokenizer is not None  # both of the caller
    key = sources.cache_key(settings.data)
    note_data(run, f"{key} {lm.tokenizer.fingerprint}")
    rows = objective.read_rows(
        settings.data,
        lm,
        batch_size=settings.batch_size,
        context=settings.context,
        valid_fraction=settings.valid_fraction,
        seed=settings.seed,
    )
    done = train(
        lm.model,
        rows.batches,
        settings=settings.train,
        objective=objective,
        optimizer=optimizer(lm.model),
        evaluate=partial(validation_numbers, objective, lm, rows.validation),
        log=run.log,
        checkpoints=run.checkpoints,
        resume=again,
        seed=settings.seed,
        label=run.id,
    )
    report_validation(run, done)
    if done.losses:
        run.result("loss", done.loss)
    run.result("rows", rows.examples)
    run.result("validation_rows", rows.validation_examples)
    run.result("epochs", done.steps * settings.train.accumulation * settings.batch_size / rows.examples)
    run.result("dropped", rows.dropped)
