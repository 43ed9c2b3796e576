"""Tokenizer files that ask for memory or time that nobody has, and those that the library panics on."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text.reduction import VocabularyReduction, count_tokens, reduce_vocabulary
from gpt2lab.text.tokenizer import byte_level, train_bpe
from gpt2lab.text.tokenizer_files import load_tokenizer


def _refused(folder: Path, sentence: str) -> None:
    start = time.process_time()
    with pytest.raises(LabError, match=sentence) as error:
        load_tokenizer(folder).encode("a" * 40 + "b")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert time.process_time() - start < 5


@pytest.mark.parametrize("id", [2**31, 10**9, 2**40, 10**30])
def test_an_id_far_beyond_the_vocabulary_is_refused_before_a_table_is_made(id: int, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"<unk>": 0, "low": id}))
    _refused(tmp_path, f"the id of 'low' is {id:,}, and there are only 2 pieces")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    _refused(tmp_path, "only 2 pieces")
    content = _tokenizer_json(tmp_path, lambda content: content["model"]["vocab"].update({"low": id}))
    assert content["model"]["vocab"]["low"] == id
    _refused(tmp_path, "the id of 'low' is")


def _tokenizer_json(folder: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(train_bpe(["low lower lowest " * 9], 280).backend.to_str())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return content


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize("place", ["normalizer", "pre_tokenizer", "sequence"])
def test_a_regular_expression_that_takes_for_ever_is_refused(place: str, tmp_path: Path) -> None:
    steps = {
        "normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "x"},
        "pre_tokenizer": _split("(a+)+$"),
        "sequence": {"type": "Sequence", "pretokenizers": [_split("(a+)+$")]},
    }
    key = "normalizer" if place == "normalizer" else "pre_tokenizer"
    _tokenizer_json(tmp_path, lambda content: content.update({key: steps[place]}))
    _refused(tmp_path, r"tokenizer\.json: the regular expression '\(a\+\)\+\$' repeats a group")


def test_a_panic_of_the_library_is_a_mistake_in_the_file_and_an_interrupt_is_not() -> None:
    class PanicException(BaseException):
        """As pyo3 names what Rust panics with."""

    tokenizer = byte_level()

    def fails(error: BaseException) -> Callable[[], None]:
        def call() -> None:
            raise error

        return call

    with pytest.raises(LabError, match="cannot encode this text: retry-limit-in-match over"):
        tokenizer._encoded(fails(PanicException("retry-limit-in-match over\n at line 3")), ["a"])
    with pytest.raises(KeyboardInterrupt):
        tokenizer._encoded(fails(KeyboardInterrupt()), ["a"])


def test_padding_to_a_billion_tokens_is_not_done(tmp_path: Path) -> None:
    padding = {
        "strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "x",
    }  # fmt: skip
    _tokenizer_json(tmp_path, lambda content: content.update({"padding": padding}))
    assert len(load_tokenizer(tmp_path).encode("low")) < 4


def test_files_that_are_not_utf8_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1}))
    (tmp_path / "merges.txt").write_bytes(b"#version: 0.2\na \xff\n")
    _refused(tmp_path, r"merges\.txt: not UTF-8 \(byte 16\)")


def test_a_vocabulary_of_more_ids_than_any_tokenizer_has_is_not_trained() -> None:
    with pytest.raises(
        LabError, match="vocab_size 1,000,000,000,000: a tokenizer has at most 16,777,216 ids"
    ):
        train_bpe(["low"], 10**12)


def test_a_reduction_that_was_changed_is_refused(tmp_path: Path) -> None:
    base = byte_level()
    reduction = reduce_vocabulary(count_tokens([base.encode("low lower")], base), size=6, eos=base.eos)
    reduction.save(tmp_path)
    assert VocabularyReduction.load(tmp_path) == reduction
    path = tmp_path / "vocabulary_reduction.json"
    content = json.loads(path.read_text())
    for change in ({"kept": content["kept"][::-1]}, {"rows": 10**12}, {"eos": 1}, {"kept": "x"}):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(LabError, match="does not match its checksum"):
            VocabularyReduction.load(tmp_path)
