"""What feed-forward neurons write: their output vectors read through the unembedding, and signs of entropy neurons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.feedforward import FeedForward
from gpt2lab.model.interpret.lens import Unembedding, as_read, processed_unembed
from gpt2lab.model.layer_kinds import LinearMap

if TYPE_CHECKING:
    from gpt2lab.model.transformer import Transformer

_ELEMENTS = 1 << 25
"""Numbers [neurons, vocab] held at a time."""


@dataclass(frozen=True)
class NeuronTable:
    """Some neurons of one layer, one entry each."""

    layer: int
    neurons: Tensor
    """[n] int64."""
    norm: Tensor
    """Length of the output vector, its mean over d_model removed where the head cannot read it, [n]."""
    cosine_variance: Tensor
    """Unbiased variance over the vocabulary of the cosine of the output vector with each token's direction, [n]."""
    top_tokens: Tensor
    """Tokens that the vector raises most, [n, top] int64."""
    top_values: Tensor
    """By how much, per unit of activation and of the final norm's scale, [n, top]."""

    @property
    def entropy_score(self) -> Tensor:
        """norm / cosine_variance, [n]: large for neurons that write much and prefer no token (Baroni et al. 2025)."""
        return self.norm / self.cosine_variance

    def rows(self, decode: Callable[[int], str] = str) -> list[dict[str, Any]]:
        """Return the table as rows of plain values; `decode` writes a token."""
        return [
            {
                "layer": self.layer,
                "neuron": int(self.neurons[i]),
                "norm": float(self.norm[i]),
                "cosine variance": float(self.cosine_variance[i]),
                "entropy score": float(self.entropy_score[i]),
                "top tokens": " ".join(repr(decode(int(token))) for token in self.top_tokens[i]),
            }
            for i in range(len(self.neurons))
        ]


def neuron_table(
    model: "Transformer",
    layer: int,
    neurons: Sequence[int] | None = None,
    *,
    top: int = 10,
    by_score: bool = False,
) -> NeuronTable:
    """Read the output vectors of one layer's neurons (None: all) through the processed unembedding.

    by_score: the neurons with the largest entropy score first. LabError: no such layer or neuron, a mixture of experts,
    a model whose unembedding is not linear.
    """
    vectors = output_vectors(model, layer)
    chosen = torch.arange(len(vectors)) if neurons is None else torch.tensor(list(neurons), dtype=torch.int64)
    if chosen.numel() and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(vectors):
        raise LabError(
            f"neuron table: layer {layer} has neurons 0 to {len(vectors) - 1}, got {list(neurons or ())}"
        )
    head = processed_unembed(model)
    vectors = as_read(model, vectors[chosen.to(vectors.device)].to(head.weight.dtype), head)
    norm = vectors.norm(dim=1)
    variance, tokens, values = _against_vocabulary(vectors, head, min(top, len(head.weight)))
    table = NeuronTable(layer, chosen, norm.cpu(), variance.cpu(), tokens.cpu(), values.cpu())
    return _ordered(table) if by_score else table


def output_vectors(model: "Transformer", layer: int) -> Tensor:
    """Return what each neuron of a layer adds to the residual per unit of activation, [d_mlp, d_model]. LabError."""
    if not 0 <= layer < model.config.n_layers:
        raise LabError(f"layer {layer}: the model has layers 0 to {model.config.n_layers - 1}")
    mlp = model.get_submodule(f"blocks.{layer}.mlp")
    if not isinstance(mlp, FeedForward) or not isinstance(mlp.down, LinearMap):
        raise LabError(
            f"layer {layer}: its feed-forward has no single output matrix, so no vector for each neuron"
        )
    return mlp.down.weight.detach().T


def _against_vocabulary(vectors: Tensor, head: Unembedding, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Variance of cosines [n], and the top tokens [n, top] with their logits."""
    lengths = head.weight.norm(dim=1).clamp_min(1e-12)
    variances, tokens, values = [], [], []
    for part in vectors.split(max(1, _ELEMENTS // len(head.weight))):
        logits = part @ head.weight.T  # [chunk, vocab]
        cosines = logits / lengths / part.norm(dim=1, keepdim=True).clamp_min(1e-12)
        variances.append(cosines.var(1))
        best = logits.topk(top, dim=1)
        tokens.append(best.indices)
        values.append(best.values)
    if not variances:
        empty = vectors.new_empty(0, top)
        return vectors.new_empty(0), empty.long(), empty
    return torch.cat(variances), torch.cat(tokens), torch.cat(values)


def _ordered(table: NeuronTable) -> NeuronTable:
    order = torch.sort(table.entropy_score, descending=True, stable=True).indices
    fields = (table.neurons, table.norm, table.cosine_variance, table.top_tokens, table.top_values)
    return NeuronTable(table.layer, *(tensor[order] for tensor in fields))
