"""Vectors and alignments by command line."""

import json
from pathlib import Path

import pytest

from gpt2lab.papers.wechsel.__main__ import main
from gpt2lab.text.vector_files import SubwordVectors, read_vectors


def made(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(words) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_vectors_are_made_written_and_aligned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = {name: str(tmp_path / name) for name in ("a.bin", "b.vec", "c.bin")}
    counted = ["vectors", "--data", "tinyworld:60", "--counting.dimensions", "8", "--out"]
    found = made([*counted, out["a.bin"]], capsys)
    assert found["dimensions"] == 8 and found["n-grams"] is False
    assert (
        made([*counted, out["b.vec"]], capsys)["words"]
        == found["words"]
        == len(read_vectors(out["b.vec"]).words)
    )
    trained = ["--skipgram.dimensions", "8", "--skipgram.epochs", "1", "--skipgram.buckets", "99"]
    assert made(
        ["vectors", "--data", "tinyworld:60", "--vectors", "skipgram", *trained, "--out", out["c.bin"]],
        capsys,
    )["n-grams"]
    kept = read_vectors(out["c.bin"])
    assert isinstance(kept, SubwordVectors) and kept.has_ngrams
    report = made(["align", out["a.bin"], out["b.vec"], "identical", "--held-out", "0.3"], capsys)
    assert report["precision_at_1"] == 1.0 and report["residual"] == pytest.approx(0, abs=1e-5)
    dictionary = tmp_path / "d.tsv"
    dictionary.write_text("the\tthe\nalone\n" + "".join(f"{word}\t{word}\n" for word in kept.words[:20]))
    report = made(["align", out["a.bin"], out["b.vec"], str(dictionary), "--held-out", "0"], capsys)
    assert (report["lines_skipped"], report["tested"], report["precision_at_1"]) == (1, 0, None)
    wrong = tmp_path / "wrong.tsv"
    wrong.write_text(
        "".join(f"{a}\t{b}\n" for a, b in zip(kept.words[:20], reversed(kept.words[:20]), strict=True))
    )
    assert main(["align", out["a.bin"], out["b.vec"], str(wrong), "--held-out", "0.5"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("wechsel: the alignment translates") and said.count("\n") == 1


def test_a_mistake_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vectors", "--data", "tinyworld:9", "--out", str(tmp_path / "x.txt")]) == 2
    assert "written as .bin or .vec" in capsys.readouterr().err
    assert main(["align", str(tmp_path / "none.bin"), "x", "y"]) == 2
    assert "cannot be read" in (said := capsys.readouterr().err) and said.count("\n") == 1
