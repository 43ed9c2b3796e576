"""gpt2lab: published methods for GPT-2-class language models as parts of one transformer.

    lm = gpt2lab.load("gpt2")                                        # a folder, a fetched model, a hub id, or a run
    gpt2lab.generate(lm, "Once upon a time", decoder="sampling", top_p=0.9)
    gpt2lab.measure("perplexity", lm, data="docstrings")
    study = gpt2lab.reproduce("tinystories", scale="smoke", seeds=3)
    gpt2lab.save(lm, "folder")

The public functions are loaded on first use, so that `import gpt2lab` imports no torch; editors and type checkers read
the imports below, and a test holds them and the table of places to each other.
"""

import importlib
from typing import TYPE_CHECKING

from gpt2lab.base.version import __version__ as __version__

if TYPE_CHECKING:
    from gpt2lab.actions.apply import apply as apply
    from gpt2lab.actions.compare import compare as compare
    from gpt2lab.actions.embed import embed as embed
    from gpt2lab.actions.export import export as export
    from gpt2lab.actions.fetch import fetch as fetch
    from gpt2lab.actions.generate import generate as generate
    from gpt2lab.actions.measure import measure as measure
    from gpt2lab.actions.models import load as load
    from gpt2lab.actions.predict import predict as predict
    from gpt2lab.actions.split import split as split
    from gpt2lab.actions.train import train as train
    from gpt2lab.actions.vectors import vectors as vectors
    from gpt2lab.actions.write import write as write
    from gpt2lab.base.errors import LabError as LabError
    from gpt2lab.model.config import TransformerConfig as TransformerConfig
    from gpt2lab.model.transformer import Transformer as Transformer
    from gpt2lab.runs.report.write import write_report as report
    from gpt2lab.studies.comparison import compare_parts as compare_parts
    from gpt2lab.studies.resume import resume as resume
    from gpt2lab.studies.study import reproduce as reproduce
    from gpt2lab.text.language_model import LanguageModel as LanguageModel
    from gpt2lab.text.language_model import save as save

__all__ = [
    "LabError",
    "LanguageModel",
    "Transformer",
    "TransformerConfig",
    "apply",
    "compare",
    "compare_parts",
    "embed",
    "export",
    "fetch",
    "generate",
    "load",
    "measure",
    "predict",
    "report",
    "reproduce",
    "resume",
    "save",
    "split",
    "train",
    "vectors",
    "write",
]

_PLACES = {
    "LabError": "gpt2lab.base.errors:LabError",
    "LanguageModel": "gpt2lab.text.language_model:LanguageModel",
    "Transformer": "gpt2lab.model.transformer:Transformer",
    "TransformerConfig": "gpt2lab.model.config:TransformerConfig",
    "apply": "gpt2lab.actions.apply:apply",
    "compare": "gpt2lab.actions.compare:compare",
    "compare_parts": "gpt2lab.studies.comparison:compare_parts",
    "embed": "gpt2lab.actions.embed:embed",
    "export": "gpt2lab.actions.export:export",
    "fetch": "gpt2lab.actions.fetch:fetch",
    "generate": "gpt2lab.actions.generate:generate",
    "load": "gpt2lab.actions.models:load",
    "measure": "gpt2lab.actions.measure:measure",
    "predict": "gpt2lab.actions.predict:predict",
    "report": "gpt2lab.runs.report.write:write_report",
    "reproduce": "gpt2lab.studies.study:reproduce",
    "resume": "gpt2lab.studies.resume:resume",
    "save": "gpt2lab.text.language_model:save",
    "split": "gpt2lab.actions.split:split",
    "train": "gpt2lab.actions.train:train",
    "vectors": "gpt2lab.actions.vectors:vectors",
    "write": "gpt2lab.actions.write:write",
}

if not TYPE_CHECKING:  # a type checker would take every misspelt name for one that is there

    def __getattr__(name: str) -> object:
        if name in _PLACES:
            module, _, attribute = _PLACES[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        raise AttributeError(f"module 'gpt2lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
