"""Random facts: sets of different strings, uniform values, spans, both styles."""

from collections import Counter
from itertools import islice
from typing import Any

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text import sources
from gpt2lab.text.generators.fact_text import NAME
from gpt2lab.text.generators.random_facts import FIRST, STYLES, RandomFacts, Style


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"attributes": 1, "strings": 1, "diversity": 3, "length": 5, "alphabet": 2},
        {"attributes": 3, "strings": 4, "diversity": 7, "length": 40, "alphabet": 300},
        {"attributes": 2, "strings": 2, "diversity": 1, "length": 1, "alphabet": 1},
    ],
    ids=str,
)
def test_every_span_holds_its_value(style: Style, shape: dict[str, Any]) -> None:
    source = RandomFacts(people=40, seed=2, style=style, **shape)
    for texts in (source.told(0), source.told(3), source.judged(0)):
        for person, told in enumerate(texts):
            values = source.values(person)
            held = {span.label: told.text[span.start : span.end] for span in told.spans}
            assert len(held) == len(told.spans) == 1 + 2 * source.attributes
            assert {name: value for name, value in held.items() if not name.endswith(FIRST)} == values
            separator = ", " if style == "sentences" else " "
            for name, value in values.items():
                if name != NAME:
                    parts = value.split(separator)
                    assert held[name + FIRST] == separator.join(parts[: len(parts) // source.strings])


def test_diversity_sets_hold_different_strings_and_values_are_uniform_in_them() -> None:
    source = RandomFacts(
        people=4000, attributes=3, strings=2, diversity=16, length=3, alphabet=5, style="sentences"
    )
    sets = []
    for attribute in range(1, 4):
        strings = Counter(s for i in range(4000) for s in source.values(i)[f"id {attribute}"].split(", "))
        assert len(strings) == 16 and all(len(s) == 3 for s in strings)
        chi2 = sum((count - 500) ** 2 / 500 for count in strings.values())
        assert chi2 < 15 + 5 * 30**0.5 + 10
        sets.append(frozenset(strings))
    assert len(set(sets)) == 3
    assert len({source.values(i)[NAME] for i in range(4000)}) == 4000
    few = RandomFacts(
        people=10, attributes=3, strings=2, diversity=16, length=3, alphabet=5, style="sentences"
    )
    assert list(few.told(2)) == list(islice(source.told(2), 10))


def test_symbols_are_words_of_a_list_and_a_symbol_has_one_spelling() -> None:
    source = RandomFacts(people=500)
    words = {word for exposure in range(3) for told in source.told(exposure) for word in told.text.split()}
    assert (
        words <= set(source.symbols())
        and len(source.symbols()) == len(set(source.symbols())) == 3 * 64 + 6 + 64
    )
    assert source.name_pool == 64**3
    letters = RandomFacts(people=1, alphabet=700, length=1, diversity=700, style="sentences")._letters
    assert len(set(letters)) == 700 and {len(one) for one in letters} == {3}
    assert len(list(sources.documents("biod-symbols:7:1:2"))) == 14
    assert next(sources.documents("biod:7")).count("'s ID ") == 1  # type: ignore[call-overload]  # an iterator


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(LabError, match=r"diversity 9 is more than there are strings, 2\^3 = 8"):
        RandomFacts(people=1, diversity=9, length=3, alphabet=2)
    with pytest.raises(LabError, match="9 people cannot have different names, there are 8"):
        RandomFacts(people=9, name_symbols=2)
    with pytest.raises(LabError, match="strings must be at least 1"):
        RandomFacts(people=1, strings=0)
    with pytest.raises(LabError, match="style"):
        RandomFacts(people=1, style="poems")  # type: ignore[arg-type]  # a mistake
    with pytest.raises(LabError, match="sentences have no list of words"):
        RandomFacts(people=1, style="sentences").symbols()


def test_the_number_of_strings_is_never_formed_where_it_is_astronomic() -> None:
    known = RandomFacts(people=3, attributes=1, diversity=2, length=100_000_000, alphabet=40_000).information
    assert known.string_bits == pytest.approx(100_000_000 * 15.287712)
    for shape, wrong in (
        ({"length": 10**15}, "hold more than 1,073,741,824 symbols"),
        ({"strings": 10**15}, "hold more than 1,073,741,824 strings"),
        ({"alphabet": 10**15}, "alphabet must be at most 1,000,000"),
        ({"name_symbols": 10**15}, "name_symbols must be at most 1,000,000"),
    ):
        with pytest.raises(LabError, match=wrong):
            RandomFacts(people=3, **shape)  # type: ignore[arg-type]  # whole numbers all of them
