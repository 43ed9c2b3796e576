"""LayerNorm removal at reduced scale: one pre-trained model, trained further with its norms and without, in several ways.

The pre-training is a unit of its own, which every way needs. Every way starts from its weights and sees the same batches in
the same order: `control` keeps its norms, `sequential` is the paper's recipe, `no_penalty` the same without the auxiliary
loss, `at_once` freezes all norms before one step. `instant` freezes them without training.
"""

import copy
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, attach
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.papers.layernorm_removal import corpus
from gpt2lab.papers.layernorm_removal.architecture import StagedNorms, calibrate, fire, stage_of, unit_table
from gpt2lab.papers.layernorm_removal.evaluation import Tokens, sink_rate, stream_norms, token_statistics
from gpt2lab.papers.layernorm_removal.fold import export_errors, folded
from gpt2lab.papers.layernorm_removal.neurons import confidence_neurons
from gpt2lab.papers.layernorm_removal.objective import EvenScales
from gpt2lab.papers.layernorm_removal.patching import Prompts, english_prompts, read_prompts
from gpt2lab.papers.layernorm_removal.schedule import Schedule, require_length
from gpt2lab.papers.layernorm_removal.study import pictures, tools
from gpt2lab.papers.layernorm_removal.study.claims import CLAIMS
from gpt2lab.papers.layernorm_removal.study.settings import PRESETS, WAYS, Settings
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.studies.graph import UnitSpec
from gpt2lab.text import sources
from gpt2lab.text.batches import ArrayTokens, PackedBatches
from gpt2lab.text.language_model import LanguageModel, load
from gpt2lab.training import TrainSettings, train

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

__all__ = ["CLAIMS", "PRESETS", "WAYS", "Settings", "run", "summarise", "units"]

PRETRAINING = "pretraining"
_END = {"sequential", "no_penalty", "at_once"}
"""Ways that end without norms."""
_LOGGED = ("cross_entropy", "spread", "sigma", "sigma_first", "sigma_end", "gradient_norm", "fake_units")


# One seed.


@dataclass(frozen=True)
class Text:
    """The rows that a seed trains and measures on."""

    train: PackedBatches
    valid: Tensor
    """[rows, context + 1] int64."""
    prompts: Prompts
    """That differ in one name, for patching."""


def units(settings: Settings) -> list[UnitSpec]:
    """Return the pre-training, unless a model is given, and every way that starts from it."""
    first = [UnitSpec(PRETRAINING, pretrain)] if settings.model is None else []
    needs = tuple(spec.name for spec in first)
    return [*first, *(UnitSpec(way, partial(train_further, way=way), needs) for way in WAYS)]


def pretrain(settings: Settings, run: "Run") -> None:
    """Train the small model and keep it."""
    config = gpt2_config(
        vocab_size=corpus.VOCAB_SIZE, d_model=settings.d_model, n_layers=settings.n_layers, n_heads=settings.n_heads,
        max_positions=settings.context, eos=corpus.END,
    )  # fmt: skip
    model = Transformer(config, generator=torch.Generator().manual_seed(run.seed)).to(run.device)
    train(
        model, _generated(settings, run.seed).train, settings=settings.pretraining, log=run.log,
        checkpoints=run.checkpoints, resume=True, seed=run.seed, label=PRETRAINING,
    )  # fmt: skip
    run.model(LanguageModel(model))


def train_further(settings: Settings, run: "Run", *, way: str) -> None:
    """Train the model further in one way, and keep what came of it."""
    model, text = _start(settings, run, run.needed)
    if way in _END:
        attach(model, staging(settings, way))
        calibrate(model, [text.train[0]])
    penalty = 0.0 if way in ("control", "no_penalty") else settings.penalty

    def log(step: int, **numbers: float) -> None:
        run.log(step, **{name: numbers[name] for name in _LOGGED if name in numbers})

    train(
        model, text.train, settings=_every_step(settings.removal), objective=EvenScales(penalty=penalty), log=log,
        checkpoints=run.checkpoints, resume=True, seed=run.seed, label=way,
    )  # fmt: skip
    run.model(LanguageModel(model))


def run(settings: Settings, run: "Run") -> None:
    """Measure the pre-trained model and what came of every way."""
    start, text = _start(settings, run, run.arms)
    models = {"pretrained": start} | {way: _kept(run.arms[way], run.device) for way in WAYS}
    models["instant"] = _instant(settings, start, text)
    stats = {name: token_statistics(model, text.valid, reference=start) for name, model in models.items()}
    for name, found in stats.items():
        run.result(f"loss.{name}", float(found.loss.mean()))
    run.result("rise", run.results["loss.sequential"] - run.results["loss.control"])
    run.result("rise_over_original", run.results["loss.sequential"] - run.results["loss.pretrained"])
    run.result("rise_at_once", run.results["loss.at_once"] - run.results["loss.control"])
    run.result("rise_instant", run.results["loss.instant"] - run.results["loss.pretrained"])
    for way in WAYS:
        peaks = run.arms[way].series("cross_entropy")[1]
        run.result(f"peak.{way}", max(peaks) if peaks else float("nan"))
    run.table("tails", [_tails(name, stats[name], models[name], text.valid) for name in models], _TAILS)
    run.table("units", unit_table(models["sequential"]), "Norm paths of the sequential removal at its end")
    rows = [
        {"model": name, **row}
        for name in ("control", "sequential")
        for row in stream_norms(models[name], text.valid[:32])
    ]
    run.table("stream", rows, "Mean length of the residual stream at position 0 and elsewhere")
    for name, error in export_errors(models["sequential"], text.valid[:4, :-1]).items():
        run.result(f"export.{name}", error)
    compared = {"control": models["control"], "sequential": folded(models["sequential"])}
    # In English each prompt's own effect divides, as in the paper; of the generated language see compare_patching.
    tools.add(
        run, compared, text.valid[: settings.samples], text.prompts,
        neurons=confidence_neurons(start, settings.neurons),
        by_prompt=settings.model is not None,
    )  # fmt: skip


_TAILS = "Cross entropy per token with the ranges that hold 95 % and 99.9 % of the tokens, entropy, calibration, sinks"


def _start(settings: Settings, run: "Run", units: Mapping[str, RunRecord]) -> tuple[Transformer, Text]:
    """Return the pre-trained model, of `units` if none is given, and the text."""
    if settings.model is not None:
        return _given(settings, run)
    return _kept(units[PRETRAINING], run.device), _generated(settings, run.seed)


def _kept(unit: RunRecord, device: str) -> Transformer:
    """Return the model that a unit kept."""
    return load(unit.folder / "model", device=device, dtype=torch.float32).model


def _generated(settings: Settings, seed: int) -> Text:
    """Return the text of the generated language."""
    batches = PackedBatches(
        ArrayTokens(corpus.tokens(2 * seed, settings.train_tokens)),
        batch_size=settings.batch_size,
        context=settings.context,
        seed=seed,
    )
    return Text(
        batches,
        _rows(corpus.tokens(2 * seed + 1, settings.valid_tokens), settings.context),
        corpus.name_prompts(seed, settings.prompts),
    )


def _given(settings: Settings, run: "Run") -> tuple[Transformer, Text]:
    """Return a given model with text in its own tokens."""
    assert settings.model is not None
    lm = load(settings.model, device=run.device, dtype=torch.float32)
    if lm.tokenizer is None or lm.tokenizer.eos is None:
        raise LabError(f"{settings.model}: needs a tokenizer with an end of text")
    require_length(settings.schedule.steps_of(lm.config.n_layers), settings.removal.steps)
    if settings.prompt_file is None:
        prompts = english_prompts(lm.tokenizer, settings.prompts, seed=run.seed, start=lm.tokenizer.eos)
    else:
        every = read_prompts(settings.prompt_file, lm.tokenizer, start=lm.tokenizer.eos)
        prompts = Prompts(*(column[: settings.prompts] for column in every))
    read, held = array("i"), array("i")  # 4 bytes a token; in a list it would be 36
    for number, document in enumerate(sources.documents(settings.data)):
        if len(read) >= settings.train_tokens and len(held) >= settings.valid_tokens:
            break
        part = held if number % settings.held_out_every == settings.held_out_every - 1 else read
        if len(part) < (settings.valid_tokens if part is held else settings.train_tokens):
            part.extend([*lm.tokenizer.encode(document), lm.tokenizer.eos])
    batches = PackedBatches(
        ArrayTokens(read), batch_size=settings.batch_size, context=settings.context, seed=run.seed
    )
    return lm.model, Text(batches, _rows(np.array(held, dtype=np.int64), settings.context), prompts)


def _rows(ids: object, context: int) -> Tensor:
    found = torch.as_tensor(ids)
    rows = len(found) // (context + 1)
    if not rows:
        raise LabError(
            f"the validation text has {len(found)} tokens, a row takes {context + 1}; give more text, or a smaller "
            "held_out_every"
        )
    return found[: rows * (context + 1)].view(rows, context + 1)


def staging(settings: Settings, way: str) -> StagedNorms:
    """Return the architecture of one way."""
    schedule = (
        settings.schedule
        if way != "at_once"
        else Schedule(start=settings.schedule.start, mlp_gap=0, qk_gap=0, v_gap=0)
    )
    return StagedNorms(schedule=schedule, momentum=settings.momentum)


def _every_step(settings: TrainSettings) -> TrainSettings:
    """Log every step: the peak of the loss is a result."""
    return replace(settings, log_every=1)


def _instant(settings: Settings, start: Transformer, text: Text) -> Transformer:
    model = copy.deepcopy(start)
    attach(model, staging(settings, "at_once"))
    calibrate(model, [text.train[i] for i in range(8)])
    for unit in stage_of(model).steps:
        fire(model, unit)
    return model


def _tails(name: str, found: Tokens, model: Transformer, rows: Tensor) -> dict[str, object]:
    return {
        "model": name, "mean": float(found.loss.mean()), **found.quantiles(), "entropy": float(found.entropy.mean()),
        "calibration error": found.calibration_error, "divergence from pre-trained": float(found.divergence.mean()),
        "sink rate": sink_rate(model, rows[:32]),
    }  # fmt: skip


def summarise(settings: Settings, study: "Study") -> None:
    """Add the figures: losses with the events, scales, heads, patching."""
    pictures.add(study, WAYS)
