"""gpt2lab: published methods for GPT-2-class language models as parts of one transformer.

    lm = gpt2lab.load("gpt2")                                        # a folder, a hub id, or a run
    gpt2lab.generate(lm, "Once upon a time", decoder="sampling", top_p=0.9)
    gpt2lab.measure("perplexity", lm, data="docstrings")
    study = gpt2lab.reproduce("tinystories", scale="smoke", seeds=3)
    gpt2lab.save(lm, "folder")

The public functions are loaded on first use, so that `import gpt2lab` imports no torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "LabError": "gpt2lab.base.errors:LabError",
    "LanguageModel": "gpt2lab.text.language_model:LanguageModel",
    "Transformer": "gpt2lab.model:Transformer",
    "TransformerConfig": "gpt2lab.model:TransformerConfig",
    "apply": "gpt2lab.actions.apply:apply",
    "compare": "gpt2lab.actions.compare:compare",
    "compare_parts": "gpt2lab.studies.comparison:compare_parts",
    "export": "gpt2lab.actions.export:export",
    "embed": "gpt2lab.actions.embed:embed",
    "generate": "gpt2lab.actions.generate:generate",
    "load": "gpt2lab.actions.models:load",
    "measure": "gpt2lab.actions.measure:measure",
    "predict": "gpt2lab.actions.predict:predict",
    "report": "gpt2lab.runs.report.write:write_report",
    "reproduce": "gpt2lab.studies.study:reproduce",
    "resume": "gpt2lab.studies.resume:resume",
    "save": "gpt2lab.text.language_model:save",
    "train": "gpt2lab.actions.train:train",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return _found(_PUBLIC[name])
    raise AttributeError(f"module 'gpt2lab' has no attribute {name!r}")


def _found(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
