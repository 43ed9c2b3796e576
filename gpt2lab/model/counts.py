"""How many weights a module has, however they are stored."""

from torch import nn


def count_weights(module: nn.Module) -> int:
    """Count parameters, shared ones once, and the weights that quantised matrices stand for."""
    dense = sum(parameter.numel() for parameter in module.parameters())
    return dense + sum(getattr(part, "n_weights", 0) for part in module.modules())
