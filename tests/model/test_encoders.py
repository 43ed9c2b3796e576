"""BERT, RoBERTa and DistilBERT against `transformers`: logits, states, pooled output, padding, files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    BertForPreTraining,
    DistilBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, load_model, save_model
from gpt2lab.model.checkpoints.families import CONSTRUCTORS, bert_config, roberta_config
from tests.tiny import BIDIRECTIONAL, tiny, tokens

SIZES = {"vocab_size": 53, "hidden_size": 36, "num_hidden_layers": 2, "intermediate_size": 50}
SMALL = {"vocab_size": 53, "dim": 36, "n_layers": 2, "hidden_dim": 50, "max_position_embeddings": 30}
HF_CONFIGS = {
    "bert": BertConfig(**SIZES, num_attention_heads=3, max_position_embeddings=30),
    "bert-untied-relu-types": BertConfig(
        **SIZES, num_attention_heads=9, max_position_embeddings=30, hidden_act="relu", type_vocab_size=5,
        tie_word_embeddings=False, layer_norm_eps=1e-3,
    ),
    "bert-gelu-new": BertConfig(**SIZES, num_attention_heads=1, max_position_embeddings=30, hidden_act="gelu_new"),
    "roberta": RobertaConfig(
        **SIZES, num_attention_heads=3, max_position_embeddings=32, type_vocab_size=1, layer_norm_eps=1e-5
    ),
    "roberta-untied-relu-pad": RobertaConfig(
        **SIZES, num_attention_heads=9, max_position_embeddings=35, hidden_act="relu", pad_token_id=4,
        tie_word_embeddings=False,
    ),
    "distilbert": DistilBertConfig(**SMALL, n_heads=3),
    "distilbert-untied-gelu-new": DistilBertConfig(
        **SMALL, n_heads=9, activation="gelu_new", tie_word_embeddings=False, sinusoidal_pos_embds=True
    ),
}  # fmt: skip


def random_model(config: PretrainedConfig, auto: Any) -> PreTrainedModel:
    """A model with every parameter away from its start. Untied, transformers computes with the decoder's own bias."""
    torch.manual_seed(0)
    model: PreTrainedModel = auto.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        state = model.state_dict()
        for unused, used in {
            "cls.predictions.bias": "cls.predictions.decoder.bias",
            "lm_head.bias": "lm_head.decoder.bias",
        }.items():
            if unused in state:
                state[unused].copy_(state[used])
    return model


@pytest.fixture(params=HF_CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pair(name: str, tmp_path: Path) -> tuple[Transformer, PreTrainedModel]:
    """Our masked language model and transformers' with the same weights."""
    theirs = random_model(HF_CONFIGS[name], AutoModelForMaskedLM)
    theirs.save_pretrained(tmp_path / "hf")
    return load_model(tmp_path / "hf"), theirs


def padded(config: PretrainedConfig, batch: int, time: int, side: str) -> tuple[Tensor, Tensor]:
    """Ids of which none is the padding's but at padding, and their mask."""
    ids = 5 + tokens(batch, time, vocab=48)
    mask = torch.ones_like(ids)
    for row, length in enumerate((time, max(time - 1, 1), 3, 1)[:batch]):
        mask[row, slice(0, max(time - length, 0)) if side == "left" else slice(length, None)] = 0
    return torch.where(mask.bool(), ids, config.pad_token_id), mask


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@torch.no_grad()
@pytest.mark.parametrize(("batch", "time"), [(1, 1), (3, 23), (2, 30)])
def test_logits_equal_transformers(pair, batch: int, time: int) -> None:
    ours, theirs = pair
    ids = 5 + tokens(batch, time, vocab=48)
    close(ours(ids), theirs(ids).logits)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_real_token(pair, side: str) -> None:
    ours, theirs = pair
    ids, mask = padded(theirs.config, 4, 11, side)
    positions = (mask.cumsum(1) - 1).clamp_min(0) + ours.config.position_offset
    kept = mask.bool()
    logits = ours(ids, attention_mask=mask)
    close(logits[kept], theirs(ids, attention_mask=mask, position_ids=positions).logits[kept])
    assert logits.isfinite().all()
    alone = torch.cat([ours(ids[row : row + 1, kept[row]])[0] for row in range(4)])
    close(logits[kept], alone)
    if side == "right" or ours.config.position_offset:
        close(logits[kept], theirs(ids, attention_mask=mask).logits[kept])


@torch.no_grad()
def test_a_row_of_padding_alone_is_finite(pair) -> None:
    ours, theirs = pair
    ids, mask = padded(theirs.config, 2, 5, "right")
    mask[1] = 0
    logits = ours(ids, attention_mask=mask)
    assert logits.isfinite().all()
    close(logits[:1], ours(ids[:1]))


@torch.no_grad()
def test_token_types_equal_transformers(pair) -> None:
    ours, theirs = pair
    ids = 5 + tokens(2, 9, vocab=48)
    if not ours.config.token_types:
        with pytest.raises(LabError, match="token_types: this distilbert has none"):
            ours(ids, token_types=torch.zeros_like(ids))
        return
    kinds = tokens(2, 9, vocab=ours.config.token_types, seed=4)
    close(ours(ids, token_types=kinds), theirs(ids, token_type_ids=kinds).logits)
    close(ours(ids, token_types=torch.zeros_like(ids)), ours(ids))
    with pytest.raises(LabError, match=f"the model has {ours.config.token_types}"):
        ours(ids, token_types=kinds + ours.config.token_types)
    with pytest.raises(LabError, match=r"token_types is \[2, 8\], the input \[2, 9\]"):
        ours(ids, token_types=kinds[:, 1:])


@torch.no_grad()
def test_states_of_all_layers_and_the_pooled_output_equal_transformers(name: str, tmp_path: Path) -> None:
    theirs = random_model(HF_CONFIGS[name], AutoModel)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    ids, mask = padded(theirs.config, 4, 11, "right")
    expected = theirs(ids, attention_mask=mask, output_hidden_states=True)
    with ours.tap(read=["resid_pre"]) as seen:
        hidden = ours.hidden(ids, attention_mask=mask)
    kept = mask.bool()
    close(hidden[kept], expected.last_hidden_state[kept])
    for state, their_state in zip([*seen["resid_pre"], hidden], expected.hidden_states, strict=True):
        close(state[kept], their_state[kept])
    if ours.config.family == "distilbert":
        with pytest.raises(LabError, match="this distilbert has no pooler"):
            ours.pooled(hidden)
    else:
        close(ours.pooled(hidden, mask), expected.pooler_output)
        close(ours.pooled(hidden), expected.pooler_output)


@torch.no_grad()
def test_the_pooler_reads_the_first_real_token() -> None:
    model = tiny("bert", pooler=True)
    ids, mask = tokens(2, 6), torch.ones(2, 6, dtype=torch.long)
    mask[1, :2] = 0
    pooled = model.pooled(model.hidden(ids, attention_mask=mask), mask)
    alone = model.pooled(model.hidden(ids[1:, 2:]))
    dense = model.pooler.dense
    first = model.hidden(ids[:1])[:, 0].double()
    slow = torch.tanh(first @ dense.weight.double().T + dense.bias.double())
    assert torch.allclose(pooled[1:], alone, atol=1e-6)
    assert torch.allclose(pooled[:1].double(), slow, atol=1e-6)


@pytest.mark.parametrize("auto", [AutoModelForMaskedLM, AutoModel])
def test_saving_and_loading_in_transformers_gives_identical_tensors(
    name: str, auto: Any, tmp_path: Path
) -> None:
    theirs = random_model(HF_CONFIGS[name], auto)
    theirs.save_pretrained(tmp_path / "hf")
    save_model(load_model(tmp_path / "hf"), tmp_path / "saved")
    again, report = auto.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert type(again) is type(theirs)
    assert not any(report.values())
    before, after = theirs.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    left, right = (json.loads((tmp_path / part / "config.json").read_text()) for part in ("hf", "saved"))
    assert {key: value for key, value in left.items() if right.get(key) != value} == {}


@torch.no_grad()
def test_a_masked_language_model_opens_as_a_bare_one_and_as_itself(pair, tmp_path: Path) -> None:
    ours, theirs = pair
    save_model(ours, tmp_path / "saved")
    ids = 5 + tokens(2, 7, vocab=48)
    close(ours(ids), AutoModelForMaskedLM.from_pretrained(tmp_path / "saved")(ids).logits)
    close(ours.hidden(ids), AutoModel.from_pretrained(tmp_path / "saved")(ids).last_hidden_state)
    assert ours.config.family == theirs.config.model_type


def test_a_file_of_pre_training_keeps_head_and_pooler_and_drops_the_sentence_classifier(
    tmp_path: Path,
) -> None:
    theirs = BertForPreTraining(HF_CONFIGS["bert"]).eval()
    theirs.save_pretrained(tmp_path / "hf")
    assert "cls.seq_relationship.weight" in load_file(tmp_path / "hf" / "model.safetensors")
    ours = load_model(tmp_path / "hf")
    assert (ours.config.head, ours.config.pooler) == ("transform", True)
    ids = tokens(2, 7, vocab=53)
    with torch.no_grad():
        expected = theirs(ids)
        close(ours(ids), expected.prediction_logits)
        pooled = theirs.bert(ids).pooler_output
        close(ours.pooled(ours.hidden(ids)), pooled)
        save_model(ours, tmp_path / "saved")
        close(AutoModel.from_pretrained(tmp_path / "saved")(ids).pooler_output, pooled)


def test_names_of_the_first_bert_files_are_read(tmp_path: Path) -> None:
    model = tiny("bert")
    save_model(model, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    for name in list(state):
        for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
            if name.endswith(new):
                state[name.removesuffix(new) + old] = state.pop(name)
    del state["cls.predictions.decoder.bias"]  # the first files have cls.predictions.bias alone
    state["bert.embeddings.position_ids"] = torch.arange(40)[None]
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"].clone()
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = load_model(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_of_two_biases_of_an_untied_head_the_decoders_own_counts(tmp_path: Path) -> None:
    save_model(tiny("roberta", tied_head=False), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["lm_head.bias"] = torch.zeros(61)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(load_model(tmp_path).head.bias, state["lm_head.decoder.bias"])
    ids = 5 + tokens(2, 5, vocab=48)
    with torch.no_grad():
        close(load_model(tmp_path)(ids), AutoModelForMaskedLM.from_pretrained(tmp_path)(ids).logits)


@pytest.mark.parametrize("family", BIDIRECTIONAL)
def test_a_bare_model_gives_states_and_says_that_it_has_no_head(family: str, tmp_path: Path) -> None:
    model = tiny(family, head="none")
    assert "logits" not in model.activation_names()
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.config == model.config
    assert torch.equal(again.hidden(tokens(2, 5)), model.hidden(tokens(2, 5)))
    with pytest.raises(
        LabError, match=f"this {family} has no language-model head, because its files hold none"
    ):
        again(tokens(2, 5))
    with pytest.raises(LabError, match=f"this {family} has no pooler"):
        again.pooled(again.hidden(tokens(2, 5)))
    assert again.count_parameters()["total"] == sum(p.numel() for p in again.parameters())


@pytest.mark.parametrize("family", BIDIRECTIONAL)
def test_a_missing_tensor_is_named_as_it_stands_in_the_file(family: str, tmp_path: Path) -> None:
    save_model(tiny(family), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    for missing in [
        name for name in state if "ayer.1." in name and name.endswith(("ense.bias", "lin2.bias"))
    ][:1] + [
        name for name in state if name.endswith(("layer_norm.bias", "predictions.transform.LayerNorm.bias"))
    ][-1:]:
        kept = {name: tensor for name, tensor in state.items() if name != missing}
        save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(LabError, match=f"tensor {missing} is missing"):
            load_model(tmp_path)


def test_configurations_that_change_the_computation_are_refused(tmp_path: Path) -> None:
    save_model(tiny("bert"), tmp_path)
    whole = json.loads((tmp_path / "config.json").read_text())
    for entry, value in {
        "is_decoder": True,
        "position_embedding_type": "relative_key",
        "hidden_act": "mish",
    }.items():
        (tmp_path / "config.json").write_text(json.dumps({**whole, entry: value}))
        with pytest.raises(LabError, match=entry):
            load_model(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps({**whole, "model_type": "roberta", "pad_token_id": None})
    )
    with pytest.raises(LabError, match="counts positions from pad_token_id, which is null"):
        load_model(tmp_path)


def test_a_causal_family_cannot_be_written_bidirectional(tmp_path: Path) -> None:
    for changes in ({"causal": False}, {"norm_placement": "post"}, {"token_types": 2}, {"pooler": True}):
        with pytest.raises(LabError, match=f"{next(iter(changes))}="):
            save_model(tiny("gpt2", **changes), tmp_path / "model", layout="huggingface")
    with pytest.raises(LabError, match="position_offset=2, this model 0"):
        save_model(tiny("roberta", position_offset=0), tmp_path / "model", layout="huggingface")


@torch.no_grad()
@pytest.mark.parametrize("family", BIDIRECTIONAL)
def test_both_sides_are_seen_by_the_fused_and_the_open_path(family: str) -> None:
    model, ids = tiny(family), tokens(2, 7)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    plain = model(ids, attention_mask=mask)
    with model.tap(read=["pattern"]) as seen:
        opened = model(ids, attention_mask=mask)
    kept = mask.bool()
    assert torch.allclose(plain[kept], opened[kept], atol=1e-5)
    pattern = seen["blocks.0.attn.hook_pattern"]
    assert (pattern[0] > 0).all()
    assert (pattern[1, :, :, 5:] == 0).all()
    changed = ids.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 61
    assert ((model(changed)[0] - model(ids)[0]).abs().amax(-1) > 1e-4).all()


def test_what_is_for_causal_models_refuses_in_one_sentence() -> None:
    model = tiny("bert")
    with pytest.raises(LabError, match=r"key/value cache needs a causal model, and this bert reads in both"):
        model(tokens(1, 3), cache=tiny("gpt2").new_cache(batch=1, length=3))
    with pytest.raises(LabError, match=r"key/value cache needs a causal model, and this bert reads in both"):
        model.new_cache(batch=1, length=3)
    with pytest.raises(LabError, match="windows are for causal attention"):
        bert_config(vocab_size=9, d_model=8, n_layers=1, n_heads=2, windows=(3,))
    with pytest.raises(LabError, match="post-norm block has no parallel residual"):
        bert_config(vocab_size=9, d_model=8, n_layers=1, n_heads=2, parallel_residual=True)
    with pytest.raises(LabError, match="token_types must be a whole number from 0"):
        bert_config(vocab_size=9, d_model=8, n_layers=1, n_heads=2, token_types=-1)


def test_positions_beyond_the_table_are_refused_and_the_last_one_is_not() -> None:
    config = roberta_config(vocab_size=9, d_model=8, n_layers=1, n_heads=2, max_positions=6, pad=3)
    model = Transformer(config)
    assert model.position_embedding.weight.shape == (10, 8)
    assert model(tokens(1, 6, vocab=9)).shape == (1, 6, 9)
    with pytest.raises(LabError, match="7 tokens are more than the model's 6 positions"):
        model(tokens(1, 7, vocab=9))


def test_initialisation_follows_bert() -> None:
    model = Transformer(bert_config(vocab_size=900, d_model=128, n_layers=8, n_heads=4, pooler=True))
    for matrix in (
        model.blocks[3].mlp.down,
        model.blocks[3].attention.out,
        model.head_transform.dense,
        model.pooler.dense,
    ):
        assert matrix.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert (model.embedding_norm.weight == 1).all()
    assert (model.head.bias == 0).all()


@pytest.mark.parametrize("family", CONSTRUCTORS)
def test_every_family_has_a_constructor_that_makes_a_model_of_it(family: str, tmp_path: Path) -> None:
    config = CONSTRUCTORS[family](vocab_size=31, d_model=16, n_layers=2, n_heads=2, max_positions=12)
    assert config.family == family
    assert config.max_positions == 12
    save_model(Transformer(config), tmp_path / "model", layout="huggingface")
    assert load_model(tmp_path / "model").config == config
