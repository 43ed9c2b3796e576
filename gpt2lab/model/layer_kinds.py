"""What a layer that computes with a matrix offers, however the matrix is stored, and how many weights it has."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class LinearMap(Protocol):
    """x [..., in_features] → [..., out_features]: `nn.Linear`, and what is put in its place (quantised, adapted)."""

    @property
    def in_features(self) -> int:
        """Columns of the matrix."""
        ...

    @property
    def out_features(self) -> int:
        """Rows of the matrix."""
        ...

    @property
    def bias(self) -> Tensor | None:
        """[out_features], if there is one."""
        ...


@runtime_checkable
class Table(Protocol):
    """ids [...] → [..., embedding_dim]: `nn.Embedding`, and what is put in its place."""

    @property
    def num_embeddings(self) -> int:
        """Rows."""
        ...

    @property
    def embedding_dim(self) -> int:
        """Columns."""
        ...


@runtime_checkable
class ExpertMaps(Protocol):
    """A linear map for each expert: `ExpertLinear`, and what is put in its place."""

    @property
    def n_experts(self) -> int:
        """Maps."""
        ...

    @property
    def inputs(self) -> int:
        """Columns of each matrix."""
        ...

    @property
    def outputs(self) -> int:
        """Rows of each matrix."""
        ...


class CodedWeights(nn.Module):
    """A module that stores weights as something other than parameters."""

    @property
    def n_weights(self) -> int:
        """Weights that its codes stand for."""
        raise NotImplementedError


def count_weights(module: nn.Module) -> int:
    """Count parameters, shared ones once, and the weights that codes stand for."""
    dense = sum(parameter.numel() for parameter in module.parameters())
    return dense + sum(part.n_weights for part in module.modules() if isinstance(part, CodedWeights))
