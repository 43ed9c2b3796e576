"""What all layouts share: files that appear whole or not at all, places that are taken, packages that are missing."""

import copy
import resource
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.cli import main
from gpt2lab.text.export import export
from gpt2lab.text.language_model import LanguageModel, load, save
from gpt2lab.text.tokenizer import train_bpe
from tests.tiny import tiny, tokens


@pytest.fixture
def lm() -> LanguageModel:
    return LanguageModel(
        tiny("gpt2", vocab_size=270), train_bpe(["an old cat, an old mat"], 262, min_frequency=1)
    )


def test_huggingfaces_folder_opens_in_transformers(lm, tmp_path) -> None:
    done = export(lm, "huggingface", tmp_path / "m")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    ids = tokens(2, 9)
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, lm.model(ids), rtol=1e-5, atol=1e-5)
    assert done.size == sum(file.stat().st_size for file in (tmp_path / "m").iterdir())
    assert (tmp_path / "m" / "tokenizer.json").exists()


def test_huggingfaces_layout_is_strict(tmp_path) -> None:
    with pytest.raises(LabError, match="n_experts"):
        export(LanguageModel(tiny("gpt2", n_experts=4)), "huggingface", tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_same_kind_is_replaced_and_anything_else_kept(lm, tmp_path) -> None:
    place = tmp_path / "m.gguf"
    place.write_text("my diary")
    with pytest.raises(LabError, match="is no GGUF file and would be lost"):
        export(lm, "gguf", place)
    assert place.read_text() == "my diary"
    with pytest.raises(LabError, match="is no ONNX file and would be lost"):
        export(lm, "onnx", place)
    with pytest.raises(LabError, match=r"a folder; give the name of a file, such as .*model\.gguf"):
        export(lm, "gguf", tmp_path)
    with pytest.raises(LabError, match="saving would remove"):
        export(lm, "huggingface", tmp_path)
    place.unlink()
    first = export(lm, "gguf", place).size
    assert export(lm, "gguf", place, precision="f16").size < first
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize("kind", ["gguf", "huggingface"])
def test_no_room_on_the_disk_is_a_sentence_and_leaves_the_old_file(kind, lm, tmp_path) -> None:
    export(lm, kind, tmp_path / "m")
    file = tmp_path / "m" if kind == "gguf" else tmp_path / "m" / "model.safetensors"
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # the kernel then refuses longer files
    try:
        with pytest.raises(LabError, match=r"/m: nothing was written: [a-z ]+$"):
            export(lm, kind, tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(("kind", "package"), [("onnx", "onnxruntime"), ("onnx", "onnxscript")])
def test_a_missing_package_names_the_extra(lm, kind, package, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LabError, match=rf"need the package {package}; .*pip install .*\[export\]"):
        export(lm, kind, tmp_path / "m")


def test_choices_that_do_not_exist_are_refused(lm, tmp_path) -> None:
    with pytest.raises(LabError, match=r"ggml: no such layout to export to; did you mean gguf\?"):
        export(lm, "ggml", tmp_path / "m")
    with pytest.raises(LabError, match="precision f16: an ONNX file is written in f32"):
        export(lm, "onnx", tmp_path / "m", precision="f16")
    with pytest.raises(LabError, match="f8: no such precision"):
        export(lm, "gguf", tmp_path / "m", precision="f8")


@torch.no_grad()
def test_a_folder_for_transformers_has_the_chosen_precision(lm, tmp_path) -> None:
    for precision, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16), (None, lm.model.dtype)):
        done = export(lm, "huggingface", tmp_path / "m", precision=precision)
        again = load(tmp_path / "m").model
        assert done.dtype == str(dtype).removeprefix("torch.") and again.dtype == dtype
        for ours, theirs in zip(lm.model.parameters(), again.parameters(), strict=True):
            assert torch.equal(ours.to(dtype), theirs)
    assert lm.model.dtype == torch.float32
    wide = copy.deepcopy(lm)
    wide.model.blocks[0].norm1.weight[0] = 1e6
    with pytest.raises(
        LabError, match=r"blocks\.0\.norm1\.weight has values too large for float16; choose bf16"
    ):
        export(wide, "huggingface", tmp_path / "m", precision="f16")


def test_the_verb_writes_the_file_and_says_so(lm, tmp_path, capsys) -> None:
    save(lm, tmp_path / "model")
    target = str(tmp_path / "m.gguf")
    assert (
        main(["export", str(tmp_path / "model"), "--to", "gguf", "--out", target, "--precision", "bf16"]) == 0
    )
    assert f"wrote   {target}" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "model"), "--to", "gguf", "--out", target, "--json"]) == 0
    assert '"kind": "gguf"' in capsys.readouterr().out
    assert main(["export", str(tmp_path / "model"), "--to", "gguf", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "a folder" in error
    assert gpt2lab.export(tmp_path / "model", to="gguf", out=target).path.name == "m.gguf"
