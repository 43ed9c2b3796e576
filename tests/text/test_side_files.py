"""What belongs to a model's folder beside weights and tokenizer is followed, and kept by whatever saves it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.decode import Greedy, Limits
from gpt2lab.decode.prompts import end_tokens
from gpt2lab.model import Transformer
from gpt2lab.model.adapters import Lora
from gpt2lab.model.architecture import attach
from gpt2lab.model.checkpoints.families import bert_config, gpt2_config, llama_config
from gpt2lab.text.export import export
from gpt2lab.text.language_model import LanguageModel, load, save, save_adapter
from gpt2lab.text.side_files import read_side_files
from gpt2lab.text.tokenizer import Tokenizer, byte_level, train_bpe, word_level
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer

SIDE: dict[str, str] = {
    "README.md": "# A model\n",
    "LICENSE": "Apache-2.0\n",
    "generation_config.json": '{"eos_token_id": [256, 46]}',
    "modules.json": "[]",
    "1_Pooling/config.json": "{}",
    "chat_template.jinja": "{{ messages }}",
    "additional_chat_templates/tools.jinja": "{{ tools }}",
}


def tiny(vocab_size: int = 257) -> LanguageModel:
    config = gpt2_config(vocab_size=vocab_size, d_model=8, n_layers=1, n_heads=2, max_positions=64)
    return LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(0)).eval(), byte_level())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tiny(), tmp_path / "model")
    for name, text in SIDE.items():
        (tmp_path / "model" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_text(text)
    return tmp_path / "model"


def kept(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in SIDE if (folder / name).is_file()}


def test_saving_keeps_the_side_files_of_the_folder_that_was_loaded(folder: Path, tmp_path: Path) -> None:
    save(load(folder), tmp_path / "again")
    assert kept(tmp_path / "again") == SIDE
    save(load(tmp_path / "again"), tmp_path / "again")  # over itself
    assert kept(tmp_path / "again") == SIDE


def test_transforms_exports_and_adapters_keep_them(folder: Path, tmp_path: Path) -> None:
    save(gpt2lab.apply("quantize", str(folder)), tmp_path / "quantized")
    assert kept(tmp_path / "quantized") == SIDE
    export(load(folder), "huggingface", tmp_path / "exported")
    assert kept(tmp_path / "exported") == SIDE
    lm = load(folder)
    attach(lm.model, Lora(rank=2), generator=torch.Generator().manual_seed(0))
    save_adapter(lm, tmp_path / "adapter", base=str(folder))
    (tmp_path / "adapter" / "README.md").write_text("# An adapter\n")
    save(load(tmp_path / "adapter"), tmp_path / "adapted", layout="gpt2lab")
    assert kept(tmp_path / "adapted") == {**SIDE, "README.md": "# An adapter\n"}


def test_ids_of_another_tokenizer_are_not_passed_on(folder: Path) -> None:
    old, new = load(folder), tiny()
    new.tokenizer = byte_level(eos="<end>")
    new.inherit(old)
    assert "generation_config.json" not in new.side_files and "README.md" in new.side_files


def test_documents_without_a_model_beside_them_are_not_written_over(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("mine")
    with pytest.raises(LabError, match=r"holds README\.md, which saving would remove"):
        save(tiny(), tmp_path / "notes")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "best.safetensors").write_text("mine")
    with pytest.raises(LabError, match=r"holds experiments/best\.safetensors"):
        save(tiny(), folder)


def test_a_side_file_that_is_too_large_to_be_one_is_named(folder: Path) -> None:
    with (folder / "README.md").open("wb") as handle:
        handle.truncate(2**25)
    with pytest.raises(LabError, match=r"README\.md: 33,554,432 bytes, more than the 16,777,216"):
        read_side_files(folder)


def test_all_ends_of_generation_config_end_a_text_as_in_transformers(
    shared_data: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    shutil.copytree(shared_data / "models" / "stories260k-llama", tmp_path / "m")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    stop = theirs("Lily.", add_special_tokens=False)["input_ids"][-1]
    (tmp_path / "m" / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 1, "eos_token_id": [2, stop]})
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    prompt = theirs("Once upon a time", return_tensors="pt")
    said = model.generate(**prompt, max_new_tokens=30, do_sample=False)[0].tolist()
    lm = load(tmp_path / "m")
    ours = gpt2lab.generate(lm, "Once upon a time", max_new_tokens=30)
    assert [*ours.prompt_tokens, *ours.tokens] == said
    assert (ours.tokens[-1], ours.finished, end_tokens(lm)) == (stop, "eos", (2, stop))
    save(lm, tmp_path / "again")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert again.generate(**prompt, max_new_tokens=30, do_sample=False)[0].tolist() == said


@pytest.mark.parametrize("decoder", ["greedy", "sampling", "beam", "contrastive-search"])
def test_suppressed_tokens_are_never_said(decoder: str) -> None:
    lm = tiny()
    said = gpt2lab.generate(lm, "abc", decoder=decoder, max_new_tokens=12, stop_at_eos=False).tokens
    first, some = said[0], sorted({*said[1:]} - {said[0]})[:1]
    rule = {"suppress_tokens": some, "begin_suppress_tokens": [first]}
    lm.side_files = {"generation_config.json": json.dumps(rule).encode()}
    again = gpt2lab.generate(lm, "abc", decoder=decoder, max_new_tokens=12, stop_at_eos=False).tokens
    assert again[0] != first and not {*some} & {*again}


def test_suppressed_tokens_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    lm = tiny()
    usual = gpt2lab.generate(lm, "abc", max_new_tokens=9, stop_at_eos=False).tokens
    rule = {"suppress_tokens": usual[2:4], "begin_suppress_tokens": usual[:1], "eos_token_id": 256}
    lm.side_files = {"generation_config.json": json.dumps(rule).encode()}
    save(lm, tmp_path / "m")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    said = model.generate(torch.tensor([[97, 98, 99]]), max_new_tokens=9, do_sample=False)[0, 3:].tolist()
    assert gpt2lab.generate(load(tmp_path / "m"), "abc", max_new_tokens=9).tokens == said != usual


def test_entries_that_no_decoder_follows_are_told() -> None:
    lm = tiny()
    lm.side_files = {
        "generation_config.json": b'{"repetition_penalty": 1.1, "forced_eos_token_id": 5, "min_length": 0}'
    }
    with pytest.warns(UserWarning, match="asks for forced_eos_token_id and repetition_penalty"):
        gpt2lab.generate(lm, "abc", max_new_tokens=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "expected a JSON object, found list"),
        ('{"eos_token_id": "end"}', "eos_token_id should be an id or a list of ids, found end"),
        ('{"suppress_tokens": [1, null]}', "suppress_tokens should be an id or a list of ids"),
        ('{"eos', "not JSON, or cut off"),
    ],
)
def test_a_broken_generation_config_is_told_on_loading(folder: Path, content: str, message: str) -> None:
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(LabError, match=f"generation_config.json: {message}") as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_a_saved_bert_reads_pairs_in_transformers_as_before(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sun", "moon"]
    config = bert_config(vocab_size=7, d_model=16, n_layers=1, n_heads=2, max_positions=16)
    save(
        LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(0)).eval()), tmp_path / "a"
    )
    (tmp_path / "a" / "vocab.txt").write_text("\n".join(words))
    save(load(tmp_path / "a"), tmp_path / "b")
    seen: list[Any] = []
    for name in "ab":
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        pair = tokenizer("sun", "moon", return_tensors="pt")
        model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / name).eval()
        masked = tokenizer.get_special_tokens_mask(
            pair["input_ids"][0].tolist(), already_has_special_tokens=True
        )
        seen.append((sorted(pair), pair["token_type_ids"].tolist(), masked, model(**pair).logits.tolist()))
    assert seen[0] == seen[1]
    assert seen[0][1] == [[0, 0, 0, 1, 1]] and seen[0][2] == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("decoder", ["greedy", "sampling", "beam", "contrastive-search"])
def test_a_model_with_padding_rows_writes_a_text(decoder: str) -> None:
    lm = tiny(320)
    with torch.no_grad():
        lm.model.embedding.weight[257:] *= 50  # the padding rows would be said
    text = gpt2lab.generate(lm, "abc", decoder=decoder, max_new_tokens=20, stop_at_eos=False, seed=1)
    assert len(text.tokens) == 20 and max(text.tokens) < 257
    unlimited = Greedy().decode(lm.model, [[97, 98, 99]], Limits(max_new_tokens=20))[0]
    assert max(unlimited) >= 257 and lm.tokenizer.decode(unlimited) == ""


@pytest.mark.parametrize(
    "made", [byte_level(), train_bpe(["low lower 1234 " * 9], 280), word_level(["low lower"])]
)
def test_a_qwen2_with_a_tokenizer_of_its_own_gives_the_same_ids_after_saving(
    made: Tokenizer, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    config = llama_config(
        vocab_size=300, d_model=8, n_layers=1, n_heads=2, max_positions=32, family="qwen2", qkv_bias=True
    )
    save(LanguageModel(Transformer(config).eval(), made), tmp_path / "m")
    assert json.loads((tmp_path / "m" / "config.json").read_text())["model_type"] == "qwen2"
    for _ in range(2):
        again = load(tmp_path / "m")
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
        assert again.tokenizer is not None and again.tokenizer.fingerprint == made.fingerprint
        for text in ("low lower 1234", "don't\n\n  low"):
            assert (
                theirs(text)["input_ids"] == again.tokenizer.encode(text, special=True) == made.encode(text)
            )
        save(again, tmp_path / "m")


def test_a_tokenizer_keeps_its_chat_templates(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.chat_templates == {"default": "{{ messages }}", "tools": "{{ tools }}"}
    save_tokenizer(tokenizer, tmp_path / "t")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "t")
    assert theirs.chat_template == tokenizer.chat_templates
