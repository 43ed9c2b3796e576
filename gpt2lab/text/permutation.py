"""A seeded permutation of 0 … n - 1 that is computed where it is needed and stored nowhere."""

import hashlib

import numpy as np
import numpy.typing as npt

_ROUNDS = 6  # even, so that both halves are back in their places; more than the 4 that Luby and Rackoff need
_U64 = npt.NDArray[np.uint64]


class Permutation:
    """A permutation of range(n) in constant memory: `permutation(indices)` maps any of them.

    A Feistel network over the smallest power of two that holds n; an index that leaves the range goes through again
    until it is back (fewer than two passes on average). Luby and Rackoff 1988; Black and Rogaway 2002 for the
    walking.
    """

    def __init__(self, n: int, key: str) -> None:
        """Choose the permutation of `n` >= 1 items by any text `key`."""
        self.n = n
        bits = max(2, (n - 1).bit_length())
        self._widths = (np.uint64(bits // 2), np.uint64(bits - bits // 2))
        digest = hashlib.blake2b(key.encode(), digest_size=8 * _ROUNDS).digest()
        self._keys = np.frombuffer(digest, dtype="<u8").astype(np.uint64)

    def __call__(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return where the permutation takes each index, int64 of the same shape."""
        values = self._pass(indices.astype(np.uint64))
        limit = np.uint64(self.n)
        outside = values >= limit
        while outside.any():
            values[outside] = self._pass(values[outside])
            outside = values >= limit
        return values.astype(np.int64)

    def _pass(self, values: _U64) -> _U64:
        one = np.uint64(1)
        left_bits, right_bits = self._widths
        left, right = values >> right_bits, values & ((one << right_bits) - one)
        for round_key in self._keys:
            mask = (one << left_bits) - one
            left, right = right, left ^ (_mixed(right ^ round_key) & mask)
            left_bits, right_bits = right_bits, left_bits
        return (left << right_bits) | right


def _mixed(values: _U64) -> _U64:
    """Scatter 64 bits over 64 bits: the finisher of splitmix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
