"""Conda: Adam in the singular basis of its own momentum.

from gpt2lab.papers.conda import Conda

    optimizer = Conda.for_model(model, lr=6e-3, weight_decay=0.01)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2lab.papers.conda.muon import Muon as Muon
    from gpt2lab.papers.conda.optimizer import Conda as Conda

__all__ = ["Conda", "Muon"]


def __getattr__(name: str) -> Any:
    if name == "Conda":
        from gpt2lab.papers.conda.optimizer import Conda

        return Conda
    if name == "Muon":
        from gpt2lab.papers.conda.muon import Muon

        return Muon
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
