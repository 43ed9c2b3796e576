"""What the paper's parts compute, slowly and in plain Python: the rule judge, the audit's stretches, the statistics."""

from itertools import product
from math import comb, sqrt

TABLE = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
CODE = {"".join(codon): TABLE[i] for i, codon in enumerate(product("TCAG", repeat=3))}


def frames(dna: str) -> list[str]:
    other = "".join("TGCA"["ACGT".index(base)] for base in reversed(dna))
    return [
        "".join(CODE[strand[i : i + 3]] for i in range(offset, len(strand) - 2, 3))
        for strand in (dna, other)
        for offset in range(3)
    ]


def best_identity(dna: str, protein: str) -> float:
    """Equal letters of the best alignment without gaps to one of the six frames, over the protein's length."""
    best = 0
    for frame in frames(dna):
        for shift in range(-len(protein), len(frame) + 1):
            same = sum(
                0 <= shift + i < len(frame) and frame[shift + i] == letter for i, letter in enumerate(protein)
            )
            best = max(best, same)
    return best / len(protein)


def longest_stretch(dna: str, protein: str) -> int:
    stretches = {protein[i:j] for i in range(len(protein)) for j in range(i + 1, len(protein) + 1)}
    return max((len(s) for s in stretches if any(s in frame for frame in frames(dna))), default=0)


def two_sided_p(right: int, n: int) -> float:
    """Exact binomial test against one half, with whole numbers."""
    ways = [comb(n, k) for k in range(n + 1)]
    return sum(way for way in ways if way <= ways[right]) / 2**n


def wilson(right: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The roots in p of (right/n - p)^2 = z^2 p (1 - p) / n."""
    a, b, c = 1 + z * z / n, -(2 * right / n + z * z / n), (right / n) ** 2
    root = sqrt(b * b - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def letters_of(tokens: list[str], text: str, unit: int) -> list[list[float]]:
    """Share of each token in each unit of letters: tokens are consecutive pieces of the text."""
    shares = [[0.0] * len(tokens) for _ in range(len(text) // unit)]
    place = 0
    for number, token in enumerate(tokens):
        for letter in range(place, place + len(token)):
            if letter // unit < len(shares):
                shares[letter // unit][number] += 1 / len(token)
        place += len(token)
    assert place == len(text)
    return shares


def integrated_gradients(answer, embeddings, steps: int, h: float = 1e-5) -> list[float]:  # type: ignore[no-untyped-def]  # a function of a tensor
    """By central differences, one number of one token after another; embeddings [time, d_model] float64."""
    found = []
    for place in range(len(embeddings)):
        total = 0.0
        for column in range(embeddings.shape[1]):
            slope = 0.0
            for step in range(steps):
                above = embeddings * ((step + 0.5) / steps)
                below = above.clone()
                above[place, column] += h
                below[place, column] -= h
                slope += (answer(above) - answer(below)) / (2 * h)
            total += float(embeddings[place, column]) * slope / steps
        found.append(total)
    return found
