"""What an architecture may use of a transformer, and what it may put around the forward pass."""

from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.model.cache import Cache
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.experts import MixtureOfExperts
from gpt2lab.model.extra_inputs import ExtraInput, by_name
from gpt2lab.model.forward import Inner, Inputs, NewCache, Seen
from gpt2lab.model.hook_names import activation_names
from gpt2lab.model.layer_kinds import count_weights
from gpt2lab.model.loss import Reduction, linear_cross_entropy
from gpt2lab.model.mlm_head import HeadTransform, Pooler
from gpt2lab.model.norms import Norm
from gpt2lab.model.tap import Tap, TapUnder


class Backbone(nn.Module):
    """The modules of a `Transformer`, and what reads them outside of a forward pass: all that an architecture may use."""

    config: TransformerConfig
    embedding: nn.Embedding
    """The table of token embeddings, [vocab, d_model]."""
    blocks: nn.ModuleList
    final_norm: Norm
    position_embedding: nn.Embedding
    """The table of learned positions, if there is one."""
    token_type_embedding: nn.Embedding
    """The table of token types, if there is one."""
    head: nn.Linear
    """The matrix from states to logits; absent where config.head is "none"."""
    head_transform: HeadTransform
    """What stands before it where config.head is "transform"."""
    pooler: Pooler
    """What sums a text up in one state, if config.pooler."""
    wrappers: nn.ModuleList
    """What architectures put around the forward pass, the innermost first."""
    heads: nn.ModuleDict
    """Heads of tasks by name; see `gpt2lab.model.task_heads`."""
    architectures: "tuple[Architecture, ...]"
    """What `attach` has attached, in order."""
    open_tap: Tap | TapUnder | None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights: of the first, where some are kept in another (adapters, 4-bit codes)."""
        return next(self.parameters()).dtype

    @property
    def context(self) -> int:
        """Most tokens of text in a row: the configuration's positions less those that architectures take up."""
        return self.config.max_positions - sum(wrapper.positions_taken for wrapper in self._wrappers())

    def tie_head(self) -> None:
        """Let the head read with the embedding table, if the configuration says so."""
        if self.config.tied_head and self.config.head != "none":
            self.head.weight = self.embedding.weight

    def embed(self, tokens: Tensor) -> Tensor:
        """Look up token embeddings (without positions); tokens [batch, time] int64 → [batch, time, d_model]."""
        if tokens.dim() != 2 or tokens.is_floating_point():
            raise LabError(
                f"tokens must be whole numbers [batch, time], got {tokens.dtype} {list(tokens.shape)}"
            )
        try:
            return self.embedding(tokens).to(self.dtype)
        except IndexError:
            raise LabError(
                f"token ids run from {int(tokens.min())} to {int(tokens.max())}, "
                f"the model's vocabulary has {self.config.vocab_size}"
            ) from None

    def unembed(self, hidden: Tensor) -> Tensor:
        """Return logits for the last states; [..., d_model] → [..., vocab]. LabError for a model without a head."""
        states = self.head_input(hidden)
        logits = self.head(states)
        return logits if self.open_tap is None else self.open_tap.visit(logits, "logits")

    def head_input(self, hidden: Tensor) -> Tensor:
        """Return what the head's matrix reads: the last states [..., d_model], transformed where the head has a transform.

        LabError for a model without a head.
        """
        if self.config.head == "linear":
            return hidden
        if self.config.head == "none":
            raise LabError(
                f"this {self.config.family} has no language-model head, because its files hold none; it gives states "
                "(model.hidden), not logits"
            )
        return self.head_transform(hidden, Seen(tap=self.open_tap))

    def cross_entropy(self, hidden: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Return -log p(target) in nats where the head reads last states; the logits are never held whole.

        hidden [..., d_model], targets [...] int64, -100 where there is none; see `loss.linear_cross_entropy`. LabError for
        a model without a head.
        """
        states = self.head_input(hidden)
        return linear_cross_entropy(
            states, self.head.weight, targets, bias=self.head.bias, reduction=reduction
        )

    def pooled(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return tanh(dense(first real token's state)): last states [batch, time, d_model] → [batch, d_model].

        LabError for a model without a pooler.
        """
        if not self.config.pooler:
            raise LabError(
                f"this {self.config.family} has no pooler, because its files hold none or its family has none; "
                "the mean of model.hidden over the real tokens is the usual summary then"
            )
        return self.pooler(hidden, attention_mask)

    def extra_inputs_read(self) -> dict[str, ExtraInput]:
        """Return the inputs beside the tokens that attached architectures read, by name."""
        return by_name(one for wrapper in self._wrappers() for one in wrapper.reads)

    def _wrappers(self) -> "list[Wrapper]":
        return cast("list[Wrapper]", list(self.wrappers))

    def activation_names(self) -> list[str]:
        """Return the names that `tap` knows, in the order of the forward pass; shapes in `gpt2lab.model.hook_names`."""
        names = activation_names(self.config)
        for wrapper in self._wrappers():
            names = wrapper.activation_names(names)
        return names

    def count_parameters(self) -> dict[str, int]:
        """Count weights: total (tied tables once), embedding (tokens, positions, types, free head), non_embedding.

        With experts also active: those that one token meets, total less the experts it is not sent to.
        """
        total = count_weights(self)
        tables: list[nn.Module] = [self.embedding]
        tables += [self.head] if self.config.head != "none" else []
        tables += [self.position_embedding] if self.config.positions == "learned" else []
        tables += [self.token_type_embedding] if self.config.token_types else []
        embedding = count_weights(nn.ModuleList(tables))
        counts = {"total": total, "embedding": embedding, "non_embedding": total - embedding}
        mixtures = [module for module in self.modules() if isinstance(module, MixtureOfExperts)]
        idle = sum(mixture.idle_parameters() for mixture in mixtures)
        return {**counts, "active": total - idle} if mixtures else counts


@runtime_checkable
class Architecture(Protocol):
    """A frozen keyword-only dataclass of options that changes the structure of a model."""

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        """Change `model` in place; new weights are drawn from `generator` (see `drawn`), torch's own included.

        The model may be on the meta device, where there are shapes but no numbers. `model.config` stays as it is.
        LabError for a model that this architecture does not fit, with the model unchanged.
        """
        ...


class Wrapper(nn.Module):
    """A module around the forward pass of a model. It keeps no reference to the model, which is handed to it."""

    positions_taken: int = 0
    """Positions in front of the text that the wrapper uses up."""
    reads: tuple[ExtraInput, ...] = ()
    """Inputs beside the tokens that the wrapper reads, from `extra_inputs` and `token_inputs` of `Inputs`."""

    def forward(self, model: Backbone, inner: Inner, inputs: Inputs) -> Tensor:
        """Return the states after the final norm, [batch, time, d_model], time being that of `inputs`.

        `inner` may be called several times, each time with a cache of its own (or with the same, for later tokens).
        """
        return inner(inputs)

    def new_cache(self, inner: NewCache, *, batch: int, length: int) -> Cache:
        """Return a cache for `length` tokens, made of those that `inner(batch=, length=)` makes."""
        return inner(batch=batch, length=length)

    def require_steps(self, model: Backbone, steps: int) -> None:
        """Hear, before data is read, how long a run of the verb `train` is to be. LabError if that is too short."""

    def before_update(self, model: Backbone, step: int) -> None:
        """Hear that update `step` of a training run (0 is the first) begins; what it changes, buffers must hold."""

    def after_update(self, model: Backbone, step: int) -> dict[str, float]:
        """Hear that the weights are updated, before a checkpoint is written; return numbers for the log."""
        return {}

    def training_flops(self, model: Backbone, time_steps: int, inner: float) -> float:
        """Return the operations of training on one token, given those of what stands inside; `time_steps` in a row."""
        return inner

    def activation_names(self, names: list[str]) -> list[str]:
        """Return all names of activations, given those inside; a repeated pass has its own, `under` a prefix and a colon."""
        return names
