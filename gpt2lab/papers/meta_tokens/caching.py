"""Do metas hold what stands before them? Cosine of their states with the tokens at every distance, layer by layer."""

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.papers.meta_tokens.objective import token_of


@torch.no_grad()
def caching(
    model: Transformer,
    tokens: Tensor,
    *,
    mask: Tensor | None = None,
    token: int | None = None,
    distance: int = 16,
    batch_size: int = 16,
) -> tuple[Tensor, Tensor]:
    """Return mean cosines of a meta's state with ordinary tokens 1 … `distance` places before it, each [layers, distance].

    The first compares the state after each block with the tokens' input embeddings, the second with their states after
    the same block. tokens [n, time], mask [n, time] is 1 at real tokens. NaN where no meta has a token at a distance.
    LabError without a meta that has a token before it.
    """
    found = token_of(model, token)
    real = torch.ones_like(tokens) if mask is None else mask
    metas = (tokens == found) & real.bool()
    ordinary = ~metas & real.bool()
    layers = [f"blocks.{index}.hook_resid_post" for index in range(model.config.n_layers)]
    sums = torch.zeros(2, len(layers), distance, dtype=torch.float64)
    counts = torch.zeros(distance, dtype=torch.float64)
    with evaluating(model):
        for start in range(0, len(tokens), batch_size):
            part = slice(start, start + batch_size)
            with model.tap(read=["hook_embed", *layers]) as tap:
                model.hidden(tokens[part].to(model.device), attention_mask=real[part].to(model.device))
            for steps in range(1, min(distance, tokens.shape[1] - 1) + 1):
                pairs = (metas[part, steps:] & ordinary[part, :-steps]).to(model.device)
                counts[steps - 1] += float(pairs.sum())
                for index, layer in enumerate(layers):
                    state = tap[layer][:, steps:][pairs].float()
                    for kind, other in enumerate((tap["hook_embed"], tap[layer])):
                        cosine = F.cosine_similarity(state, other[:, :-steps][pairs].float(), dim=-1)
                        sums[kind, index, steps - 1] += cosine.double().sum().cpu()
    if not counts.any():
        raise LabError("caching: no meta-token has an ordinary token before it")
    mean = sums / counts
    return mean[0], mean[1]
