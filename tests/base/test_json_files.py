import os
from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.base.json_files import check_seal, parse_json, read_json, read_object, read_text, sealed


def _file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    return path


def test_an_object_is_read(tmp_path: Path) -> None:
    assert read_object(_file(tmp_path, b'{"a": [1, null]}')) == {"a": [1, None]}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": 1', "not JSON, or cut off"),
        (b"", "not JSON, or cut off"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5_000, "digits"),
    ],
)
def test_each_way_to_be_broken_is_one_sentence_about_the_file(tmp_path: Path, data: bytes, says: str) -> None:
    path = _file(tmp_path, data)
    with pytest.raises(LabError, match=says) as error:
        read_json(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="more than the 10"):
        read_json(_file(tmp_path, b"[" + b" " * 20 + b"]"), largest=10)


def test_a_missing_file_and_a_list_in_place_of_an_object_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot be read"):
        read_json(tmp_path / "none.json")
    with pytest.raises(LabError, match="found list"):
        read_object(_file(tmp_path, b"[]"))


def test_text_is_parsed_under_the_name_given() -> None:
    assert parse_json("3", "here") == 3
    with pytest.raises(LabError, match=r"^here, line 3: not JSON"):
        parse_json("{", "here, line 3")


def test_a_pipe_is_not_waited_for_and_a_folder_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(LabError, match=r"pipe\.json: not a regular file"):
        read_json(tmp_path / "pipe.json")
    with pytest.raises(LabError, match="not a regular file"):
        read_text(tmp_path)
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    with pytest.raises(LabError, match="cannot be read"):
        read_json(tmp_path / "loop.json")


def test_a_sealed_object_is_known_from_a_changed_one() -> None:
    content = sealed({"a": 1, "b": [1.5, None]})
    check_seal(content, "here")
    for changed in ({**content, "a": 2}, {**content, "c": 0}, {"a": 1}, {}):
        with pytest.raises(LabError, match="here: damaged, or changed by hand"):
            check_seal(changed, "here")
    assert sealed({**content, "a": 2}) != content
