"""One configuration for every family and variation of the transformer."""

import dataclasses
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from gpt2lab.base.errors import LabError, shown
from gpt2lab.model.limits import SIZES, check_size
from gpt2lab.model.rotary import RotaryScaling

_T = TypeVar("_T", int, float)


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """The sizes of one block, after per-layer settings are looked up."""

    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    window: int | None
    attention_scale: float
    n_experts: int


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape and variation of a `Transformer`; what a family or a paper changes is a field here, never a name test.

    Fields typed "one or one per layer" take a single value or a tuple with an entry for each block.
    """

    vocab_size: int
    """Rows of the embedding table; a tokenizer may use fewer."""
    d_model: int
    """Width of the residual stream."""
    n_layers: int
    """Number of blocks."""
    n_heads: int | tuple[int, ...]
    """Attention heads (queries), one or one per layer."""
    n_kv_heads: int | tuple[int, ...] | None = None
    """Key/value heads for grouped-query attention; None means as many as `n_heads`."""
    d_head: int | None = None
    """Width of one head; None means d_model / n_heads."""
    d_mlp: int | tuple[int, ...] | None = None
    """Hidden width of the feed-forward, one or one per layer; None means 4 * d_model."""
    max_positions: int = 1024
    """Longest sequence the position scheme is made for."""

    norm: Literal["layernorm", "rmsnorm", "none"] = "layernorm"
    norm_eps: float = 1e-5
    norm_placement: Literal["pre", "post"] = "pre"
    """pre: x + f(norm x), and a norm before the head. post: norm(x + f(x)), and none before the head."""
    embedding_norm: bool = False
    """A norm over the sum of all embeddings."""
    positions: Literal["learned", "rotary", "none"] = "learned"
    position_offset: int = 0
    """Rows of the table of learned positions that stand before the first position's (RoBERTa: 2)."""
    token_types: int = 0
    """Rows of the table of token types (BERT's segments); 0 means there is none."""
    causal: bool = True
    """A query sees what stands at and before it; otherwise all there is."""
    rotary_base: float = 10000.0
    rotary_fraction: float = 1.0
    """Share of each head's width that is rotated (GPT-NeoX: 0.25)."""
    rotary_scaling: RotaryScaling | None = None
    """How rotary angles are stretched beyond the trained positions."""
    attention_scale: float | tuple[float, ...] | None = None
    """Factor on the scores, one or one per layer; None means 1/sqrt(d_head). GPT-Neo: 1.0."""
    windows: tuple[int | None, ...] | None = None
    """Per layer, how many positions a query sees, itself included; None means all before it."""
    qkv_bias: bool = True
    attention_out_bias: bool = True
    mlp_bias: bool = True
    activation: Literal["gelu_tanh", "gelu", "silu", "relu"] = "gelu_tanh"
    gated: bool = False
    """Feed-forward is activation(gate) * up instead of activation(up)."""
    n_experts: int | tuple[int, ...] = 0
    """Feed-forwards that a router chooses from, one or one per layer (all alike, or 0); 0 is one plain feed-forward."""
    experts_per_token: int = 2
    """How many experts each token is sent to."""
    normalise_expert_weights: bool = True
    """The weights of the experts that a token is sent to are divided by their sum."""
    expert_capacity: float | None = None
    """In training, most tokens of a pass that an expert takes, as a multiple of its even share (Switch: 1.25): further ones
    are dropped. None means no limit (Mixtral)."""
    balance_weight: float = 0.0
    """Factor of the load-balancing loss in training (Mixtral: 0.001 to 0.02, Switch: 0.01)."""
    router_z_weight: float = 0.0
    """Factor of the router's z-loss in training (ST-MoE: 0.001)."""
    parallel_residual: bool = False
    """Attention and feed-forward both read the block's input, each through its own norm, and are added together."""
    head: Literal["linear", "transform", "none"] = "linear"
    """transform: norm(activation(dense x)) before the matrix, and a bias for each token. none: states only."""
    head_activation: Literal["gelu_tanh", "gelu", "silu", "relu"] | None = None
    """Activation of the head's transform; None means `activation`."""
    tied_head: bool = True
    """The head reads with the embedding table."""
    head_bias: bool = False
    """A linear head has a bias for each token; one with a transform always has."""
    pooler: bool = False
    """tanh(dense(first state)) stands for the whole text; see `Transformer.pooled`."""

    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    init_std: float = 0.02
    """Standard deviation of matrices at initialisation; pre-norm residual projections get init_std / sqrt(2 n_layers)."""

    family: str = "gpt2"
    """The Hugging Face architecture whose layout the model is saved in."""
    bos: int | None = None
    eos: int | None = None
    pad: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Entries of the config.json it came from that mean nothing here; written back unchanged."""

    def __post_init__(self) -> None:
        self._check_types()
        if self.windows == ():
            object.__setattr__(self, "windows", None)  # of no layers
        for name in ("n_heads", "n_kv_heads", "d_mlp", "windows", "attention_scale", "n_experts"):
            value = getattr(self, name)
            if value == ():
                raise LabError(
                    f"{name} is given by layer, and there are none; give one number, or leave it out"
                )
            if isinstance(value, tuple) and len(value) != self.n_layers:
                raise LabError(f"{name} has {len(value)} entries for {self.n_layers} layers")
        if self.d_head is None and isinstance(self.n_heads, tuple):
            raise LabError("n_heads per layer needs d_head, because d_model / n_heads is not one number")
        if self.d_head is None and (self.n_heads < 1 or self.d_model % self.n_heads):  # type: ignore[operator]  # int: checked above
            raise LabError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}; set d_head")
        for i in range(self.n_layers):
            layer = self.layer(i)
            if layer.n_heads and (layer.n_kv_heads < 1 or layer.n_heads % layer.n_kv_heads):
                raise LabError(
                    f"layer {i}: n_heads {layer.n_heads} is not a multiple of n_kv_heads {layer.n_kv_heads}"
                )
        self._check_experts()
        for name in ("embedding_dropout", "attention_dropout", "residual_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise LabError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        self._check_placement()
        if not 0.0 < self.rotary_fraction <= 1.0:
            raise LabError(f"rotary_fraction must lie in (0, 1], got {self.rotary_fraction}")
        if self.rotary_scaling and self.rotary_scaling.kind == "yarn" and self.rotary_base <= 1:
            raise LabError(f"rotary scaling yarn needs a rotary_base above 1, got {self.rotary_base}")
        if self.positions == "rotary" and self.rotary_width % 2:
            raise LabError(f"rotary positions turn pairs: {self.rotary_width} of a head's width is odd")
        if self.rotary_scaling and self.rotary_scaling.kind == "dynamic" and self.rotary_width < 4:
            raise LabError(
                f"dynamic rotary scaling needs two pairs in a head, this model turns {self.rotary_width} entries"
            )

    def _check_types(self) -> None:
        """Refuse words, fractions and absurd sizes, as a config.json written by hand, or by an enemy, may have them."""
        for field_ in dataclasses.fields(self):
            name, values = field_.name, getattr(self, field_.name)
            by_layer = isinstance(values, tuple)
            optional = name == "windows" if by_layer else types.NoneType in get_args(field_.type)
            for value in values if by_layer else (values,):
                if value is None and optional:
                    continue
                if field_.type is bool and not isinstance(value, bool):
                    raise LabError(f"{name} must be true or false, got {shown(value)}")
                if name in SIZES:
                    check_size(name, value)
                if field_.type in _FRACTIONS and not _finite(value):
                    raise LabError(f"{name} must be a finite number, got {shown(value)}")
        if not 0 <= self.init_std <= 1:
            raise LabError(f"init_std must lie in [0, 1], got {self.init_std}")
        for name in ("norm_eps", "rotary_base"):
            if not getattr(self, name) > 0:
                raise LabError(f"{name} must be above 0, got {getattr(self, name)}")

    def _check_experts(self) -> None:
        counts = {self.layer(i).n_experts for i in range(self.n_layers)} - {0}
        if len(counts) > 1:
            raise LabError(f"n_experts must be one number, or 0, in every layer, got {self.n_experts}")
        if counts and not 1 <= self.experts_per_token <= min(counts):
            raise LabError(
                f"experts_per_token must lie between 1 and n_experts {min(counts)}, got {self.experts_per_token}"
            )
        if self.expert_capacity is not None and not (self.expert_capacity > 0 and counts):
            raise LabError(
                f"expert_capacity must be above 0, for a model with experts, got {self.expert_capacity}; none means no limit"
            )
        for name in ("balance_weight", "router_z_weight"):
            if not getattr(self, name) >= 0:
                raise LabError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def has_experts(self) -> bool:
        """Whether any layer's feed-forward is a mixture of experts."""
        return any(self.layer(i).n_experts for i in range(self.n_layers))

    def _check_placement(self) -> None:
        if self.norm_placement == "post" and self.parallel_residual:
            raise LabError("a post-norm block has no parallel residual: its feed-forward reads a normed sum")
        if not self.causal and self.windows is not None:
            raise LabError("windows are for causal attention; a bidirectional model sees everything")

    def require_causal(self, what: str) -> None:
        """Refuse what needs a causal model. LabError, which begins with `what`, for a bidirectional one."""
        if not self.causal:
            raise LabError(
                f"{what} needs a causal model, and this {self.family} reads in both directions; "
                "the measure pseudo-perplexity and the objective masked_tokens are made for it"
            )

    def layer(self, index: int) -> LayerConfig:
        """Return the sizes of block `index`."""
        n_heads = _at(self.n_heads, index)
        d_head = self.d_head if self.d_head is not None else self.d_model // max(n_heads, 1)
        return LayerConfig(
            n_heads=n_heads,
            n_kv_heads=n_heads if self.n_kv_heads is None else _at(self.n_kv_heads, index),
            d_head=d_head,
            d_mlp=4 * self.d_model if self.d_mlp is None else _at(self.d_mlp, index),
            window=None if self.windows is None else self.windows[index],
            attention_scale=_at(self.attention_scale, index)
            if self.attention_scale is not None
            else max(d_head, 1) ** -0.5,
            n_experts=_at(self.n_experts, index),
        )

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.d_head if self.d_head is not None else self.d_model // _at(self.n_heads, 0)

    @property
    def rotary_width(self) -> int:
        """How much of a head's width is rotated."""
        return int(self.head_width * self.rotary_fraction)

    def replace(self, **changes: Any) -> "TransformerConfig":
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def _at(value: _T | tuple[_T, ...], index: int) -> _T:
    return value[index] if isinstance(value, tuple) else value


_FRACTIONS = (float, float | None, float | tuple[float, ...] | None)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
