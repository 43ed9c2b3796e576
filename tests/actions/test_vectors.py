"""The verb `vectors`: what is written is what was made, by the chosen options, and a mistake leaves nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.cli import main
from gpt2lab.text import sources
from gpt2lab.text.skipgram import SkipgramOptions
from gpt2lab.text.text_vectors import text_vectors
from gpt2lab.text.vector_files import SubwordVectors, read_vectors
from gpt2lab.text.word_vectors import CountOptions

TEXT = "tinyworld:60"
SMALL = SkipgramOptions(dimensions=8, epochs=1, buckets=99)
TYPED = [
    *("--vectors", "skipgram", "--skipgram.dimensions", "8"),
    *("--skipgram.epochs", "1", "--skipgram.buckets", "99"),
]


@pytest.mark.parametrize("name", ["a.bin", "new/a.vec"])
def test_a_file_holds_the_vectors_that_the_text_gives(name: str, tmp_path: Path) -> None:
    counting = CountOptions(window=3, least=9, dimensions=7)
    done = gpt2lab.vectors([TEXT], out=tmp_path / name, counting=counting)
    made = text_vectors(sources.documents(TEXT), counting=counting)
    read = read_vectors(tmp_path / name)
    assert read.words == made.words and len(made.words) > 20
    np.testing.assert_array_equal(
        [read[word] for word in read.words], np.stack([made[word] for word in read.words]).astype(np.float32)
    )
    assert read.counts == (made.counts if name.endswith(".bin") else None)
    assert (done.words, done.dimensions, done.ngrams, done.notes) == (len(made.words), 7, False, ())
    assert done.size == (tmp_path / name).stat().st_size


def test_trained_vectors_keep_their_ngrams_in_a_bin_and_a_vec_file_says_that_it_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = text_vectors(sources.documents(TEXT), "skipgram", skipgram=SMALL)
    for name in ("a.bin", "a.vec"):
        out = tmp_path / name
        assert main(["vectors", "--data", TEXT, *TYPED, "--out", str(out), "--json"]) == 0
        printed, read = json.loads(capsys.readouterr().out), read_vectors(out)
        whole = name == "a.bin"
        assert isinstance(read, SubwordVectors) == whole == printed["ngrams"]
        assert (printed["words"], printed["dimensions"]) == (len(made.words), 8)
        assert (printed["out"], printed["bytes"]) == (str(out), out.stat().st_size)
        assert ["no n-grams" in note for note in printed["notes"]] == ([] if whole else [True])
        for word in [*made.words, *(["unheard"] if whole else [])]:
            np.testing.assert_allclose(read[word], made[word], rtol=1e-6)


def test_the_command_reads_a_field_of_rows_and_settings_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"body": "the cat sat, the dog sat"}\n' * 3)
    (tmp_path / "settings.toml").write_text('field = "body"\n[counting]\ndimensions = 2\nleast = 4\n')
    words = ["vectors", "--data", str(tmp_path / "rows.jsonl"), "--config", str(tmp_path / "settings.toml")]
    assert main([*words, "--out", str(tmp_path / "a.vec")]) == 0
    assert "2 words of 2 numbers\n" in capsys.readouterr().out
    assert main([*words, "--set", "counting.least=3", "--out", str(tmp_path / "b.vec")]) == 0
    assert read_vectors(tmp_path / "a.vec").words == ("sat", "the")
    assert read_vectors(tmp_path / "b.vec").words == ("sat", "the", "cat", "dog")


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    for text, name, options, words in (
        ("tinywrold:3", "a.bin", {}, "did you mean tinyworld"),
        (TEXT, "a.txt", {}, r"ends in \.bin or \.vec"),
        (TEXT, "a.bin", {"skipgram": SMALL}, "skipgram is an option of skipgram vectors, and ppmi ones are made"),
        (TEXT, "a.bin", {"vectors": "skipgram", "counting.least": 4}, "counting.least is an option of ppmi vectors"),
        (TEXT, "a.bin", {"countng": 4}, "no setting countng; did you mean counting"),
        (TEXT, "a.bin", {"counting.window": 0}, "window, least and dimensions must be at least 1"),
        (TEXT, "a.bin", {"counting.least": 10**6}, "no word occurs 1000000 times"),
    ):  # fmt: skip
        with pytest.raises(LabError, match=words):
            gpt2lab.vectors(text, out=tmp_path / name, **options)
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine.bin").write_text("mine")
    with pytest.raises(LabError, match="exists already"):
        gpt2lab.vectors(TEXT, out=tmp_path / "mine.bin")
    with pytest.raises(LabError, match="a file, where a folder is to be"):
        gpt2lab.vectors(TEXT, out=tmp_path / "mine.bin" / "a.bin")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
