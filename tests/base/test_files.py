"""A file appears whole or not at all."""

import hashlib
from pathlib import Path

import pytest

from gpt2lab.base.files import atomic_folder, atomic_write, sha256


def test_a_written_file_is_whole_and_readable_by_others(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a" / "b.txt", "één")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "één"
    assert (tmp_path / "a" / "b.txt").stat().st_mode & 0o777 == 0o644
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    atomic_write(tmp_path / "b", b"old")
    with pytest.raises(UnicodeEncodeError):
        atomic_write(tmp_path / "b", "\ud800")
    assert (tmp_path / "b").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_folder_replaces_the_old_one_at_the_end_of_the_block(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for word in ("one", "two"):
        with atomic_folder(target) as folder:
            (folder / "w").write_text(word)
    assert (target / "w").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_block_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic_folder(target) as folder:
        (folder / "w").write_text("one")
    with pytest.raises(RuntimeError), atomic_folder(target) as folder:
        (folder / "w").write_text("two")
        raise RuntimeError
    assert (target / "w").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_the_checksum_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    assert sha256(tmp_path / "f") == hashlib.sha256(b"x" * 3_000_000).hexdigest()
