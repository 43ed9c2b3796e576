"""ONNX: the forward pass as a graph of standard operators, compared with the model before it is kept."""

import contextlib
import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.base.extras import install
from gpt2lab.model import Transformer
from gpt2lab.model.architecture import ways_out
from gpt2lab.model.rotary import ROWS
from gpt2lab.text.language_model import LanguageModel

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

_LARGEST = 2**31 - 1
"""Bytes of an ONNX file, a limit of its encoding."""

_TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest, or absolutely if they are small."""


def write_onnx(lm: LanguageModel, path: Path) -> list[str]:
    """Write one ONNX file and return what must be said about it.

    input_ids and attention_mask int64 [batch, time] (1 at real tokens; padding on either side) → logits float32
    [batch, time, vocab], for any batch and any time up to the model's positions. LabError: a model that cannot be
    traced or is too large, or whose graph computes something else than it does.
    """
    _need_packages()
    model = _float32(lm.model)
    size = 4 * model.count_parameters()["total"]
    if size > _LARGEST:
        raise LabError(
            f"ONNX: a file holds at most 2.1 GB, this model's float32 weights are {size / 1e9:.1f} GB"
        )
    scaling = model.config.rotary_scaling
    if scaling is not None and scaling.kind == "dynamic":
        raise LabError("ONNX: dynamic rotary scaling depends on the length at hand, which a graph cannot")
    training = model.training
    model.eval()
    try:
        _traced(model).save(path, external_data=False)
        _compare(model, path)
    finally:
        model.train(training)
    return [
        "The graph has no key/value cache: each step of decoding computes the whole text again.",
        "It has no tokenizer; export with --to huggingface beside it for that.",
    ]


def is_onnx(path: Path) -> bool:
    """Tell whether a file is an ONNX model."""
    _need_packages()
    import onnx

    try:
        return bool(onnx.load(str(path), load_external_data=False).graph.node)
    except Exception:  # protobuf's own errors, which onnx does not promise
        return False


class _Traced(nn.Module):
    """The model with its two inputs by position."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids, attention_mask=attention_mask)
        return logits


def _traced(model: Transformer) -> "ONNXProgram":
    """Trace the forward pass with dynamic batch and time."""
    length = min(model.config.max_positions, ROWS)  # the graph holds the rotary table as a constant
    tokens, mask = _example(model, rows=2, length=min(7, length))
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time", max=length)
    shapes = {"input_ids": {0: batch, 1: time}, "attention_mask": {0: batch, 1: time}}
    with _quiet(), torch.no_grad():
        model(tokens[:1, :1])  # makes the rotary table, which tracing must not
        try:
            program = torch.onnx.export(
                _Traced(model),
                (tokens, mask),
                dynamo=True,
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes=shapes,
                verbose=False,
            )
        except Exception as error:  # whatever torch's exporter meets inside a model
            raise LabError(
                f"ONNX: this model cannot be traced ({_reason(error)}){ways_out(model)}"
            ) from error
    assert program is not None
    return program


def _reason(error: BaseException) -> str:
    """Return the first line of what the exporter's wordy errors come from."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:150]}"


@torch.no_grad()
def _compare(model: Transformer, path: Path) -> None:
    """LabError unless onnxruntime computes the model's logits at other shapes than the traced one."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    longest = model.config.max_positions
    for rows, length in ((1, 1), (3, min(12, longest)), (1, min(33, longest))):
        tokens, mask = _example(model, rows=rows, length=length)
        inputs = {"input_ids": tokens.numpy(), "attention_mask": mask.numpy()}
        found = torch.from_numpy(session.run(["logits"], inputs)[0])
        expected = model(tokens, attention_mask=mask)
        difference = float((found - expected)[mask.bool()].abs().max())
        if not difference <= _TOLERANCE * max(1.0, float(expected.abs().max())):
            raise LabError(
                f"ONNX: the graph's logits differ from the model's by {difference:.2g} at {rows} × {length} tokens"
            )


def _example(model: Transformer, *, rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Random tokens and a mask with padding on either side, [rows, length]."""
    generator = torch.Generator().manual_seed(length)
    tokens = torch.randint(model.config.vocab_size, (rows, length), generator=generator)
    mask = torch.ones_like(tokens)
    if rows > 1 and length > 2:
        mask[0, : length // 3], mask[1, length - length // 3 :] = 0, 0
    return tokens, mask


def _float32(model: Transformer) -> Transformer:
    """Return the model on the CPU in float32: itself, or a copy."""
    if model.device.type == "cpu" and all(weight.dtype == torch.float32 for weight in model.parameters()):
        return model
    return copy.deepcopy(model).to(device="cpu", dtype=torch.float32)


def _need_packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise LabError(f"ONNX files need the package {name}; {install('export')}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes on its own state to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
