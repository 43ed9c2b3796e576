"""The gazetteer: longest match, whole words, first sentence, renames."""

import re
from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias.occupations import (
    Gazetteer,
    first_sentence,
    labour_occupations,
    read_gazetteer,
    shipped_gazetteer,
)


def test_the_longest_title_counts_and_the_order_is_kept() -> None:
    titles = Gazetteer(["nurse", "nurse practitioner", "driver", "bus driver"])
    assert titles.find(" Nurse Practitioner, a bus driver and a nurse") == [
        "nurse practitioner",
        "bus driver",
        "nurse",
    ]
    assert titles.find(" nurse, practitioner") == ["nurse"]


def test_only_whole_words_of_the_first_sentence_count() -> None:
    titles = Gazetteer(["nurse", "cook", "host", "president"])
    assert titles.find(" nursery hostess") == []
    assert titles.find(" cook. She was a nurse") == ["cook"]
    assert titles.find(" cook\nnurse") == ["cook"]
    assert titles.find(' cook." nurse') == ["cook"]
    assert titles.find(" guard under J. Smith, president") == ["president"]  # an initial ends no sentence
    assert titles.find("") == []


def test_a_sentence_ends_before_its_point() -> None:
    assert first_sentence(" cook! And") == " cook"
    assert first_sentence(" at 3.5 % pay. Then") == " at 3.5 % pay"


def test_the_shipped_titles_are_renamed_as_the_authors_did() -> None:
    titles = shipped_gazetteer()
    assert len(titles.titles) == 792
    assert titles.find(" nurse practitioner") == ["nurse"]
    assert titles.find(" cleaner cleaner") == ["cleaner"]
    assert titles.find(" busher") == ["busher"]
    assert titles.find(" bus-driver for") == ["bus driver"]


def test_labour_titles_are_added_in_the_singular() -> None:
    titles = shipped_gazetteer(labour_titles=True)
    assert titles.find(" registered nurse in") == ["registered nurse"]
    assert titles.find(" chief executive") == ["chief executive"]
    assert len(titles.titles) == 958
    assert not any("," in title for title in titles.titles)


def test_gendered_words_can_be_merged() -> None:
    titles = shipped_gazetteer().merged()
    assert titles.find(" waitress and policeman") == ["waiter", "police officer"]
    assert titles.find(" bar waitress") == ["waiter"]  # renamed first, then merged


def test_own_titles_and_an_empty_list(tmp_path: Path) -> None:
    file = tmp_path / "titles.csv"
    file.write_text("job,update_match\nwright,\nwheel wright,wright\n")
    assert read_gazetteer(file).find(" wheel wright") == ["wright"]
    assert read_gazetteer(file).jobs == ["wright"]
    with pytest.raises(LabError, match="empty"):
        Gazetteer([" "])


@pytest.mark.parametrize(
    ("text", "jobs"),
    [
        (" assistant to Dr. Smith, a lawyer", ["assistant", "lawyer"]),
        (" Dr. Smith's secretary", ["secretary"]),
        (" driver for Apple Inc. and a cook", ["driver", "cook"]),
        (" for Apple Inc. She is a nurse", []),
        (" sr. engineer", ["engineer"]),
        (" U.S. senator", ["senator"]),
        (" rep. She is a nurse", ["rep"]),
        (" rep. of the party", ["rep"]),
        (" cook\u2028nurse", ["cook"]),
        (" cook\r\nnurse", ["cook"]),
        (" cook。nurse", ["cook"]),
        (' "cook." nurse', ["cook"]),
        (" carpenter/plumber", ["carpenter", "plumber"]),
        (" NURSE!!! cook", ["nurse"]),
        (" nurses, nursery", []),
        (" 3.5-star chef", ["chef"]),
        (" \n nurse", []),
        (" \ufffd\x00 cook", ["cook"]),
    ],
)
def test_nasty_sentences(text: str, jobs: list[str]) -> None:
    assert shipped_gazetteer().find(text) == jobs


def test_labour_titles_join_ones_own_list_and_signs_alone_are_no_title(tmp_path: Path) -> None:
    file = tmp_path / "titles.csv"
    file.write_text("job\nwright\n")
    titles = read_gazetteer(file, labour_titles=True)
    assert titles.find(" wright and a registered nurse") == ["wright", "registered nurse"]
    assert "actuary" in labour_occupations()
    with pytest.raises(LabError, match="empty"):
        Gazetteer(["."], {".": "wright"})


def test_no_title_of_the_authors_says_a_gender_when_merged() -> None:
    says = re.compile(r"(man|men|woman|women|ess|maid)$")
    left = {job for job in shipped_gazetteer().merged().jobs if says.search(job)}
    assert left == {
        "maid",
        "secretary of the roman",
        "secretary of the women",
    }  # no word without a gender; no jobs
