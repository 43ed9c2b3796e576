"""An estimate with how sure it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence interval."""

    mean: float
    """The estimate: the mean, or whatever statistic was asked for."""
    low: float
    """Lower end; -inf if one value alone was given."""
    high: float
    """Upper end; inf if one value alone was given."""
    n: int
    """Number of values (seeds, texts, pairs, trials)."""
    sd: float
    """Sample standard deviation of the values (n - 1); nan if n is 1."""
    level: float = 0.95
    """Coverage."""

    def contains(self, value: float) -> bool:
        """Tell whether `value` lies in the closed interval."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"
