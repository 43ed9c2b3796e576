"""The one transformer: every family and every paper's model is a configuration of this."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2lab.base.errors import LabError
from gpt2lab.model.architecture import Backbone, Wrapper
from gpt2lab.model.block import Block
from gpt2lab.model.cache import Cache, CacheGroup, GrowingCache, KeyValueCache
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.counts import count_weights
from gpt2lab.model.experts import MixtureOfExperts
from gpt2lab.model.forward import Inner, Inputs, NewCache, Pass, Seen
from gpt2lab.model.hook_names import activation_names
from gpt2lab.model.initialisation import draw_parameters
from gpt2lab.model.masks import attention_masks
from gpt2lab.model.memory import check_memory
from gpt2lab.model.mlm_head import HeadTransform, Pooler
from gpt2lab.model.norms import Norm
from gpt2lab.model.positions import check_positions, count_positions
from gpt2lab.model.rotary import RotaryTables
from gpt2lab.model.tap import Tap, Write


class Transformer(Backbone):
    """A transformer language model: causal, or reading in both directions.

    What its configuration cannot say, an architecture changes (`gpt2lab.model.architecture`).
    Weights are drawn from `generator` (default: seed 0): N(0, init_std) for matrices and embeddings,
    N(0, init_std / sqrt(2 n_layers)) for the two projections into the residual stream, zero biases, unit gains
    (Radford et al. 2019, section 2.3). With post-norm those two projections are like all others (Devlin et al. 2019).
    As any new torch module it is in training mode, where the config's dropout rates act; `load` and the end of `train`
    give evaluation mode, and decoders and measures read in evaluation mode whatever the mode is.
    LabError, before anything is allocated, for a model larger than the machine's memory.
    """

    def __init__(self, config: TransformerConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        check_memory(config)
        # torch's modules draw weights of their own from the global generator.
        with torch.random.fork_rng(devices=[]):
            self.embedding = _table(config.vocab_size, config.d_model)
            if config.positions == "learned":
                rows = config.max_positions + config.position_offset
                self.position_embedding = _table(rows, config.d_model)
            if config.token_types:
                self.token_type_embedding = _table(config.token_types, config.d_model)
            if config.embedding_norm:
                self.embedding_norm = Norm(config, "ln_embed")
            self.blocks = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
            self.final_norm = Norm(config, "ln_final", absent=config.norm_placement == "post")
            if config.head == "transform":
                self.head_transform = HeadTransform(config)
            if config.head != "none":
                bias = config.head == "transform" or config.head_bias
                self.head = nn.Linear(config.d_model, config.vocab_size, bias=bias)
            if config.pooler:
                self.pooler = Pooler(config)
        self.tie_head()
        self.gradient_checkpointing = False
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.open_tap = None
        self.wrappers = nn.ModuleList()
        self.architectures = ()
        self._rotary = RotaryTables(
            config.rotary_width, config.rotary_base, config.max_positions, config.rotary_scaling
        )
        if self.embedding.weight.device.type != "meta":
            self.reset_parameters(generator)

    def tie_head(self) -> None:
        """Let the head read with the embedding table, if the configuration says so."""
        if self.config.tied_head and self.config.head != "none":
            self.head.weight = self.embedding.weight

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, in the order of `named_parameters`."""
        draw_parameters(self, self.config, generator)

    def new_cache(
        self,
        *,
        batch: int,
        length: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        differentiable: bool = False,
    ) -> Cache:
        """Return an empty cache for `length` tokens a row, of the kind that this model decodes with.

        device None is the model's; dtype None keeps what is written in its own type. differentiable: gradients flow
        through it, at the price of copying it at every pass.
        """
        self.config.require_causal("a key/value cache")
        kind = GrowingCache if differentiable else KeyValueCache
        make: NewCache = partial(kind, device=device or self.device, dtype=dtype)
        for wrapper in self._wrappers():
            make = partial(wrapper.new_cache, make)
        return make(batch=batch, length=length)

    @property
    def context(self) -> int:
        """Most tokens of text in a row: the configuration's positions less those that architectures take up."""
        return self.config.max_positions - sum(wrapper.positions_taken for wrapper in self._wrappers())

    def forward(
        self,
        tokens: Tensor | None = None,
        *,
        embeddings: Tensor | None = None,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        token_types: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Return the logits at every position, [batch, time, vocab]: of the next token, or of a bidirectional model's own.

        tokens [batch, time] int64, or embeddings [batch, time, d_model] in their place. attention_mask [batch, time]
        is 1 at real tokens; padding may stand on either side. positions [batch, time] default to counting real
        tokens from 0, so that padding never changes a row. token_types [batch, time] int64 default to 0, for models
        that have them. With a cache, all of these describe the new tokens only.
        LabError: ids outside the vocabulary, more positions than the model has, a mask of another shape, token types
        that the model does not have, a cache for a bidirectional model, a model without a head.
        """
        hidden = self.hidden(
            tokens,
            embeddings=embeddings,
            attention_mask=attention_mask,
            positions=positions,
            token_types=token_types,
            cache=cache,
        )
        return self.unembed(hidden)

    def hidden(
        self,
        tokens: Tensor | None = None,
        *,
        embeddings: Tensor | None = None,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        token_types: Tensor | None = None,
        cache: Cache | None = None,
        siblings: bool = False,
    ) -> Tensor:
        """Return the last states, which the head reads, [batch, time, d_model]; arguments as for `forward`.

        siblings: the tokens are alternatives for the next place of each row (candidates of a decoder); each sees what the
        cache holds, and itself. `cache.keep` then goes on from one of them.
        """
        if (tokens is None) == (embeddings is None):
            raise LabError("give the model either tokens or embeddings, not both and not neither")
        x = self.embed(tokens) if tokens is not None else embeddings
        assert x is not None
        if x.dim() != 3 or x.shape[-1] != self.config.d_model:
            raise LabError(f"embeddings must be [batch, time, {self.config.d_model}], got {list(x.shape)}")
        if attention_mask is not None and attention_mask.shape != x.shape[:2]:
            raise LabError(f"attention_mask is {list(attention_mask.shape)}, the input {list(x.shape[:2])}")
        inputs = Inputs(
            embeddings=x,
            tokens=tokens,
            attention_mask=attention_mask,
            positions=positions,
            token_types=token_types,
            cache=cache,
            siblings=siblings,
        )
        if not self.wrappers:
            return self._pass(inputs)
        inner: Inner = self._pass
        for wrapper in self._wrappers():
            inner = partial(wrapper, self, inner)
        return inner(inputs)

    def _wrappers(self) -> list[Wrapper]:
        return cast("list[Wrapper]", list(self.wrappers))

    def _pass(self, inputs: Inputs) -> Tensor:
        """The forward pass as the configuration describes it, up to and with the final norm."""
        x, run = self._begin(inputs)
        for block in self.blocks:
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x = _checkpointed(block, x, run)
            else:
                x = block(x, run)
        return self.final_norm(x, run)

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

    def _begin(self, inputs: Inputs) -> tuple[Tensor, Pass]:
        """Add positions to the embeddings and prepare what all blocks share."""
        x, attention_mask, positions = inputs.embeddings, inputs.attention_mask, inputs.positions
        cache, tap, time = inputs.cache, self.open_tap, x.shape[1]
        if cache is not None:
            self.config.require_causal("a key/value cache")
        if isinstance(cache, CacheGroup):
            raise LabError("this cache was made for another model; make it with model.new_cache(...)")
        slots = cache.claim(attention_mask, time) if cache is not None else slice(0, time)
        if tap is not None:
            tap.begins(slots)
        if positions is None:
            places = slice(slots.start, slots.start + 1) if inputs.siblings else slots
            positions = count_positions(self.config, places, attention_mask, cache, x.device)
        else:
            check_positions(self.config, positions)
        x = self._embed_rest(x, positions, inputs.token_types)
        if self.training and self.config.embedding_dropout:
            x = F.dropout(x, self.config.embedding_dropout)
        rotary = self._rotary.at(positions, x.dtype) if self.config.positions == "rotary" else None
        padded = (
            attention_mask if cache is None else (cache.attention[:, : slots.stop] if cache.padded else None)
        )
        causal = self.config.causal
        return x, Pass(
            mask=attention_masks(
                slots, padded, x.device, causal=causal, order=inputs.order, siblings=inputs.siblings
            ),
            causal=causal and slots.start == 0,
            rotary=rotary,
            cache=cache,
            slots=slots,
            tap=tap,
            notes=inputs.notes,
        )

    def _embed_rest(self, x: Tensor, positions: Tensor, token_types: Tensor | None) -> Tensor:
        """Add to the token embeddings those of types and places, and norm the sum, as far as the model has them."""
        config, run = self.config, Seen(tap=self.open_tap)
        x = run.see(x, "hook_embed")
        if config.token_types:
            kind = self._type_embedding(x, token_types)  # [batch, time, d_model], or [d_model]
            x = x + (kind if run.tap is None else run.see(kind.expand_as(x), "hook_token_type_embed"))
        elif token_types is not None:
            raise LabError(f"token_types: this {config.family} has none")
        if config.positions == "learned":
            rows = positions + config.position_offset if config.position_offset else positions
            place = self.position_embedding(rows)  # [batch or 1, time, d_model]
            x = x + (place if run.tap is None else run.see(place.expand_as(x), "hook_pos_embed"))
        return self.embedding_norm(x, run) if config.embedding_norm else x

    def _type_embedding(self, x: Tensor, token_types: Tensor | None) -> Tensor:
        if token_types is None:
            return self.token_type_embedding.weight[0]
        if token_types.shape != x.shape[:2]:
            raise LabError(f"token_types is {list(token_types.shape)}, the input {list(x.shape[:2])}")
        try:
            return self.token_type_embedding(token_types)
        except IndexError:
            raise LabError(
                f"token types run from {int(token_types.min())} to {int(token_types.max())}, "
                f"the model has {self.config.token_types}"
            ) from None

    def tap(
        self,
        read: Sequence[str] | str = (),
        write: Mapping[str, Write] | None = None,
        *,
        grad: bool = False,
        pos: int | slice | None = None,
        heads: Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        stop_after: str | None = None,
        reduce: Callable[[Tensor | None, Tensor, str], Tensor] | None = None,
    ) -> Tap:
        """Open a scope in which named activations are recorded (`read`) and replaced (`write`).

            with model.tap(read=["resid_post"], write={"blocks.2.hook_mlp_out": lambda x, name: 0 * x}) as tap:
                model(tokens)
            tap["resid_post"]  # [layers, batch, time, d_model]

        read: exact names, globs, or short names that stand for every layer. write: name → function (x, name) → tensor,
        a tensor, or (index, values). Reads see what writes wrote, those of inner and outer blocks, and are detached
        copies unless grad=True, where `tap.grad[name]` holds the gradient after backward(). pos (int or slice) keeps only
        those positions, heads only those heads; dtype/device convert what is kept; reduce(old, new, name) keeps a running
        value instead of each tensor. stop_after=name ends the forward pass there, and with it the rest of the `with`
        block. Around `generate`, positions in pos and in a write's index count from the beginning of the sequence (a
        function finds those at hand in `tap.positions`), and reads are joined over the steps.
        A name that does not exist or was not reached, and a write of a wrong shape, are LabErrors.
        """
        return Tap(
            self,
            read,
            write or {},
            grad=grad,
            pos=pos,
            heads=heads,
            dtype=dtype,
            device=device,
            stop_after=stop_after,
            reduce=reduce,
        )

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
        for name in ("head", "position_embedding", "token_type_embedding"):
            tables += [getattr(self, name)] if hasattr(self, name) else []
        embedding = count_weights(nn.ModuleList(tables))
        counts = {"total": total, "embedding": embedding, "non_embedding": total - embedding}
        mixtures = [module for module in self.modules() if isinstance(module, MixtureOfExperts)]
        idle = sum(mixture.idle_parameters() for mixture in mixtures)
        return {**counts, "active": total - idle} if mixtures else counts


def _checkpointed(block: nn.Module, x: Tensor, run: Pass) -> Tensor:
    """Run a block without keeping its activations; the second of its two computations is marked as `run.again`."""
    return checkpoint(block, x, run, use_reentrant=False, context_fn=run.twice)


def _table(rows: int, width: int) -> nn.Embedding:
    """Return an embedding without numbers: drawing them on the meta device makes torch import its compiler, for seconds."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
