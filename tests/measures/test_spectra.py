"""Spectra against scipy.signal and numpy.linalg."""

import math

import numpy as np
import pytest
from scipy import signal

from gpt2lab.base.errors import LabError
from gpt2lab.measures.spectra import (
    WINDOWS,
    effective_rank,
    periodogram,
    singular_values,
    stable_rank,
    welch,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("n", [2, 3, 64, 101])
@pytest.mark.parametrize("scaling", ["density", "spectrum"])
@pytest.mark.parametrize("detrend", [True, False])
def test_the_periodogram_is_scipys(window: str, n: int, scaling: str, detrend: bool) -> None:
    values = RNG.normal(2.0, 1.0, (3, n))
    found = periodogram(values, rate=250.0, window=window, scaling=scaling, detrend=detrend)  # type: ignore[arg-type]  # parametrised
    frequencies, power = signal.periodogram(
        values, 250.0, window=window, scaling=scaling, detrend="constant" if detrend else False
    )
    np.testing.assert_allclose(found.frequencies, frequencies, rtol=1e-12)
    np.testing.assert_allclose(found.power, power, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("segment", "n"), [(16, 100), (15, 100), (100, 100), (2, 9)])
def test_averaged_segments_are_scipys(segment: int, n: int) -> None:
    values = RNG.normal(size=(2, n))
    found = welch(values, segment=segment, rate=4.0)
    frequencies, power = signal.welch(values, 4.0, nperseg=segment, window="hann", detrend="constant")
    np.testing.assert_allclose(found.frequencies, frequencies, rtol=1e-12)
    np.testing.assert_allclose(found.power, power, rtol=1e-9, atol=1e-15)


def test_a_sinusoid_has_its_power_at_its_frequency() -> None:
    time = np.arange(400) / 100.0
    found = periodogram(3.0 * np.sin(2 * np.pi * 12.5 * time), rate=100.0, scaling="spectrum")
    assert found.frequencies[found.power.argmax()] == 12.5
    assert found.power.max() == pytest.approx(3.0**2 / 2, rel=1e-9)


def test_a_density_integrates_to_the_variance() -> None:
    values = RNG.normal(size=5001)
    found = periodogram(values, rate=7.0, window="boxcar")
    assert found.power.sum() * (found.frequencies[1]) == pytest.approx(values.var(), rel=1e-9)


def test_ranks_of_known_spectra() -> None:
    matrix = RNG.normal(size=(5, 9))
    values = singular_values(matrix)
    np.testing.assert_allclose(values, np.linalg.svd(matrix)[1], rtol=1e-12)
    assert stable_rank(values) == pytest.approx(np.sum(matrix**2) / np.linalg.norm(matrix, 2) ** 2)
    shares = values / values.sum()
    assert effective_rank(values) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))
    assert stable_rank([3.0, 3.0, 0.0]) == pytest.approx(2.0)
    assert effective_rank([3.0, 3.0, 0.0]) == pytest.approx(2.0)
    assert math.isnan(stable_rank([0.0, 0.0])) and math.isnan(effective_rank([0.0]))


def test_what_has_no_spectrum_is_refused() -> None:
    for bad in ([1.0], 3.0, [1.0, math.nan]):
        with pytest.raises(LabError, match="needs finite signals"):
            periodogram(bad)
    with pytest.raises(LabError, match="at least as long"):
        welch([1.0, 2.0], segment=3)
    with pytest.raises(LabError, match="hann"):
        periodogram([1.0, 2.0], window="han")
    with pytest.raises(LabError, match="rate must be above 0"):
        periodogram([1.0, 2.0], rate=0.0)
    with pytest.raises(LabError, match="finite matrix"):
        singular_values([1.0, 2.0])
    with pytest.raises(LabError, match="a rank needs singular values"):
        stable_rank([-1.0])
