"""The architecture `quantized`, and the transforms that make a quantised model and an ordinary one again."""

import copy
import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import nn

from gpt2lab.base.errors import LabError
from gpt2lab.model.backbone import Backbone
from gpt2lab.model.experts import ExpertLinear
from gpt2lab.model.matrices import Form, forms
from gpt2lab.model.quantization.codes import Format
from gpt2lab.model.quantization.layers import (
    QuantizedEmbedding,
    QuantizedExperts,
    QuantizedLinear,
    QuantizedMatrix,
    TiedHead,
)
from gpt2lab.model.quantization.rounding import Rounding, quantise
from gpt2lab.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class QuantizationOptions(Format):
    """What is rounded, and how."""

    layers: tuple[str, ...] = ("blocks.*",)
    """Names (globs) of the matrices that are rounded; head and embedding are names too, tied ones go together."""
    exclude: tuple[str, ...] = ("*.router",)
    """Names (globs) of matrices that are not rounded."""

    def options(self) -> dict[str, Any]:
        """Return these options by name, without those that a subclass adds."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(QuantizationOptions)}


@dataclass(frozen=True, kw_only=True)
class Quantized(QuantizationOptions):
    """Matrices in 2 to 8 bits, read back where they are used; without data, each weight to the nearest level."""

    way_out: ClassVar[str] = "make an ordinary model of it with: gpt2lab apply dequantize MODEL --out DIR"
    """What to do where another program's layout cannot hold the model."""
    other_form: ClassVar[str] = (
        "NF4 and double scales once had a layout of their own, which is not read; quantise the model that it was made "
        "from again"
    )
    """What to do where codes or scales in a file have another form."""

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        """Round the matrices in place. LabError: nothing of that name, already quantised, NaN or infinity in a weight."""
        chosen, known = self.chosen(model), forms(model)
        self.replace(
            model, {name: self.rounded(name, module, known.get(name)) for name, module in chosen.items()}
        )

    def chosen(self, model: Backbone) -> dict[str, nn.Module]:
        """Return the modules to round, by name, in the order of the model; a tied head stands for its table.

        LabError as `attach`, but for what the weights hold.
        """
        held = [name for name, _ in quantized_layers(model)]
        if any(_matches(name, self.layers) and not _matches(name, self.exclude) for name in held):
            raise LabError(
                "the model is quantised already; dequantise it first (gpt2lab apply dequantize), or take the model "
                "it was made from"
            )
        matrices = {
            name: module
            for name, module in model.named_modules()
            if type(module) in (nn.Linear, ExpertLinear)
            or (name == "embedding" and type(module) is nn.Embedding)
        }
        for pattern in self.layers:
            if not fnmatch.filter(matrices, pattern):
                raise LabError(
                    f"layers: {pattern} stands for no matrix of this model; it has {', '.join(list(matrices)[:4])} …"
                )
        names = {
            name for name in matrices if _matches(name, self.layers) and not _matches(name, self.exclude)
        }
        if _is_tied(model) and names & {"head", "embedding"}:
            names = (names | {"embedding"}) - {"head"}
        if not names:
            raise LabError("layers: nothing is left to quantise once `exclude` is taken away")
        return {name: module for name, module in matrices.items() if name in names}

    def rounded(
        self, name: str, module: nn.Module, form: Form | None, rounding: Rounding = quantise
    ) -> nn.Module:
        """Return the quantised layer of a chosen one; tables go to the nearest levels. LabError with its name."""
        how = Format(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Format)})
        try:
            if isinstance(module, nn.Linear):
                return QuantizedLinear.of(module, how, form, rounding)
            if isinstance(module, nn.Embedding):
                return QuantizedEmbedding.of(module, how)
            assert isinstance(module, ExpertLinear)
            return QuantizedExperts.of(module, how, form, rounding)
        except LabError as error:
            raise LabError(f"{name}: {error}") from None

    def replace(self, model: Backbone, layers: Mapping[str, nn.Module]) -> None:
        """Put rounded layers into a model, by name; a tied head reads with a rounded table."""
        for name, module in layers.items():
            model.set_submodule(name, module)
        table = layers.get("embedding")
        if isinstance(table, QuantizedEmbedding) and _is_tied(model):
            model.head = TiedHead(table, model.head.bias)  # type: ignore[assignment]  # maps like a Linear


class HasModel(Protocol):
    """Whatever holds a model: a `LanguageModel`, for one."""

    model: Transformer


L = TypeVar("L", bound=HasModel)


@dataclass(frozen=True, kw_only=True)
class Dequantize:
    """Write the rounded weights out again: an ordinary model, as large as before, which transformers opens."""

    def __call__(self, lm: L) -> L:
        """Return the ordinary model; the given one stays as it is. LabError if it is not quantised."""
        new = copy.copy(lm)
        new.model = dequantised(lm.model)
        return new


@torch.no_grad()
def dequantised(model: Transformer) -> Transformer:
    """Return an ordinary model with exactly the rounded weights, in the model's number type; `model` stays as it is.

    LabError if it is not quantised.
    """
    new = copy.deepcopy(model)
    found = dict(quantized_layers(new))
    if not found:
        raise LabError("the model is not quantised, so there is nothing to dequantise")
    for name, layer in found.items():
        new.set_submodule(name, plain(layer, model.dtype))
    head: nn.Module | None = new.head if new.config.head != "none" else None
    if isinstance(head, TiedHead):
        new.head = nn.Linear(head.in_features, head.out_features, bias=False, device="meta")
        new.head.register_parameter("bias", head.bias)
        new.tie_head()
    new.architectures = tuple(one for one in new.architectures if not isinstance(one, Quantized))
    return new


def plain(layer: QuantizedMatrix, dtype: torch.dtype) -> nn.Module:
    """Return the ordinary layer with the weights of a quantised one."""
    if isinstance(layer, QuantizedLinear):
        return layer.to_linear(dtype)
    if isinstance(layer, QuantizedEmbedding):
        return layer.to_embedding(dtype)
    assert isinstance(layer, QuantizedExperts)
    return layer.to_experts(dtype)


def quantized_layers(model: nn.Module) -> Iterator[tuple[str, QuantizedMatrix]]:
    """Yield every quantised layer with its name, in the order of the model."""
    for name, module in model.named_modules():
        if isinstance(module, QuantizedMatrix):
            yield name, module


def refuse_full_training(model: Transformer) -> None:
    """LabError if the model is quantised and nothing was attached that trains beside the rounded weights."""
    if not any(True for _ in quantized_layers(model)):
        return
    if all(isinstance(one, Quantized) for one in model.architectures):
        raise LabError(
            "the model is quantised, and rounded weights cannot be trained; train an adapter beside them "
            "(--set lora.rank=8), or take the model it was made from"
        )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_tied(model: Backbone) -> bool:
    return model.config.tied_head and model.config.head != "none"
