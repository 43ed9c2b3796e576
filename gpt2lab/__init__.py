"""gpt2lab: published methods for GPT-2-class language models as parts of one transformer.

    lm = gpt2lab.load("gpt2")                                        # a folder, a hub id, or a run
    gpt2lab.generate(lm, "Once upon a time", decoder="sampling", top_p=0.9)
    gpt2lab.measure("perplexity", lm, data="docstrings")
    study = gpt2lab.reproduce("tinystories", scale="smoke", seeds=3)
    gpt2lab.save(lm, "folder")

The public functions are loaded on first use, so that `import gpt2lab` imports no torch.
"""

import importlib
import sys
import types
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "LabError": "gpt2lab.base.errors:LabError",
    "LanguageModel": "gpt2lab.text.language_model:LanguageModel",
    "Transformer": "gpt2lab.model:Transformer",
    "TransformerConfig": "gpt2lab.model:TransformerConfig",
    "apply": "gpt2lab.lab.verbs:apply",
    "compare": "gpt2lab.lab.verbs:compare",
    "compare_parts": "gpt2lab.lab.comparison:compare_parts",
    "export": "gpt2lab.lab.verbs:export",
    "embed": "gpt2lab.lab.verbs:embed",
    "generate": "gpt2lab.lab.verbs:generate",
    "load": "gpt2lab.lab.models:load",
    "predict": "gpt2lab.lab.verbs:predict",
    "report": "gpt2lab.lab.report:write_report",
    "reproduce": "gpt2lab.lab.study:reproduce",
    "resume": "gpt2lab.lab.resume:resume",
    "save": "gpt2lab.text.language_model:save",
}
_CALLED_FLOORS = {"train": "gpt2lab.lab.verbs:train", "measure": "gpt2lab.lab.verbs:measure"}

__all__ = sorted([*_PUBLIC, *_CALLED_FLOORS])


class _CalledFloor(types.ModuleType):
    """A floor whose name is a verb's too: `gpt2lab.train.loop` is its module, `gpt2lab.train(...)` the verb."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Do what the verb of this name does; see `gpt2lab.lab.verbs`."""
        return _found(_CALLED_FLOORS[self.__name__.rpartition(".")[2]])(*arguments, **options)


class _Package(types.ModuleType):
    """This package: Python sets an imported floor as an attribute here, which is where it becomes callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CALLED_FLOORS and isinstance(value, types.ModuleType):
            value.__class__ = _CalledFloor
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return _found(_PUBLIC[name])
    if name in _CALLED_FLOORS:
        return importlib.import_module(f"gpt2lab.{name}")
    raise AttributeError(f"module 'gpt2lab' has no attribute {name!r}")


def _found(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
