"""Models for other programs: Hugging Face's folder, llama.cpp's GGUF, ONNX."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.files import atomic_file, size_of, user_path
from gpt2lab.model.finite import all_finite
from gpt2lab.text.language_model import LanguageModel

Kind = Literal["huggingface", "gguf", "onnx"]
Precision = Literal["f32", "f16", "bf16"]
_TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote."""

    path: Path
    """The file, or Hugging Face's folder."""
    kind: Kind
    """Its layout."""
    size: int
    """Bytes."""
    dtype: str
    """Type of its matrices: float32, bfloat16, ..."""
    notes: tuple[str, ...]
    """What the file does not hold or does differently, a sentence each."""


def export(lm: LanguageModel, to: Kind, out: Path | str, *, precision: Precision | None = None) -> Exported:
    """Write a model for other programs; what stands at `out` is replaced if it is of the same kind.

    huggingface: a folder that transformers opens, all weights in `precision` (default: the model's own). gguf: one file
    for llama.cpp with the tokenizer, matrices in `precision` (default f32). onnx: one file, input_ids and attention_mask
    [batch, time] to logits [batch, time, vocab] in float32, compared with the model before it is kept.
    The file appears whole or not at all.
    LabError: a model, tokenizer or precision that the layout cannot carry, a package that is missing, `out` taken by
    something else, no room on the disk.
    """
    out = user_path(out)
    if to not in get_args(Kind):
        raise unknown("layout to export to", to, get_args(Kind))
    if precision is not None and precision not in get_args(Precision):
        raise unknown("precision of an export", precision, get_args(Precision))
    if precision in ("f16", "bf16") and to == "onnx":
        raise LabError(f"precision {precision}: an ONNX file is written in f32")
    try:
        if to == "huggingface":
            return _huggingface(lm, out, precision)
        _refuse_foreign(out, to)
        return _file(lm, to, out, precision or "f32")
    except (OSError, SafetensorError) as error:
        # numpy and safetensors tell a full disk in words of their own, without the system's reason.
        reason = getattr(error, "strerror", None) or "the disk took only a part of it"
        raise LabError(f"{out}: nothing was written: {reason.lower()}") from error


def _huggingface(lm: LanguageModel, out: Path, precision: Precision | None) -> Exported:
    from gpt2lab.text.language_model import save

    if precision is not None:
        lm = _converted(lm, getattr(torch, _TYPES[precision]))
    save(lm, out, layout="huggingface")
    size = size_of(out)
    notes = () if lm.tokenizer is not None else ("The model has no tokenizer, so the folder has none.",)
    return Exported(
        path=out, kind="huggingface", size=size, dtype=str(lm.model.dtype).removeprefix("torch."), notes=notes
    )


def _converted(lm: LanguageModel, dtype: torch.dtype) -> LanguageModel:
    """Return the model with all weights in another type; the given one stays as it is. LabError for too large ones."""
    if lm.model.dtype == dtype:
        return lm
    new = copy.copy(lm)
    new.model = copy.deepcopy(lm.model).to(dtype)
    for name, parameter in new.model.named_parameters():
        if not all_finite(parameter):
            raise LabError(
                f"{name} has values too large for {str(dtype).removeprefix('torch.')}; choose bf16 or f32"
            )
    return new


def _file(lm: LanguageModel, to: Kind, out: Path, precision: Precision) -> Exported:
    write: Callable[..., list[str]]
    options: dict[str, Any] = {"precision": precision} if to == "gguf" else {}
    if to == "gguf":
        from gpt2lab.text.export.gguf_file import write_gguf as write
    else:
        from gpt2lab.text.export.onnx_file import write_onnx as write
    with atomic_file(out) as temporary:
        notes = write(lm, temporary, **options)
    return Exported(path=out, kind=to, size=out.stat().st_size, dtype=_TYPES[precision], notes=tuple(notes))


def _refuse_foreign(out: Path, to: Kind) -> None:
    """LabError if the file would take the place of something of another kind."""
    if out.is_dir():
        raise LabError(f"{out}: a folder; give the name of a file, such as {out / f'model.{to}'}")
    if not out.exists():
        return
    if to == "gguf":
        with out.open("rb") as handle:
            ours = handle.read(4) == b"GGUF"
    else:
        from gpt2lab.text.export.onnx_file import is_onnx

        ours = is_onnx(out)
    if not ours:
        raise LabError(f"{out}: is no {to.upper()} file and would be lost; give another name")
