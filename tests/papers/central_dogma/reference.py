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
