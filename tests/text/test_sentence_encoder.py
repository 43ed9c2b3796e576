"""A folder of sentence-transformers: its pooling, length, longest input and prompt are those of its files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.measures.index import build_index
from gpt2lab.measures.prediction import embed
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import bert_config
from gpt2lab.text.language_model import LanguageModel, load, save

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "sun",
    "moon",
    "rises",
    "query",
    ":",
    "over",
    "the",
    "sea",
]
TEXTS = ["Sun rises", "moon", "the moon rises over the sea the sun rises over the sea"]
MEAN = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


def encoder(
    folder: Path,
    *,
    pooling: dict[str, Any] = MEAN,
    modules: tuple[str, ...] = ("Transformer", "Pooling", "Normalize"),
    **files: dict[str, Any],
) -> Path:
    """Write a tiny BERT with the files that sentence-transformers puts beside it."""
    config = bert_config(vocab_size=13, d_model=16, n_layers=2, n_heads=2, max_positions=16)
    save(LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(0)).eval()), folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    listed = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def by_transformers(folder: Path, texts: list[str], pool: str, longest: int) -> Tensor:
    """What the published library computes: states of transformers, cut, pooled row by row; not yet of length 1."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        batch = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
        states = model(**batch).last_hidden_state[0]
        rows.append({"mean": states.mean(0), "first": states[0], "last": states[-1]}[pool])
    return torch.stack(rows).detach()


@pytest.mark.parametrize(
    ("mode", "pool"), [("mean_tokens", "mean"), ("cls_token", "first"), ("lasttoken", "last")]
)
def test_vectors_are_pooled_as_the_folder_says(tmp_path: Path, mode: str, pool: str) -> None:
    folder = encoder(tmp_path / "m", pooling={f"pooling_mode_{mode}": True, "pooling_mode_max_tokens": False})
    expected = F.normalize(by_transformers(folder, TEXTS, pool, 16), dim=-1)
    torch.testing.assert_close(embed(load(folder), TEXTS), expected, rtol=1e-5, atol=1e-5)


def test_length_longest_input_and_prompt_are_those_of_the_folder(tmp_path: Path) -> None:
    folder = encoder(
        tmp_path / "m",
        modules=("Transformer", "Pooling"),
        sentence_bert_config={"max_seq_length": 6, "do_lower_case": True},
        config_sentence_transformers={"prompts": {"ask": "query : "}, "default_prompt_name": "ask"},
    )
    lm = load(folder)
    said = embed(lm, TEXTS)
    asked = by_transformers(folder, [f"query : {text}" for text in TEXTS], "mean", 6)
    torch.testing.assert_close(said, asked, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(said.norm(dim=-1), torch.ones(3))
    other = by_transformers(folder, [f"sea {text}" for text in TEXTS], "mean", 6)
    torch.testing.assert_close(embed(lm, TEXTS, prefix="sea "), other, rtol=1e-5, atol=1e-5)


def test_vectors_stay_the_same_when_the_folder_is_saved(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "m", sentence_bert_config={"max_seq_length": 6})
    save(load(folder), tmp_path / "again")
    assert torch.equal(embed(load(tmp_path / "again"), TEXTS), embed(load(folder), TEXTS))
    assert torch.equal(gpt2lab.embed(str(folder), TEXTS), embed(load(folder), TEXTS))


def test_pooling_that_is_asked_for_counts_before_the_folder(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "m", modules=("Transformer", "Pooling", "Dense"))
    with pytest.raises(LabError, match=r"has the module Dense; computed are Transformer, Pooling, Normalize"):
        embed(load(folder), TEXTS)
    asked = F.normalize(by_transformers(folder, TEXTS, "first", 16), dim=-1)
    torch.testing.assert_close(embed(load(folder), TEXTS, pooling="first"), asked, rtol=1e-5, atol=1e-5)


def test_an_index_of_other_pooling_has_another_fingerprint(tmp_path: Path) -> None:
    first = build_index(load(encoder(tmp_path / "a")), ["1"], ["sun"])
    second = build_index(
        load(encoder(tmp_path / "b", pooling={"pooling_mode_cls_token": True})), ["1"], ["sun"]
    )
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": {"pooling_mode_max_tokens": True}}, "pools by max_tokens; computed is one of cls_token"),
        ({"pooling": MEAN | {"pooling_mode_cls_token": True}}, "pools by cls_token and mean_tokens"),
        ({"pooling": {}}, "pools by nothing"),
        ({"modules": ("Transformer",)}, "does not have one module Pooling"),
        (
            {"sentence_bert_config": {"max_seq_length": "x"}},
            "max_seq_length should be a number from 1, found 'x'",
        ),
        (
            {"config_sentence_transformers": {"default_prompt_name": "q"}},
            "has no prompt of its default's name, 'q'",
        ),
    ],
)
def test_what_is_not_computed_is_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    lm = load(encoder(tmp_path / "m", **change))
    with pytest.raises(LabError, match=message):
        embed(lm, TEXTS)
