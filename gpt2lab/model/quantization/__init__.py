"""Weights in 2 to 8 bits: rounding, the layers that compute with them, the architecture and its transforms."""

from gpt2lab.model.quantization.calibration import calibrate
from gpt2lab.model.quantization.codes import Format
from gpt2lab.model.quantization.gptq import GPTQ
from gpt2lab.model.quantization.layers import (
    QuantizedEmbedding,
    QuantizedExperts,
    QuantizedLinear,
    QuantizedMatrix,
    TiedHead,
)
from gpt2lab.model.quantization.nf4 import NF4
from gpt2lab.model.quantization.quantized import (
    Dequantize,
    QuantizationOptions,
    Quantized,
    dequantised,
    plain,
    quantized_layers,
    refuse_full_training,
)

__all__ = [
    "GPTQ",
    "NF4",
    "Dequantize",
    "Format",
    "QuantizationOptions",
    "Quantized",
    "QuantizedEmbedding",
    "QuantizedExperts",
    "QuantizedLinear",
    "QuantizedMatrix",
    "TiedHead",
    "calibrate",
    "dequantised",
    "plain",
    "quantized_layers",
    "refuse_full_training",
]
