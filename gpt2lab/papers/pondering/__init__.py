"""Pretraining Language Models to Ponder in Continuous Space."""

from typing import Any

_NAMES = {
    "Pondering": "architecture",
    "SetPonderingSteps": "transform",
    "StepTrace": "steps",
    "find_pondering": "steps",
    "pondering_steps": "steps",
    "trace": "steps",
    "with_steps": "steps",
    "training_flops": "compute",
    "draw_small": "initialisation",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: papers are listed without torch."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
