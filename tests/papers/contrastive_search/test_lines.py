"""Coherence at a diversity, and the choice of decoders on the tuning texts."""

import math

import numpy as np
import pytest

from gpt2lab.measures.statistics import bootstrap
from gpt2lab.papers.contrastive_search.study.lines import Line, Point, at_diversity, choose, lines_of
from gpt2lab.papers.contrastive_search.study.settings import PRESETS

RISING = Line("nucleus", "sampler", "sampling", "top_p", (0.2, 0.6, 0.8))


def point(diversity: float, coherence: float, texts: int = 4) -> Point:
    spread = np.linspace(-1, 1, texts)
    return Point(diversity + spread, coherence - 0.1 * spread)


def test_between_two_settings_the_coherence_lies_on_their_line_and_beyond_them_on_the_outer_one() -> None:
    points = [point(60, -2.0), point(80, -3.0), point(70, -2.2)]  # in any order
    for target, wanted, outside in (
        (70, -2.2, 0),
        (65, -2.1, 0),
        (75, -2.6, 0),
        (84, -3.32, 4),
        (50, -1.8, 10),
    ):
        found = at_diversity(points, np.full(4, float(target)))
        assert found.mean == pytest.approx(wanted)
        assert found.outside == pytest.approx(outside)


def test_settings_of_one_diversity_are_no_line() -> None:
    assert math.isnan(at_diversity([point(70, -2.0), point(70, -3.0)], np.full(4, 70.0)).mean)
    assert math.isnan(at_diversity([point(70, -2.0)], np.full(4, 70.0)).mean)


def test_the_spread_of_the_values_is_that_of_the_estimate_as_the_texts_change() -> None:
    """The standard error by the values equals that of the whole procedure repeated on drawn texts."""
    draw = np.random.default_rng(0)
    n = 400
    rows = np.stack(
        [
            draw.normal(80, 12, n),  # people
            *(column for place, level in ((75, -2.5), (85, -3.0))
              for column in (draw.normal(place, 10, n), draw.normal(level, 0.6, n))),
        ],
        axis=1,
    )  # fmt: skip

    def estimate(texts: np.ndarray) -> float:
        points = [Point(texts[:, 1], texts[:, 2]), Point(texts[:, 3], texts[:, 4])]
        return at_diversity(points, texts[:, 0]).mean

    values = at_diversity([Point(rows[:, 1], rows[:, 2]), Point(rows[:, 3], rows[:, 4])], rows[:, 0]).values
    whole = bootstrap(rows, estimate, resamples=1000)
    assert values.mean() == pytest.approx(whole.mean)
    assert values.std(ddof=1) == pytest.approx(whole.sd, rel=0.1)
    naive = np.std([*(0.5 * rows[:, 2] + 0.5 * rows[:, 4])], ddof=1)
    assert values.std(ddof=1) > 1.15 * naive  # the diversities' own spread is in it


def test_a_side_takes_its_most_coherent_family_at_peoples_diversity_and_settings_around_it() -> None:
    other = Line("top_k", "sampler", "sampling", "top_k", (3.0, 10.0, 40.0))
    search = Line("contrastive_5", "contrastive", "contrastive-search", "alpha", (0.2, 0.6), {"k": 5})
    tried = {
        "nucleus": [point(60, -2.0), point(80, -2.6), point(90, -3.0)],
        "top_k": [
            point(60, -1.0),
            point(70, -1.5),
            point(78, -1.9),
        ],  # more coherent, but never as diverse as people
        "contrastive_5": [point(60, -2.0), point(100, -3.0)],
    }
    chosen = choose(tried, [RISING, other, search], np.full(4, 80.0), (-5.0, 0.0, 5.0))
    assert chosen["sampler"].line is RISING
    assert chosen["sampler"].values == (0.5, 0.6, 0.7)
    assert chosen["contrastive"].values == (0.35, 0.4, 0.45)
    assert [trial.name for trial in chosen["contrastive"].trials] == [
        f"contrastive_5_{n}" for n in (35, 40, 45)
    ]
    assert chosen["contrastive"].trials[0].options == {"k": 5, "alpha": 0.35}
    far = choose(tried, [other, search], np.full(4, 95.0), (-5.0, 5.0))["sampler"]
    assert far.line is other and far.values == (10.0, 40.0)  # beyond all of them: its last two settings


def test_every_setting_of_every_scale_has_a_name_of_its_own() -> None:
    for settings in PRESETS.values():
        for decoding in (settings.decoding, settings.real_decoding):
            trials = [line.trial(value) for line in lines_of(decoding) for value in line.values]
            assert len({trial.name for trial in trials}) == len(trials)
            assert all(trial.draws == (trial.decoder == "sampling") for trial in trials)
