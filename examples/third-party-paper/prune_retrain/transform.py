"""Remove the weights of smallest magnitude (Han et al. 2015, section 3)."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gpt2lab import LabError, LanguageModel, Transformer


@dataclass(frozen=True, kw_only=True)
class MagnitudePrune:
    """Set a share of the weights of every matrix in the blocks to zero; embeddings, head and vectors stay as they are."""

    share: float = 0.5
    """Share of each matrix that becomes zero, from 0 to 1."""
    choose: Literal["magnitude", "random"] = "magnitude"
    """Which weights: the smallest ones, or as many at random, the baseline."""
    seed: int = 0
    """Where the random choice starts."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise LabError(f"magnitude-prune: share must lie between 0 and 1, got {self.share}")

    @torch.no_grad()
    def __call__(self, lm: LanguageModel) -> LanguageModel:
        """Return a pruned copy. LabError if the blocks have no matrix of weights."""
        model = copy.deepcopy(lm.model)
        generator = torch.Generator().manual_seed(self.seed)
        found = False
        for _, weight in matrices(model):
            found = True
            score = weight.abs().float()
            if self.choose == "random":
                score = torch.rand(weight.shape, generator=generator).to(weight.device)
            smallest = score.flatten().argsort(stable=True)[: round(self.share * weight.numel())]
            weight.view(-1)[smallest] = 0
        if not found:
            raise LabError("magnitude-prune: this model's blocks have no linear layers to prune")
        return LanguageModel(model, lm.tokenizer)


def matrices(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Yield name and weight [out, in] of every linear layer in the model's blocks."""
    for name, module in model.blocks.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module.weight
