"""Student's t distribution in plain Python: tail, quantile and power, so that a verdict needs no scipy.

The tail is the regularised incomplete beta function, I_x(df/2, 1/2) / 2 with x = df / (df + t²), by its
continued fraction (Abramowitz & Stegun 26.5.8, evaluated with Lentz's method).
"""

import functools
import math
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()
_TINY = 1e-300


def t_tail(t: float, df: float) -> float:
    """Return P(T > t) for Student's t with `df` degrees of freedom (a fraction or inf is allowed).

    Relative error about 1e-13 far into the tail. ValueError if df is not positive.
    """
    _check_df(df)
    if math.isnan(t):
        return math.nan
    if math.isinf(df):
        return 0.5 * math.erfc(t / math.sqrt(2))
    if t < 0:
        return 1.0 - t_tail(-t, df)
    if math.isinf(t):
        return 0.0
    inside = t * t / (df + t * t) if t < 1e150 else 1.0
    outside = 1.0 / (1.0 + (t / math.sqrt(df)) ** 2) if t < 1e150 else df / t / t
    # Of the two complementary forms take the one whose continued fraction converges fast.
    if inside < 1.5 / (df / 2 + 2.5):
        return 0.5 - 0.5 * _incomplete_beta(0.5, df / 2, inside, outside)
    return 0.5 * _incomplete_beta(df / 2, 0.5, outside, inside)


def t_cdf(t: float, df: float) -> float:
    """Return P(T ≤ t) for Student's t with `df` degrees of freedom."""
    return t_tail(-t, df) if t < 0 else 1.0 - t_tail(t, df)


@functools.lru_cache(maxsize=4096)
def t_quantile(p: float, df: float) -> float:
    """Return the t with P(T ≤ t) = p, to a relative error of 1e-12 where p itself is that exact.

    ValueError unless 0 < p < 1 and df > 0.
    """
    _check_df(df)
    if not 0.0 < p < 1.0:
        raise ValueError(f"a quantile needs a probability between 0 and 1, got {p}")
    if p == 0.5:
        return 0.0
    if math.isinf(df):
        return _NORMAL.inv_cdf(p)
    if p > 0.5:
        return -t_quantile(1.0 - p, df)
    if df == 1:
        return -1.0 / math.tan(math.pi * p)
    return -_solve_tail(p, df)


def t_power(shift: float, df: float, critical: float) -> float:
    """Return P(T > critical) for the noncentral t with noncentrality `shift`.

    T = (Z + shift) / S, with S² = chi²(df) / df: the normal tail averaged over the density of S.
    """
    _check_df(df)
    # log S has a single narrow peak; 4,001 trapezoids over it and its slow left tail leave an error of 1e-10.
    width = 1.0 / math.sqrt(2.0 * df)
    log_s = np.linspace(-12 * width - 25 / df, 12 * width, 4001)
    log_density = df * log_s - 0.5 * df * np.exp(2 * log_s)
    weights = np.exp(log_density - log_density.max())
    tails = [_NORMAL.cdf(shift - critical * s) for s in np.exp(log_s)]
    return float(np.dot(weights, tails) / weights.sum())


def _check_df(df: float) -> None:
    if not df > 0:
        raise ValueError(f"degrees of freedom must be positive, got {df}")


def _solve_tail(p: float, df: float) -> float:
    """Return t > 0 with t_tail(t) = p < 1/2: bisection on log t, then Newton."""
    low, high = 1e-300, 1.0
    while t_tail(high, df) > p:
        low, high = high, high * 4
        if math.isinf(high):
            raise ValueError(f"the {p} quantile of t with {df} degrees of freedom is beyond floating point")
    while high - low > 0.01 * high and high > 1e-290:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if t_tail(middle, df) > p else (low, middle)
    t = (low + high) / 2
    for _ in range(8):
        step = (t_tail(t, df) - p) / _density(t, df)
        t += step
        if abs(step) < 1e-15 * t:
            break
    return t


def _density(t: float, df: float) -> float:
    log_density = -0.5 * (df + 1) * math.log1p((t / math.sqrt(df)) ** 2) - _log_beta_half(df / 2)
    return math.exp(log_density) / math.sqrt(df)


def _log_beta_half(a: float) -> float:
    """Return log B(a, 1/2) = log(Γ(a) √π / Γ(a + 1/2))."""
    if a < 40:
        return math.lgamma(a) + 0.5 * math.log(math.pi) - math.lgamma(a + 0.5)
    # The difference of two large lgammas would lose digits; this series is good to 1e-16 from a = 40 on.
    inverse = 1.0 / a
    series = inverse / 8 - inverse**3 / 192 + inverse**5 / 640 - 17 * inverse**7 / 14336
    return 0.5 * math.log(math.pi * inverse) + series


def _incomplete_beta(a: float, b: float, x: float, complement: float) -> float:
    """Return the regularised I_x(a, b) where a or b is 1/2; `complement` is 1 - x to all its digits."""
    if x <= 0.0:
        return 0.0
    log_beta = _log_beta_half(b if a == 0.5 else a)
    log_front = a * math.log(x) + b * (math.log1p(-x) if x < 0.5 else math.log(complement)) - log_beta
    if x >= 0.5:  # log(x) through its complement: x near 1 has few digits of 1 - x left
        log_front = a * math.log1p(-complement) + b * math.log(complement) - log_beta
    return math.exp(log_front) * _continued_fraction(a, b, x) / a


def _continued_fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 + term * d
            c = 1.0 + term / c
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            value *= c * d
        if abs(c * d - 1.0) < 1e-16:
            break
    return value
