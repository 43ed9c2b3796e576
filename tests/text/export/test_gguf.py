"""GGUF files: read back, opened by transformers, and against a slow forward pass on their own tensors."""

import json
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np
import pytest
import tokenizers
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.model.architecture import attach
from gpt2lab.model.checkpoints.families import (
    attention_scales,
    gpt2_config,
    gpt_neo_config,
    gpt_neox_config,
    llama_config,
    mixtral_config,
)
from gpt2lab.model.quantization.quantized import Quantized
from gpt2lab.model.rotary import RotaryScaling
from gpt2lab.text.export import export
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import Tokenizer, byte_level, train_bpe, word_level
from tests.text.export import slow_gguf
from tests.tiny import tokens

TEXT = "the old cat sat on the mat under the sea, and 12 ships ran; it's late"
LLAMA = {
    "vocab_size": 290, "d_model": 24, "n_layers": 2, "n_heads": 6, "n_kv_heads": 2, "d_mlp": 40, "max_positions": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train_bpe([TEXT] * 5, 280, special=["<|user|>"])


def model(config: TransformerConfig) -> Transformer:
    """A random model with biases and gains away from their start."""
    made = Transformer(config, generator=torch.Generator().manual_seed(0)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
    return made


OPENED = {
    "gpt2": gpt2_config(vocab_size=290, d_model=24, n_layers=2, n_heads=3),
    "llama": llama_config(**LLAMA),
    "llama-tied-wide-heads": llama_config(**{**LLAMA, "d_head": 10}, tied_head=True, rotary_base=500.0),
    "mistral": llama_config(**LLAMA, family="mistral", windows=(50, 50)),
    "qwen2": llama_config(**LLAMA, family="qwen2", qkv_bias=True),
}


@torch.no_grad()
@pytest.mark.parametrize("name", OPENED)
def test_transformers_opens_the_file_with_equal_logits_and_ids(name, bpe, tmp_path) -> None:
    ours = model(OPENED[name])
    export(LanguageModel(ours, bpe), "gguf", tmp_path / "m.gguf")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf").eval()
    ids = tokens(2, 30, vocab=290)
    expected = ours(ids)
    assert (theirs(ids).logits - expected).abs().max() <= 1e-5 * expected.abs().max()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    for text in (TEXT, "  two  blanks\n\nand café <|user|> it's 4567"):
        assert tokenizer(text).input_ids == bpe.encode(text)


def test_chat_template_and_a_further_end_of_text_are_in_the_file(bpe: Tokenizer, tmp_path: Path) -> None:
    made = Tokenizer(bpe.backend, eos=bpe.eos, bos=bpe.bos, files={"chat_template.jinja": "{{ messages }}"})
    lm = LanguageModel(model(OPENED["llama"]), made)
    lm.side_files = {"generation_config.json": json.dumps({"eos_token_id": [made.eos, 7, 9]}).encode()}
    done = export(lm, "gguf", tmp_path / "m.gguf")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    assert fields["tokenizer.ggml.eot_token_id"].contents() == 7
    assert fields["tokenizer.chat_template"].contents() == "{{ messages }}"
    assert done.notes == ("GGUF has room for two ends of text: 9 of the model's do not end one there.",)


SLOW = {
    "gpt_neox": gpt_neox_config(
        vocab_size=61, d_model=48, n_layers=2, n_heads=3, max_positions=30, activation="gelu_tanh"
    ),
    "gpt_neox-serial": gpt_neox_config(
        vocab_size=61, d_model=48, n_layers=2, n_heads=3, activation="gelu_tanh", parallel_residual=False
    ),
    "mixtral": mixtral_config(**{**LLAMA, "vocab_size": 61}, n_experts=4),
    "llama-linear": llama_config(
        **LLAMA, rotary_scaling=RotaryScaling(kind="linear", factor=2.5, original_positions=20)
    ),
    "llama-llama3": llama_config(
        **LLAMA, rotary_scaling=RotaryScaling(kind="llama3", factor=8.0, original_positions=24)
    ),
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", SLOW)
def test_the_files_tensors_give_the_models_logits(name, tmp_path) -> None:
    ours = model(SLOW[name]).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(parameter.float())  # as the file holds them
    export(LanguageModel(ours), "gguf", tmp_path / "m.gguf")
    file = slow_gguf.File(tmp_path / "m.gguf")
    ids = tokens(1, 20)
    np.testing.assert_allclose(
        slow_gguf.logits(file, ids[0].tolist()), ours(ids)[0].numpy(), rtol=1e-5, atol=1e-5
    )
    assert file.fields["tokenizer.ggml.model"] == "no_vocab"


def test_metadata_says_what_the_model_is(bpe, tmp_path) -> None:
    done = export(LanguageModel(model(OPENED["mistral"]), bpe), "gguf", tmp_path / "m.gguf")
    fields = slow_gguf.File(tmp_path / "m.gguf").fields
    assert fields["general.architecture"] == "llama"
    assert fields["llama.context_length"] == 50  # one window
    assert "the context is 50 tokens" in done.notes[0]
    assert (fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]) == (6, 2)
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    assert len(fields["tokenizer.ggml.tokens"]) == 290
    assert fields["tokenizer.ggml.tokens"][289] == "[PAD289]"
    kinds = fields["tokenizer.ggml.token_type"]
    assert (kinds[bpe.id("<|user|>")], kinds[40], kinds[289]) == (3, 1, 5)  # control, normal, unused
    assert fields["tokenizer.ggml.eos_token_id"] == bpe.eos
    assert fields["tokenizer.ggml.add_bos_token"] is False


@pytest.mark.parametrize(
    ("precision", "kind", "error"),
    [("f32", "F32", 0.0), ("f16", "F16", 2.0**-11), ("bf16", "BF16", 2.0**-8)],
)
def test_matrices_have_the_chosen_precision_and_vectors_stay_f32(precision, kind, error, tmp_path) -> None:
    ours = model(SLOW["gpt_neox"])
    export(LanguageModel(ours), "gguf", tmp_path / "m.gguf", precision=precision)
    file = slow_gguf.File(tmp_path / "m.gguf")
    assert file.kinds["blk.1.ffn_up.weight"].name == kind
    assert file.kinds["blk.1.ffn_up.bias"].name == file.kinds["output_norm.weight"].name == "F32"
    exact = ours.blocks[1].mlp.up.weight.detach().numpy()
    assert (np.abs(file.tensors["blk.1.ffn_up.weight"] - exact) <= error * np.abs(exact) + 1e-7).all()


def test_a_model_in_bf16_is_written_without_loss(tmp_path) -> None:
    ours = model(SLOW["gpt_neox"]).bfloat16()
    export(LanguageModel(ours), "gguf", tmp_path / "m.gguf", precision="bf16")
    found = slow_gguf.File(tmp_path / "m.gguf").tensors["token_embd.weight"]
    assert (found == ours.embedding.weight.detach().double().numpy()).all()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (gpt_neo_config(vocab_size=61, d_model=24, n_layers=2, n_heads=2), "gpt_neo is not written, only gpt2"),
        (gpt2_config(vocab_size=61, d_model=24, n_layers=1, n_heads=2, activation="relu"), "activation gelu_tanh"),
        (gpt2_config(vocab_size=61, d_model=24, n_layers=1, n_heads=2, n_experts=4), "n_experts"),
        (
            gpt2_config(
                vocab_size=61, d_model=24, n_layers=2, n_heads=2,
                attention_scale=attention_scales(2, 12, by_layer=True),
            ),
            "attention_scale is another",
        ),
        (llama_config(**LLAMA, mlp_bias=True), "no biases"),
        (
            llama_config(**LLAMA, rotary_scaling=RotaryScaling(kind="dynamic", factor=2.0, original_positions=64)),
            "rotary scaling dynamic is not written",
        ),
        (gpt_neox_config(vocab_size=61, d_model=16, n_layers=1, n_heads=2, tied_head=True), "head of its own"),
    ],
)  # fmt: skip
def test_what_gguf_cannot_carry_is_refused_in_a_sentence(config, words, tmp_path) -> None:
    with pytest.raises(LabError, match=words):
        export(LanguageModel(Transformer(config)), "gguf", tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


def test_what_an_architecture_changes_is_refused_with_the_way_out(tmp_path) -> None:
    ours = attach(model(OPENED["llama"]), Quantized())
    with pytest.raises(
        LabError, match=r"llama\.cpp does not compute what the architecture .*quantized changes"
    ):
        export(LanguageModel(ours), "gguf", tmp_path / "m.gguf")


def test_values_too_large_for_f16_are_refused(tmp_path) -> None:
    ours = model(SLOW["gpt_neox"])
    with torch.no_grad():
        ours.blocks[0].mlp.up.weight[0, 0] = 1e5
    with pytest.raises(LabError, match=r"blk\.0\.ffn_up\.weight has values too large for f16"):
        export(LanguageModel(ours), "gguf", tmp_path / "m.gguf", precision="f16")
    assert list(tmp_path.iterdir()) == []


def changed(bpe: Tokenizer, **changes: object) -> Tokenizer:
    return Tokenizer(
        tokenizers.Tokenizer.from_str(json.dumps({**json.loads(bpe.backend.to_str()), **changes}))
    )


SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def cut_by(expression: str) -> dict:
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split, bytes_]}


@pytest.mark.parametrize(
    ("expression", "name"), [(SPLIT, "llama-bpe"), (SPLIT.replace("{1,3}", ""), "qwen2")]
)
def test_the_rule_that_cuts_text_is_named(expression, name, bpe, tmp_path) -> None:
    config = gpt2_config(vocab_size=290, d_model=6, n_layers=1, n_heads=1)
    export(
        LanguageModel(Transformer(config), changed(bpe, pre_tokenizer=cut_by(expression))),
        "gguf",
        tmp_path / "m.gguf",
    )
    assert slow_gguf.File(tmp_path / "m.gguf").fields["tokenizer.ggml.pre"] == name


def test_tokenizers_that_gguf_cannot_carry_are_refused(bpe, tmp_path) -> None:
    lower = {"type": "Lowercase"}
    blank = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    for tokenizer, words in (
        (
            word_level(["a b c"]),
            "only byte-level BPE and sentencepiece tokenizers are written, this one is WordLevel",
        ),
        (byte_level(), "has no merges"),
        (changed(bpe, normalizer=lower), "normaliser Lowercase"),
        (changed(bpe, pre_tokenizer=blank), "no blank in front"),
        (changed(bpe, pre_tokenizer=cut_by(r"\w+")), "no name for the rule"),
    ):
        config = gpt2_config(vocab_size=290, d_model=6, n_layers=1, n_heads=1)
        with pytest.raises(LabError, match=words):
            export(LanguageModel(Transformer(config), tokenizer), "gguf", tmp_path / "m.gguf")


MADE = [
    "he", "▁t", "at", "▁the", "▁s", "an", "th", "▁th", "▁se", "in", "▁c", "▁cat", "en", "▁then", "ea", "▁sea", "▁a", "▁an",
]  # fmt: skip
"""Pieces in the order in which they are put together; some can be in more than one way: ▁the of ▁t he and of ▁th e."""


def sentencepiece(*, complete: bool = True) -> Tokenizer:
    """A tokenizer of llama's kind: pieces, bytes for what they do not cover, and all pairs that make a piece, or one."""
    characters = sorted(set("▁" + TEXT.replace(" ", "")))
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces, merges = [*MADE, *characters], list[tuple[str, str]]()
    for piece in MADE:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        known = [cut for cut in cuts if cut[0] in pieces and cut[1] in pieces]
        merges += known if complete else known[:1]
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={token: id for id, token in enumerate(names + pieces)},
            merges=merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    normalizers = tokenizers.normalizers
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.add_special_tokens(names[:3])
    frame = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.post_processor = frame
    return Tokenizer(backend, bos=1, eos=2, unk=0)


def test_a_sentencepiece_tokenizer_gets_scores_and_transformers_reads_its_ids(tmp_path) -> None:
    tokenizer = sentencepiece()
    ours = model(llama_config(**{**LLAMA, "vocab_size": tokenizer.vocab_size + 1}))
    export(LanguageModel(ours, tokenizer), "gguf", tmp_path / "m.gguf")
    fields = slow_gguf.File(tmp_path / "m.gguf").fields
    assert fields["tokenizer.ggml.model"] == "llama"
    assert fields["tokenizer.ggml.add_space_prefix"] is True
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    for text in (TEXT, "then an ant sang; thin ten, the Zürich 12", "cat"):
        ids = tokenizer.encode(text)
        assert theirs(text, add_special_tokens=False).input_ids == ids
        assert greedy_by_score(fields, text) == ids


def greedy_by_score(fields: dict, text: str) -> list[int]:
    """llama.cpp's rule: of all neighbours whose sum is a token, put together those of the highest score."""
    ids = {token: id for id, token in enumerate(fields["tokenizer.ggml.tokens"])}
    scores, pieces = fields["tokenizer.ggml.scores"], list("▁" + text.replace(" ", "▁"))
    while True:
        sums = [(scores[ids[a + b]], -i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in ids]
        if not sums:
            break
        at = -max(sums)[1]
        pieces[at : at + 2] = ["".join(pieces[at : at + 2])]
    found = [[ids[p]] if p in ids else [ids[f"<0x{byte:02X}>"] for byte in p.encode()] for p in pieces]
    return [id for part in found for id in part]


def test_a_sentencepiece_tokenizer_that_scores_cannot_express_is_refused(tmp_path) -> None:
    pieces = sentencepiece()
    config = llama_config(**{**LLAMA, "vocab_size": pieces.vocab_size})
    content = json.loads(pieces.backend.to_str())["model"]
    merges = content["merges"]
    again = next(i for i in range(1, len(merges)) if "".join(merges[i]) == "".join(merges[i - 1]))
    apart = [
        *merges[:again],
        *merges[again + 1 :],
        merges[again],
    ]  # one piece is made early and, otherwise, late
    for tokenizer, words in (
        (sentencepiece(complete=False), "together, which this tokenizer does not"),
        (changed(pieces, normalizer={"type": "Lowercase"}), "treats blanks in a way"),
        (changed(pieces, model={**content, "merges": apart}), "an order that scores cannot express"),
    ):
        with pytest.raises(LabError, match=words):
            export(LanguageModel(Transformer(config), tokenizer), "gguf", tmp_path / "m.gguf")


def test_a_bos_that_the_tokenizer_adds_is_announced(bpe, tmp_path) -> None:
    content = json.loads(bpe.backend.to_str())
    frame = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bpe.bos)]
    )
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    backend.post_processor = frame
    config = gpt2_config(vocab_size=290, d_model=6, n_layers=1, n_heads=1)
    lm = LanguageModel(Transformer(config), Tokenizer(backend, bos=bpe.bos, eos=bpe.eos))
    export(lm, "gguf", tmp_path / "m.gguf")
    assert slow_gguf.File(tmp_path / "m.gguf").fields["tokenizer.ggml.add_bos_token"] is True


def test_the_reader_of_the_package_sees_every_tensor_once(bpe, tmp_path: Path) -> None:
    ours = model(OPENED["gpt2"])
    export(LanguageModel(ours, bpe), "gguf", tmp_path / "m.gguf")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert sum(int(np.prod(tensor.shape)) for tensor in reader.tensors) == ours.count_parameters()["total"]
