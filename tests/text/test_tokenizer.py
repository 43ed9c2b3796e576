import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.base import json_files
from gpt2lab.base.errors import LabError
from gpt2lab.text import tokenizer_files
from gpt2lab.text.long_words import with_bounded_words
from gpt2lab.text.streaming import StreamDecoder
from gpt2lab.text.tokenizer import (
    Tokenizer,
    byte_level,
    train_bpe,
    word_level,
)
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
MODELS = ("capp-gpt2-237k", "gpt-nano-sort-85k", "stories260k-llama", "tinystories-656k-llama")
BYTES = byte_level()
BPE = train_bpe(["a rose is a rose is a rose, “né” — 日本 🙂"] * 4, 290)


@pytest.mark.parametrize("where", ["merges", "saved"])
def test_gpt2_encodes_the_twenty_known_texts(shared_data: Path, tmp_path: Path, where: str) -> None:
    tokenizer = load_tokenizer(shared_data / "gpt2-tokenizer")
    if where == "saved":
        save_tokenizer(tokenizer, tmp_path)
        tokenizer = load_tokenizer(tmp_path)
    known = json.loads((shared_data / "gpt2-tokenizer" / "known_encodings.json").read_text(encoding="utf-8"))
    assert len(known) == 20
    for row in known:
        assert tokenizer.encode(row["text"]) == row["ids"]
        assert tokenizer.decode(row["ids"]) == row["text"]
    assert tokenizer.encode_batch([row["text"] for row in known]) == [row["ids"] for row in known]
    assert tokenizer.encode("<|endoftext|>") == [50256] == [tokenizer.eos]
    assert tokenizer.vocab_size == 50257


@pytest.mark.parametrize("name", MODELS)
def test_the_small_models_tokenizers_survive_saving(shared_data: Path, tmp_path: Path, name: str) -> None:
    tokenizer = load_tokenizer(shared_data / "models" / name)
    config = json.loads((shared_data / "models" / name / "config.json").read_text())
    save_tokenizer(tokenizer, tmp_path)
    again = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == config["vocab_size"]
    assert again.fingerprint == tokenizer.fingerprint
    assert again.vocabulary == tokenizer.vocabulary
    ours = ("bos", "eos", "pad", "unk", "special_ids")
    assert [getattr(again, field) for field in ours] == [getattr(tokenizer, field) for field in ours]


def test_a_list_of_words_may_hold_words_with_blanks(shared_data: Path) -> None:
    tokenizer = load_tokenizer(shared_data / "models" / "capp-gpt2-237k")
    text = "holes_normal <SOS> 5-axis Milling Secondary  5-axis Milling Milling\n<EOC> <EOS>"
    assert tokenizer.encode(text) == [8, 49, 39, 31, 30, 50, 51]
    assert tokenizer.decode([8, 49, 39, 50, 51, 52]) == "holes_normal 5-axis Milling Secondary <EOC>"
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad, tokenizer.unk) == (49, 51, 52, None)


def test_a_list_of_letters_splits_at_every_letter(shared_data: Path) -> None:
    tokenizer = load_tokenizer(shared_data / "models" / "gpt-nano-sort-85k")
    assert tokenizer.encode("CABBA") == [2, 0, 1, 1, 0]
    assert tokenizer.decode([2, 0, 1]) == "CAB"
    with pytest.raises(LabError, match="'D' is not among the 3 words"):
        tokenizer.encode("CAD")


def _all_kinds(shared_data: Path) -> dict[str, Tokenizer]:
    kinds = {name: load_tokenizer(shared_data / "models" / name) for name in MODELS[2:]}
    kinds["gpt2"] = load_tokenizer(shared_data / "gpt2-tokenizer")
    kinds["bpe"], kinds["bytes"] = BPE, BYTES
    kinds["words"] = word_level(["Once upon a time, there was a girl."], special=["<sep>"])
    return kinds


def test_transformers_opens_every_saved_kind_with_the_same_ids(shared_data: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    texts = ["Once upon a time, there was a girl.", "é 日本 🙂\n\n  two  blanks", "<|endoftext|> a", ""]
    for kind, tokenizer in _all_kinds(shared_data).items():
        save_tokenizer(tokenizer, tmp_path / kind)
        for opener in (transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast):
            theirs = opener.from_pretrained(tmp_path / kind)
            for text in texts:
                assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text), kind
                assert theirs(text)["input_ids"] == tokenizer.encode(text, special=True), kind
            ids = tokenizer.encode(texts[0])
            assert theirs.decode(ids, clean_up_tokenization_spaces=False) == tokenizer.decode(ids), kind
            assert (theirs.eos_token_id, theirs.bos_token_id) == (tokenizer.eos, tokenizer.bos), kind


def test_transformers_own_gpt2_encodes_as_ours(shared_data: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2TokenizerFast.from_pretrained(shared_data / "gpt2-tokenizer")
    ours = load_tokenizer(shared_data / "gpt2-tokenizer")
    text = (shared_data / "english-corpus" / "carroll-alice.txt").read_text()[:20_000]
    assert theirs(text)["input_ids"] == ours.encode(text)


@given(TEXT)
def test_bytes_and_bpe_give_every_text_back(text: str) -> None:
    assert BYTES.decode(BYTES.encode(text)) == text
    assert BYTES.encode(text) == list(text.encode())
    assert BPE.decode(BPE.encode(text)) == text


@given(TEXT)
def test_streamed_pieces_join_to_the_text_and_hold_no_broken_character(text: str) -> None:
    for tokenizer in (BYTES, BPE):
        stream = StreamDecoder(tokenizer)
        pieces = [stream.push(id) for id in tokenizer.encode(text)]
        assert "".join(pieces) + stream.flush() == text
        assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@given(st.lists(st.integers(0, 256), max_size=40))
def test_streamed_pieces_of_any_bytes_join_to_the_decoded_whole(ids: list[int]) -> None:
    stream = StreamDecoder(BYTES)
    streamed = "".join(stream.push(id) for id in ids) + stream.flush()
    assert streamed == BYTES.decode(ids)


def test_streaming_keeps_the_blanks_of_a_sentencepiece_tokenizer(shared_data: Path) -> None:
    for name in MODELS[2:]:
        tokenizer = load_tokenizer(shared_data / "models" / name)
        ids = tokenizer.encode("Once upon a time there was é a 🙂🙂 girl.", special=True)
        stream = StreamDecoder(tokenizer)
        assert "".join(stream.push(id) for id in ids) + stream.flush() == tokenizer.decode(ids)


def test_streaming_shows_each_word_as_soon_as_it_is_there() -> None:
    stream = StreamDecoder(BYTES)
    assert [stream.push(id) for id in "né".encode()] == ["n", "", "é"]


def test_training_streams_its_documents_and_ends_at_the_size_asked_for(story: str) -> None:
    tokenizer = train_bpe((story for _ in range(5)), 280, special=["<|sep|>"])
    assert tokenizer.vocab_size == 280
    assert tokenizer.eos == tokenizer.bos == 0
    assert tokenizer.encode("<|sep|>") == [1]
    assert len(tokenizer.encode(story)) < len(story.encode())


def test_training_twice_gives_the_same_tokenizer_even_in_another_process(story: str) -> None:
    code = (
        "from gpt2lab.text.tokenizer import train_bpe\nimport sys\n"
        "print(train_bpe([sys.argv[1]] * 3, 300).fingerprint)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, story],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert run.stdout.strip() == train_bpe([story] * 3, 300).fingerprint


def test_words_are_numbered_by_frequency_after_the_special_tokens() -> None:
    tokenizer = word_level(["b a. a", "a b c"], special=["<sep>"])
    assert list(tokenizer.vocabulary) == ["<unk>", "<|endoftext|>", "<sep>", "a", "b", ".", "c"]
    assert tokenizer.encode("a <sep> x.") == [3, 2, 0, 5]
    assert tokenizer.decode([3, 1, 5]) == "a ."
    assert word_level(["b a. a", "a b c"], vocab_size=4).vocab_size == 4
    assert "a." in word_level(["b a. a"], punctuation=False).vocabulary
    assert list(word_level(["y", "x"], unk=None, eos=None).vocabulary) == ["y", "x"]


def test_a_fingerprint_tells_vocabularies_apart_and_ignores_templates(bpe: Tokenizer) -> None:
    import tokenizers

    same = tokenizers.Tokenizer.from_str(bpe.backend.to_str())
    same.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    assert Tokenizer(same).fingerprint == bpe.fingerprint
    assert train_bpe(["other text"] * 3, 300).fingerprint != bpe.fingerprint


def test_a_stored_truncation_or_padding_is_not_obeyed(bpe: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(bpe, tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert len(load_tokenizer(tmp_path).encode("a long text " * 9)) > 3


def test_what_else_a_tokenizer_config_holds_is_kept_on_saving(bpe: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(bpe, tmp_path / "a")
    config = json.loads((tmp_path / "a" / "tokenizer_config.json").read_text())
    (tmp_path / "a" / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "{{ x }}"}))
    save_tokenizer(load_tokenizer(tmp_path / "a"), tmp_path / "b")
    assert json.loads((tmp_path / "b" / "tokenizer_config.json").read_text())["chat_template"] == "{{ x }}"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no tokenizer here; expected tokenizer.json"),
        ({"tokenizer.json": '{"model": {"type": "BPE", '}, "not JSON, or cut off: .* in line 1"),
        ({"tokenizer.json": '{"version": "1.0"}'}, 'the entry "model" is missing'),
        ({"tokenizer.json": '{"version": "1.0", "model": {"type": "BPE"}}'}, "misshapen tokenizer"),
        (
            {
                "tokenizer.json": '{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}}'
            },
            "merges 'a' and 'b', but 'ab' is not in the vocabulary",
        ),
        ({"tokenizer.json": "[1]"}, "expected a JSON object, found list"),
        ({"tokenizer.model": "x"}, "only a sentencepiece tokenizer.model"),
        ({"vocab.json": '{"Ġa": 0}'}, "without its merges.txt"),
        ({"vocab.json": '{"a": 0, "b": 0}'}, "two words share an id"),
        ({"vocab.json": '{"a": "0"}'}, "the id of 'a' should be a whole number"),
        ({"vocab.json": "{}"}, "the vocabulary is empty"),
        (
            {"vocab.json": '{"a": 0, "b": 1}', "merges.txt": "#version\na b\n"},
            "'ab' is not in the vocabulary",
        ),
        (
            {"vocab.json": '{"a": 0, "b": 1}', "merges.txt": "#version\nab\n"},
            "merges.txt, line 2: expected two",
        ),
        *(
            (
                {"vocab.json": '{"a": 0, "b": 1, "ab": 2}', "merges.txt": text},
                f"merges.txt, line {line}: expected two",
            )
            for text, line in (
                ("#version: 0.2\na b\n\n", 3),
                ("\na b\n", 1),
                ("a b\n\r\na b\n", 2),
                ("a b \n", 1),
                ("# a\n a b\n", 2),
            )
        ),
        (
            {"vocab.json": '{"a": 0, "b": 1, "ab": 2}', "merges.txt": "a b\na b\r"},
            r"'b\\r' is not in the vocabulary",
        ),
        *(
            (
                {"vocab.json": '{"a": 0}', file: json.dumps({f"{role}_token": tokens})},
                f"{role}_token: expected a token",
            )
            for file in ("tokenizer_config.json", "special_tokens_map.json")
            for role, tokens in (("bos", ["a"]), ("eos", ["a", "b"]), ("pad", []), ("mask", [None]))
        ),
        (
            {"vocab.json": '{"a": 0}', "tokenizer_config.json": '{"eos_token": "</s>"}'},
            "eos_token '</s>' is not in",
        ),
    ],
)
def test_a_broken_tokenizer_folder_is_named_in_one_sentence(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(LabError, match=message) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_a_line_of_merges_with_a_version_is_passed_over_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2, "aba": 3}')
    (tmp_path / "merges.txt").write_text("a b\n#version: 0.2\nab a\n")
    assert load_tokenizer(tmp_path).encode("aba") == [3]


def test_tokens_added_to_gpt2s_vocabulary_keep_their_ids(shared_data: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).symlink_to(shared_data / "gpt2-tokenizer" / name)
    (tmp_path / "added_tokens.json").write_text('{"<sep>": 50258, "<pad>": 50257}')
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "<pad>"}')
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.vocab_size, tokenizer.pad, tokenizer.eos) == (50259, 50257, 50256)
    assert tokenizer.encode("a<sep>") == [64, 50258]
    (tmp_path / "added_tokens.json").write_text('{"<pad>": 50300}')
    with pytest.raises(LabError, match="'<pad>' should have id 50257, found 50300"):
        load_tokenizer(tmp_path)


def test_a_missing_folder_names_the_nearest_one(bpe: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(bpe, tmp_path / "stories")
    with pytest.raises(LabError, match=r"no such folder; did you mean .*stories\?"):
        load_tokenizer(tmp_path / "storys")
    with pytest.raises(LabError, match="does not exist either"):
        load_tokenizer(tmp_path / "no" / "where")


@pytest.mark.parametrize("added", [0, 1])
def test_a_tokenizer_without_entries_is_refused(tmp_path: Path, added: int) -> None:
    content = json.loads(byte_level().backend.to_str())
    content["model"] |= {"vocab": {}, "merges": []}
    content["added_tokens"] = [{**token, "id": 0} for token in content["added_tokens"][:added]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    for source in (tmp_path, tmp_path / "tokenizer.json"):
        with pytest.raises(
            LabError, match="the tokenizer's vocabulary has no entries, so that every text would"
        ):
            load_tokenizer(source)


def test_too_small_a_vocabulary_and_an_empty_corpus_are_refused() -> None:
    with pytest.raises(LabError, match="needs at least 257"):
        train_bpe(["a"], 256)
    with pytest.raises(LabError, match="no text to train a tokenizer on"):
        train_bpe(iter(["", ""]), 300)
    with pytest.raises(LabError, match="got one str"):
        train_bpe("a text", 300)
    with pytest.raises(LabError, match="no text to collect words from"):
        word_level([])
    with pytest.raises(LabError, match="leaves no room"):
        word_level(["a"], vocab_size=2)


def test_an_id_without_a_token_has_no_text() -> None:
    assert BYTES.decode([97, 257, 98, 50303]) == "ab"
    stream = StreamDecoder(BYTES)
    assert [stream.push(id) for id in (97, 300, 98)] == ["a", "", "b"]
    assert BYTES.token(300) == ""


def test_what_can_be_no_id_and_text_that_is_none_are_refused() -> None:
    for wrong in (-1, 2**31):
        with pytest.raises(LabError, match=f"id {wrong}: token ids are whole numbers from 0 to 2147483647"):
            BYTES.decode([1, wrong])
    with pytest.raises(LabError, match="lone surrogate at character 1"):
        BYTES.encode("a\ud800")
    with pytest.raises(LabError, match="encodes str, got bytes"):
        BYTES.encode_batch(["a", b"b"])  # type: ignore[list-item]  # the mistake under test
    with pytest.raises(LabError, match="eos token 300: outside"):
        Tokenizer(BYTES.backend, eos=300)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_save_that_is_cut_off_leaves_no_tokenizer_rather_than_half_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int, before: bool
) -> None:
    if before:
        save_tokenizer(word_level(["another one"]), tmp_path)
    write, left = tokenizer_files.atomic_write, [written]

    def dies(path: Path, content: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for writer in (tokenizer_files, json_files):
            patch.setattr(writer, "atomic_write", dies)
        save_tokenizer(byte_level(), tmp_path)
    assert not tokenizer_files.has_tokenizer(tmp_path)
    save_tokenizer(byte_level(), tmp_path)
    assert load_tokenizer(tmp_path).fingerprint == byte_level().fingerprint


def test_a_word_that_is_too_long_is_learnt_from_in_pieces_and_other_text_stays_whole(story: str) -> None:
    splitter = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = f"{story} {'ACGT' * 1000}tail, {'x' * 1000} {' ' * 2500}end 日本{'語' * 3000}"
    pieces = list(with_bounded_words(text, splitter))
    assert "".join(pieces) == text
    assert len(pieces) == 1 + 4 + 1 + 2 + 3  # the blank before a word is a part of it
    assert (
        max(len(word) for piece in pieces for word, _ in splitter.pre_tokenize_str(piece)) <= 3 * 1000
    )  # bytes
    for ordinary in (story, "x" * 1000, "", "a1" * 5000):
        assert list(with_bounded_words(ordinary, splitter)) == [ordinary]


@pytest.mark.parametrize("word", ["ACGTTGCA", "\n", "é", '{"a":1},'])
def test_training_on_one_long_line_takes_seconds(word: str) -> None:
    began = time.monotonic()
    tokenizer = train_bpe([word * (300_000 // len(word))], 300)
    assert time.monotonic() - began < 20  # without bounds 50 s and more on one core
    assert tokenizer.decode(tokenizer.encode(word * 9)) == word * 9
