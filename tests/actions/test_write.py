"""The verb `write` for files and built-in sources: rows keep their fields, texts are read back, nothing is overwritten."""

import json
from pathlib import Path

import pytest

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.cli import main
from gpt2lab.text import sources
from gpt2lab.text.records import records


def test_rows_of_a_generator_keep_their_fields_and_are_read_back_as_they_are(tmp_path: Path) -> None:
    done = gpt2lab.write("dna-protein-typed:16:5", out=tmp_path / "pairs.jsonl")
    given, read = (
        [dict(row) for _, row in records(source)]
        for source in ("dna-protein-typed:16:5", tmp_path / "pairs.jsonl")
    )
    assert read == given and {"sentence1", "sentence2", "label", "type"} <= set(read[0])
    assert (done.documents, done.size) == (16, (tmp_path / "pairs.jsonl").stat().st_size)


@pytest.mark.parametrize("ending", ["jsonl", "txt"])
def test_documents_are_read_back_as_they_are(ending: str, tmp_path: Path) -> None:
    gpt2lab.write("tinyworld:7:2", out=tmp_path / f"stories.{ending}")
    assert list(sources.documents(tmp_path / f"stories.{ending}")) == list(sources.documents("tinyworld:7:2"))


def test_the_command_writes_a_field_of_rows_and_prints_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"body": "ein Satz: ü"}\n{"body": "two"}\n')
    words = ["write", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "new" / "texts.jsonl")]
    assert main([*words, "--field", "body", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 2
    assert (tmp_path / "new" / "texts.jsonl").read_text() == '{"text": "ein Satz: ü"}\n{"text": "two"}\n'
    assert main([*words, "--field", "body"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["write", "tinyworld:2", "--out", str(tmp_path / "two.txt")]) == 0
    assert "2 documents" in capsys.readouterr().out


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    for source, name, words in (
        ("tinywrold:3", "a.txt", "did you mean tinyworld"),
        ("tinyworld:0", "a.txt", "no documents"),
        ("tinyworld:3", "a", r"ends in \.jsonl or \.txt"),
        ("recall-tusk", "a", r"did you mean recall-task\?"),
        ("tinyworld:many", "a.jsonl", "whole numbers"),
    ):
        with pytest.raises(LabError, match=words):
            gpt2lab.write(source, out=tmp_path / name)
    with pytest.raises(LabError, match="the one option, not level"):
        gpt2lab.write("tinyworld:3", out=tmp_path / "a.txt", level="easy")
    with pytest.raises(LabError, match="no setting levle; did you mean level"):
        gpt2lab.write("recall-task", out=tmp_path / "a", task="parity", levle="easy")
    assert not list(tmp_path.iterdir())
