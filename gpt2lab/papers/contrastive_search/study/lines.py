"""Decoders with one parameter that sets their diversity, and their coherence at a diversity that is asked for.

Coherence falls as diversity rises, so two decoders are compared at one diversity, that of people. Nothing is chosen for it
on the judged texts: the tuning texts choose a family of decoders and a few of its settings around people's diversity, and
on the judged texts the family's coherence is read off the straight lines between those settings.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpt2lab.papers.contrastive_search.study.settings import Decoding

Floats = NDArray[np.float64]
Side = Literal["contrastive", "sampler"]

SIDES: tuple[Side, ...] = ("contrastive", "sampler")
_SAME = 1e-9
"""Two settings are no line if their diversities differ by less, in points."""


@dataclass(frozen=True)
class Trial:
    """A decoder with its options."""

    name: str
    family: str
    decoder: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def draws(self) -> bool:
        """Whether its texts depend on chance."""
        return self.decoder == "sampling"


@dataclass(frozen=True)
class Line:
    """A family of decoders whose diversity rises with one parameter."""

    family: str
    """contrastive_5 (with k 5), top_k, nucleus, temperature, typical."""
    side: Side
    decoder: str
    parameter: str
    values: tuple[float, ...]
    """Settings that are tried on the tuning texts, ascending."""
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def trial(self, value: float) -> Trial:
        """Return the decoder with one setting: 0.35 is called 35, a whole number is itself."""
        whole = self.parameter == "top_k"
        shown = value if whole else 100 * value
        option = round(value) if whole else value
        return Trial(
            f"{self.family}_{shown:.0f}", self.family, self.decoder, {**self.fixed, self.parameter: option}
        )

    def rounded(self, value: float) -> float:
        """Return a setting with as many digits as its name shows."""
        return float(round(value)) if self.parameter == "top_k" else round(value, 2)


def lines_of(decoding: Decoding) -> list[Line]:
    """Return the families that are compared; one without settings is left out."""
    contrastive = [
        Line(f"contrastive_{k}", "contrastive", "contrastive-search", "alpha", decoding.alpha, {"k": k})
        for k in decoding.k
    ]
    samplers = [
        Line("top_k", "sampler", "sampling", "top_k", tuple(float(k) for k in decoding.top_k)),
        Line("nucleus", "sampler", "sampling", "top_p", decoding.top_p),
        Line("temperature", "sampler", "sampling", "temperature", decoding.temperature),
        Line("typical", "sampler", "sampling", "typical", decoding.typical),
    ]
    return [line for line in (*contrastive, *samplers) if line.values]


@dataclass(frozen=True)
class Point:
    """One setting on one set of texts."""

    diversity: Floats
    """Percent, [texts]."""
    coherence: Floats
    """Nats a token, [texts]."""


@dataclass(frozen=True)
class Matched:
    """A family's coherence at a diversity."""

    values: Floats
    """Nats a token, [texts]; their mean is the coherence. nan without two settings that differ."""
    outside: float
    """Points by which the diversity lies beyond all the settings."""

    @property
    def mean(self) -> float:
        """The coherence at the diversity."""
        return float(self.values.mean())


def at_diversity(points: Sequence[Point], target: Floats) -> Matched:
    """Return the coherence of a family at the mean of `target` (percent, [texts]), from its settings on the same texts.

    It lies on the straight line between the two settings next to the target, or on the outermost ones' beyond them. The
    value of a text is its part of the estimate to first order (delta method): the spread of the values contains what
    the diversities' own spread adds.
    """
    ordered = sorted(points, key=lambda point: float(point.diversity.mean()))
    places = [float(point.diversity.mean()) for point in ordered]
    wanted = float(target.mean())
    outside = max(0.0, places[0] - wanted, wanted - places[-1])
    above = next((at for at in range(1, len(places)) if places[at] >= wanted), len(places) - 1)
    low, high = ordered[above - 1], ordered[above]
    gap = places[above] - places[above - 1]
    if len(places) < 2 or gap < _SAME:
        return Matched(np.full(len(target), math.nan), outside)
    share = (wanted - places[above - 1]) / gap
    slope = float(high.coherence.mean() - low.coherence.mean()) / gap
    coherence = (1 - share) * low.coherence + share * high.coherence
    diversity = (1 - share) * low.diversity + share * high.diversity
    return Matched(coherence - slope * (diversity - target), outside)


@dataclass(frozen=True)
class Chosen:
    """A family with the settings that are judged."""

    line: Line
    values: tuple[float, ...]

    @property
    def trials(self) -> list[Trial]:
        """The decoders that are judged."""
        return [self.line.trial(value) for value in self.values]


def choose(
    tried: Mapping[str, Sequence[Point]], lines: Sequence[Line], people: Floats, offsets: Sequence[float]
) -> dict[Side, Chosen]:
    """Return each side's family and its settings, from what every line's values gave on the tuning texts.

    The family is the most coherent one at people's diversity among those that reach it (that come nearest, if none does).
    Its settings are those whose diversity is people's plus each offset, read off the line.
    """
    found: dict[Side, Chosen] = {}
    for side in SIDES:
        own = [line for line in lines if line.side == side]
        matched = {line.family: at_diversity(tried[line.family], people) for line in own}
        nearest = min(one.outside for one in matched.values())
        reaching = [line for line in own if matched[line.family].outside <= nearest]
        best = max(reaching, key=lambda line: np.nan_to_num(matched[line.family].mean, nan=-math.inf))
        found[side] = Chosen(best, _settings(best, tried[best.family], float(people.mean()), offsets))
    return found


def _settings(
    line: Line, points: Sequence[Point], people: float, offsets: Sequence[float]
) -> tuple[float, ...]:
    """Return the settings of a line that give these diversities, at least two."""
    # Chance may let a diversity fall where the parameter rises; the highest so far is taken.
    places = np.maximum.accumulate([float(point.diversity.mean()) for point in points])
    wanted = [people + offset for offset in offsets]
    values = sorted({line.rounded(float(np.interp(place, places, line.values))) for place in wanted})
    if len(values) > 1:
        return tuple(values)
    near = sorted(line.values, key=lambda value: abs(value - values[0]))[:2]
    return tuple(sorted(near))
