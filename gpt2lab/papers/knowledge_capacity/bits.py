"""Bits of known facts that a loss stands for, and how many there are: the paper's equations (Allen-Zhu and Li 2024).

Losses are sums over the tokens of a field, in nats; bits are log2. Everything is computed in logarithms: neither e^p nor T^L
is ever formed. A field of which a model knows less than chance counts negative.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpt2lab.base.errors import LabError
from gpt2lab.text.generators.fact_text import Information

LN2 = math.log(2)
NAMES, STRINGS = "names", "strings"
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Losses:
    """What a model's losses on the fields of one source are, in nats: means over people of sums over tokens."""

    name: float
    """p1: of the full name, which follows the end token."""
    values: Mapping[str, float]
    """By attribute, of the whole value; p2 is their sum (definition 4.3) or their mean (definition 4.1)."""
    first_string: float | None = None
    """p3: of the first string of a value, mean over attributes too; None where a source has no diversity sets."""


@dataclass(frozen=True)
class Bits:
    """Bits by component: of names, of each attribute's values and, with diversity sets, of the sets' strings."""

    names: float
    values: Mapping[str, float]
    strings: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.names + sum(self.values.values()) + self.strings

    @property
    def components(self) -> dict[str, float]:
        """Every component by name; strings only where there are any."""
        strings = {STRINGS: self.strings} if self.strings else {}
        return {NAMES: self.names, **self.values, **strings}


def learned(known: Information, losses: Losses) -> Bits:
    """Return a lower bound on the bits of the facts that a model holds, but for terms of lower order.

    N log2(N0 / e^p1) + N K log2(D^C / e^p2) + K D log2(T^L / (D e^p3)) for random facts (definition 4.1), and
    N log2(N0 / e^p1) + N log2(S0 / e^p2) for biographies (definition 4.3). LabError for losses of other attributes, one
    that is negative or not finite, or a missing p3.
    """
    _check(known, losses)
    n = known.people
    names = n * (math.log2(known.name_pool) - losses.name / LN2)  # def. 4.1 and 4.3, first term
    values = {  # def. 4.1 and 4.3, second term: N K log2 D^C is the sum over attributes of N log2 D^C
        name: n * (bits - losses.values[name] / LN2) for name, bits in known.values.items()
    }
    if not known.sets:
        return Bits(names, values)
    of_string = known.string_bits - math.log2(known.set_size) - (losses.first_string or 0.0) / LN2
    return Bits(names, values, known.sets * known.set_size * of_string)  # def. 4.1, third term


def available(known: Information) -> Bits:
    """Return the bits of a perfect model: p1 = ln N, the other losses 0; their total over parameters is R_max.

    N log2(N0 / N) + N K C log2 D + K D log2(T^L / D) (definition 4.1), the last term absent in definition 4.3. The names are
    those of a list in some order, N log2 e bits less than `upper_bound` counts.
    """
    none = dict.fromkeys(known.values, 0.0)
    return learned(known, Losses(math.log(known.people), none, 0.0 if known.sets else None))


def upper_bound(known: Information) -> float:
    """Return how many bits the facts hold, exactly (proposition 2.3).

    log2 C(N0, N) + N K C log2 D + K log2 C(T^L, D), C being the binomial coefficient.
    """
    names = log2_binomial(math.log2(known.name_pool), known.people)
    values = known.people * sum(known.values.values())
    return names + values + known.sets * log2_binomial(known.string_bits, known.set_size)  # prop. 2.3


def proven_bound(known: Information, losses: Losses) -> float:
    """Return the bound as it is proven, its o(·) terms left out (theorem 3.2, which asks for N of at least D log N).

    N log2((N0 - N) / e^p1) + N K log2(D^C / e^p2) + K D log2((T^L - D) / (D e^p3)). Where the sets hold every string there
    is nothing to know of them, and the last term is left out.
    """
    bits = learned(known, losses)
    names = known.people * _log2_share_left(math.log2(known.name_pool), known.people)
    if not known.sets:
        return bits.total + names
    left = _log2_share_left(known.string_bits, known.set_size)
    if left == -math.inf:
        return bits.names + sum(bits.values.values()) + names
    return bits.total + names + known.sets * known.set_size * left  # thm. 3.2


def log2_binomial(log2_n: float, k: int) -> float:
    """Return log2 of the number of ways to choose k of n, which is given by its log2 and may be as large as one likes."""
    total = 0.0
    for start in range(0, k, _AT_ONCE):
        i = np.arange(start, min(start + _AT_ONCE, k), dtype=np.float64)
        share = np.minimum(i * 2.0**-log2_n, 1.0)  # log2_n is rounded, and i is at most n - 1
        total += len(i) * log2_n + float((np.log1p(-share) - np.log(i + 1)).sum()) / LN2
    return total


def _log2_share_left(log2_n: float, k: int) -> float:
    """log2((n - k) / n)."""
    share = 1.0 - k * 2.0**-log2_n
    return math.log2(share) if share > 1e-12 else -math.inf


def _check(known: Information, losses: Losses) -> None:
    if losses.values.keys() != known.values.keys():
        raise LabError(
            f"losses of {', '.join(losses.values)}, and what is to be known is {', '.join(known.values)}"
        )
    if known.sets and losses.first_string is None:
        raise LabError("a source with diversity sets needs p3, the loss of a value's first string")
    for name, loss in [
        ("name", losses.name),
        *losses.values.items(),
        ("first string", losses.first_string or 0.0),
    ]:
        if not (loss >= 0 and math.isfinite(loss)):
            raise LabError(f"the loss of {name} is {loss}: a sum of -log p is finite and not negative")
