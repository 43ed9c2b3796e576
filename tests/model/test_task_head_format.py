"""Classification checkpoints against `transformers`: logits, files both ways, and what has no place there."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    RobertaConfig,
)

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, load_model, save_model
from gpt2lab.model.architecture import attach
from gpt2lab.model.checkpoints.families.bert import bert_config
from gpt2lab.model.checkpoints.families.distilbert import distilbert_config
from gpt2lab.model.checkpoints.families.roberta import roberta_config
from gpt2lab.model.task_heads import Head, heads, read_out
from tests.tiny import tiny, tokens

SIZES = {
    "vocab_size": 61,
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "pad_token_id": 60,
}
ENCODER = {**SIZES, "intermediate_size": 40, "max_position_embeddings": 40}
ROTARY = {**ENCODER, "num_key_value_heads": 3}
CONFIGS = {
    "gpt2": GPT2Config(vocab_size=61, n_embd=36, n_layer=2, n_head=3, n_positions=40, pad_token_id=60),
    "gpt_neo": GPTNeoConfig(
        vocab_size=61, hidden_size=36, num_layers=2, attention_types=[[["global", "local"], 1]], num_heads=3,
        max_position_embeddings=40, window_size=4, pad_token_id=60,
    ),
    "gpt_neox": GPTNeoXConfig(**{**ENCODER, "hidden_size": 48}),
    "llama": LlamaConfig(**ROTARY),
    "mistral": MistralConfig(**ROTARY),
    "qwen2": Qwen2Config(**ROTARY),
    "bert": BertConfig(**ENCODER),
    "roberta": RobertaConfig(**{**ENCODER, "pad_token_id": 1}),
    "distilbert": DistilBertConfig(
        vocab_size=61, dim=36, n_layers=2, n_heads=3, hidden_dim=40, max_position_embeddings=40, pad_token_id=60
    ),
}  # fmt: skip
OPENERS = {"sequence": AutoModelForSequenceClassification, "token": AutoModelForTokenClassification}


def theirs_in(folder: Path, family: str, task: str, **entries: object):
    torch.manual_seed(0)
    config = type(CONFIGS[family]).from_dict({**CONFIGS[family].to_dict(), **entries})
    model = OPENERS[task].from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    return model


def batch_for(family: str, side: str = "right") -> tuple[torch.Tensor, torch.Tensor]:
    """Three rows of 7, 4 and 1 real tokens; padding has the id that the configuration names."""
    real = torch.arange(7) < torch.tensor([7, 4, 1])[:, None]
    real = real if side == "right" else real.flip(1)
    ids = tokens(3, 7, vocab=50) + 3
    return torch.where(real, ids, CONFIGS[family].pad_token_id), real.long()


@torch.no_grad()
@pytest.mark.parametrize("family", list(CONFIGS))
@pytest.mark.parametrize("task", ["sequence", "token"])
def test_logits_equal_transformers_and_files_go_both_ways(family: str, task: str, tmp_path: Path) -> None:
    names = {0: "bad", 1: "good", 2: "none"}
    said = {"id2label": names, "label2id": {label: i for i, label in names.items()}}
    problem = {"problem_type": "single_label_classification"} if task == "sequence" else {}
    theirs = theirs_in(tmp_path / "hf", family, task, **said, **problem)
    ours = load_model(tmp_path / "hf")
    head = heads(ours)["label"]
    assert head.kind == ("classification" if task == "sequence" else "tokens")
    assert head.labels == ("bad", "good", "none")
    ids, mask = batch_for(family)
    expected = theirs(input_ids=ids, attention_mask=mask).logits
    found = read_out(ours, ("label",), ids, attention_mask=mask)["label"]
    if task == "token":
        found, expected = found[mask.bool()], expected[mask.bool()]
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))

    save_model(ours, tmp_path / "ours", layout="huggingface")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    old, new = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("hf", "ours"))
    assert all(new[name] == old[name] for name in ("architectures", "id2label", "label2id", *problem))
    again = OPENERS[task].from_pretrained(tmp_path / "ours").eval()
    torch.testing.assert_close(
        again(input_ids=ids, attention_mask=mask).logits, theirs(input_ids=ids, attention_mask=mask).logits
    )


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_gives_what_a_row_alone_gives(side: str, tmp_path: Path) -> None:
    theirs = theirs_in(tmp_path / "hf", "gpt2", "sequence", num_labels=3)
    ours = load_model(tmp_path / "hf")
    ids, mask = batch_for("gpt2", side)
    found = read_out(ours, ("label",), ids, attention_mask=mask)["label"]
    alone = torch.cat([theirs(row[real.bool()][None]).logits for row, real in zip(ids, mask, strict=True)])
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("problem", "labels", "kind"),
    [
        (None, 1, "regression"),
        (None, 3, "classification"),
        ("regression", 2, "regression"),
        ("multi_label_classification", 3, "multilabel"),
    ],
)
def test_the_kind_of_problem_is_read_and_kept(
    problem: str | None, labels: int, kind: str, tmp_path: Path
) -> None:
    theirs_in(tmp_path / "hf", "gpt2", "sequence", num_labels=labels, problem_type=problem)
    ours = load_model(tmp_path / "hf")
    head = heads(ours)["label"]
    assert (head.kind, head.outputs, head.labels) == (kind, labels, ())
    save_model(ours, tmp_path / "ours", layout="huggingface")
    entries = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert problem is None or entries["problem_type"] == problem
    assert heads(load_model(tmp_path / "ours"))["label"] == head


ENCODERS = {
    "bert": bert_config,
    "bert-pooler": bert_config,
    "roberta": roberta_config,
    "distilbert": distilbert_config,
}


def language_model(family: str) -> Transformer:
    if family not in ENCODERS:
        return tiny(family)
    config = ENCODERS[family](
        vocab_size=61, d_model=24, n_layers=2, n_heads=3, max_positions=40, pooler=family.endswith("pooler")
    )
    return Transformer(config).eval()


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", *ENCODERS])
def test_a_head_on_a_language_model_opens_in_transformers(family: str, tmp_path: Path) -> None:
    model = language_model(family)
    encoder = not model.config.causal
    dense = {"bert": "tanh", "roberta": "tanh", "distilbert": "relu"}.get(family, "none")
    pooling = ("pooler" if model.config.pooler else "first") if encoder else "last"
    dense = "none" if pooling == "pooler" else dense
    spec = Head(
        name="stars",
        outputs=4,
        labels=("a", "b", "c", "d"),
        bias=encoder,
        dense=dense,
        pooling=pooling,
        dropout=0.3,
    )
    attach(model, spec, generator=torch.Generator().manual_seed(3))
    ids = tokens(2, 6)
    expected = read_out(model, ("stars",), ids)["stars"]
    save_model(model, tmp_path / "model", layout="huggingface")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    # One row at a time: these configurations name no padding.
    found = torch.cat([theirs(row[None], attention_mask=torch.ones(1, 6)).logits for row in ids])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert theirs.config.id2label == {0: "a", 1: "b", 2: "c", 3: "d"}
    again = load_model(tmp_path / "model")
    assert heads(again)["stars"].labels == ("a", "b", "c", "d") and heads(again)["stars"].dropout == 0.3
    torch.testing.assert_close(read_out(again, ("stars",), ids)["stars"], expected)


@torch.no_grad()
@pytest.mark.parametrize(
    "specs",
    [
        [Head(name="a"), Head(name="b", kind="regression", outputs=2)],
        [Head(pooling="mean")],
        [Head(kind="embedding", outputs=5)],
        [Head(language_head=True)],
    ],
)
def test_what_hugging_face_has_no_class_for_keeps_our_own_layout(specs: list[Head], tmp_path: Path) -> None:
    model = tiny("llama")
    for i, spec in enumerate(specs):
        attach(model, spec, generator=torch.Generator().manual_seed(i))
    with pytest.raises(LabError, match="Hugging Face's llama"):
        save_model(model, tmp_path / "no", layout="huggingface")
    save_model(model, tmp_path / "own")
    again = load_model(tmp_path / "own")
    assert heads(again) == heads(model)
    names = tuple(heads(model))
    first, second = (read_out(one, names, tokens(2, 5)) for one in (model, again))
    assert all(torch.equal(first[name], second[name]) for name in names)


def test_labels_of_another_form_and_unknown_problems_are_refused(tmp_path: Path) -> None:
    theirs_in(tmp_path / "hf", "gpt2", "sequence", num_labels=2)
    path = tmp_path / "hf" / "config.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps({**entries, "id2label": {"0": "a", "7": "b"}}))
    with pytest.raises(LabError, match="id2label should name the outputs"):
        load_model(tmp_path / "hf")
    path.write_text(json.dumps({**entries, "problem_type": "ranking"}))
    with pytest.raises(LabError, match="problem_type 'ranking' is not supported"):
        load_model(tmp_path / "hf")
