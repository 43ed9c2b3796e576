"""Changes to the logits of one step, each a function [batch, vocab] → [batch, vocab]; -inf means impossible.

`Sampling` applies them in the order of transformers: repetition penalty, end tokens held back (`min_new_tokens`),
temperature, top-k, top-p, min-p, typical. p below is softmax(logits) of what a function is given, so each sees what
the ones before it left.
"""

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError

IMPOSSIBLE = float("-inf")
_HEAD = 256  # so many of the most probable tokens usually hold all the mass that top-p asks for


def check_penalty(decoder: str, penalty: float) -> None:
    """LabError, beginning with the decoder's name, for a penalty that is not positive."""
    if penalty <= 0:
        raise LabError(f"{decoder}: repetition_penalty must be positive, got {penalty}; 1 is none")


def repetition_penalty(logits: Tensor, tokens: Tensor, real: Tensor, penalty: float) -> Tensor:
    """Divide the logits of tokens that occurred by `penalty` if positive, multiply them by it if negative.

    tokens [batch, length] with real [batch, length] False at padding, which does not count; prompt and new tokens do.
    A token is penalised once, however often it occurred. Keskar et al. 2019 (CTRL), section 4.1, in the form
    of transformers, which makes the penalty lower the probability whatever the sign of the logit.
    """
    vocab = logits.shape[1]
    seen = torch.zeros(logits.shape[0], vocab + 1, dtype=torch.bool, device=logits.device)
    seen.scatter_(1, torch.where(real, tokens, vocab), True)  # padding falls into a column of its own
    penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen[:, :vocab], penalised, logits)


def temperature(logits: Tensor, temperature: float) -> Tensor:
    """Return logits / temperature: below 1 sharper, above 1 flatter (Ackley, Hinton & Sejnowski 1985, eq. 5)."""
    return logits / temperature


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits, and those equal to the last of them (Fan et al. 2018, section 5.1)."""
    smallest = logits.topk(min(k, logits.shape[1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest, IMPOSSIBLE)


def top_p(logits: Tensor, mass: float) -> Tensor:
    """Keep the smallest set of most probable tokens whose p add up to at least `mass` (Holtzman et al. 2020, eq. 2-3).

    A token stays if the p of all more probable ones add up to less than `mass`, and so do tokens exactly as probable as
    the last that stays; the most probable always stays.
    """
    largest = logits.topk(min(_HEAD, logits.shape[1]), dim=-1).values
    total = logits.logsumexp(-1, keepdim=True)
    if bool(((largest - total).exp().sum(-1) < mass).any()):  # a flat distribution: rank the whole vocabulary
        largest = logits.sort(-1, descending=True).values
    probabilities = (largest - total).exp()
    before = probabilities.cumsum(-1) - probabilities
    kept = (before < mass).index_fill(1, torch.zeros(1, dtype=torch.int64, device=logits.device), True)
    least = largest.masked_fill(~kept, float("inf")).amin(-1, keepdim=True)
    return logits.masked_fill(logits < least, IMPOSSIBLE)


def min_p(logits: Tensor, share: float) -> Tensor:
    """Keep tokens with p >= share · max p (Nguyen et al. 2024, eq. 1-2)."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < share * probabilities.amax(-1, keepdim=True), IMPOSSIBLE)


def typical(logits: Tensor, mass: float) -> Tensor:
    """Keep the tokens whose surprise is nearest to the entropy, until their p add up to at least `mass`.

    Ranked by |-log p - H|, H = -Σ p log p (nats); a token stays if those ranked before it add up to less than `mass`,
    and so do tokens exactly as near as the last. Meister et al. 2023, eq. 9-10.
    """
    logp = logits.log_softmax(-1)
    probabilities = logp.exp()
    entropy = -(probabilities * logp).nansum(-1, keepdim=True)  # 0 · -inf counts as 0
    distance, order = (-logp - entropy).abs().sort(-1)
    reached = probabilities.gather(1, order).cumsum(-1)
    last = (reached < mass).sum(-1, keepdim=True).clamp_max(logits.shape[1] - 1)
    # Measured on the sorted copy and looked up by token: a token is out if it is farther than the last that is in.
    return logits.masked_fill((-logp - entropy).abs() > distance.gather(1, last), IMPOSSIBLE)
