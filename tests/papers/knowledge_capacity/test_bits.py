"""The accounting of bits against the paper's equations in exact integers and float64."""

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lab.base.errors import LabError
from gpt2lab.papers.knowledge_capacity.bits import (
    Losses,
    available,
    learned,
    log2_binomial,
    proven_bound,
    upper_bound,
)
from gpt2lab.papers.knowledge_capacity.facts import fact_source
from gpt2lab.text.generators.biographies import Biographies
from gpt2lab.text.generators.random_facts import RandomFacts
from tests.papers.knowledge_capacity.reference import (
    definition_4_1,
    definition_4_3,
    proposition_2_3,
    theorem_3_2,
)

S0 = 2 * (12 * 28 * 200) * 200 * 300 * 100 * 263


def facts(n: int, k: int, c: int, d: int, length: int, t: int) -> RandomFacts:
    return RandomFacts(
        people=n, attributes=k, strings=c, diversity=d, length=length, alphabet=t, style="sentences"
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3000), st.integers(1, 5), st.integers(1, 4), st.integers(2, 8), st.integers(2, 6), st.integers(4, 30),
    st.floats(0, 20), st.lists(st.floats(0, 30), min_size=5, max_size=5), st.floats(0, 9),
)  # fmt: skip
def test_random_facts_count_as_definition_4_1_and_theorem_3_2(
    n: int, k: int, c: int, d: int, length: int, t: int, p1: float, losses: list[float], p3: float
) -> None:
    known = facts(n, k, c, d, length, t).information
    found = Losses(p1, dict(zip(known.values, losses, strict=False)), p3)
    p2 = sum(losses[:k]) / k
    numbers = (n, 160_000_000, k, c, d, t, length, p1, p2, p3)
    assert learned(known, found).total == pytest.approx(definition_4_1(*numbers), rel=1e-9, abs=1e-6)
    assert proven_bound(known, found) == pytest.approx(theorem_3_2(*numbers), rel=1e-9, abs=1e-4)
    assert upper_bound(known) == pytest.approx(proposition_2_3(n, 160_000_000, k, c, d, t, length), rel=1e-10)


def test_biographies_count_as_definition_4_3() -> None:
    known = Biographies(people=1234).information
    losses = dict(zip(known.values, (1.5, 0.0, 4.25, 3.0, 0.125, 0.5), strict=True))
    expected = definition_4_3(1234, 400 * 400 * 1000, S0, 9.5, sum(losses.values()))
    bits = learned(known, Losses(9.5, losses))
    assert bits.total == pytest.approx(expected, rel=1e-12)
    assert bits.values["major"] == pytest.approx(1234 * math.log2(100 / math.e**3.0))
    assert sum(known.values.values()) == pytest.approx(47.592, abs=5e-4)
    assert list(bits.components) == ["names", *known.values]


def test_a_perfect_model_has_all_bits_and_one_by_chance_has_none() -> None:
    for source in (facts(50, 3, 2, 10, 3, 12), Biographies(people=50)):
        known = source.information
        none = dict.fromkeys(known.values, 0.0)
        perfect = learned(known, Losses(math.log(50), none, 0.0 if known.sets else None))
        assert perfect == available(known)
        chance = Losses(
            math.log(known.name_pool),
            {name: bits * math.log(2) for name, bits in known.values.items()},
            (known.string_bits - math.log2(known.set_size)) * math.log(2) if known.sets else None,
        )
        assert learned(known, chance).total == pytest.approx(0.0, abs=1e-6)
        worse = Losses(chance.name + 1, chance.values, chance.first_string)
        assert learned(known, worse).names == pytest.approx(-50 / math.log(2))  # negative, and not cut off


def test_what_a_perfect_model_has_is_what_there_is_but_for_the_order_of_names() -> None:
    known = Biographies(people=10_000).information
    gap = upper_bound(known) - available(known).total
    assert gap == pytest.approx(10_000 / math.log(2), rel=1e-3)  # N log2 e
    mini = RandomFacts(people=800).information
    assert available(mini).strings == 0.0 == mini.string_bits - math.log2(mini.set_size)
    assert upper_bound(mini) == pytest.approx(math.log2(math.comb(64**3, 800)) + 800 * 72, rel=1e-12)
    assert available(mini).total == pytest.approx(800 * (math.log2(64**3 / 800) + 72))


def test_binomials_of_any_size_need_no_whole_number() -> None:
    for n, k in product((1, 2, 64, 1000, 64**3), (0, 1, 2, 17, 64)):
        if k <= n:
            assert log2_binomial(math.log2(n), k) == pytest.approx(
                math.log2(math.comb(n, k)), rel=1e-9, abs=1e-9
            )
    huge = 50 * math.log2(40_000)  # T^L of the paper's largest
    assert log2_binomial(huge, 500) == pytest.approx(math.log2(math.comb(40_000**50, 500)), rel=1e-12)


def test_losses_that_cannot_be_are_refused() -> None:
    known = Biographies(people=9).information
    zero = dict.fromkeys(known.values, 0.0)
    for wrong, words in (
        (Losses(-0.1, zero), "loss of name is -0.1"),
        (Losses(math.nan, zero), "loss of name is nan"),
        (Losses(1.0, {**zero, "major": math.inf}), "loss of major is inf"),
        (Losses(1.0, {"major": 0.0}), "losses of major, and what is to be known is birth date"),
    ):
        with pytest.raises(LabError, match=words):
            learned(known, wrong)
    mini = RandomFacts(people=9).information
    with pytest.raises(LabError, match="needs p3"):
        learned(mini, Losses(1.0, dict.fromkeys(mini.values, 0.0)))


def test_sources_are_named_as_data_is() -> None:
    assert fact_source("bios:12:3:100") == Biographies(people=12, seed=3)
    assert fact_source("bior:12") == Biographies(people=12, variant="varied")
    assert fact_source("biod-symbols") == RandomFacts(people=800)
    assert fact_source("biod:9", diversity=5, length=None) == facts(9, 6, 2, 5, 4, 26)
    for wrong, words in (
        ("tinyworld:9", "source of facts"),
        ("bios:x", "expected bios:SIZE"),
        ("biod:5:0:1:2", "expected biod:SIZE"),
    ):
        with pytest.raises(LabError, match=words):
            fact_source(wrong)
    with pytest.raises(LabError, match="diversity: the shape of random facts"):
        fact_source("bios:9", diversity=5)
    with pytest.raises(LabError, match="number of random facts"):
        fact_source("biod:9", diversities=5)
