"""Embeddings in front of the text: of prompt tuning, where they are learned, and of anything that is no text."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.model.backbone import Backbone, Wrapper
from gpt2lab.model.cache import Cache, CacheGroup
from gpt2lab.model.forward import Inner, Inputs, NewCache


@dataclass(frozen=True, kw_only=True)
class SoftPrompt:
    """[P; X] in place of X, P learned embeddings that begin as those of random tokens (Lester et al. 2021, section 2)."""

    length: int = 20
    """Embeddings in front of the text; they take up as many of the model's positions."""
    freeze: bool = True
    """Train only the prompt, and what is attached later."""

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        """Put the prompt in front of all that the model reads. LabError if no position is left for text."""
        if not 1 <= self.length < model.context:
            raise LabError(f"soft-prompt: length must lie in [1, {model.context}), got {self.length}")
        rows = torch.randint(model.config.vocab_size, (1, self.length), generator=generator, device="cpu")
        start = model.embed(rows.to(model.device)).detach()[0]
        if self.freeze:
            model.requires_grad_(False)
        model.wrappers.append(Prompt(start))


class Prefix(Wrapper):
    """Embeddings in front of the text, of which a cache holds keys and values from its first pass on."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.positions_taken = length

    def prefix(self, model: Backbone, inputs: Inputs) -> Tensor:
        """Return what stands in front, [positions_taken, d_model], or [batch, positions_taken, d_model]."""
        raise NotImplementedError

    def forward(self, model: Backbone, inner: Inner, inputs: Inputs) -> Tensor:
        """Return the states of the text."""
        (cache,) = inputs.caches(1)
        inputs = replace(inputs, cache=cache)
        if cache is None or not cache.length:
            return inner(inputs.behind(self.prefix(model, inputs)))[:, self.positions_taken :]
        if inputs.positions is not None:
            inputs = replace(inputs, positions=inputs.positions + self.positions_taken)
        return inner(inputs)

    def new_cache(self, inner: NewCache, *, batch: int, length: int) -> Cache:
        """One cache, with slots for the prefix."""
        taken = self.positions_taken
        return CacheGroup([inner(batch=batch, length=length + taken)], ahead=taken)


class Prompt(Prefix):
    """Learned embeddings, [length, d_model]."""

    def __init__(self, start: Tensor) -> None:
        super().__init__(len(start))
        self.weight = nn.Parameter(start)

    def prefix(self, model: Backbone, inputs: Inputs) -> Tensor:
        """Return the learned embeddings."""
        return self.weight
