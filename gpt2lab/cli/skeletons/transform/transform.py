"""The method: layer-selective rank reduction (Sharma et al. 2023, section 4)."""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.model.matrices import matrices
from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class ExampleTransform:
    """Replace the feed-forward matrices of the last blocks by their nearest matrices of lower rank."""

    keep: float = 0.5
    """Share of the rank that stays, above 0 and up to 1."""
    blocks: int = 1
    """How many blocks, counted from the last."""
    choose: Literal["largest", "random"] = "largest"
    """Which singular directions stay: those of the largest singular values, or as many at random, the baseline."""
    seed: int = 0
    """Where the random choice starts."""

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise LabError(f"keep must lie above 0 and be at most 1, got {self.keep}")
        if self.blocks < 1:
            raise LabError(f"blocks must be at least 1, got {self.blocks}")

    @torch.no_grad()
    def __call__(self, lm: LanguageModel) -> LanguageModel:
        """Return a copy of lower rank. LabError if the model has fewer blocks, or no linear layers in them."""
        if self.blocks > lm.config.n_layers:
            raise LabError(f"the model has {lm.config.n_layers} blocks, not {self.blocks}; give fewer")
        model = copy.deepcopy(lm.model)
        generator = torch.Generator().manual_seed(self.seed)
        last = tuple(f"blocks.{i}.mlp." for i in range(lm.config.n_layers - self.blocks, lm.config.n_layers))
        # Gates and ups are stored in one tensor; `matrices` gives each as the family publishes it.
        found = [matrix for matrix in matrices(model) if matrix.module.startswith(last)]
        layers = [model.get_submodule(matrix.module) for matrix in found]
        if not any(isinstance(layer, nn.Linear) for layer in layers):
            raise LabError("the feed-forward of this model has no linear layers to reduce")
        for matrix, layer in zip(found, layers, strict=True):
            if isinstance(layer, nn.Linear):
                weight = matrix.of(layer.weight)
                weight.copy_(self.reduced(weight, generator))
        return LanguageModel(model, lm.tokenizer)

    def reduced(self, matrix: Tensor, generator: torch.Generator) -> Tensor:
        """Return Σ_i σ_i u_i v_iᵀ over the directions i that stay; matrix [out, in]."""
        u, sigma, v = torch.linalg.svd(matrix.double(), full_matrices=False)
        rank = max(1, round(self.keep * len(sigma)))
        order = torch.arange(len(sigma))
        if self.choose == "random":
            order = torch.randperm(len(sigma), generator=generator)
        stay = order[:rank].to(matrix.device)
        return (u[:, stay] * sigma[stay] @ v[stay]).to(matrix.dtype)
