"""Every entry that a family's config.json may hold is followed as transformers follows it, or refused by its name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, TransformerConfig, load_model, save_model
from gpt2lab.model.checkpoints.families import CONSTRUCTORS
from tests.model.checkpoints.test_families import HF_CONFIGS
from tests.tiny import tokens

FAMILIES = [
    name
    for name in HF_CONFIGS
    if name in ("gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "mixtral", "qwen2")
]
WORDS = ("relu", "gelu_new", "quick_gelu")


def _encoders() -> dict[str, PreTrainedConfig]:
    from transformers import BertConfig, DistilBertConfig, RobertaConfig

    sizes = {"vocab_size": 53, "max_position_embeddings": 34}
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    return {
        "bert": BertConfig(**sizes, **shape),
        "roberta": RobertaConfig(**sizes, **shape),
        "distilbert": DistilBertConfig(**sizes, dim=24, n_layers=2, n_heads=2, hidden_dim=40),
    }


CONFIGS = {**{name: HF_CONFIGS[name] for name in FAMILIES}, **_encoders()}


def own_entries(config: PreTrainedConfig) -> dict[str, Any]:
    """The entries of this family with their values, without those that every configuration has."""
    common = PreTrainedConfig().to_dict().keys() | {"architectures", "dtype", "tie_word_embeddings"}
    return {
        name: value
        for name, value in config.to_dict().items()
        if name not in common - {"tie_word_embeddings"}
    }


def alternatives(value: object) -> list[object]:
    """Other values of the same kind."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, 2 * value or 2]
        case float():
            return [2 * value + 0.1]
        case str():
            return list(WORDS)
        case None:
            return [True, 2]
        case _:
            return []


def changed(config: PreTrainedConfig, name: str, value: object, folder: Path) -> PreTrainedModel | None:
    """A random model with one entry changed, saved; None where transformers itself cannot make or open it."""
    masked = config.model_type in ("bert", "roberta", "distilbert")
    auto = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    try:
        made = auto.from_config(type(config)(**{**config.to_dict(), name: value}))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        made.save_pretrained(folder)
        found: PreTrainedModel = auto.from_pretrained(folder).eval()
        found(tokens(1, 3, vocab=50))
    except Exception:  # whatever transformers says of it
        return None
    return found


def opened(folder: Path) -> Transformer | LabError:
    """Our model of a folder, or what we say against it."""
    try:
        return load_model(folder)
    except LabError as error:
        return error


@torch.no_grad()
@pytest.mark.parametrize("family", CONFIGS)
def test_each_entry_is_followed_or_refused_by_name(family: str, tmp_path: Path) -> None:
    config, compared, ids = CONFIGS[family], 0, 5 + tokens(2, 11, vocab=45)
    for name, value in own_entries(config).items():
        for number, other in enumerate(alternatives(value)):
            folder = tmp_path / f"{name}-{number}"
            theirs = changed(config, name, other, folder)
            if theirs is None:
                continue
            ours = opened(folder)
            if isinstance(ours, LabError):
                assert name in str(ours) or "rotary" in str(ours), f"{name}={other!r}: {ours}"
                continue
            expected = theirs(ids).logits
            assert (ours(ids) - expected).abs().max() <= 2e-5 * expected.abs().max(), f"{name}={other!r}"
            compared += 1
    assert compared >= 12, f"only {compared} entries could be compared"


@torch.no_grad()
@pytest.mark.parametrize("family", CONFIGS)
def test_null_is_refused_by_name_where_transformers_refuses_it_and_read_as_there_elsewhere(
    family: str, tmp_path: Path
) -> None:
    save_model(Transformer(_tiny(family)), tmp_path, layout="huggingface")
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    masked, ids, refused = family in ("bert", "roberta", "distilbert"), 5 + tokens(1, 7, vocab=45), []
    auto = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    for name in sorted({*own_entries(CONFIGS[family]), *written} - {"model_type"}):
        (tmp_path / "config.json").write_text(json.dumps({**written, name: None}), encoding="utf-8")
        ours = opened(tmp_path)
        try:
            theirs = auto.from_pretrained(tmp_path, attn_implementation="eager").eval()(ids).logits
        except Exception:  # whatever transformers says of it
            assert isinstance(ours, LabError), f"{name} is read"
            assert name in str(ours)
            refused.append(name)
            continue
        assert not isinstance(ours, LabError), f"{name}: {ours}"
        torch.testing.assert_close(ours(ids), theirs, atol=1e-5, rtol=1e-4, msg=name)
    assert len(refused) >= 10


def _tiny(family: str) -> TransformerConfig:
    sizes = {"vocab_size": 53, "d_model": 32, "n_layers": 2, "n_heads": 2, "max_positions": 32}
    return CONSTRUCTORS[family](**sizes).replace(bos=0, eos=1)
