"""Folders of other programs: what AutoTokenizer of transformers makes of one, the lab makes of it, and of what it saves."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import models

from gpt2lab.base.errors import LabError
from gpt2lab.text.special_tokens import ROLES
from gpt2lab.text.streaming import StreamDecoder
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer
from tests.text import tokenizer_folders as folders

transformers = pytest.importorskip("transformers")

SEEDS = 288
BLOCKS = 8
OPENED: set[int] = set()
"""Seeds whose folder transformers opened."""
TRIED: set[int] = set()
"""Seeds whose folder it was given, in this process: another one may have run the other blocks."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)  # transformers warns of many of these folders
    yield
    logging.disable(logging.NOTSET)


def of_transformers(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def their_view(tokenizer: Any) -> dict[Any, Any]:
    view: dict[Any, Any] = {}
    for text in folders.TEXTS:
        ids = tokenizer(text)["input_ids"]
        view["plain", text] = tokenizer(text, add_special_tokens=False)["input_ids"]
        view["framed", text] = ids
        view["decoded", text] = tokenizer.decode(ids, skip_special_tokens=True)
        view["decoded whole", text] = tokenizer.decode(ids, skip_special_tokens=False)
    pair = tokenizer("low lower", "héllo 12", return_token_type_ids=True)
    view["pair"] = (pair["input_ids"], pair["token_type_ids"])
    view["ids"] = len(tokenizer)
    return view | {role: getattr(tokenizer, f"{role}_token_id") for role in ROLES}


def our_view(tokenizer: Tokenizer) -> dict[Any, Any]:
    view: dict[Any, Any] = {}
    for text in folders.TEXTS:
        ids = tokenizer.encode(text, special=True)
        view["plain", text] = tokenizer.encode(text)
        view["framed", text] = ids
        view["decoded", text] = tokenizer.decode(ids)
        view["decoded whole", text] = tokenizer.decode(ids, skip_special=False)
    pair = tokenizer.backend.encode("low lower", "héllo 12")
    view["pair"] = (pair.ids, pair.type_ids)
    view["ids"] = tokenizer.backend.get_vocab_size()
    return view | {role: getattr(tokenizer, role) for role in ROLES}


def what_stays(tokenizer: Any) -> tuple[Any, ...]:
    """What a saved folder keeps of a tokenizer of transformers beside its ids."""
    names = (tokenizer.model_input_names, tokenizer.padding_side, tokenizer.chat_template)
    return (*names, tokenizer.model_max_length, sorted(tokenizer.all_special_tokens))


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_folder_has_the_ids_and_the_text_it_has_in_transformers_before_and_after_saving(
    tmp_path: Path, block: int
) -> None:
    for seed in range(block, SEEDS, BLOCKS):
        made = folders.make(seed)
        made.write(tmp_path / f"{seed}")
        TRIED.add(seed)
        try:
            theirs = of_transformers(tmp_path / f"{seed}")
        except Exception:  # such as vocab.json and merges.txt for a class that reads neither
            named = (made.config or {}).get("tokenizer_class") or made.model.get("tokenizer_class")
            if made.tokenizer is None and named == "NobodysTokenizer":
                with pytest.raises(LabError, match="for NobodysTokenizer, whose rule"):
                    load_tokenizer(tmp_path / f"{seed}")
            else:
                load_tokenizer(tmp_path / f"{seed}")
            continue
        OPENED.add(seed)
        ours, expected = load_tokenizer(tmp_path / f"{seed}"), their_view(theirs)
        assert our_view(ours) == expected, f"folder {seed}: {made.family} {made.config}"
        save_tokenizer(ours, tmp_path / f"{seed} saved")
        if made.family is not None:
            config = (tmp_path / f"{seed}" / "config.json").read_text()
            (tmp_path / f"{seed} saved" / "config.json").write_text(config)
        again, saved = load_tokenizer(tmp_path / f"{seed} saved"), of_transformers(tmp_path / f"{seed} saved")
        assert their_view(saved) == expected, f"folder {seed} saved: {made.family} {made.config}"
        assert what_stays(saved) == what_stays(theirs), f"folder {seed} saved"
        assert our_view(again) == expected
        assert again.fingerprint == ours.fingerprint


def test_enough_of_these_folders_were_opened_by_transformers() -> None:
    every = {seed for seed in range(SEEDS) if folders.make(seed).tokenizer is not None}
    opened = OPENED if len(TRIED) == SEEDS else every
    assert len(opened) >= 200
    kinds = {
        (made.kind, made.family, (made.config or {}).get("tokenizer_class"))
        for made in map(folders.make, opened)
    }
    assert len(kinds) >= 80


def bpe_folder(
    folder: Path, *files: str, config: dict[str, Any], family: str | None = None, **texts: str
) -> Path:
    """Write a byte-level tokenizer whose first words are the special tokens of GPT-2 and RoBERTa."""
    folder.mkdir(exist_ok=True)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    content = json.loads(train_bpe(["low lower lowest 1234 " * 20], 290, special=special).backend.to_str())
    content["added_tokens"] = []
    if "tokenizer.json" in files:
        (folder / "tokenizer.json").write_text(json.dumps(content))
    else:
        (folder / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
        merges = "\n".join(" ".join(pair) for pair in content["model"]["merges"])
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if family is not None:
        (folder / "config.json").write_text(
            json.dumps({"model_type": family, **json.loads(texts.get("model", "{}"))})
        )
    return folder


def test_the_named_end_of_text_is_special_even_where_it_is_a_plain_word_of_the_vocabulary(
    tmp_path: Path,
) -> None:
    folder = bpe_folder(tmp_path, "tokenizer.json", config={"eos_token": "</s>"})
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("low</s>") == of_transformers(folder)("low</s>")["input_ids"]
    assert tokenizer.encode("low</s>")[-1] == tokenizer.eos
    assert tokenizer.decode(tokenizer.encode("low</s>")) == "low"


def test_a_blank_in_front_is_put_there_where_the_configuration_of_a_gpt2_tokenizer_asks_for_it(
    tmp_path: Path,
) -> None:
    asked = bpe_folder(
        tmp_path, "tokenizer.json", config={"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}
    )
    assert load_tokenizer(asked).encode("lower") == load_tokenizer(asked).encode(" lower")
    plain = bpe_folder(tmp_path, "tokenizer.json", config={"tokenizer_class": "GPT2Tokenizer"})
    assert load_tokenizer(plain).encode("lower") != load_tokenizer(plain).encode(" lower")


def test_robertas_vocabulary_and_merges_alone_put_both_ends_around_a_text(tmp_path: Path) -> None:
    folder = bpe_folder(tmp_path, config={"tokenizer_class": "RobertaTokenizer"})
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode("low lower", special=True)
    assert (ids[0], ids[-1]) == (tokenizer.cls, tokenizer.sep) == (tokenizer.id("<s>"), tokenizer.id("</s>"))
    assert ids == of_transformers(folder)("low lower")["input_ids"]


@pytest.mark.parametrize("family", ["gpt2", "opt", None])
def test_a_bos_is_put_in_front_where_vocabulary_and_merges_are_told_so(
    tmp_path: Path, family: str | None
) -> None:
    config = {"add_bos_token": True} | ({} if family else {"tokenizer_class": "GPT2Tokenizer"})
    folder = bpe_folder(tmp_path, config=config, family=family)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("low", special=True) == [tokenizer.bos, *tokenizer.encode("low")]
    assert tokenizer.encode("low", special=True) == of_transformers(folder)("low")["input_ids"]


def test_a_rule_for_digits_in_tokenizer_json_counts_unless_the_folder_is_read_by_a_class_without_one(
    tmp_path: Path,
) -> None:
    read = [
        ("llama", "PreTrainedTokenizerFast", True),
        ("mistral", "GPT2Tokenizer", True),
        ("llama", "GPT2Tokenizer", False),
    ]
    for number, (family, named, alone) in enumerate(read):
        config = {"tokenizer_class": named}
        folder = bpe_folder(tmp_path / f"{number}", "tokenizer.json", config=config, family=family)
        content = json.loads((folder / "tokenizer.json").read_text())
        digits = {"type": "Digits", "individual_digits": True}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, content["pre_tokenizer"]]}
        (folder / "tokenizer.json").write_text(json.dumps(content))
        tokenizer = load_tokenizer(folder)
        assert (len(tokenizer.encode("1234")) == 4) is alone
        assert tokenizer.encode("1234") == of_transformers(folder)("1234")["input_ids"]


def test_a_vocabulary_of_lines_alone_is_a_bert(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nsun\n##ny\n")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("SUNNY [MASK] rain", special=True) == [2, 5, 6, 4, 1, 3]
    assert (tokenizer.pad, tokenizer.unk, tokenizer.cls, tokenizer.sep, tokenizer.mask) == (0, 1, 2, 3, 4)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "vocab_size": 7}')
    assert of_transformers(tmp_path)("SUNNY [MASK] rain")["input_ids"] == [2, 5, 6, 4, 1, 3]


def test_a_default_that_the_model_has_no_row_for_is_not_added(tmp_path: Path) -> None:
    config = {"tokenizer_class": "GPTNeoXTokenizer"}
    folder = bpe_folder(tmp_path, "tokenizer.json", config=config, family="gpt_neox")
    size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    assert load_tokenizer(folder).pad == of_transformers(folder).pad_token_id == size  # <|padding|>
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt_neox", "vocab_size": size}))
    assert (load_tokenizer(folder).vocab_size, load_tokenizer(folder).pad) == (size, None)


def test_an_added_token_whose_id_is_not_the_next_is_named(tmp_path: Path) -> None:
    added = {"500": {"content": "<new>", "special": True}}
    folder = bpe_folder(tmp_path, "tokenizer.json", config={"added_tokens_decoder": added})
    with pytest.raises(LabError, match=r"'<new>' should have id 2.., found 500"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"eos_token": 5}, "eos_token: expected a token, found '5'"),
        ({"eos_token": {"text": "x"}}, "eos_token: expected a token"),
        ({"extra_special_tokens": 5}, "extra_special_tokens should be a list, found int"),
        ({"added_tokens_decoder": [1]}, "added_tokens_decoder should be an object of tokens by id"),
        ({"added_tokens_decoder": {"x": {}}}, "added_tokens_decoder should be an object of tokens by id"),
        ({"added_tokens_decoder": {"5": "x"}}, "added_tokens_decoder: expected a token"),
    ],
)
def test_an_entry_that_is_no_token_is_named(tmp_path: Path, entries: dict[str, Any], message: str) -> None:
    folder = bpe_folder(tmp_path, "tokenizer.json", config=entries)
    with pytest.raises(LabError, match=message) as error:
        load_tokenizer(folder)
    assert "\n" not in str(error.value)


def test_blanks_before_punctuation_go_as_the_configuration_says_and_streaming_shows_the_same_text(
    tmp_path: Path,
) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "she", "did", "n't", "say", ",", ".", "'", "s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "config.json").write_text('{"model_type": "bert", "vocab_size": 13}')
    (tmp_path / "tokenizer_config.json").write_text('{"clean_up_tokenization_spaces": true}')
    tokenizer = load_tokenizer(tmp_path)
    ids = [5, 6, 7, 8, 9, 5, 11, 12, 8, 10, 6, 7]
    assert (
        tokenizer.decode(ids) == of_transformers(tmp_path).decode(ids) == "she didn't say, she's say. didn't"
    )
    stream = StreamDecoder(tokenizer)
    pieces = [stream.push(id) for id in ids]
    assert "".join(pieces) + stream.flush() == tokenizer.decode(ids)
    assert sum(map(bool, pieces)) > 5  # it does not wait for the end


def test_a_class_that_the_lab_does_not_know_reads_a_word_level_file_as_it_is(tmp_path: Path) -> None:
    import tokenizers

    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1, "<unk>": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 3}')
    assert load_tokenizer(tmp_path).encode("b a") == [
        1,
        0,
    ]  # GPT2Tokenizer would make a BPE without merges of it


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("tokenizer_config.json", "additional_special_tokens"),
        ("tokenizer_config.json", "extra_special_tokens"),
        ("special_tokens_map.json", "additional_special_tokens"),
    ],
)
@pytest.mark.parametrize("special", [None, False, True])
def test_a_further_token_that_is_written_with_its_flags_keeps_them(
    tmp_path: Path, file: str, key: str, special: bool | None
) -> None:
    token: dict[str, Any] = {"__type": "AddedToken", "content": "<tool>", "lstrip": True, "normalized": False}
    token |= {"special": special} if special is not None else {}
    backend = train_bpe(["low lower lowest " * 20], 280).backend
    backend.save(str(tmp_path / "tokenizer.json"))
    entries = {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}}
    entries[file] = entries.get(file, {}) | {key: ["<end>", token]}
    for name, content in entries.items():
        (tmp_path / name).write_text(json.dumps(content))
    ours, theirs = load_tokenizer(tmp_path), of_transformers(tmp_path)
    ids = theirs("low <tool> lower<end>")["input_ids"]
    assert ours.encode("low <tool> lower<end>") == ids
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


BPE_FILES = {"vocab.json": '{"a": 0, "b": 1, "ab": 2, "c": 3}', "merges.txt": "#version: 0.2\na b\n"}


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (BPE_FILES, "CTRLTokenizer"),  # blanks, not bytes
        (BPE_FILES, "OpenAIGPTTokenizer"),
        (BPE_FILES, "CLIPTokenizerFast"),
        (BPE_FILES, "TokenizerOfMyOwn"),
        ({"vocab.json": BPE_FILES["vocab.json"]}, "Wav2Vec2CTCTokenizer"),
        ({"vocab.txt": "[PAD]\n[UNK]\na\n"}, "PhobertTokenizer"),  # pieces of BPE, whose codes are elsewhere
        ({"vocab.txt": "[PAD]\n[UNK]\na\n"}, "MPNetTokenizer"),
    ],
)
@pytest.mark.parametrize("place", ["tokenizer_config.json", "config.json"])
def test_a_vocabulary_of_a_class_whose_rule_is_not_known_is_refused(
    tmp_path: Path, files: dict[str, str], named: str, place: str
) -> None:
    for name, content in {**files, place: json.dumps({"tokenizer_class": named})}.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(LabError, match=f"a vocabulary for {named}, whose rule is not known here"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("named", ["LayoutLMTokenizer", "ConvBertTokenizer", "DPRQuestionEncoderTokenizer"])
def test_classes_that_are_berts_under_another_name_read_its_vocabulary(tmp_path: Path, named: str) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "low", "##er", "new", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": named}))
    ours, theirs = load_tokenizer(tmp_path), of_transformers(tmp_path)
    for text in ("Lower new.", "low[MASK] x"):
        assert ours.encode(text, special=True) == theirs(text)["input_ids"]
