"""Pondering: before every prediction the whole model runs a few times more, on what it expects to come next.

    E_0 = V[tokens];   P_i = softmax(LM(E_i));   T_i = P_{i-1} V;   E_i = E_{i-1} + T_i;   logits = LM(E_s)   (eq. 3-7)

Passes share all weights. Positions are added inside every pass and do not accumulate. Only the last pass has a loss;
its gradient flows through all of them, the softmax and the table. Old positions' E_i never change, so s + 1 caches, one
for each pass, decode exactly what computing everything anew would.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt2lab.base.errors import LabError
from gpt2lab.model import Backbone, Cache, CacheGroup, Inner, Inputs, NewCache, Wrapper, drawn, under
from gpt2lab.model.layer_kinds import Table
from gpt2lab.papers.pondering.compute import training_flops
from gpt2lab.papers.pondering.initialisation import draw_small
from gpt2lab.papers.pondering.mixture import expected_embedding, input_table, mix_all, mix_likeliest
from gpt2lab.papers.pondering.options import PonderingOptions
from gpt2lab.papers.pondering.pause import Pause, drawn_steps

Watch = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True, kw_only=True)
class Pondering(PonderingOptions):
    """Run the stack `steps` times more, each time on its input plus the embedding that its own prediction expects."""

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        """Put the passes around the model. LabError for a model that is not causal, has no head, or ponders already."""
        config = model.config
        config.require_causal("pondering")
        if config.head == "none":
            raise LabError(
                f"pondering: this {config.family} has no head, so it predicts nothing that could be fed back"
            )
        if any(isinstance(wrapper, Ponder | Pause) for wrapper in model.wrappers):
            raise LabError("pondering: this model ponders already; pondering-steps changes how often")
        if self.top_k is not None and self.top_k > config.vocab_size:
            raise LabError(
                f"pondering: top_k {self.top_k} exceeds the vocabulary of {config.vocab_size} tokens"
            )
        width = model.embedding.embedding_dim if isinstance(model.embedding, Table) else config.d_model
        if width != config.d_model:
            raise LabError(f"pondering: states of width {config.d_model} are no inputs of width {width}")
        if self.feedback == "pause" and config.windows is not None:
            raise LabError(
                f"pondering: in the local windows of this {config.family} pauses would crowd out tokens; "
                "feedback=pause needs a model without windows"
            )
        if self.draw != "keep" and model.device.type != "meta":
            draw_small(model, generator, passes=self.steps + 1 if self.draw == "passes" else 1)
        scale = config.d_model**0.5 if self.scale_embeddings else 1.0
        made: Ponder | Pause
        if self.feedback == "pause":
            made = Pause(config.d_model, steps=self.steps, random_steps=self.random_steps, scale=scale)
        else:
            made = Ponder(self, config.d_model, scale)
        model.wrappers.append(drawn(made, model, generator))


class Ponder(Wrapper):
    """The repeated passes, and the map of `hidden_linear`."""

    def __init__(self, options: Pondering, width: int, scale: float) -> None:
        super().__init__()
        self.options, self.scale = options, scale
        self.steps, self.random_steps = options.steps, options.random_steps
        self.map = nn.Linear(width, width, bias=False) if options.feedback == "hidden_linear" else None
        self.watch: Watch | None = None
        """Called after every pass with its input E_i and its last states, both [batch, time, d_model]."""

    def forward(self, model: Backbone, inner: Inner, inputs: Inputs) -> Tensor:
        """Return the states of the last pass, [batch, time, d_model]."""
        steps = self.steps if inputs.cache is not None else drawn_steps(self, model)
        *early, last = inputs.caches(steps + 1)
        x = first = self._first(inputs.embeddings, steps)
        for index, cache in enumerate(early):
            fed = self._fed_back(model, inner, replace(inputs, embeddings=x, cache=cache), index)
            if self.options.feedback == "loop":
                x = fed
            else:
                x = (x if self.options.accumulate else first) + fed  # eq. 3-7: E_i
        hidden = inner(replace(inputs, embeddings=x, cache=last))  # eq. 3-7: LM(E_s)
        if self.watch is not None:
            self.watch(x, hidden)
        return hidden

    def _first(self, embeddings: Tensor, steps: int) -> Tensor:
        """E_0."""
        factor = self.scale * (max(steps, 1) if self.options.multiply_by_steps else 1)
        return embeddings if factor == 1 else factor * embeddings  # eq. 3-7: E_0

    def _fed_back(self, model: Backbone, inner: Inner, inputs: Inputs, index: int) -> Tensor:
        """Run one of the earlier passes and return what goes into the next, [batch, time, d_model]."""

        def run(x: Tensor) -> Tensor:
            with under(model, f"ponder.{index}"), torch.no_grad() if self.options.detach else nullcontext():
                hidden = inner(replace(inputs, embeddings=x))
                if self.watch is not None:
                    self.watch(x, hidden)
                fed = hidden if self.options.feedback != "embedding" else self._expected(model, hidden)
            return fed if self.map is None else self.map(fed)

        again = self.options.checkpoint_passes and model.training and torch.is_grad_enabled()
        if again and not self.options.detach and inputs.cache is None and model.open_tap is None:
            fed: Tensor = checkpoint(run, inputs.embeddings, use_reentrant=False)
            return fed
        return run(inputs.embeddings)

    def _expected(self, model: Backbone, hidden: Tensor) -> Tensor:
        """T_i; a tap that asks for this pass's logits gets them whole, and what it writes is fed back."""
        top_k, temperature = self.options.top_k, self.options.temperature
        if model.open_tap is not None and model.open_tap.wants("logits"):
            logits, table = model.unembed(hidden), input_table(model)
            if top_k is None:
                mixed = mix_all(logits, table, temperature)
            else:
                mixed = mix_likeliest(logits.flatten(0, 1), table, top_k, temperature).view(hidden.shape)
        else:
            mixed = expected_embedding(model, hidden, top_k=top_k, temperature=temperature)
        return mixed if self.scale == 1 else self.scale * mixed

    def new_cache(self, inner: NewCache, *, batch: int, length: int) -> Cache:
        """Return a cache for each pass."""
        return CacheGroup([inner(batch=batch, length=length) for _ in range(self.steps + 1)])

    def training_flops(self, model: Backbone, time_steps: int, inner: float) -> float:
        """Return what a token costs, see `compute.training_flops`."""
        return training_flops(model, time_steps)

    def activation_names(self, names: list[str]) -> list[str]:
        """Return the names of all passes: those of pass i < steps begin with `ponder.i:`.

        Where no distribution is fed back, the earlier passes have no logits.
        """
        early = names if self.options.feedback == "embedding" else [n for n in names if n != "logits"]
        return [f"ponder.{index}:{name}" for index in range(self.steps) for name in early] + names
