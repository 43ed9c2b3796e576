"""The layers that carry low-rank adapters: a base layer that stays as it is, and what is added to its output."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model.layer_kinds import LinearMap, Table

Init = Literal["kaiming", "gaussian"]
WHOLE = "all"
"""Name of the part that covers every row of a matrix."""
_FEW = 1 / 8
"""Share of the inputs up to which the ranks of all parts together count as few: multiplying with the zeros of one
block-diagonal B is faster then than a product for each part (forward and backward 27 ms against 39, benchmarks/lora.py)."""


class LowRank(nn.Module):
    """The matrices of one adapter for some rows of one matrix: ΔW = scale · B A (Hu et al. 2021, eq. 3).

    A [rank, inputs], B [outputs, rank]. `rows` are those of the base's outputs that it adds to.
    """

    def __init__(
        self,
        inputs: int,
        rows: slice,
        rank: int,
        scale: float,
        *,
        dropout: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.rows, self.rank, self.scale, self.dropout = rows, rank, scale, dropout
        self.A = nn.Parameter(torch.empty(rank, inputs, device=device, dtype=dtype))
        self.B = nn.Parameter(torch.empty(rows.stop - rows.start, rank, device=device, dtype=dtype))

    @torch.no_grad()
    def reset(self, init: Init, generator: torch.Generator, *, table: bool = False) -> None:
        """Draw A anew, make B zero, so that ΔW is zero: Kaiming-uniform U(±1/√inputs), or N(0, 1/rank²).

        For an embedding table A is zero and B is N(0, 1): a row of A is only reached by its own token.
        Drawn on the CPU in float32, so that weights depend on neither device nor dtype.
        """
        if table:
            self.A.zero_()
            self.B.copy_(torch.empty(self.B.shape).normal_(generator=generator))
            return
        drawn = torch.empty(self.A.shape)
        if init == "kaiming":
            bound = 1 / math.sqrt(max(self.A.shape[1], 1))
            drawn.uniform_(-bound, bound, generator=generator)
        else:
            drawn.normal_(0.0, 1 / self.rank, generator=generator)
        self.A.copy_(drawn)
        self.B.zero_()

    def delta(self) -> Tensor:
        """Return scale · B A [outputs, inputs], in at least float32."""
        wide = torch.promote_types(self.A.dtype, torch.float32)
        return (self.B.to(wide) @ self.A.to(wide)) * self.scale


class Adapted(nn.Module):
    """A base layer with named adapters, each with a strength; 0 switches it off.

    State of an adapter: `adapters.NAME.PART.A` and `.B`, PART being `all` or the rows' name, such as `q`.
    """

    adapters: nn.ModuleDict
    base: nn.Module
    merged_weight: Tensor | None

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.adapters = nn.ModuleDict()
        self.strengths: dict[str, float] = {}
        # Beside the base's own weight, so that taking it away gives back the same bits.
        self.register_buffer("merged_weight", None, persistent=False)

    def add(self, name: str, part: str, matrices: LowRank, strength: float) -> None:
        """Add one part of an adapter."""
        self.adapters[name] = nn.ModuleDict({**self.parts(name), part: matrices})
        self.strengths[name] = strength

    def parts(self, name: str) -> dict[str, LowRank]:
        """Return the parts of one adapter here, by name; {} if it has none."""
        if name not in self.adapters:
            return {}
        parts = self.adapters[name]
        assert isinstance(parts, nn.ModuleDict)
        return {part: matrices for part, matrices in parts.items() if isinstance(matrices, LowRank)}

    def active(self) -> list[tuple[LowRank, float]]:
        """Return what takes part in the forward pass, with its strength."""
        return [
            (part, strength)
            for name, strength in self.strengths.items()
            if strength
            for part in self.parts(name).values()
        ]

    @property
    def base_weight(self) -> Tensor:
        """The base's own weight; of a quantised base, what it computes with."""
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        return weight

    def effective_weight(self) -> Tensor:
        """Return W + Σ strength · scale · B A, differentiable in A and B, in the base's number type."""
        weight = self.base_weight
        changed = weight.to(torch.promote_types(weight.dtype, torch.float32))
        for part, strength in self.active():
            update = part.delta() * strength
            rows = part.rows
            if update.shape != changed.shape:
                update = F.pad(update, (0, 0, rows.start, len(changed) - rows.stop))
            changed = changed + update.to(changed.dtype)
        return changed.to(weight.dtype)

    @property
    def weight(self) -> Tensor:
        """The weight that this layer computes with, adapters included: for those who read weights."""
        return self.merged_weight if self.merged_weight is not None else self.effective_weight()

    @torch.no_grad()
    def merge(self) -> None:
        """Compute with one matrix from now on; the base's own stays beside it."""
        self.merged_weight = self.effective_weight()

    def unmerge(self) -> None:
        """Compute with the base's own weight and the adapters again."""
        self.merged_weight = None

    def _refuse_training_merged(self) -> None:
        if self.training and torch.is_grad_enabled():
            raise LabError(
                "the adapters are merged, so no gradient reaches them; unmerge(model) before training"
            )


class AdaptedLinear(Adapted):
    """base(x) + Σ strength · scale · B A dropout(x) (Hu et al. 2021, eq. 3); x [..., inputs] → [..., outputs].

    The base is a `LinearMap`.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        assert isinstance(base, LinearMap)
        self.in_features, self.out_features = base.in_features, base.out_features

    @property
    def bias(self) -> Tensor | None:
        """The base's bias."""
        assert isinstance(self.base, LinearMap)
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., inputs] to [..., outputs]."""
        if self.merged_weight is not None:
            self._refuse_training_merged()
            return F.linear(x, self.merged_weight, self.bias)
        y: Tensor = self.base(x)
        for name, strength in self.strengths.items():
            if strength:
                y = self._plus(y, x, list(self.parts(name).values()), strength)
        return y

    def _plus(self, y: Tensor, x: Tensor, parts: list[LowRank], strength: float) -> Tensor:
        """Add one adapter: x meets the A of all parts in one product, and what comes out their B."""
        if self.training and parts[0].dropout:
            x = F.dropout(x, parts[0].dropout)
        down = parts[0].A if len(parts) == 1 else torch.cat([part.A for part in parts])
        # The small matrices take the input's type, not the other way round: the input is the large one.
        inner = F.linear(x, down.to(x.dtype)).flatten(0, -2)  # [positions, Σ ranks]
        flat = y.flatten(0, -2).to(inner.dtype)
        ups = [(part.B * (part.scale * strength)).to(inner.dtype) for part in parts]
        if len(parts) == 1 or len(down) <= _FEW * self.in_features:
            total = torch.addmm(flat, inner, self._side_by_side(ups, parts).T)
        else:
            total = self._row_by_row(flat, inner, ups, parts)
        return total.to(y.dtype).view(y.shape)

    def _side_by_side(self, ups: list[Tensor], parts: list[LowRank]) -> Tensor:
        """One matrix [outputs, Σ ranks], zero outside of each part's own rows."""
        if len(parts) == 1 and len(ups[0]) == self.out_features:
            return ups[0]
        ends = [(0, 0, part.rows.start, self.out_features - part.rows.stop) for part in parts]
        return torch.cat([F.pad(up, end) for up, end in zip(ups, ends, strict=True)], dim=1)

    def _row_by_row(self, flat: Tensor, inner: Tensor, ups: list[Tensor], parts: list[LowRank]) -> Tensor:
        """Each part by itself, which multiplies with no zeros but passes over the outputs once more."""
        pieces, done = [], 0
        for part, up, h in zip(parts, ups, inner.split([part.rank for part in parts], dim=-1), strict=True):
            pieces += [flat[:, done : part.rows.start], torch.addmm(flat[:, part.rows], h, up.T)]
            done = part.rows.stop
        return torch.cat([*pieces, flat[:, done:]], dim=-1)


class AdaptedEmbedding(Adapted):
    """base(ids) + Σ strength · scale · B A[:, ids]; A [rank, ids], B [d_model, rank]. No dropout."""

    @property
    def num_embeddings(self) -> int:
        """Rows of the table."""
        assert isinstance(self.base, Table)
        return self.base.num_embeddings

    @property
    def embedding_dim(self) -> int:
        """Width of the table."""
        assert isinstance(self.base, Table)
        return self.base.embedding_dim

    def effective_weight(self) -> Tensor:
        """Return the table [ids, d_model] with Σ strength · scale · (B A)ᵀ added."""
        table = self.base_weight
        changed = table.to(torch.promote_types(table.dtype, torch.float32))
        for part, strength in self.active():
            changed = changed + (part.delta() * strength).T.to(changed.dtype)
        return changed.to(table.dtype)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up ids [...] → [..., d_model]."""
        if self.merged_weight is not None:
            self._refuse_training_merged()
            return F.embedding(ids, self.merged_weight)
        y: Tensor = self.base(ids)
        for part, strength in self.active():
            inner = F.embedding(ids, part.A.T.to(y.dtype))  # [..., rank]
            y = y + F.linear(inner, part.B.to(y.dtype)) * (part.scale * strength)
        return y


def untouched(layer: nn.Module) -> nn.Module:
    """Return the layer below the adapters, or the layer itself if it carries none."""
    return layer.base if isinstance(layer, Adapted) else layer
