"""The one transformer: every family and every paper's model is a configuration of this."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2lab.base.errors import LabError
from gpt2lab.model.backbone import Backbone
from gpt2lab.model.block import Block
from gpt2lab.model.cache import Cache, CacheGroup, GrowingCache, KeyValueCache
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.extra_inputs import checked
from gpt2lab.model.forward import Inner, Inputs, NewCache, Pass, Seen
from gpt2lab.model.initialisation import draw_parameters
from gpt2lab.model.loss import Reduction, next_tokens
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
        self.heads = nn.ModuleDict()
        self.architectures = ()
        self._rotary = RotaryTables(
            config.rotary_width, config.rotary_base, config.max_positions, config.rotary_scaling
        )
        if self.embedding.weight.device.type != "meta":
            self.reset_parameters(generator)

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

    def forward(
        self,
        tokens: Tensor | None = None,
        *,
        embeddings: Tensor | None = None,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        token_types: Tensor | None = None,
        extra_inputs: Mapping[str, Tensor] = MappingProxyType({}),
        cache: Cache | None = None,
    ) -> Tensor:
        """Return the logits at every position, [batch, time, vocab]: of the next token, or of a bidirectional model's own.

        tokens [batch, time] int64, or embeddings [batch, time, d_model] in their place. attention_mask [batch, time]
        is 1 at real tokens; padding may stand on either side. positions [batch, time] default to counting real
        tokens from 0, so that padding never changes a row. token_types [batch, time] int64 default to 0, for models
        that have them. extra_inputs: what attached architectures read beside the tokens, by name, [batch, ...] or
        [batch, time, ...]; `extra_inputs_read` lists them. With a cache, all of these describe the new tokens only, and
        the first pass alone needs extra inputs.
        LabError: ids outside the vocabulary, more positions than the model has, a mask of another shape, token types
        or extra inputs that the model does not have or lacks, a cache for a bidirectional model, a model without a head.
        """
        hidden = self.hidden(
            tokens,
            embeddings=embeddings,
            attention_mask=attention_mask,
            positions=positions,
            token_types=token_types,
            extra_inputs=extra_inputs,
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
        extra_inputs: Mapping[str, Tensor] = MappingProxyType({}),
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
        first = cache is None or not cache.length
        by_row, by_token = checked(extra_inputs, self.extra_inputs_read(), *x.shape[:2], first=first)
        inputs = Inputs(
            embeddings=x,
            tokens=tokens,
            attention_mask=attention_mask,
            positions=positions,
            token_types=token_types,
            extra_inputs=by_row,
            token_inputs=by_token,
            cache=cache,
            siblings=siblings,
        )
        if not self.wrappers:
            return self._pass(inputs)
        inner: Inner = self._pass
        for wrapper in self._wrappers():
            inner = partial(wrapper, self, inner)
        return inner(inputs)

    def hidden_of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the last states of a training batch, [batch, time, d_model].

        batch: tokens [batch, time], and as far as it has them attention_mask, token_types (read by models of more than one
        type) and the extra inputs that architectures read. Of other entries (targets, labels) nothing is read.
        """
        return self.hidden(
            batch["tokens"],
            attention_mask=batch.get("attention_mask"),
            token_types=batch.get("token_types") if self.config.token_types > 1 else None,
            extra_inputs={name: batch[name] for name in self.extra_inputs_read() if name in batch},
        )

    def _pass(self, inputs: Inputs) -> Tensor:
        """The forward pass as the configuration describes it, up to and with the final norm."""
        x, run = self._begin(inputs)
        for block in self.blocks:
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x = _checkpointed(block, x, run)
            else:
                x = block(x, run)
        return self.final_norm(x, run)

    def next_token_loss(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """Return the cross entropy of the next token in nats: mean over the targets, their sum, or each by itself.

        tokens [batch, time]. targets [batch, time] are shifted already, -100 where there is none; "none" gives [batch,
        time]. Without them each real token after a real one is a target, and "none" gives [batch, time - 1]. Losses are
        float32 or wider, 0 where there is no target. LabError for a bidirectional model, which would see its targets.
        """
        self.config.require_causal("predicting the next token")
        if targets is None:
            targets = next_tokens(tokens, attention_mask)
            tokens = tokens[:, :-1]
            attention_mask = attention_mask[:, :-1] if attention_mask is not None else None
        hidden = self.hidden(tokens, attention_mask=attention_mask)
        return self.cross_entropy(hidden, targets, reduction=reduction)

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


def _checkpointed(block: nn.Module, x: Tensor, run: Pass) -> Tensor:
    """Run a block without keeping its activations; the second of its two computations is marked as `run.again`."""
    return checkpoint(block, x, run, use_reentrant=False, context_fn=run.twice)


def _table(rows: int, width: int) -> nn.Embedding:
    """Return an embedding without numbers: drawing them on the meta device makes torch import its compiler, for seconds."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
