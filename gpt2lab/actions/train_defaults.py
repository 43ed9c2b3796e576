"""What `train` takes for settings that nobody gave: those of a new model, or those that suit a given one."""

import dataclasses
from collections.abc import Iterator, Mapping

import torch

from gpt2lab.actions.models import model_outline
from gpt2lab.actions.optimizer_options import check_optimizer
from gpt2lab.actions.parts import attach_once, build_architecture
from gpt2lab.actions.train import TrainingSettings, refuse_long
from gpt2lab.actions.train_options import refuse_unused
from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import build, options, update
from gpt2lab.model import Transformer
from gpt2lab.model.architecture import attach
from gpt2lab.training import TrainSettings

LONGEST = 512
"""Context of a fine-tuning at most, unless told: longer rows cost memory that a laptop does not have."""
UPDATE_TOKENS = 4096
"""Tokens of a fine-tuning's micro-batch on text, unless told: as many as a new model's 32 rows of 128."""


def training_settings(given: Mapping[str, object]) -> TrainingSettings:
    """Return the settings of a training: those given, text or typed, and what suits it for the others.

    Those of the loop go without their prefix too: steps=300 is train.steps=300. LabError: an unknown name, a value that
    does not fit, a setting that this training would ignore, a model or a part that is not there.
    """
    loop = {option.name for option in options(TrainSettings)}
    given = {f"train.{name}" if name in loop else name: value for name, value in given.items()}
    made = build(TrainingSettings, {"train.warmup": 0, **given}, "train")
    if made.train.steps < 1:
        raise LabError(f"train: steps must be at least 1, got {made.train.steps}")
    names = set(_flat(given))
    refuse_unused(made, sorted(names))
    check_optimizer(made.optimizer, made.train, made.optimizer_options)  # before hours of encoding
    usual: dict[str, object] = {"train.warmup": min(TrainingSettings().train.warmup, made.train.steps // 10)}
    if made.model is not None:
        usual |= _fine_tuning(made, model_outline(made.model), made.context if "context" in names else None)
    return update(made, {name: value for name, value in usual.items() if name not in names}, "train")


def _fine_tuning(settings: TrainingSettings, model: Transformer, context: int | None) -> dict[str, object]:
    """Return what suits a given model: its own context, rows of it, and a learning rate by its width."""
    if settings.architecture is not None:
        added = build_architecture(settings.architecture, settings.architecture_options)
        attach_once(model, added, generator=torch.Generator())
    if settings.lora is not None:
        attach(model, settings.lora)
    frozen = not all(parameter.requires_grad for parameter in model.parameters())
    if context is not None:
        refuse_long(settings, model)
    context = context or min(model.context, LONGEST)
    rows = {"batch_size": max(1, UPDATE_TOKENS // context)} if settings.task.kind == "language" else {}
    rate = learning_rate(model.config.d_model, frozen=frozen)
    return {"train.learning_rate": rate, "context": context, **rows}


def learning_rate(d_model: int, *, frozen: bool) -> float:
    """Return the peak learning rate of a fine-tuning: 5e-4 (128 / d_model)², at least 2e-5 and at most 5e-4.

    `frozen`: only what was added is trained (an adapter, a soft prompt), which takes ten times as much.
    """
    full = min(max(5e-4 * (128 / d_model) ** 2, 2e-5), 5e-4)
    return float(f"{full * (10 if frozen else 1):.2g}")


def _flat(given: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings in a mapping; of a settings object those that are not the usual ones."""
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            usual = {option.name: option.default for option in options(type(value))}
            changed = {
                o.name: o.default for o in options(type(value), default=value) if o.default != usual[o.name]
            }
            yield from _flat(changed, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
