"""The paper's equations and its evaluation once more, slowly, in exact integers and float64; written from the paper."""

import math
from collections.abc import Sequence

import torch

from gpt2lab.model import Transformer
from gpt2lab.text.generators.fact_text import FactText
from gpt2lab.text.tokenizer import Tokenizer


def definition_4_1(
    n: int, n0: int, k: int, c: int, d: int, t: int, length: int, p1: float, p2: float, p3: float
) -> float:
    """p2 is the mean over attributes of the loss of a value, p3 that of its first string."""
    names = n * math.log2(n0 / math.e**p1)
    values = n * k * math.log2(d**c / math.e**p2)
    strings = k * d * math.log2(t**length / (d * math.e**p3))
    return names + values + strings


def definition_4_3(n: int, n0: int, s0: int, p1: float, p2: float) -> float:
    """p2 is the sum over attributes."""
    return n * math.log2(n0 / math.e**p1) + n * math.log2(s0 / math.e**p2)


def theorem_3_2(
    n: int, n0: int, k: int, c: int, d: int, t: int, length: int, p1: float, p2: float, p3: float
) -> float:
    names = n * math.log2((n0 - n) / math.e**p1)
    values = n * k * math.log2(d**c / math.e**p2)
    strings = k * d * math.log2((t**length - d) / (d * math.e**p3))
    return names + values + strings


def proposition_2_3(n: int, n0: int, k: int, c: int, d: int, t: int, length: int) -> float:
    """With the binomial coefficients as whole numbers."""
    return math.log2(math.comb(n0, n)) + n * k * c * math.log2(d) + k * math.log2(math.comb(t**length, d))


@torch.no_grad()
def field_losses(
    model: Transformer, tokenizer: Tokenizer, told: FactText
) -> tuple[dict[str, float], dict[str, bool]]:
    """-log p of each field and whether it is the likeliest throughout, token by token, each from a pass of its own.

    A byte-level tokenizer's tokens are told apart by the bytes that they decode to, one after the other.
    """
    assert tokenizer.eos is not None
    ids = tokenizer.encode(told.text)
    ends = _ends(tokenizer, ids)
    losses, exact = dict[str, float](), dict[str, bool]()
    for span in told.spans:
        start = len(told.text[: span.start].encode())
        stop = len(told.text[: span.end].encode())
        loss, all_likeliest = 0.0, True
        for place, token in enumerate(ids):
            begin = ends[place - 1] if place else 0
            if begin >= start - 1 and ends[place] > start and ends[place] <= stop:
                row = torch.tensor([[tokenizer.eos, *ids[:place]]])
                logits = model(row)[0, -1].double()
                loss -= float(logits.log_softmax(-1)[token])
                all_likeliest = all_likeliest and int(logits.argmax()) == token
        losses[span.label], exact[span.label] = loss, all_likeliest
    return losses, exact


def _ends(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """Where each token ends, in bytes."""
    ends, total = list[int](), 0
    for token in ids:
        total += len(tokenizer.token(token))  # in a byte-level vocabulary a character stands for a byte
        ends.append(total)
    return ends
