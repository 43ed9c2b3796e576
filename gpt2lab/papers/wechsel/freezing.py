"""Training of the tokens' weights alone for the first updates, then of all."""

from collections.abc import Mapping

from torch import nn

from gpt2lab.model import Transformer
from gpt2lab.papers.wechsel.initialisation import ROWS
from gpt2lab.training.callbacks import Callback


class FreezeInner(Callback):
    """Keeps every weight but the embedding's and the head's as it is for the first updates.

    It follows from the number of updates alone which weights are trained, so that a resumed run needs no state of it.
    """

    def __init__(self, updates: int) -> None:
        self.updates = updates
        """Updates that train the tokens' weights alone."""

    def on_start(self, step: int, model: Transformer) -> None:
        """Freeze the inner weights if the run is to begin, or to go on, with frozen ones."""
        self._set(model, trained=step >= self.updates)

    def on_update(self, step: int, numbers: Mapping[str, float], model: Transformer) -> None:
        """Thaw the inner weights after the last update that they sit out."""
        if step == self.updates:
            self._set(model, trained=True)

    def on_end(self, step: int, numbers: Mapping[str, float], model: Transformer) -> None:
        """Leave every weight trainable."""
        self._set(model, trained=True)

    def _set(self, model: Transformer, *, trained: bool) -> None:
        for parameter in inner_parameters(model):
            parameter.requires_grad_(trained)


def inner_parameters(model: Transformer) -> list[nn.Parameter]:
    """Return all parameters but those with a row for each token."""
    return [parameter for name, parameter in model.named_parameters() if name not in ROWS]
