"""The policy that training may not drift from: a frozen copy, or the same weights with their new adapters off."""

import contextlib
import copy
from collections.abc import Iterator

import torch

from gpt2lab.model import Transformer
from gpt2lab.model.adapters import activate, adapter_parameters, adapters
from gpt2lab.model.evaluating import evaluating
from gpt2lab.reinforce.rollouts import Continuations, TokenScores, score_tokens


class Reference:
    """A model that stays as it was when this was made.

    Where nothing but freshly attached adapters trains (their A or B is still 0), it is the model itself with these switched
    off, and no second copy of the weights is held. Else it is a frozen copy.
    """

    def __init__(self, model: Transformer) -> None:
        self._off = _fresh_adapters(model)
        self.model = model if self._off else copy.deepcopy(model).eval().requires_grad_(False)

    @property
    def is_copy(self) -> bool:
        """Whether weights of its own are held."""
        return not self._off

    @torch.no_grad()
    def score(self, batch: Continuations) -> TokenScores:
        """Return what the reference says of a batch's new tokens, as `score_tokens` does, without gradients."""
        with self.switched(), evaluating(self.model):
            return score_tokens(self.model, batch)

    @contextlib.contextmanager
    def switched(self) -> Iterator[Transformer]:
        """Let the model be the reference for a while."""
        if not self._off:
            yield self.model
            return
        before = {name: one.strength for name, one in adapters(self.model).items()}
        activate(self.model, {name: s for name, s in before.items() if name not in self._off})
        try:
            yield self.model
        finally:
            activate(self.model, before)


def _fresh_adapters(model: Transformer) -> frozenset[str]:
    """Names of the adapters that train and add nothing yet, if nothing else trains; else none."""
    known = adapters(model)
    if not known:
        return frozenset()
    training = {
        name for name in known if any(p.requires_grad for p in adapter_parameters(model, [name]).values())
    }
    if not training:
        return frozenset()
    own = adapter_parameters(model, training)
    inside = {id(parameter) for parameter in own.values()}
    pairs = {name.rpartition(".")[0] for name in own}
    fresh = all(not (bool(own[f"{pair}.A"].any()) and bool(own[f"{pair}.B"].any())) for pair in pairs)
    alone = all(id(p) in inside for p in model.parameters() if p.requires_grad)
    return frozenset(training) if fresh and alone else frozenset()
