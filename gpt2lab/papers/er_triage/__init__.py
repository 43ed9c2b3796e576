"""Pre-training A Neural Language Model Improves The Sample Efficiency of an Emergency Room Classification
Model.
"""

from typing import Any

_NAMES = {
    "FineTuning": "training",
    "LabelEfficiency": "measure",
    "LabelWord": "label_word",
    "factor": "efficiency",
    "fine_tune": "training",
    "labels_needed": "efficiency",
    "pretrain": "training",
    "read_notes": "notes",
    "scores_of": "training",
    "subset": "notes",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: papers are listed without torch."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
