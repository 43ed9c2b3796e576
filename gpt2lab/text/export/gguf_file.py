"""GGUF, the file of llama.cpp: names and metadata as its loaders expect them."""

import contextlib
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import progress
from gpt2lab.base.settings import to_plain
from gpt2lab.base.wording import listed
from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.model.architecture import architecture_name, ways_out
from gpt2lab.model.checkpoints.families import FAMILIES
from gpt2lab.model.checkpoints.gguf_layout import (
    ARCHITECTURES,
    OWN_CONFIG,
    ROPE_FACTORS,
    cut,
    neighbours,
    pieces,
    read_metadata,
)
from gpt2lab.model.rotary import rotary_frequencies
from gpt2lab.text.export.gguf_tokenizer import same_ids, tokenizer_fields
from gpt2lab.text.gguf_tokenizer import HUGGING_FACE, read_tokenizer
from gpt2lab.text.language_model import LanguageModel

if TYPE_CHECKING:
    from gguf import GGUFWriter

_ACTIVATIONS = {"gpt2": {"gelu_tanh"}, "gptneox": {"gelu", "gelu_tanh"}, "llama": {"silu"}, "qwen2": {"silu"}}
"""GGUF has no field for the activation: each architecture has its own."""


def write_gguf(lm: LanguageModel, path: Path, *, precision: str) -> list[str]:
    """Write one GGUF file and return what must be said about it.

    LabError: a family, a variation of it or a tokenizer that GGUF cannot carry; values too large for f16.
    """
    import gguf

    model, config = lm.model, lm.config
    kind, notes = _architecture(model)
    fields = tokenizer_fields(lm.tokenizer, config.vocab_size)  # before anything is written
    fields += _further_end(lm, notes)
    logging.getLogger("gguf").setLevel(logging.WARNING)
    writer = gguf.GGUFWriter(path, kind)
    with contextlib.closing(writer):
        writer.add_name(f"gpt2lab {config.family}")
        _add_shape(writer, config, kind, notes)
        file_type = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16"}[precision]
        writer.add_file_type(getattr(gguf.LlamaFileType, file_type))
        for name, value in fields:
            getattr(writer, f"add_{name}")(value)
        _add_own(writer, lm)
        total = sum(1 for _ in model.parameters())  # of experts, several become one
        for name, tensor in progress(_tensors(model), total=total, label="gguf", unit="tensor"):
            data, stored = _stored(name, tensor, precision)
            writer.add_tensor(name, data, raw_dtype=stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    return notes


def _add_own(writer: "GGUFWriter", lm: LanguageModel) -> None:
    """Write beside GGUF's fields what they do not say, so that the file is read as the model and tokenizer it is of."""
    model, config = lm.model, lm.config
    fields = {
        name: float(np.float32(value.value)) if value.type.name == "FLOAT32" else value.value
        for name, value in writer.kv_data[0].items()
    }
    shapes = {
        part.name: tuple(view.shape)
        for ours, parameter in model.named_parameters()
        for part, view in zip(pieces(ours, config), cut(parameter, pieces(ours, config)), strict=True)
    }
    read = to_plain(read_metadata(fields, shapes, "GGUF", None))
    if kept := {name: value for name, value in to_plain(config).items() if value != read[name]}:
        writer.add_string(OWN_CONFIG, json.dumps(kept))
    if lm.tokenizer is not None and not same_ids(read_tokenizer(fields, "GGUF"), lm.tokenizer):
        writer.add_string(HUGGING_FACE, lm.tokenizer.backend.to_str())


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
    """Return GGUF's name of the architecture, and notes; LabError for what it cannot compute."""
    config = model.config
    if config.family not in ARCHITECTURES:
        raise LabError(f"GGUF: {config.family} is not written, only {', '.join(ARCHITECTURES)}")
    if model.architectures:
        names = listed([architecture_name(one) for one in model.architectures])
        raise LabError(
            f"GGUF: llama.cpp does not compute what the architecture {names} changes{ways_out(model)}"
        )
    FAMILIES[config.family].write(config)  # refuses what the family itself does not have
    kind, notes = ARCHITECTURES[config.family], []
    if config.activation not in _ACTIVATIONS[kind]:
        known = " or ".join(sorted(_ACTIVATIONS[kind]))
        raise LabError(f"GGUF: a {config.family} has the activation {known} there, not {config.activation}")
    if any(config.layer(i).attention_scale != config.layer(i).d_head ** -0.5 for i in range(config.n_layers)):
        raise LabError(
            f"GGUF: llama.cpp scales the scores of a {config.family} by 1/sqrt(d_head) in every layer; this model's "
            "attention_scale is another"
        )
    if kind == "llama" and (config.qkv_bias or config.mlp_bias):
        raise LabError(f"GGUF: a {config.family} has no biases there")
    if config.norm != "none" and config.n_layers < 1:
        raise LabError("GGUF: a model without layers is not written")
    scaling = config.rotary_scaling
    if scaling is not None and (scaling.kind == "dynamic" or not scaling.truncate):
        raise LabError(
            f"GGUF: rotary scaling {scaling.kind} {'' if scaling.truncate else 'without rounded ends '}is not "
            "written, only linear, llama3 and yarn"
        )
    if scaling is not None and scaling.extrapolation != 1:
        raise LabError(f"GGUF: YaRN's extrapolation factor {scaling.extrapolation} is not written, only 1")
    if kind == "gptneox" and config.activation == "gelu":
        notes.append(
            "llama.cpp computes the gelu of a gpt_neox in its tanh form, up to 5e-4 off the model's own."
        )
    if config.tied_head and kind == "gptneox":
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
    if kind in ("gpt2", "gptneox"):
        writer.add_layer_norm_eps(config.norm_eps)
    else:
        writer.add_head_count_kv(layer.n_kv_heads)
        writer.add_layer_norm_rms_eps(config.norm_eps)
        writer.add_key_length(layer.d_head)
        writer.add_value_length(layer.d_head)
    if kind == "gptneox":
        writer.add_parallel_residual(config.parallel_residual)
    if config.positions == "rotary":
        writer.add_rope_dimension_count(config.rotary_width)
        writer.add_rope_freq_base(config.rotary_base)
    if layer.n_experts:
        writer.add_expert_count(layer.n_experts)
        writer.add_expert_used_count(config.experts_per_token)
    scaling = config.rotary_scaling
    if scaling is not None and scaling.kind in ("linear", "yarn"):
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType(scaling.kind))
        writer.add_rope_scaling_factor(scaling.factor)
        if scaling.kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(scaling.original_positions)
            writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
            writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)
            usual = 0.1 * math.log(scaling.factor) + 1
            if scaling.amplitude != usual:
                writer.add_rope_scaling_yarn_attn_factor(scaling.amplitude / usual)


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


def _tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Yield GGUF's name and a float tensor on the CPU for every weight."""
    config = model.config
    for (
        ours,
        parameter,
    ) in model.named_parameters():  # a tied head is not listed: the loader takes the embeddings
        parts = pieces(ours, config)
        for part, view in zip(parts, cut(parameter.detach().float().cpu(), parts), strict=True):
            yield part.name, neighbours(view, part.heads) if part.heads else view
    scaling = config.rotary_scaling
    if scaling is not None and scaling.kind == "llama3":
        yield ROPE_FACTORS, _slowed(config)


def _slowed(config: TransformerConfig) -> Tensor:
    """Return what llama3 scaling divides the angle of each pair by, float32."""
    width, base, length = config.rotary_width, config.rotary_base, config.max_positions
    fast = rotary_frequencies(width, base, None, length)
    return (fast / rotary_frequencies(width, base, config.rotary_scaling, length)).float()


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
