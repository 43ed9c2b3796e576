"""Layers whose matrix is kept in 2 to 8 bits: linear maps, embedding tables, experts, a head tied to its table."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model.experts import ExpertLinear
from gpt2lab.model.layer_kinds import CodedWeights
from gpt2lab.model.matrices import Form
from gpt2lab.model.quantization import codes
from gpt2lab.model.quantization.codes import Format
from gpt2lab.model.quantization.rounding import Rounding, quantise


class QuantizedMatrix(CodedWeights):
    """A matrix [rows, columns] in the stored form of `codes`: buffers that neither train nor change their number type.

    form: the matrices that lie in it one below the other, none of whose blocks reaches into another; default: one.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        how: Format,
        *,
        form: Form | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.rows, self.columns, self.format = rows, columns, how
        self.form = form if form is not None else Form((rows,))
        for name, tensor in codes.empty(columns, how, self.form, device).items():
            self.register_buffer(name, tensor)

    def round(self, weight: Tensor, rounding: Rounding = quantise) -> None:
        """Take codes for weight [rows, columns], by default of the nearest levels. LabError for NaN or infinity."""
        if weight.device.type != "meta":
            self._buffers.update(rounding(weight, self.format, self.form))

    def stored(self) -> dict[str, Tensor]:
        """Return the stored form."""
        return {name: tensor for name, tensor in self._buffers.items() if tensor is not None}

    def dequantise(self, rows: slice | Tensor | None = None) -> Tensor:
        """Return exactly the weights that this layer computes with, [rows, columns] float32; of all rows or of some."""
        return codes.dequantise(self.stored(), self.format, self.columns, self.form, rows)

    def signed_codes(self) -> Tensor:
        """Return the whole numbers that the scales multiply, [rows, columns] int8. LabError as `codes.signed_codes`."""
        return codes.signed_codes(self.stored(), self.format, self.columns)

    def scale_table(self) -> Tensor:
        """Return the scale of each group, [rows, groups] float32. LabError for nf4, whose blocks are not those of a row."""
        return codes.scale_table(self.stored(), self.format, self.columns, self.form)

    def minimum_table(self) -> Tensor | None:
        """Return what code 0 of each group stands for, [rows, groups] float32; None where that is 0 for all."""
        return codes.minima(self.stored(), self.form) if self.format.levels == "affine" else None

    @property
    def weight(self) -> Tensor:
        """`dequantise()`: for those who read weights."""
        return self.dequantise()

    @property
    def n_weights(self) -> int:
        """Weights that the codes stand for."""
        return self.rows * self.columns

    @property
    def n_bytes(self) -> int:
        """Bytes of the codes and scales."""
        return sum(tensor.nbytes for tensor in self.stored().values())

    def extra_repr(self) -> str:
        """Show the size and the format."""
        how = self.format
        return (
            f"{self.rows} x {self.columns}, {how.bits} bits {how.levels}, groups of {how.width(self.columns)}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedMatrix":
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, tensor in before.items():
            after = self._buffers[name]
            if tensor is not None and after is not None and after.dtype != tensor.dtype:
                self._buffers[name] = tensor.to(after.device)  # codes and scales are what they are
        return self


class QuantizedLinear(QuantizedMatrix):
    """x ŵᵀ + b; x [..., in_features] → [..., out_features].

    ŵ is read back from its codes for each product and not kept, in the backward pass neither: training what stands
    below or beside it (LoRA) costs no memory for it. Any number of times differentiable in x and b, never in ŵ.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        how: Format,
        *,
        bias: nn.Parameter | None = None,
        form: Form | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(out_features, in_features, how, form=form, device=device)
        self.in_features, self.out_features = in_features, out_features
        self.bias = bias

    @classmethod
    def of(
        cls, linear: nn.Linear, how: Format, form: Form | None = None, rounding: Rounding = quantise
    ) -> "QuantizedLinear":
        """Round the weight of a linear map; the bias is shared with it."""
        weight = linear.weight
        made = cls(
            linear.in_features,
            linear.out_features,
            how,
            bias=linear.bias,
            form=form,
            device=weight.device,
        )
        made.round(weight, rounding)
        return made.train(linear.training)

    def requantised(self, weight: Tensor) -> "QuantizedLinear":
        """Return a layer of the same kind for weight [out, in]."""
        made = QuantizedLinear(
            self.in_features,
            self.out_features,
            self.format,
            bias=self.bias,
            form=self.form,
            device=weight.device,
        )
        made.round(weight)
        return made.train(self.training)

    def to_linear(self, dtype: torch.dtype | None = None) -> nn.Linear:
        """Return an ordinary linear map with the same weights, in that number type; the bias is shared."""
        made = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        made.weight = nn.Parameter(self.dequantise().to(dtype))
        made.register_parameter("bias", self.bias)
        return made.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in_features] to [..., out_features]."""
        return product(x, self, self.bias)


class TiedHead(nn.Module):
    """A head that reads with a quantised embedding table; it holds no matrix of its own."""

    def __init__(self, table: "QuantizedEmbedding", bias: nn.Parameter | None) -> None:
        super().__init__()
        self._tables = (table,)  # not as a submodule: its codes are saved once
        self.in_features, self.out_features = table.embedding_dim, table.num_embeddings
        self.bias = bias

    @property
    def table(self) -> "QuantizedEmbedding":
        """The table that it reads with."""
        return self._tables[0]

    @property
    def weight(self) -> Tensor:
        """The weights of the table, float32."""
        return self.table.dequantise()

    def untied(self) -> QuantizedLinear:
        """Return a head of its own that shares the table's codes and scales."""
        made = QuantizedLinear(
            self.in_features, self.out_features, self.table.format, bias=self.bias, device="meta"
        )
        made._buffers.update(self.table.stored())
        return made.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Map states [..., d_model] to logits [..., vocab]."""
        return product(x, self.table, self.bias)


class QuantizedEmbedding(QuantizedMatrix):
    """A quantised look-up table; ids [...] → [..., embedding_dim] float32.

    Only the rows that are asked for are read back.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        how: Format,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, how, device=device)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim

    @classmethod
    def of(cls, table: nn.Embedding, how: Format) -> "QuantizedEmbedding":
        """Round a table."""
        weight = table.weight
        made = cls(len(weight), weight.shape[1], how, device=weight.device)
        made.round(weight)
        return made.train(table.training)

    def to_embedding(self, dtype: torch.dtype | None = None) -> nn.Embedding:
        """Return an ordinary table with the same weights, in that number type."""
        made = nn.Embedding(self.num_embeddings, self.embedding_dim, device="meta")
        made.weight = nn.Parameter(self.dequantise().to(dtype))
        return made.train(self.training)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up rows. IndexError for ids outside the table, as torch's own."""
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.num_embeddings:
            raise IndexError("index out of range in a quantised embedding")
        rows = self.dequantise(ids.flatten())
        return rows.view(*ids.shape, self.embedding_dim)


class QuantizedExperts(QuantizedMatrix):
    """The matrices of all experts of a mixture, [experts · out, in]; as `gpt2lab.model.experts.ExpertLinear`.

    Only the experts that rows are sent to are read back.
    """

    def __init__(
        self,
        n_experts: int,
        inputs: int,
        outputs: int,
        how: Format,
        *,
        bias: nn.Parameter | None = None,
        form: Form | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        form = form if form is not None else Form((outputs,) * n_experts)
        super().__init__(n_experts * outputs, inputs, how, form=form, device=device)
        self.n_experts, self.inputs, self.outputs = n_experts, inputs, outputs
        self.bias = bias

    @classmethod
    def of(
        cls, experts: ExpertLinear, how: Format, form: Form | None = None, rounding: Rounding = quantise
    ) -> "QuantizedExperts":
        """Round the matrices of all experts; the bias is shared."""
        weight = experts.weight
        n_experts, outputs, inputs = weight.shape
        made = cls(n_experts, inputs, outputs, how, bias=experts.bias, form=form, device=weight.device)
        made.round(weight.flatten(0, 1), rounding)
        return made.train(experts.training)

    def to_experts(self, dtype: torch.dtype | None = None) -> ExpertLinear:
        """Return ordinary experts with the same weights, in that number type; the bias is shared."""
        with torch.device("meta"):
            made = ExpertLinear(self.n_experts, self.columns, self.outputs, bias=False)
        made.weight = nn.Parameter(self.weight.to(dtype))
        made.bias = self.bias
        return made.train(self.training)

    @property
    def weight(self) -> Tensor:
        """All weights, [experts, out, in] float32."""
        return self.dequantise().view(self.n_experts, self.outputs, self.columns)

    def forward(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Map rows [slots, in], sorted by expert, `counts` of them for each, to [slots, out]."""
        biases = self.bias.view(self.n_experts, -1).unbind() if self.bias is not None else None
        empty = not len(rows)
        pieces = [
            product(part, self, biases[e] if biases is not None else None, self._rows(e))
            for e, part in enumerate(rows.split(list(counts)))
            if empty or len(part)
        ]
        return torch.cat(pieces)

    def _rows(self, expert: int) -> slice:
        return slice(expert * self.outputs, (expert + 1) * self.outputs)


def product(
    x: Tensor, matrix: QuantizedMatrix, bias: Tensor | None = None, rows: slice | None = None
) -> Tensor:
    """Return x ŵᵀ + b in the type of x (that of autocast, if it is on), for all rows of the matrix or some.

    LabError if x is not as wide as the matrix.
    """
    if x.shape[-1] != matrix.columns:
        raise LabError(f"the input is {x.shape[-1]} wide, the layer takes {matrix.columns}")
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        x = x.to(torch.get_autocast_dtype(kind))
    bias = bias.to(x.dtype) if bias is not None else None
    if not (torch.is_grad_enabled() and x.requires_grad):
        return F.linear(x, matrix.dequantise(rows).to(x.dtype), bias)
    y: Tensor = _Product.apply(x, matrix, rows, False)
    return y if bias is None else y + bias


class _Product(torch.autograd.Function):
    """x ŵᵀ, or x ŵ: each is the other's gradient. Neither keeps ŵ."""

    @staticmethod
    def forward(x: Tensor, matrix: QuantizedMatrix, rows: slice | None, transposed: bool) -> Tensor:
        weight = matrix.dequantise(rows).to(x.dtype)
        return x @ weight if transposed else F.linear(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.matrix, ctx.rows, ctx.transposed = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Product.apply(gradient, ctx.matrix, ctx.rows, not ctx.transposed), None, None, None
