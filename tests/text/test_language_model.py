import json
from pathlib import Path

import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.text import language_model
from gpt2lab.text.language_model import LanguageModel, load, save
from gpt2lab.text.tokenizer import Tokenizer, byte_level
from gpt2lab.text.tokenizer_files import save_tokenizer

MODELS = ("capp-gpt2-237k", "gpt-nano-sort-85k", "stories260k-llama", "tinystories-656k-llama")


def tiny(vocab_size: int) -> Transformer:
    config = gpt2_config(vocab_size=vocab_size, d_model=8, n_layers=1, n_heads=2, max_positions=32)
    return Transformer(config, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MODELS)
def test_a_real_small_model_loads_and_survives_saving(shared_data: Path, tmp_path: Path, name: str) -> None:
    lm = gpt2lab.load(str(shared_data / "models" / name))
    assert lm.tokenizer is not None
    assert lm.config.vocab_size == lm.tokenizer.vocab_size
    save(lm, tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.tokenizer is not None
    assert again.tokenizer.fingerprint == lm.tokenizer.fingerprint
    tokens = torch.arange(lm.config.vocab_size)[None, :9] % lm.config.vocab_size
    assert torch.equal(again.model(tokens), lm.model(tokens))
    save(again, tmp_path / "m")  # a model may be replaced by a model


def test_a_saved_model_opens_in_transformers_with_its_tokenizer(tmp_path: Path) -> None:
    import transformers

    lm = LanguageModel(tiny(257), byte_level())
    save(lm, tmp_path / "m")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    ids = tokenizer("né", return_tensors="pt")["input_ids"]
    assert ids.tolist() == [lm.tokenizer.encode("né")]  # type: ignore[union-attr]  # set two lines above
    torch.testing.assert_close(theirs(ids).logits, lm.model(ids), rtol=1e-5, atol=1e-5)
    assert (theirs.config.bos_token_id, theirs.config.eos_token_id) == (256, 256)


def test_a_model_without_a_tokenizer_is_saved_and_loaded(tmp_path: Path) -> None:
    save(LanguageModel(tiny(7)), tmp_path / "m")
    assert load(tmp_path / "m").tokenizer is None
    assert json.loads((tmp_path / "m" / "config.json").read_text())["vocab_size"] == 7


def test_a_tokenizer_larger_than_the_model_is_refused_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="the tokenizer has 257 ids, the model only 256 rows"):
        LanguageModel(tiny(256), byte_level())
    assert LanguageModel(tiny(300), byte_level()).config.vocab_size == 300
    save(LanguageModel(tiny(256)), tmp_path / "m")
    save_tokenizer(byte_level(), tmp_path / "m")
    with pytest.raises(LabError, match="m: the tokenizer has 257 ids"):
        load(tmp_path / "m")


def test_saving_never_takes_the_place_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(LabError, match=r"holds thesis\.txt, which saving would remove"):
        save(LanguageModel(tiny(7)), tmp_path)
    with pytest.raises(LabError, match="a file; a model is saved as a folder"):
        save(LanguageModel(tiny(7)), tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(LanguageModel(tiny(257), byte_level()), tmp_path / "m")

    def full(tokenizer: Tokenizer, folder: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(language_model, "save_tokenizer", full)
    with pytest.raises(OSError, match="no space"):
        save(LanguageModel(tiny(300), byte_level()), tmp_path / "m")
    assert load(tmp_path / "m").config.vocab_size == 257
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_names_that_are_no_model_get_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(LanguageModel(tiny(7)), tmp_path / "stories")
    with pytest.raises(LabError, match=r"no such folder; did you mean .*stories\?"):
        load(tmp_path / "storyes")
    with pytest.raises(LabError, match=r"no such folder; did you mean .*stories\?"):
        load(f"{tmp_path}/storie")
    with pytest.raises(LabError, match="a file; a model is a folder"):
        load(tmp_path / "stories" / "config.json")
