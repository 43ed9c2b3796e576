"""gpt2lab: published methods for GPT-2-class language models as parts of one transformer.

The public functions are loaded on first use, so that `import gpt2lab` imports no torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "load": "gpt2lab.text.language_model",
    "save": "gpt2lab.text.language_model",
    "LanguageModel": "gpt2lab.text.language_model",
    "LabError": "gpt2lab.base.errors",
    "Transformer": "gpt2lab.model",
    "TransformerConfig": "gpt2lab.model",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'gpt2lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
