"""GGUF, the file of llama.cpp: names and metadata as its loaders expect them."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.extras import install
from gpt2lab.base.progress import progress
from gpt2lab.base.wording import listed
from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.model.architecture import architecture_name, ways_out
from gpt2lab.model.checkpoints.families import FAMILIES
from gpt2lab.model.rotary import rotary_frequencies
from gpt2lab.text.export.gguf_tokenizer import tokenizer_fields
from gpt2lab.text.language_model import LanguageModel

if TYPE_CHECKING:
    from gguf import GGUFWriter

_ARCHITECTURES = {
    "gpt2": "GPT2",
    "gpt_neox": "GPTNEOX",
    "llama": "LLAMA",
    "mistral": "LLAMA",
    "mixtral": "LLAMA",
    "qwen2": "QWEN2",
}
"""Our family → the package's name of what computes it in llama.cpp."""

_ACTIVATIONS = {"GPT2": {"gelu_tanh"}, "GPTNEOX": {"gelu", "gelu_tanh"}, "LLAMA": {"silu"}, "QWEN2": {"silu"}}
"""GGUF has no field for the activation: each architecture has its own."""


def write_gguf(lm: LanguageModel, path: Path, *, precision: str) -> list[str]:
    """Write one GGUF file and return what must be said about it.

    LabError: a family, a variation of it or a tokenizer that GGUF cannot carry; values too large for f16.
    """
    try:
        import gguf
    except ImportError:
        raise LabError(f"GGUF files need the package gguf; {install('export')}") from None
    model, config = lm.model, lm.config
    kind, notes = _architecture(model)
    fields = tokenizer_fields(lm.tokenizer, config.vocab_size)  # before anything is written
    fields += _further_end(lm, notes)
    logging.getLogger("gguf").setLevel(logging.WARNING)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[getattr(gguf.MODEL_ARCH, kind)])
    with contextlib.closing(writer):
        writer.add_name(f"gpt2lab {config.family}")
        _add_shape(writer, config, kind, notes)
        file_type = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16"}[precision]
        writer.add_file_type(getattr(gguf.LlamaFileType, file_type))
        for name, value in fields:
            getattr(writer, f"add_{name}")(value)
        total = sum(1 for _ in model.parameters())  # of experts, several become one
        for name, tensor in progress(_tensors(model, kind), total=total, label="gguf", unit="tensor"):
            data, stored = _stored(name, tensor, precision)
            writer.add_tensor(name, data, raw_dtype=stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    return notes


def _further_end(lm: LanguageModel, notes: list[str]) -> list[tuple[str, int]]:
    """Return the field of an end of text beside the tokenizer's eos; GGUF has room for one such."""
    if lm.tokenizer is None:
        return []
    ends = [end for end in lm.generation.eos if end != lm.tokenizer.eos and end < lm.config.vocab_size]
    if len(ends) > 1:
        notes.append(
            f"GGUF has room for two ends of text: {listed(ends[1:])} of the model's do not end one there."
        )
    return [("eot_token_id", end) for end in ends[:1]]


def _architecture(model: Transformer) -> tuple[str, list[str]]:
    """Return the package's name of the architecture, and notes; LabError for what it cannot compute."""
    config = model.config
    if config.family not in _ARCHITECTURES:
        raise LabError(f"GGUF: {config.family} is not written, only {', '.join(_ARCHITECTURES)}")
    if model.architectures:
        names = listed([architecture_name(one) for one in model.architectures])
        raise LabError(
            f"GGUF: llama.cpp does not compute what the architecture {names} changes{ways_out(model)}"
        )
    FAMILIES[config.family].write(config)  # refuses what the family itself does not have
    kind, notes = _ARCHITECTURES[config.family], []
    if config.activation not in _ACTIVATIONS[kind]:
        known = " or ".join(sorted(_ACTIVATIONS[kind]))
        raise LabError(f"GGUF: a {config.family} has the activation {known} there, not {config.activation}")
    if any(config.layer(i).attention_scale != config.layer(i).d_head ** -0.5 for i in range(config.n_layers)):
        raise LabError(
            f"GGUF: llama.cpp scales the scores of a {config.family} by 1/sqrt(d_head) in every layer; this model's "
            "attention_scale is another"
        )
    if kind == "LLAMA" and (config.qkv_bias or config.mlp_bias):
        raise LabError(f"GGUF: a {config.family} has no biases there")
    if config.norm != "none" and config.n_layers < 1:
        raise LabError("GGUF: a model without layers is not written")
    if config.rotary_scaling is not None and config.rotary_scaling.kind not in ("linear", "llama3"):
        scaling = config.rotary_scaling.kind
        raise LabError(f"GGUF: rotary scaling {scaling} is not written, only linear and llama3")
    if kind == "GPTNEOX" and config.activation == "gelu":
        notes.append(
            "llama.cpp computes the gelu of a gpt_neox in its tanh form, up to 5e-4 off the model's own."
        )
    if config.tied_head and kind == "GPTNEOX":
        raise LabError("GGUF: a gpt_neox has a head of its own there; this model's is tied to its embeddings")
    return kind, notes


def _add_shape(writer: "GGUFWriter", config: TransformerConfig, kind: str, notes: list[str]) -> None:
    """Write sizes and constants."""
    layer = config.layer(0)
    context = _context(config, notes)
    writer.add_context_length(context)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(layer.d_mlp)
    writer.add_head_count(layer.n_heads)
    writer.add_vocab_size(config.vocab_size)
    if kind in ("GPT2", "GPTNEOX"):
        writer.add_layer_norm_eps(config.norm_eps)
    else:
        writer.add_head_count_kv(layer.n_kv_heads)
        writer.add_layer_norm_rms_eps(config.norm_eps)
        writer.add_key_length(layer.d_head)
        writer.add_value_length(layer.d_head)
    if kind == "GPTNEOX":
        writer.add_parallel_residual(config.parallel_residual)
    if config.positions == "rotary":
        writer.add_rope_dimension_count(config.rotary_width)
        writer.add_rope_freq_base(config.rotary_base)
    if layer.n_experts:
        writer.add_expert_count(layer.n_experts)
        writer.add_expert_used_count(config.experts_per_token)
    if config.rotary_scaling is not None and config.rotary_scaling.kind == "linear":
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rotary_scaling.factor)


def _context(config: TransformerConfig, notes: list[str]) -> int:
    """Return the longest context; as far as the shortest window reaches, windows change nothing."""
    windows = [window for window in config.windows or () if window is not None]
    if not windows or min(windows) >= config.max_positions:
        return config.max_positions
    notes.append(
        f"llama.cpp has no windows for this family: the context is {min(windows)} tokens, one window, "
        f"instead of {config.max_positions}."
    )
    return min(windows)


def _tensors(model: Transformer, kind: str) -> Iterator[tuple[str, Tensor]]:
    """Yield GGUF's name and a float tensor on the CPU for every weight."""
    from gguf import MODEL_TENSOR, TENSOR_NAMES

    config = model.config
    for ours, parameter in model.named_parameters():
        if ours == "head.weight" and config.tied_head:
            continue  # the loader takes the embeddings
        place, _, suffix = ours.rpartition(".")
        index = int(place.split(".")[1]) if place.startswith("blocks.") else 0
        short = place.split(".", 2)[2] if place.startswith("blocks.") else place
        for piece, part in _pieces(short, parameter.detach().float().cpu(), config, kind):
            yield f"{TENSOR_NAMES[getattr(MODEL_TENSOR, piece)].format(bid=index)}.{suffix}", part
    scaling = config.rotary_scaling
    if scaling is not None and scaling.kind == "llama3":
        width, base, length = config.rotary_width, config.rotary_base, config.max_positions
        slowed = rotary_frequencies(width, base, None, length) / rotary_frequencies(
            width, base, scaling, length
        )
        yield f"{TENSOR_NAMES[MODEL_TENSOR.ROPE_FREQS]}.weight", slowed.float()


_PLACES = {
    "embedding": "TOKEN_EMBD",
    "position_embedding": "POS_EMBD",
    "final_norm": "OUTPUT_NORM",
    "head": "OUTPUT",
    "norm1": "ATTN_NORM",
    "norm2": "FFN_NORM",
    "attention.out": "ATTN_OUT",
    "mlp.router": "FFN_GATE_INP",
}


def _pieces(place: str, tensor: Tensor, config: TransformerConfig, kind: str) -> list[tuple[str, Tensor]]:
    """Cut one of our tensors into GGUF's, each with the package's name of it."""
    layer = config.layer(0)
    experts = "_EXP" if layer.n_experts else ""
    if place == "attention.qkv" and kind in ("GPT2", "GPTNEOX"):
        return [("ATTN_QKV", tensor)]
    if place == "attention.qkv":
        heads = (layer.n_heads, layer.n_kv_heads, layer.n_kv_heads)
        parts = tensor.split([count * layer.d_head for count in heads])
        order: Callable[[Tensor, int], Tensor] = _interleaved if kind == "LLAMA" else lambda part, count: part
        turned = [order(part, count) for part, count in zip(parts[:2], heads[:2], strict=True)]
        return list(zip(("ATTN_Q", "ATTN_K", "ATTN_V"), [*turned, parts[2]], strict=True))
    if place == "mlp.up" and config.gated:
        gate, up = tensor.chunk(2, dim=1 if experts else 0)
        return [(f"FFN_GATE{experts}", gate), (f"FFN_UP{experts}", up)]
    if place in ("mlp.up", "mlp.down"):
        return [(f"FFN_{place[4:].upper()}{experts}", tensor)]
    return [(_PLACES[place], tensor)]


def _interleaved(rows: Tensor, n_heads: int) -> Tensor:
    """Put each head's rotary halves into pairs of neighbours, the order in which llama.cpp turns a llama's."""
    return rows.unflatten(0, (n_heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _stored(name: str, tensor: Tensor, precision: str) -> tuple[Any, Any]:
    """Return the numbers as the file holds them, and the package's type for them; vectors stay float32."""
    from gguf import GGMLQuantizationType, quants

    wide = tensor.dim() < 2 or precision == "f32" or name.startswith("position") or "ffn_gate_inp" in name
    data = tensor.contiguous().numpy()
    if wide:
        return data, GGMLQuantizationType.F32
    kind = GGMLQuantizationType.F16 if precision == "f16" else GGMLQuantizationType.BF16
    if precision == "f16" and float(tensor.abs().max()) > torch.finfo(torch.float16).max:
        raise LabError(f"GGUF: {name} has values too large for f16; choose bf16 or f32")
    return quants.quantize(data, kind), kind
