"""Parts of a training by name: architecture, objective and optimizer, with options as they are typed."""

import inspect
import typing
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gpt2lab.actions.models import with_models
from gpt2lab.actions.optimizer_options import OF_THE_LOOP, fitted, refuse_for_adamw
from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import part
from gpt2lab.base.settings import build
from gpt2lab.model import Architecture, Transformer, TransformerConfig, attach
from gpt2lab.model.architecture import architecture_name
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.model.checkpoints.native import blueprint
from gpt2lab.training import TrainSettings, adamw, make_optimizer
from gpt2lab.training.objectives import LossFunction, Objective, as_objective, next_token
from gpt2lab.training.optimizer_protocols import MadeForModel


def build_architecture(name: str, options: Mapping[str, object]) -> Architecture:
    """Make the architecture of that name. LabError: no such part or option (with the nearest), a value that does not fit."""
    made: Architecture = with_models(build(part("architecture", name), options, f"architecture {name}"))
    return made


def chosen_objective(
    name: str | None, options: Mapping[str, object], usual: Objective = next_token
) -> Objective:
    """Make the objective of that name; without one it is the usual. LabError as for `build_architecture`."""
    if name is not None:
        made: Objective | LossFunction = with_models(
            build(part("objective", name), options, f"objective {name}")
        )
        return as_objective(made)
    if options:
        raise LabError("objective_options: name the objective that has them")
    return usual


def with_room(config: TransformerConfig, architecture: Architecture) -> TransformerConfig:
    """Return the configuration of a new model with the positions added that the architecture takes up."""
    taken = config.max_positions - blueprint(config, [architecture]).context
    return config.replace(max_positions=config.max_positions + taken)


def attach_once(model: Transformer, architecture: Architecture, *, generator: torch.Generator) -> None:
    """Attach the architecture to a given model. LabError if that has one of its kind already."""
    if any(type(known) is type(architecture) for known in model.architectures):
        raise LabError(
            f"architecture {architecture_name(architecture)}: the given model has one already; leave architecture out "
            "to go on training it"
        )
    attach(model, architecture, generator=generator)


def named_optimizer(
    name: str, model: nn.Module, settings: TrainSettings, given: Mapping[str, str]
) -> Optimizer:
    """Return the optimizer of that name for a model, with the loop's learning rate and decay.

    LabError for an unknown name or option, or a value of the wrong type.
    """
    if name == "adamw":
        refuse_for_adamw(given)
        return adamw(model, settings)
    cls = part("optimizer", name)
    return make_optimizer(
        cls,
        model,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        **typed_options(name, cls, given),
    )


def check_optimizer(name: str, settings: TrainSettings, given: Mapping[str, str]) -> None:
    """LabError for what `named_optimizer` or the loop would refuse: found on a small model, before any data is read."""
    config = gpt2_config(vocab_size=4, d_model=4, n_layers=1, n_heads=1, max_positions=4)
    model = Transformer(config, generator=torch.Generator().manual_seed(0))
    made = named_optimizer(name, model, settings, given)
    if settings.privacy is not None:
        settings.privacy.check(model, next_token, made, settings.accumulation)


def optimizer_defaults(name: str) -> dict[str, Any]:
    """Return the options of an optimizer as `optimizer_options` takes them, each with its default."""
    if name == "adamw":
        return {}
    found: dict[str, Any] = {}
    for maker in _makers(part("optimizer", name)):
        for option, parameter in inspect.signature(maker).parameters.items():
            if option not in OF_THE_LOOP and parameter.kind is not parameter.VAR_KEYWORD:
                found.setdefault(option, None if parameter.default is parameter.empty else parameter.default)
    return found


def _makers(cls: type[Optimizer]) -> list[Any]:
    """Return what makes an optimizer: its own function for models, and the constructor that this may hand options to."""
    first: Any = cls.for_model if isinstance(cls, MadeForModel) else cls.__init__
    forwards = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(first).parameters.values())
    return [first, cls.__init__] if forwards else [first]


def typed_options(name: str, cls: type[Optimizer], given: Mapping[str, str]) -> dict[str, Any]:
    """Return typed options as the types that the optimizer's arguments have.

    LabError for an option that it does not have, or a value of the wrong type.
    """
    makers = _makers(cls)
    hints = {name: hint for maker in reversed(makers) for name, hint in typing.get_type_hints(maker).items()}
    known = {
        option: hints.get(option, object)
        for maker in makers
        for option, parameter in inspect.signature(maker).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    return fitted(name, known, given)
