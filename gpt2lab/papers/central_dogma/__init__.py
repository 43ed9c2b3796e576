"""Find Central Dogma Again: Leveraging Multilingual Transfer in Large Language Models."""

from typing import Any

_NAMES = {
    "Audit": "pairs",
    "CodonAttribution": "attribution",
    "CodonProbe": "codon_probe",
    "Fields": "pairs",
    "PairComponents": "components",
    "PairJudge": "transform",
    "TranslationPairs": "measure",
    "audit": "pairs",
    "judge": "measure",
    "read_pairs": "pairs",
    "shortcut_predictions": "shortcuts",
    "translated": "rules",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: papers are listed without torch."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
