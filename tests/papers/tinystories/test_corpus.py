"""The two text formats, read as they are, and what is in them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gpt2lab.base.errors import LabError
from gpt2lab.papers.tinystories import corpus

TWO = "Once upon a time there was a cat.\n\nIt said, â€œmeowâ€.\n<|endoftext|>\n\n<|endoftext|>\nA dog.\n"


def write(folder: Path, content: str) -> Path:
    path = folder / "stories.txt"
    path.write_bytes(content.encode())
    return path


def test_stories_are_split_at_separator_lines_and_artefacts_kept(tmp_path):
    path = write(tmp_path, TWO)
    stories = list(corpus.iterate_stories(path))
    assert stories == ["Once upon a time there was a cat.\n\nIt said, â€œmeowâ€.", "", "A dog."]
    assert corpus.read_stories(path) == [stories[0], stories[2]]


def test_line_ends_of_windows_do_not_hide_the_separator(tmp_path):
    path = write(tmp_path, "A.\r\n\r\nB.\r\n<|endoftext|>\r\nC.\r\n")
    assert corpus.read_stories(path) == ["A.\r\n\r\nB.", "C."]


@pytest.mark.parametrize("content", ["", "one long text without an end", "A <|endoftext|> in the middle\nB"])
def test_a_file_without_separator_lines_is_refused(tmp_path, content):
    with pytest.raises(LabError, match=r"no line <\|endoftext\|>"):
        corpus.read_stories(write(tmp_path, content))


def test_stories_are_read_from_the_field_that_holds_them(tmp_path):
    path = tmp_path / "stories.jsonl"
    path.write_text('{"story": "A cat."}\n{"story": "A dog."}\n')
    assert corpus.stories_of(str(path), field="story") == ["A cat.", "A dog."]
    with pytest.raises(LabError, match="no field 'text'"):
        corpus.stories_of(str(path))


def test_a_missing_file_and_one_of_empty_stories_are_refused(tmp_path):
    with pytest.raises(LabError, match="no such file"):
        corpus.read_stories(tmp_path / "nothing.txt")
    with pytest.raises(LabError, match="all stories are empty"):
        corpus.read_stories(write(tmp_path, "<|endoftext|>\n\n<|endoftext|>\n"))


def test_bytes_that_are_not_utf8_are_refused_by_name(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9\n<|endoftext|>\n")
    with pytest.raises(LabError, match="not UTF-8"):
        corpus.read_stories(path)


LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=30)


@given(st.lists(st.lists(LINE, min_size=1, max_size=4), min_size=1, max_size=6))
@hypothesis_settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory, blocks):
    stories = ["\n".join(lines).strip() for lines in blocks]
    stories = [story for story in stories if story]
    if not stories:
        return
    path = tmp_path_factory.mktemp("stories") / "s.txt"
    corpus.write_stories(path, stories)
    assert corpus.read_stories(path) == stories


def test_a_story_with_a_separator_in_it_is_not_written(tmp_path):
    with pytest.raises(LabError, match="must not hold"):
        corpus.write_stories(tmp_path / "s.txt", ["A\n<|endoftext|>\nB"])


def test_statistics_count_what_the_text_holds():
    found = corpus.corpus_statistics(
        ["Once upon a time, Tom's dog ran.", "", 'A dog said, "dog".', "A dog.", "A dog.", "It â€œranâ€."]
    )
    assert (found.stories, found.empty, found.duplicates, found.artefacts) == (6, 1, 1, 1)
    assert found.words == 7 + 4 + 2 + 2 + found_words("It â€œranâ€.")
    assert found.once_upon_a_time == pytest.approx(1 / 5)
    assert found.with_dialogue == pytest.approx(2 / 5)
    assert found.common[0] == ("dog", 5)
    with pytest.raises(LabError, match="no stories"):
        corpus.corpus_statistics([])


def found_words(text: str) -> int:
    return len(corpus.words_of(text))
