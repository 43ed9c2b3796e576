"""Every source that is a part: documented options, the same seed the same bytes, a whole folder or none, documents."""

from pathlib import Path
from typing import Any

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import Part, parts
from gpt2lab.text import sources
from gpt2lab.text.manifests import MANIFEST, read_manifest
from tests.contract.parts import built, is_frozen_settings, refuses_unknown_options

SMALLEST: dict[str, dict[str, Any]] = {
    "impossible-language": {"language": "shuffle_local3", "data": ("tinyworld:12",), "vocab_size": 270, "test": 5},
    "recall-task": {"task": "parity", "train": 6, "test": 3},
}  # fmt: skip
"""Options with which a source writes little."""

every_source = pytest.mark.parametrize("one", built("source"))


def test_every_source_is_tried_here() -> None:
    assert {one.name for one in parts("source") if one.built} == set(SMALLEST)


@every_source
def test_its_options_are_documented_and_no_other_is_taken(one: Part) -> None:
    is_frozen_settings(one)
    refuses_unknown_options(one)


@every_source
def test_the_same_seed_writes_the_same_bytes_and_another_one_others(one: Part, tmp_path: Path) -> None:
    made, options = one.load(), SMALLEST[one.name]
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert made(**options, seed=seed)(tmp_path / name) == read_manifest(tmp_path / name)
    a, b, c = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in "abc"
    )
    assert a == b
    assert a != c and a[Path("train.jsonl")] != c[Path("train.jsonl")]


@every_source
def test_its_training_rows_are_documents(one: Part, tmp_path: Path) -> None:
    one.load()(**SMALLEST[one.name])(tmp_path / "made")
    texts = list(sources.documents(str(tmp_path / "made" / "train.jsonl")))
    assert texts and all(texts)


@every_source
def test_a_folder_that_holds_something_else_stays_and_one_of_its_own_is_written_anew(
    one: Part, tmp_path: Path
) -> None:
    made = one.load()(**SMALLEST[one.name])
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(LabError, match="holds something that is no"):
        made(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    made(tmp_path / "again")
    (tmp_path / "again" / "left.txt").write_text("of before")
    made(tmp_path / "again")
    assert not (tmp_path / "again" / "left.txt").exists()
    assert (tmp_path / "again" / MANIFEST).is_file()
