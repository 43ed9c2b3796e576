"""Biographies: uniform and independent facts, spans that hold them, sentences that do not mislead, exposures."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text import sources
from gpt2lab.text.generators.biographies import (
    EMPLOYER,
    GENDER,
    SENTENCES,
    TEXTS_OF_A_PERSON,
    VARIANTS,
    WORKING_CITY,
    Biographies,
    Variant,
    sentences,
    vocabulary,
)
from gpt2lab.text.generators.fact_text import NAME
from gpt2lab.text.records import records


def test_facts_have_as_many_values_as_the_paper_counts() -> None:
    people = Biographies(people=1)
    assert people.name_pool == 400 * 400 * 1000
    assert people.choices == {
        "birth date": 12 * 28 * 200, "birth city": 200, "university": 300, "major": 100, "employer": 263, "gender": 2,
    }  # fmt: skip
    assert all(
        len(set(values)) == len(values) for name, values in vocabulary().items() if name != "headquarters"
    )
    assert all(45 <= len(texts) <= 55 and len(set(texts)) == len(texts) for texts in sentences().values())


def test_values_are_uniform_and_independent() -> None:
    source = Biographies(people=20_000, seed=3)
    drawn = [source.values(person) for person in range(source.people)]
    for name, choices in source.choices.items():
        counts = Counter(values[name] for values in drawn)
        if name == "birth date":  # more values than people: by year
            counts, choices = Counter(values[name][-4:] for values in drawn), 200
        expected = source.people / choices
        chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
        chi2 += expected * (choices - len(counts))
        assert chi2 < choices + 5 * (2 * choices) ** 0.5 + 10, name  # five standard deviations
    pairs = Counter((values["major"], values[GENDER]) for values in drawn)
    chi2 = sum((count - 100) ** 2 / 100 for count in pairs.values())
    assert len(pairs) == 200 and chi2 < 200 + 5 * 20
    headquarters = dict(zip(vocabulary()["employer"], vocabulary()["headquarters"], strict=True))
    assert all(values[WORKING_CITY] == headquarters[values[EMPLOYER]] for values in drawn)


def test_names_are_all_different_and_people_do_not_depend_on_how_many_there_are() -> None:
    many, few = Biographies(people=30_000, seed=1), Biographies(people=50, seed=1)
    assert len({many.values(person)[NAME] for person in range(many.people)}) == many.people
    assert [few.values(i) for i in range(50)] == [many.values(i) for i in range(50)]
    assert list(few.told(4)) == list(islice(many.told(4), 50))
    assert few.values(0) != Biographies(people=50, seed=2).values(0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_span_holds_its_value_and_every_fact_stands_once(variant: Variant) -> None:
    source = Biographies(people=300, seed=5, variant=variant)
    for texts in (source.told(0), source.told(7), source.judged(1)):
        for person, told in enumerate(texts):
            values = source.values(person)
            assert told.spans[0].label == NAME
            assert sorted(span.label for span in told.spans) == sorted(values)
            for span in told.spans:
                held = told.text[span.start : span.end]
                assert held == values[span.label] or (span.label, held) == (GENDER, values[GENDER].lower())
            for name in SENTENCES:
                assert told.text.count(values[name]) >= 1
            gender = next(span for span in told.spans if span.label == GENDER)
            assert values[GENDER] not in told.text[: gender.start].split()
            assert told.text.startswith(f" {values[NAME]} ")
            other = {"He": "She", "She": "He"}[values[GENDER]]
            assert not {other, other.lower()} & set(told.text.split())


def test_sentences_are_told_anew_or_fixed_or_forty_times() -> None:
    def texts(variant: Variant, exposure: int) -> list[str]:
        return [told.text for told in Biographies(people=20, variant=variant).told(exposure)]

    assert all(a != b for a, b in zip(texts("rewritten", 0), texts("rewritten", 1), strict=True))
    assert texts("fixed", 0) == texts("fixed", 9)
    varied = [texts("varied", exposure) for exposure in range(TEXTS_OF_A_PERSON)]
    assert len({every[0] for every in varied}) == TEXTS_OF_A_PERSON
    assert texts("varied", TEXTS_OF_A_PERSON + 3) == varied[3]
    orders = Counter(
        tuple(span.label for span in told.spans if span.label not in (NAME, GENDER))
        for told in Biographies(people=20_000).told(0)
    )
    assert len(orders) == 720 and max(orders.values()) < 2.5 * 20_000 / 720


def test_a_judged_text_names_the_employer_before_the_city_that_gives_it_away() -> None:
    for variant in VARIANTS:
        source = Biographies(people=200, variant=variant)
        for told in source.judged(0):
            labels = [span.label for span in told.spans]
            assert labels.index(EMPLOYER) < labels.index(WORKING_CITY)
        if variant != "rewritten":
            assert list(source.judged(3)) == list(source.told(3))
    source = Biographies(people=200)
    cities_first = [
        told
        for told in source.told(0)
        if [span.label for span in told.spans].index(WORKING_CITY)
        < [span.label for span in told.spans].index(EMPLOYER)
    ]
    assert 70 < len(cities_first) < 130
    trained = {told.text for exposure in range(20) for told in source.told(exposure)}
    assert not trained & {told.text for told in source.judged(0)}


def test_words_before_a_value_are_followed_by_nothing_else() -> None:
    """Else a model that knows every fact would still be unsure what the sentence goes on to tell."""
    begun = [
        (text.split("{}")[0].split(), name, text) for name, texts in sentences().items() for text in texts
    ]
    for head, name, text in begun:
        assert text.count("{}") == 1 and text.split("{}")[0].endswith(" ")
        assert not text.split("{}")[1] or text.split("{}")[1][0] == " "
        for other, other_name, other_text in begun:
            if (name, text) != (other_name, other_text):
                assert other[: len(head)] != head, (text, other_text)


def test_an_inventory_and_the_texts_of_all_hold_every_word() -> None:
    for variant in VARIANTS:
        source = Biographies(people=2000, variant=variant)
        known = _words(source.inventory()) | _words(told.text for told in source.judged(0))
        for exposure in (0, 1):
            assert _words(told.text for told in source.told(exposure)) <= known


def _words(texts: Iterable[str]) -> set[str]:
    return {word.rstrip(".,") for text in texts for word in text.split()}


def test_sources_tell_every_person_once_in_each_exposure() -> None:
    found = [row for _, row in records("bios:30:2:3")]
    assert len(found) == 90
    assert [row["exposure"] for row in found] == [0] * 30 + [1] * 30 + [2] * 30
    for exposure in range(3):
        assert sorted(row["person"] for row in found[30 * exposure : 30 * (exposure + 1)]) == list(range(30))
    assert [row["person"] for row in found[:30]] != [row["person"] for row in found[30:60]]
    source = Biographies(people=30, seed=2)
    texts = list(sources.documents("bios:30:2:3"))
    told = list(source.told(1))
    assert texts[30:60] == [told[row["person"]].text for row in found[30:60]]
    assert (
        found[0]["major"] in vocabulary()["major"]
        and found[0]["name"] == source.values(found[0]["person"])[NAME]
    )
    assert list(sources.documents("bios-simple:4")) == list(sources.documents("bios-simple:4:0:1"))
    assert len(set(sources.documents("bior:1:0:50"))) == 40


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(LabError, match="people must lie between 1 and 20,000,000, got 0"):
        Biographies(people=0)
    with pytest.raises(LabError, match="seed must be at least 0"):
        Biographies(people=1, seed=-1)
    with pytest.raises(LabError, match="variant"):
        Biographies(people=1, variant="retold")  # type: ignore[arg-type]  # a mistake
    with pytest.raises(LabError, match=r"expected bios:SIZE\[:SEED\[:EXPOSURES\]\] with whole numbers"):
        list(sources.documents("bios:1:2:3:4"))
    with pytest.raises(LabError, match="exposures must be at least 1, got 0"):
        list(sources.documents("bios:1:2:0"))
    assert np.isclose(
        np.log2(np.prod([float(n) for n in Biographies(people=1).choices.values()])), 47.592, atol=1e-3
    )
