"""Spectra: of a signal over time (power by frequency) and of a matrix (singular values and the ranks they give).

Only numpy is imported.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lab.base.errors import LabError, unknown

Floats = NDArray[np.float64]
Scaling = Literal["density", "spectrum"]


def _cosines(*weights: float) -> Callable[[int], Floats]:
    """A window Σ ±weight · cos(2π k t / n), periodic as a spectrum wants it."""

    def window(n: int) -> Floats:
        phase = 2 * np.pi * np.arange(n) / n
        terms = [(-1) ** k * weight * np.cos(k * phase) for k, weight in enumerate(weights)]
        return np.asarray(np.sum(terms, axis=0), dtype=np.float64)

    return window


WINDOWS: Mapping[str, Callable[[int], Floats]] = {
    "boxcar": _cosines(1.0),
    "hann": _cosines(0.5, 0.5),
    "hamming": _cosines(0.54, 0.46),
    "blackman": _cosines(0.42, 0.5, 0.08),
}
"""Weights [n] of the points of a segment, by name (Harris 1978)."""


@dataclass(frozen=True)
class PowerSpectrum:
    """Power by frequency."""

    frequencies: Floats
    """[n // 2 + 1], from 0 to half the sampling rate, in its unit (cycles a token at rate 1)."""
    power: Floats
    """[..., n // 2 + 1]: density (squared unit of the signal by unit of frequency) or spectrum (squared unit)."""


def periodogram(
    values: ArrayLike,
    *,
    rate: float = 1.0,
    window: str = "hann",
    detrend: bool = True,
    scaling: Scaling = "density",
) -> PowerSpectrum:
    """Return the one-sided power spectrum of real signals [..., time], sampled `rate` times a unit.

    detrend: the mean of each signal is taken away first. "density" integrates to the signal's power, so it is compared
    between lengths; "spectrum" has the power of a sinusoid at its frequency. LabError for an unknown window, for NaN,
    and for fewer than two points. Schuster 1898; the window as in Welch 1967.
    """
    signals = np.asarray(values, dtype=np.float64)
    if signals.ndim == 0 or signals.shape[-1] < 2 or not np.isfinite(signals).all():
        raise LabError(
            f"a spectrum needs finite signals [..., time] of two points or more, got shape {list(signals.shape)}"
        )
    return _averaged(signals[..., None, :], rate, window, detrend, scaling)


def welch(
    values: ArrayLike,
    *,
    segment: int,
    rate: float = 1.0,
    window: str = "hann",
    detrend: bool = True,
    scaling: Scaling = "density",
) -> PowerSpectrum:
    """Return the mean periodogram of segments that overlap by half: less noise, coarser frequencies (Welch 1967).

    values [..., time]; segment: its points. LabError as for `periodogram`, and for a segment longer than the signal.
    """
    signals = np.asarray(values, dtype=np.float64)
    if signals.ndim == 0 or not 2 <= segment <= signals.shape[-1] or not np.isfinite(signals).all():
        raise LabError(
            f"segments of {segment} points need finite signals [..., time] at least as long, got shape "
            f"{list(signals.shape)}"
        )
    views = np.lib.stride_tricks.sliding_window_view(signals, segment, axis=-1)
    return _averaged(views[..., :: segment - segment // 2, :], rate, window, detrend, scaling)


def _averaged(segments: Floats, rate: float, window: str, detrend: bool, scaling: Scaling) -> PowerSpectrum:
    """Power of segments [..., segments, time], averaged over the segments."""
    if window not in WINDOWS:
        raise unknown("window", window, WINDOWS)
    if scaling not in ("density", "spectrum"):
        raise LabError(f"scaling is density or spectrum, got {scaling!r}")
    if not 0.0 < rate < math.inf:
        raise LabError(f"a sampling rate must be above 0, got {rate}")
    n = segments.shape[-1]
    weights = WINDOWS[window](n)
    if detrend:
        segments = segments - segments.mean(axis=-1, keepdims=True)
    power = np.abs(np.fft.rfft(segments * weights)) ** 2
    power /= rate * (weights**2).sum() if scaling == "density" else weights.sum() ** 2
    power[..., 1 : (n + 1) // 2] *= (
        2  # every frequency but 0 and the highest of an even n stands for its negative too
    )
    return PowerSpectrum(
        np.asarray(np.fft.rfftfreq(n, 1 / rate), dtype=np.float64),
        np.asarray(power.mean(axis=-2), dtype=np.float64),
    )


def singular_values(matrix: ArrayLike) -> Floats:
    """Return the singular values of a matrix [rows, columns], largest first. LabError for another shape or NaN."""
    array = np.asarray(matrix, dtype=np.float64)
    if array.ndim != 2 or array.size == 0 or not np.isfinite(array).all():
        raise LabError(f"singular values need a finite matrix, got shape {list(array.shape)}")
    return np.asarray(np.linalg.svd(array, compute_uv=False), dtype=np.float64)


def stable_rank(values: ArrayLike) -> float:
    """Return Σ σᵢ² / max σ², from singular values [n]: at most the rank, and little moved by small ones.

    nan where all are 0. Rudelson & Vershynin 2007.
    """
    squares = _spectrum(values) ** 2
    return float(squares.sum() / squares.max()) if squares.any() else math.nan


def effective_rank(values: ArrayLike) -> float:
    """Return exp H(p), p = σ / Σ σ, from singular values [n]: as many equal ones have the same entropy.

    nan where all are 0. Roy & Vetterli 2007, eq. 3.
    """
    sigma = _spectrum(values)
    if not sigma.any():
        return math.nan
    shares = sigma[sigma > 0] / sigma.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _spectrum(values: ArrayLike) -> Floats:
    sigma = np.asarray(values, dtype=np.float64)
    if sigma.ndim != 1 or sigma.size == 0 or not np.isfinite(sigma).all() or (sigma < 0).any():
        raise LabError("a rank needs singular values, a list of finite numbers from 0")
    return sigma
