"""Do metas sharpen attention? Entropy of attention rows with the meta's embedding and without it, over the same keys."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.papers.meta_tokens.objective import token_of
from gpt2lab.papers.meta_tokens.zeroing import zeroed

_KEPT = 20_000
"""Values kept for a histogram."""


def entropy(scores: Tensor) -> Tensor:
    """Return -Σⱼ αⱼ ln αⱼ in nats, α = softmax(scores); scores [..., keys], -inf where a key is not seen → [...]."""
    log = scores.log_softmax(-1)
    return -(log.exp() * log.masked_fill(log == -torch.inf, 0.0)).sum(-1)  # eq. H


def boost_sharpens(scores: Tensor, key: int) -> Tensor:
    """Say whether raising the score of `key` lowers the entropy, whatever the raise; scores [..., keys] → bool [...].

    dH/dΔ = -p_key (z_key - E_p[z]): only where the score is at least the mean of scores under attention itself does every
    raise lower the entropy. For a weaker key it first rises. The paper's Theorem 4.1 leaves this condition out.
    """
    p = scores.softmax(-1)
    mean = (p * scores.masked_fill(scores == -torch.inf, 0.0)).sum(-1)
    return scores[..., key] >= mean  # Theorem 4.1, its condition


@dataclass(frozen=True)
class Sharpness:
    """What metas do to the rows of attention of ordinary tokens behind them, in nats."""

    entropy: float
    """Mean entropy."""
    entropy_without: float
    """The same where the embedding of metas is zeroed: the number of keys is the same."""
    boost: float
    """By how much the largest score of a row is higher with the embedding, on average."""
    sharper: float
    """Share of rows whose entropy is lower with the embedding."""
    drops: Tensor
    """Drop in entropy by row, a sample, [rows]."""
    boosts: Tensor
    """Rise of the largest score by row, of the same rows."""

    @property
    def drop(self) -> float:
        """By how much entropy is lower with the embedding, on average."""
        return self.entropy_without - self.entropy


@torch.no_grad()
def sharpness(
    model: Transformer,
    tokens: Tensor,
    *,
    mask: Tensor | None = None,
    token: int | None = None,
    batch_size: int = 16,
) -> Sharpness:
    """Compare all heads of the first attention in every layer with and without the embedding of metas.

    tokens [n, time] with metas in them; mask [n, time] is 1 at real tokens. LabError where no ordinary token stands
    behind a meta.
    """
    found = token_of(model, token)
    real = torch.ones_like(tokens) if mask is None else mask
    metas = (tokens == found) & real.bool()
    behind = (metas.cumsum(1) > 0) & ~metas & real.bool()
    if not behind.any():
        raise LabError("sharpness: no ordinary token stands behind a meta-token")
    sums, count, drops, boosts = torch.zeros(4, dtype=torch.float64), 0, list[Tensor](), list[Tensor]()
    with evaluating(model):
        for start in range(0, len(tokens), batch_size):
            part = slice(start, start + batch_size)
            given = tokens[part].to(model.device), real[part].to(model.device)
            full = _rows(model, *given, behind[part])
            with zeroed(model, "no_embed", token=found):
                silent = _rows(model, *given, behind[part])
            lower, higher = silent[0] - full[0], full[1] - silent[1]
            parts = (full[0], silent[0], higher, (lower > 0).float())
            sums += torch.stack([x.double().sum().cpu() for x in parts])
            count += lower.numel()
            drops.append(lower.flatten().float().cpu())
            boosts.append(higher.flatten().float().cpu())
    with_it, without, boost, sharper = (sums / count).tolist()
    step = max(1, count // _KEPT)
    return Sharpness(with_it, without, boost, sharper, torch.cat(drops)[::step], torch.cat(boosts)[::step])


def _rows(model: Transformer, tokens: Tensor, mask: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy and largest score of the chosen queries [batch, time], each [queries, layers · heads]."""
    names = [f"blocks.{index}.attn.hook_attn_scores" for index in range(model.config.n_layers)]
    with model.tap(read=names) as tap:
        model.hidden(tokens, attention_mask=mask)
    found: list[tuple[Tensor, Tensor]] = []
    for name in names:
        scores = tap[name].transpose(1, 2)[chosen.to(model.device)]  # [queries, heads, keys]
        found.append((entropy(scores.float()), scores.float().max(-1).values))
    return torch.cat([one for one, _ in found], 1), torch.cat([other for _, other in found], 1)
