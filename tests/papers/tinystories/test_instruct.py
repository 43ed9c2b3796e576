"""Instruct records: read, written, made from TinyWorld, and turned into targets."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gpt2lab.base.errors import LabError
from gpt2lab.papers.tinystories import instruct
from gpt2lab.papers.tinystories.instruct import FIELDS, Record, parse_record
from gpt2lab.text.generators.stories import stories

RECORD = (
    "Summary: Sara and Ben learn to share\nafter a quarrel.\nFeatures: Dialogue, MoralValue\n"
    "Words: quit, oak, gloomy\nRandom sentence: The oak was old.\nStory: \n\nSara had a kite.\n\nThe end.\n"
)


def test_a_record_is_read_with_its_order_and_lists():
    record = parse_record(RECORD)
    assert [name for name, _ in record.lines] == ["Summary", "Features", "Words", "Random sentence"]
    assert record.words == ("quit", "oak", "gloomy")
    assert record.features == ("Dialogue", "MoralValue")
    assert record.field("Summary") == "Sara and Ben learn to share\nafter a quarrel."
    assert record.story == "Sara had a kite.\n\nThe end."
    assert record.text == RECORD.rstrip("\n")


WORD = st.text("abcdefghij", min_size=1, max_size=6)
PHRASE = st.lists(WORD, min_size=1, max_size=5).map(" ".join)


@given(
    chosen=st.permutations(FIELDS), count=st.integers(0, 4), words=st.lists(PHRASE, min_size=4, max_size=4)
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_writing_and_reading_are_inverse(chosen, count, words):
    record = Record(tuple(zip(chosen[:count], words[:count], strict=True)), "A story .\n\nIts end .")
    assert parse_record(record.text) == record


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Words: a, b\nno story here", "without a line Story:"),
        ("Words: a\nWords: b\nStory: \n\nx", "Words twice"),
        ("Wrds: a\nStory: \n\nx", "begins with 'Wrds: a'"),
    ],
)
def test_damaged_records_are_refused(text, says):
    with pytest.raises(LabError, match=says):
        parse_record(text)


def test_a_field_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(LabError, match="did you mean Words"):
        parse_record(RECORD).field("Word")


def test_statistics_and_the_out_of_distribution_filter():
    records = [parse_record(RECORD), parse_record("Words: a\nStory: \n\nx"), parse_record("Story: \n\ny")]
    assert instruct.feature_statistics(records) == {
        "records": 3,
        "field Summary": 1,
        "field Features": 1,
        "field Words": 2,
        "field Random sentence": 1,
        "feature Dialogue": 1,
        "feature MoralValue": 1,
    }
    assert list(instruct.without_both(records, "Words", "Summary")) == records[1:]


def test_records_of_tinyworld_say_what_is_true_in_the_story():
    told = stories(3, 300)
    records = instruct.instruct_records(told, seed=0)
    assert records == instruct.instruct_records(told, seed=0)
    assert instruct.instruct_records(told[:7], seed=0) == records[:7]
    assert {len(record.lines) for record in records} == {1, 2, 3, 4}
    assert len({tuple(name for name, _ in record.lines) for record in records}) > 40
    for story, record in zip(told, records, strict=True):
        assert parse_record(record.text) == record and record.story == story.text
        sentence = record.field("Random sentence")
        assert sentence is None or sentence in story.text
        if record.field("Features") is not None:
            assert ("BadEnding" in record.features) == (story.facts.ending == "bad")
        assert set(record.words) <= {story.facts.colour, story.facts.object, story.facts.place}
    with pytest.raises(LabError, match="standard TinyWorld stories"):
        instruct.instruct_records(stories(0, 1, variant="binding"), seed=0)


def test_the_story_of_an_encoded_record_begins_where_it_says():
    vocabulary: dict[str, int] = {"<eos>": 0}

    def encode(text: str) -> list[int]:
        return [vocabulary.setdefault(word, len(vocabulary)) for word in text.split()]

    record = parse_record("Words: kite, ball\nStory: \n\nTom had a kite .")
    ids, begins = instruct.encode_record(record, encode, 0)
    assert ids[begins:] == [*encode("Tom had a kite ."), 0]
    assert ids[:begins] == [0, *encode("Words: kite, ball Story:")]
