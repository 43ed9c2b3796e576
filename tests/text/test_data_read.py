"""What is noted of the data that a piece of work reads."""

import hashlib
from pathlib import Path

from gpt2lab.measures.corpus import read_texts
from gpt2lab.text import sources
from gpt2lab.text.data_read import DataRead, note, noting, remembered
from gpt2lab.text.records import records


def test_a_source_is_noted_with_what_was_read_of_it(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one"}\n{"text": ""}\n{"text": "zwölf"}\n{"text": "three"}\n')
    with noting() as notes:
        texts = sources.documents([file, "tinyworld:3"])
        assert notes.found() == [], "nothing is read before it is asked for"
        assert [next(texts), next(texts)] == ["one", "zwölf"]
    whole = hashlib.sha256("one\0zwölf\0".encode()).hexdigest()
    assert notes.found() == [DataRead(str(file), 2, 8, "characters", whole)]


def test_rows_and_the_texts_of_a_measure_are_noted_too(tmp_path: Path) -> None:
    rows, plain = tmp_path / "rows.jsonl", tmp_path / "plain.txt"
    rows.write_text('{"text": "one", "label": 1}\n')
    plain.write_text("a\n\nb\n")
    with noting() as notes:
        list(records(rows))
        list(read_texts([str(plain), "tinyworld:2"]))
    found = [(Path(one.name).name, one.documents, one.size) for one in notes.found()]
    assert found[:2] == [("rows.jsonl", 1, len(repr({"text": "one", "label": 1}))), ("plain.txt", 1, 5)]
    assert [name for name, *_ in found] == ["rows.jsonl", "plain.txt", "tinyworld:2"]


def test_notes_inside_others_are_taken_for_the_inner_ones_alone() -> None:
    def read() -> DataRead:
        with noting() as inner:
            list(sources.documents("tinyworld:2"))
        (found,) = inner.found()
        return found

    with noting() as outer:
        found = read()
        assert outer.found() == []
        note(found, found)
        assert outer.found() == [found]
        assert (found.name, found.documents) == ("tinyworld:2", 2)
    assert list(sources.documents("tinyworld:2")), "read where nobody takes notes"
    assert outer.found() == [found]


def test_what_is_read_once_in_a_process_is_noted_at_every_call() -> None:
    calls = []

    @remembered
    def read(name: str) -> int:
        calls.append(name)
        return len(list(sources.documents(name)))

    for _ in range(2):
        with noting() as notes:
            assert read("tinyworld:2") == 2
        assert [one.name for one in notes.found()] == ["tinyworld:2"]
    assert calls == ["tinyworld:2"]
