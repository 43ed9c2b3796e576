"""`train --architecture` and `--objective`: parts by name, their options as they were typed."""

from collections.abc import Mapping

import torch

from gpt2lab.actions.models import with_models
from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import part
from gpt2lab.base.settings import build
from gpt2lab.model import Architecture, Transformer, TransformerConfig, attach
from gpt2lab.model.architecture import architecture_name
from gpt2lab.model.checkpoints.native import blueprint
from gpt2lab.training.objectives import LossFunction, Objective, as_objective, next_token


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
