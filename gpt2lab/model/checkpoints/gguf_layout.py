"""How llama.cpp's architectures map to the transformer: names of tensors both ways, and metadata → configuration."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from gpt2lab.base.errors import LabError, brief, shown
from gpt2lab.base.settings import from_plain, to_plain
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.limits import check_size
from gpt2lab.model.rotary import RotaryScaling, rotary_frequencies

ARCHITECTURES = {
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
}
"""Our family → what computes it in llama.cpp."""

OWN_CONFIG = "gpt2lab.config"
"""Metadata of our own: the fields of a configuration, as JSON, that GGUF has no field for."""

ROPE_FACTORS = "rope_freqs.weight"
"""What llama.cpp divides the angles of each rotary pair by; only llama3 scaling is written in this way."""

_PLACES = {
    "embedding": "token_embd",
    "position_embedding": "position_embd",
    "final_norm": "output_norm",
    "head": "output",
    "norm1": "attn_norm",
    "norm2": "ffn_norm",
    "attention.out": "attn_output",
    "mlp.router": "ffn_gate_inp",
    "mlp.down": "ffn_down",
}
"""Our module, of a block without `blocks.{i}.` → GGUF's name, of a block without `blk.{i}.`."""


@dataclass(frozen=True)
class Piece:
    """One of GGUF's tensors, a stack of which is one of ours."""

    name: str
    rows: int | None = None
    """How many of our rows it holds; None: all. Of experts, rows of each."""
    heads: int = 0
    """For how many heads the halves that are turned together are neighbours there; 0: as ours."""


def pieces(ours: str, config: TransformerConfig) -> list[Piece]:
    """Return GGUF's tensors that one of our parameters is made of, in our order."""
    place, _, suffix = ours.rpartition(".")
    start = ""
    layer = config.layer(0)
    if place.startswith("blocks."):
        _, index, place = place.split(".", 2)
        start, layer = f"blk.{index}.", config.layer(int(index))
    kind = ARCHITECTURES[config.family]
    experts = "_exps" if layer.n_experts and place in ("mlp.up", "mlp.down") else ""
    if place == "attention.qkv" and kind in ("gpt2", "gptneox"):
        return [Piece(f"{start}attn_qkv.{suffix}")]
    if place == "attention.qkv":
        counts = (layer.n_heads, layer.n_kv_heads, layer.n_kv_heads)
        # llama.cpp turns neighbouring rows of a llama's queries and keys, and halves of the others'.
        turned = (layer.n_heads, layer.n_kv_heads, 0) if kind == "llama" else (0, 0, 0)
        return [
            Piece(f"{start}attn_{letter}.{suffix}", count * layer.d_head, heads)
            for letter, count, heads in zip("qkv", counts, turned, strict=True)
        ]
    if place == "mlp.up":
        names = ("ffn_gate", "ffn_up") if config.gated else ("ffn_up",)
        return [Piece(f"{start}{name}{experts}.{suffix}", layer.d_mlp) for name in names]
    return [Piece(f"{start}{_PLACES[place]}{experts}.{suffix}")]


def cut(tensor: Tensor, parts: Sequence[Piece]) -> list[Tensor]:
    """Return the views of one of our tensors that its pieces hold, in our order of rows."""
    if len(parts) == 1:
        return [tensor]
    axis = tensor.dim() - 2 if tensor.dim() > 1 else 0
    return list(tensor.split([part.rows or 0 for part in parts], dim=axis))


def neighbours(rows: Tensor, heads: int) -> Tensor:
    """Put each head's rotary halves into pairs of neighbours, the order in which llama.cpp turns a llama's."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def halves(rows: Tensor, heads: int) -> Tensor:
    """The reverse of `neighbours`."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


class Metadata:
    """The entries of a file with the architecture's own by their short names. LabError for one of a wrong type."""

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        self.fields, self.where = fields, where
        kind = fields.get("general.architecture")
        if kind not in ARCHITECTURES.values():
            known = ", ".join(dict.fromkeys(ARCHITECTURES.values()))
            raise LabError(f"{where}: the architecture {shown(kind)} is not supported, only {known}")
        self.kind = str(kind)

    def whole(self, name: str, default: int | None = None) -> int:
        """Return a whole number. LabError if it is missing and has no default."""
        value = self.fields.get(f"{self.kind}.{name}", default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(name, value)
        return value

    def by_layer(self, name: str, layers: int, default: Any = None) -> Any:
        """Return a whole number, or one for each layer where they differ."""
        value = self.fields.get(f"{self.kind}.{name}", default)
        if not isinstance(value, list):
            return value if value is None or value is default else self.whole(name)
        if len(value) < layers or not all(isinstance(one, int) for one in value):
            raise self._wrong(name, value)
        return value[0] if len(set(value[:layers])) == 1 else tuple(value[:layers])

    def fraction(self, name: str, default: float | None = None) -> float:
        """Return a number with a point: the shortest decimal that float32 holds as the file does (1e-05)."""
        value = self.fields.get(f"{self.kind}.{name}", default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._wrong(name, value)
        return float(str(np.float32(value)))

    def _wrong(self, name: str, value: Any) -> LabError:
        found = "is missing" if value is None else f"has a wrong type or length: {shown(value)}"
        return LabError(f"{self.where}: {self.kind}.{name} {found}")


def read_metadata(
    fields: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str, factors: Tensor | None
) -> TransformerConfig:
    """Return the configuration that a file's metadata and the shapes of its tensors make; what our own entry adds too.

    factors: the file's `ROPE_FACTORS`, None without. LabError: an architecture that we do not have, an entry that is
    missing or wrong, rotary scaling of another kind.
    """
    found = Metadata(fields, where)
    try:
        own = json.loads(fields.get(OWN_CONFIG, "{}"))
        known = None if "rotary_scaling" in own else factors
        config = TransformerConfig(**_shape(found, shapes), **_rotary(found, known), **_ids(fields))
        if own:
            config = from_plain(TransformerConfig, {**to_plain(config), **own}, OWN_CONFIG)
            if ARCHITECTURES.get(config.family) != found.kind:
                raise LabError(f"{OWN_CONFIG}: a {config.family} in a file of a {found.kind}")
    except LabError as error:
        raise error if where in str(error) else LabError(f"{where}: {error}") from None
    except (TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise LabError(f"{where}: an entry has a wrong type or value ({brief(error)})") from None
    return config


def _shape(found: Metadata, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the fields that say what the tensors are and what is computed of them, all but the rotary ones."""
    table = shapes.get("token_embd.weight")
    if table is None or len(table) != 2:
        raise LabError(f"{found.where}: no model: tensor token_embd.weight is missing")
    layers = found.whole("block_count")
    check_size("n_layers", layers)
    if layers > len(shapes):
        raise LabError(f"{found.where}: {layers:,} layers are promised, the file has {len(shapes):,} tensors")
    heads = found.by_layer("attention.head_count", layers)
    kv_heads = found.by_layer("attention.head_count_kv", layers, heads)
    d_model = found.whole("embedding_length")
    first = heads[0] if isinstance(heads, tuple) else found.whole("attention.head_count") or 1
    d_head = found.whole("attention.key_length", d_model // max(first, 1))
    if found.whole("attention.value_length", d_head) != d_head:
        raise LabError(f"{found.where}: keys and values of different widths are not supported")
    common = {
        "vocab_size": table[0],
        "d_model": d_model,
        "n_layers": layers,
        "n_heads": heads,
        "n_kv_heads": None if kv_heads == heads else kv_heads,
        "d_head": None if d_head * first == d_model else d_head,
        "d_mlp": found.by_layer("feed_forward_length", layers, 4 * d_model),
        "max_positions": found.whole("context_length"),
        "tied_head": "output.weight" not in shapes,
        "qkv_bias": any(f"blk.0.attn_{name}.bias" in shapes for name in ("q", "qkv")),
        "attention_out_bias": "blk.0.attn_output.bias" in shapes,
        "mlp_bias": "blk.0.ffn_up.bias" in shapes,
    }
    return common | (_layer_normed(found) if found.kind in ("gpt2", "gptneox") else _gated(found, layers))


def _layer_normed(found: Metadata) -> dict[str, Any]:
    own: dict[str, Any] = {"family": "gpt2", "positions": "learned", "activation": "gelu_tanh"}
    if found.kind == "gptneox":
        parallel = found.fields.get("gptneox.use_parallel_residual", True)
        # The file does not say which gelu: Pythia's and Dolly's is the exact one.
        own = {"family": "gpt_neox", "activation": "gelu", "parallel_residual": bool(parallel)}
    return {**own, "norm": "layernorm", "norm_eps": found.fraction("attention.layer_norm_epsilon", 1e-5)}


def _gated(found: Metadata, layers: int) -> dict[str, Any]:
    """Return what a llama and a qwen2 have in common, and which of Llama's heirs it is."""
    experts = found.whole("expert_count", 0)
    window = found.whole("attention.sliding_window", 0)
    fields: dict[str, Any] = {
        "family": found.kind,
        "norm": "rmsnorm",
        "norm_eps": found.fraction("attention.layer_norm_rms_epsilon", 1e-5),
        "activation": "silu",
        "gated": True,
    }
    if window and found.kind == "llama":
        fields["family"] = "mistral"
    if window:
        fields["windows"] = (window,) * layers
    if experts:
        if found.kind != "llama":
            raise LabError(f"{found.where}: a {found.kind} with experts is not supported")
        fields["family"] = "mixtral"
        fields |= {"n_experts": experts, "experts_per_token": found.whole("expert_used_count")}
    return fields


def _ids(fields: Mapping[str, Any]) -> dict[str, Any]:
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    ids = {ours: fields.get(f"tokenizer.ggml.{name}_token_id") for ours, name in names.items()}
    return {ours: id for ours, id in ids.items() if id is not None}


def _rotary(found: Metadata, factors: Tensor | None) -> dict[str, Any]:
    """Return positions: rotated share, base and scaling."""
    if found.kind == "gpt2":
        return {}
    heads = found.fields.get(f"{found.kind}.attention.head_count")
    first = heads[0] if isinstance(heads, list) and heads else found.whole("attention.head_count")
    width = found.whole("attention.key_length", found.whole("embedding_length") // max(first, 1))
    turned = found.whole("rope.dimension_count", width)
    base = found.fraction("rope.freq_base", 10000.0)
    share = turned / max(width, 1)
    if int(width * share) < turned:  # the quotient was rounded down
        share = math.nextafter(share, 1.0)
    scaling = _scaling(found) if factors is None else _fitted(found, factors, turned, base)
    return {
        "positions": "rotary",
        "rotary_fraction": share,
        "rotary_base": base,
        "rotary_scaling": scaling,
    }


def _scaling(found: Metadata) -> RotaryScaling | None:
    """Return the scaling that the metadata names. LabError for a kind that we do not have."""
    factor = found.fraction("rope.scaling.factor", found.fraction("rope.scale_linear", 1.0))
    kind = found.fields.get(f"{found.kind}.rope.scaling.type", "linear" if factor != 1.0 else "none")
    longest = found.whole("context_length")
    original = found.whole("rope.scaling.original_context_length", longest) or longest
    attention = found.fraction(
        "rope.scaling.attn_factor", found.fraction("rope.scaling.yarn_attn_factor", 1.0)
    )
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return None
    if kind == "linear":
        return RotaryScaling(kind="linear", factor=factor, original_positions=longest)
    if kind != "yarn":
        raise LabError(f"{found.where}: rotary scaling {shown(kind)} is not supported, only linear and yarn")
    return RotaryScaling(
        kind="yarn",
        factor=factor,
        original_positions=original,
        beta_fast=found.fraction("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=found.fraction("rope.scaling.yarn_beta_slow", 1.0),
        magnitude=None if attention == 1.0 else attention * (0.1 * math.log(factor) + 1),
    )


def _fitted(found: Metadata, factors: Tensor, width: int, base: float) -> RotaryScaling | None:
    """Return the llama3 scaling that divides the angles by these factors. LabError if none does.

    The file holds what follows from the four numbers of a scaling, not the numbers. Beside the factor, only ratios of
    them matter, so that low_frequency is 1, as in every published model.
    """
    longest, given = found.whole("context_length"), factors.double()
    theta = rotary_frequencies(width, base, None, longest)
    if given.shape == theta.shape and bool((given >= 1).all()):
        if bool((given == 1).all()):
            return None
        for factor, original, high in _candidates(theta, given):
            if not (factor > 1 and high > 1 and 1 <= original < 2**31):
                continue
            scaling = RotaryScaling(
                kind="llama3",
                factor=factor,
                original_positions=original,
                low_frequency=1.0,
                high_frequency=high,
            )
            again = theta / rotary_frequencies(width, base, scaling, longest)
            if bool((again / given - 1).abs().max() < 1e-4):
                return scaling
    raise LabError(f"{found.where}: {ROPE_FACTORS} is not of llama3's kind, which alone is supported")


def _candidates(theta: Tensor, factors: Tensor) -> Iterator[tuple[float, int, float]]:
    """Yield factor, original_positions and high_frequency that may have made these factors of the angles θ.

    An angle is kept by a share of (original_positions θ / 2π - 1) / (high_frequency - 1), within 0 and 1, and the rest
    of it is divided by the factor.
    """
    most = float(np.float32(factors.max()))
    kept = (1 / factors - 1 / most) / (1 - 1 / most)
    ramp = ((kept > 1e-5) & (kept < 1 - 1e-5)).nonzero().flatten().tolist()
    slow = int((kept <= 1e-5).nonzero()[0])
    if ramp:
        first, last = ramp[0], ramp[-1]
        span = 3.0  # of every published model; a single pair on the ramp does not say
        if first != last:
            slope = float((kept[first] - kept[last]) / (theta[first] - theta[last]))
            span = round(-1 / float(kept[last] - slope * theta[last]), 3)
        waves = float(kept[first]) * span + 1
        yield float(str(np.float32(most))), round(waves * 2 * math.pi / float(theta[first])), 1 + span
        # No pair may be slow enough to show the factor: with the usual limits 1 and 4, a straight line does.
        gone = 1 - 1 / factors
        slope = float((gone[slow] - gone[first]) / (theta[first] - theta[slow]))
        crossing = float(theta[slow] + gone[slow] / slope)  # where nothing is divided any more
        original = round(4 * 2 * math.pi / crossing)
        left = 1 - slope * (crossing - 2 * math.pi / original)
        yield float(np.float32(1 / left).round(3)), original, 4.0
    else:
        original = int(2 * math.pi / float(theta[slow]))  # up to which no slow pair is fast
        waves = original * float(theta[slow - 1]) / (2 * math.pi) if slow else 4.0
        yield float(str(np.float32(most))), original, min(4.0, waves)
