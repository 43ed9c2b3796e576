"""Numbers in an order that NaN has no place in."""

import math


def or_worst(value: float, worst: float) -> float:
    """Return value, or `worst` (inf where the least wins) for NaN: min, max and sorted keep a NaN that comes first."""
    return worst if math.isnan(value) else value
