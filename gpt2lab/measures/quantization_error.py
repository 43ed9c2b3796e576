"""What rounding a model's weights costs: perplexity before and after on the same text, errors and sizes of the layers."""

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures import corpus
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.perplexity import exponential, resolve, token_losses
from gpt2lab.measures.scoring import check_batch_size
from gpt2lab.measures.statistics import t_interval
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.native import named_tensors
from gpt2lab.model.matrices import Matrix, matrices
from gpt2lab.model.quantization import QuantizationOptions, QuantizedMatrix, quantized_layers
from gpt2lab.model.quantization.codes import bytes_of
from gpt2lab.training.quantize import Method, Quantize

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel


_DOCSTRINGS = ("docstrings",)
_LEAST_PIECES = 5
"""Pieces of text that an interval needs."""


@dataclass(frozen=True, kw_only=True)
class QuantizationError(QuantizationOptions):
    """Round a model's matrices as `apply quantize` does, and measure what that costs."""

    method: Method = "nearest"
    """nearest, or gptq: then the nearest levels are measured too, and compared on the same text."""
    calibration: tuple[str, ...] = ()
    """gptq: text to calibrate on, another than that of `data`; none means docstrings."""
    samples: int = 128
    """gptq: windows of that text, from its beginning."""
    act_order: bool = False
    """gptq: round the columns with the largest inputs first."""
    data: tuple[str, ...] = _DOCSTRINGS
    """Text to score: files, folders, hub:ID or names of built-in sources."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    window: int | None = None
    """Tokens the model reads at once; none means its positions, at most 2048."""
    stride: int | None = None
    """Tokens by which the window advances; none means half the window."""
    batch_size: int = 8
    """Windows in one forward pass; changes speed and memory, not the numbers."""
    limit: int | None = 20_000
    """Score at most this many tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method == "nearest" and self.calibration:
            raise LabError("calibration: rounding to the nearest level reads no text; add method=gptq")
        self._quantize()
        both = set(self.calibration or _DOCSTRINGS) & set(self.data)
        if self.method == "gptq" and both:
            raise LabError(
                f"calibration: {', '.join(sorted(both))} is the text that is scored too; give another text to one of them"
            )

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure; the model stays as it is. LabError for a model that is quantised already and for unfit settings."""
        lm.config.require_causal("quantization-error")
        tokenizer = corpus.need_tokenizer(lm, "quantization-error")
        if any(True for _ in quantized_layers(lm.model)):
            raise LabError(
                "quantization-error rounds the model itself: give it the model that this quantised one was made from"
            )
        window, stride = resolve(lm.model, self.window, self.stride)
        check_batch_size(self.batch_size)
        if self.limit is not None and self.limit < 1:
            raise LabError(f"limit must be at least 1 token, got {self.limit}")
        rounded = self._quantize()(lm).model
        ids = corpus.stream(corpus.read_texts(self.data, self.field), tokenizer, limit=self.limit).ids
        before, after = (
            token_losses(model, ids, window, stride, self.batch_size) for model in (lm.model, rounded)
        )
        costs = _costs(before, after, window)
        if self.method == "gptq":
            nearest = token_losses(Quantize(**self.options())(lm).model, ids, window, stride, self.batch_size)
            costs |= _against_nearest(nearest, after, window)
        layers = _layers(lm.model, rounded)
        about: dict[str, Any] = {
            **self.options(),
            "scheme": self.levels,
            **self._about_method(),
            "data": list(self.data),
            "tokens": len(before),
        }
        return Measurement(
            name="quantization-error",
            numbers=costs | _sizes(lm.model, rounded, layers),
            units={"bytes_before": "bytes", "bytes_after": "bytes", "bits_per_weight": "bits"},
            tables={"layers": layers},
            about=about | {"window": window, "stride": stride, **_about_interval(len(before), window)},
        )

    def _quantize(self) -> Quantize:
        return Quantize(
            **self.options(),
            method=self.method,
            data=self.calibration,
            samples=self.samples,
            act_order=self.act_order,
        )

    def _about_method(self) -> dict[str, Any]:
        if self.method == "nearest":
            return {"method": "nearest"}
        text = list(self.calibration or _DOCSTRINGS)
        return {"method": "gptq", "calibration": text, "samples": self.samples, "act_order": self.act_order}


def _costs(before: Tensor, after: Tensor, window: int) -> dict[str, float]:
    """Perplexities, and their ratio with its 95 % interval."""
    ratio, low, high = _ratio(before, after, window)
    return {
        "perplexity_before": exponential(float(before.mean())),
        "perplexity_after": exponential(float(after.mean())),
        "perplexity_ratio": ratio,
        "perplexity_ratio_low": low,
        "perplexity_ratio_high": high,
    }


def _against_nearest(nearest: Tensor, after: Tensor, window: int) -> dict[str, float]:
    """Perplexity with the nearest levels, and that after calibration over it with its 95 % interval."""
    ratio, low, high = _ratio(nearest, after, window)
    return {
        "perplexity_nearest": exponential(float(nearest.mean())),
        "ratio_to_nearest": ratio,
        "ratio_to_nearest_low": low,
        "ratio_to_nearest_high": high,
    }


def _ratio(before: Tensor, after: Tensor, window: int) -> tuple[float, float, float]:
    """Ratio of perplexities with its 95 % interval: exp of the paired difference of losses.

    Tokens beside each other err together, so the difference is averaged over pieces of a window's length, and each
    piece counts once (Student's t). Of fewer than five pieces the spread says next to nothing: 0 to infinity.
    """
    pieces = (after - before).tensor_split(_pieces(len(before), window))
    difference = float((after - before).mean())
    half = math.inf
    if len(pieces) >= _LEAST_PIECES:
        paired = t_interval([float(piece.mean()) for piece in pieces])
        half = (paired.high - paired.low) / 2
    return exponential(difference), exponential(difference - half), exponential(difference + half)


def _about_interval(tokens: int, window: int) -> dict[str, Any]:
    """Return over how many pieces the interval goes, and why there is none if they are too few."""
    pieces = _pieces(tokens, window)
    if pieces >= _LEAST_PIECES:
        return {"pieces": pieces}
    needed = f"an interval needs {_LEAST_PIECES} pieces of {window:,} tokens; raise limit, or lower window"
    return {"pieces": pieces, "interval": f"none: {needed}"}


def _pieces(tokens: int, window: int) -> int:
    return max(1, tokens // window)


def _sizes(model: Transformer, rounded: Transformer, layers: Table) -> dict[str, float]:
    """Error of all rounded weights together, bits of one of them, and bytes of the two models on disk."""
    weights = sum(row["weights"] for row in layers)
    squares = sum(row["relative_error"] ** 2 * row["square_sum"] for row in layers)
    whole = sum(row.pop("square_sum") for row in layers)
    return {
        "relative_weight_error": math.sqrt(squares / whole) if whole else 0.0,
        "bits_per_weight": 8 * sum(row["bytes"] for row in layers) / weights,
        "bytes_before": _bytes(model),
        "bytes_after": _bytes(rounded),
    }


def _bytes(model: Transformer) -> int:
    return sum(tensor.nbytes for tensor in named_tensors(model).values())


@torch.no_grad()
def _layers(model: Transformer, rounded: Transformer) -> Table:
    """A row for each rounded matrix of the published form (`gpt2lab.model.matrices`): ‖W - Ŵ‖ / ‖W‖ and its bytes."""
    layers, rows = dict(quantized_layers(rounded)), []
    by_layer = itertools.groupby(matrices(model), key=lambda matrix: matrix.module)
    for name, found in by_layer:
        if name in layers:
            exact, written_out = model.get_parameter(f"{name}.weight"), layers[name].dequantise()
            rows += [_row(one, one.of(exact), one.of(written_out), layers[name]) for one in found]
    return rows


def _row(matrix: Matrix, weight: Tensor, rounded: Tensor, layer: QuantizedMatrix) -> dict[str, Any]:
    exact = weight.double()
    square = float(exact.square().sum())
    missed = float((exact - rounded).square().sum())
    size = bytes_of(matrix.columns, layer.format, len(weight))
    return {
        "layer": matrix.name,
        "rows": len(weight),
        "columns": matrix.columns,
        "weights": weight.numel(),
        "bytes": size,
        "bits_per_weight": 8 * size / weight.numel() if weight.numel() else 0.0,
        "relative_error": math.sqrt(missed / square) if square else 0.0,
        "square_sum": square,
    }
