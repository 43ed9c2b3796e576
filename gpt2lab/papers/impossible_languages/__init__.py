"""Mission: Impossible Language Models."""

from typing import Any

_NAMES = {
    "Language": "languages",
    "NAMES": "languages",
    "language": "languages",
    "ImpossibleLanguage": "source",
    "perturb": "perturbing",
    "Perturbation": "perturbing",
    "Sentence": "annotations",
    "Word": "annotations",
    "annotated_sentences": "annotations",
    "features": "annotations",
    "annotated": "generator",
    "write_corpus": "corpus",
    "sentences_of": "corpus",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: papers are listed without numpy."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
