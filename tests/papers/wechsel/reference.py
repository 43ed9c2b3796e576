"""WECHSEL, slowly and in float64, written from the method's description: loops over tokens, words and neighbours."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rotation(pairs: list[tuple[Floats, Floats]]) -> Floats:
    """R of min |A R - B| by the polar factor of AᵀB, with each pair as often as it is given."""
    product = sum((np.outer(a, b) for a, b in pairs), np.zeros((len(pairs[0][0]),) * 2))
    values, vectors = np.linalg.eigh(product.T @ product)
    return np.asarray(product @ vectors @ np.diag(values**-0.5) @ vectors.T)


def cases(word: str) -> list[str]:
    return [word, word.lower(), word.title()]


def by_frequency(
    count: int, words: dict[str, tuple[int, Floats]], tokens_of: dict[str, list[int]], size: int
) -> Floats:
    """The mean over received words; tokens_of maps `word` and ` word` to ids."""
    made = np.zeros((count, size))
    for token in range(count):
        total, weight = np.zeros(size), 0.0
        for word, (frequency, vector) in words.items():
            for form in (word, " " + word):
                if token in tokens_of[form]:
                    total += frequency * vector
                    weight += frequency
        if weight:
            made[token] = total / weight
    return made


def cosine(a: Floats, b: Floats) -> float:
    unit = [x / (math.sqrt(sum(v * v for v in x)) + 1e-8) for x in (a, b)]
    return float(sum(x * y for x, y in zip(*unit, strict=True)))


def mixed(
    source: Floats, target: Floats, table: Floats, k: int, tau: float, drawn: Floats
) -> tuple[Floats, list[list[tuple[int, float]]]]:
    """Rows of the new table, and of which tokens with which weights each is made."""
    rows, shares = [], []
    for token, vector in enumerate(target):
        if not any(vector):
            rows.append(drawn[token])
            shares.append([])
            continue
        ranked = sorted(range(len(source)), key=lambda y: (-round(cosine(vector, source[y]), 12), y))[:k]
        exponents = [math.exp(cosine(vector, source[y]) / tau) for y in ranked]
        weights = [one / sum(exponents) for one in exponents]
        rows.append(
            sum((w * table[y] for w, y in zip(weights, ranked, strict=True)), np.zeros(table.shape[1]))
        )
        shares.append(list(zip(ranked, weights, strict=True)))
    return np.stack(rows), shares
