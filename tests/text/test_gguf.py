"""GGUF files that others wrote, read: tensors, configuration, tokenizer; and our own, read back."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.model.checkpoints.families import gpt2_config, gpt_neox_config, llama_config, mixtral_config
from gpt2lab.model.checkpoints.gguf_file import GGUFFile
from gpt2lab.model.checkpoints.gguf_layout import read_metadata
from gpt2lab.model.checkpoints.huggingface import load_model, read_config, read_outline
from gpt2lab.model.quantization import dequantised, quantized_layers
from gpt2lab.model.rotary import RotaryScaling, rotary_frequencies
from gpt2lab.text.export import export
from gpt2lab.text.gguf_tokenizer import read_tokenizer
from gpt2lab.text.language_model import LanguageModel, load, save
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from gpt2lab.text.tokenizer_files import load_tokenizer
from tests import gguf_files
from tests.gguf_files import SIZES, TEXT, byte_level_fields
from tests.text.export import slow_gguf
from tests.text.export.test_gguf import sentencepiece
from tests.tiny import tokens

HARD = (
    TEXT, "", " ", "  two  blanks\n\n and\ttabs \r\n", "in 1789 and 3.14159, 12½ or ٣٤ or ²",
    "naïve café — “quoted” 日本語 🙂🙃",
    "<|user|>hello<|endoftext|> it's I'LL we'Ve", "a\u0301 \u00e1 \u200d x\u00a0y",
    "CamelCaseHTTPServer __init__(self): return 1_000",
)  # fmt: skip
STORED = ("F32", "F16", "BF16", "Q8_0", "Q4_1", "Q4_0", "Q5_1")


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train_bpe([TEXT, *HARD] * 5, 290, special=["<|user|>"])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("matrices", ["F16", "Q8_0", "Q4_0", "Q4_1"])
def test_the_logits_are_those_of_transformers(kind, matrices, bpe, tmp_path) -> None:
    fields = byte_level_fields(bpe, "gpt-2")  # by which transformers counts the rows of a gpt2
    gguf_files.write(tmp_path / "m.gguf", kind, matrices=matrices, down="Q4_K", tokenizer=fields)
    ours = load_model(tmp_path / "m.gguf")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf").eval()
    ids = tokens(2, 30, vocab=SIZES["vocab"])
    expected = theirs(ids).logits
    assert (ours(ids) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert ours.dtype == torch.float32 and not ours.training


@torch.no_grad()
@pytest.mark.parametrize("matrices", STORED)
@pytest.mark.parametrize("kind", ["gptneox", "llama"])
def test_the_logits_are_those_of_a_slow_pass_on_the_files_tensors(kind, matrices, tmp_path) -> None:
    own = {"gpt2lab.config": json.dumps({"activation": "gelu_tanh"})} if kind == "gptneox" else {}
    gguf_files.write(tmp_path / "m.gguf", kind, matrices=matrices, down="Q6_K", fields=own)
    ids = tokens(1, 20, vocab=SIZES["vocab"])
    expected = slow_gguf.logits(slow_gguf.File(tmp_path / "m.gguf"), ids[0].tolist())
    ours = load_model(tmp_path / "m.gguf", dtype=torch.float64)(ids)[0].numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


def test_every_number_is_the_one_that_the_package_dequantises(tmp_path) -> None:
    expected = gguf_files.write(tmp_path / "m.gguf", "gpt2", matrices="Q4_1", down="Q3_K")
    ours = dict(load_model(tmp_path / "m.gguf").named_parameters())
    same = {"embedding.weight": "token_embd.weight", "blocks.1.attention.qkv.weight": "blk.1.attn_qkv.weight",
            "blocks.0.mlp.down.weight": "blk.0.ffn_down.weight", "blocks.0.mlp.up.bias": "blk.0.ffn_up.bias",
            "position_embedding.weight": "position_embd.weight", "head.weight": "output.weight"}  # fmt: skip
    for name, theirs in same.items():
        assert np.array_equal(ours[name].detach().numpy(), expected[theirs]), name


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gptneox", "qwen2"])
@pytest.mark.parametrize(("matrices", "bits"), [("Q4_0", 4), ("Q4_1", 4), ("Q5_0", 5), ("Q8_0", 8)])
def test_matrices_kept_in_the_files_bits_are_the_same_numbers(kind, matrices, bits, tmp_path) -> None:
    gguf_files.write(tmp_path / "m.gguf", kind, matrices=matrices, down="Q8_0", tied=kind != "gptneox")
    plain, kept = gpt2lab.load(tmp_path / "m.gguf"), gpt2lab.load(tmp_path / "m.gguf", dtype="stored")
    layers = dict(quantized_layers(kept.model))
    assert len(layers) == 2 * 4 + (
        2 if kind == "gptneox" else 1
    )  # every matrix of the blocks, the table, a free head
    assert layers["blocks.0.mlp.up"].format.bits == bits and layers["blocks.0.mlp.down"].format.bits == 8
    for (name, ours), (_, theirs) in zip(
        dequantised(kept.model).named_parameters(), plain.model.named_parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    ids = tokens(2, 30, vocab=SIZES["vocab"])
    expected = plain.model(ids)
    assert (kept.model(ids) - expected).abs().max() <= 1e-5 * expected.abs().max()
    gpt2lab.save(kept, tmp_path / "out")
    assert torch.equal(gpt2lab.load(tmp_path / "out").model(ids), kept.model(ids))
    assert torch.equal(gpt2lab.apply("dequantize", kept, keep=False).model(ids), expected)


def test_matrices_of_other_types_stay_in_float32_beside_kept_ones(tmp_path) -> None:
    gguf_files.write(tmp_path / "m.gguf", "llama", matrices="Q4_1", down="Q6_K")
    kept = gpt2lab.load(tmp_path / "m.gguf", dtype="stored").model
    assert "blocks.0.mlp.down" not in dict(quantized_layers(kept))
    assert kept.blocks[0].mlp.down.weight.dtype == torch.float32
    assert gpt2lab.load(tmp_path / "m.gguf", dtype="bfloat16").model.dtype == torch.bfloat16


ROUND = {
    "gpt2": gpt2_config(vocab_size=300, d_model=24, n_layers=2, n_heads=3, residual_dropout=0.1),
    "gpt2-free-head": gpt2_config(vocab_size=300, d_model=24, n_layers=1, n_heads=3, tied_head=False, d_mlp=40),
    "gpt_neox": gpt_neox_config(vocab_size=300, d_model=48, n_layers=2, n_heads=3, max_positions=30),
    "gpt_neox-serial": gpt_neox_config(
        vocab_size=300, d_model=48, n_layers=2, n_heads=3, activation="gelu_tanh", parallel_residual=False
    ),
    **{
        name: llama_config(
            vocab_size=300, d_model=24, n_layers=2, n_heads=6, n_kv_heads=2, d_mlp=40, max_positions=64, **changes
        )
        for name, changes in {
            "llama": {},
            "llama-tied-wide-heads": {"d_head": 10, "tied_head": True, "rotary_base": 500.0, "norm_eps": 1e-5},
            "llama-linear": {"rotary_scaling": RotaryScaling(kind="linear", factor=2.5, original_positions=64)},
            "llama-llama3": {"rotary_scaling": RotaryScaling(kind="llama3", factor=8.0, original_positions=24)},
            "llama-yarn": {"rotary_scaling": RotaryScaling(kind="yarn", factor=4.0, original_positions=16, beta_fast=20.0)},
            "mistral": {"family": "mistral", "windows": (20, 20)},
            "qwen2": {"family": "qwen2", "qkv_bias": True},
        }.items()
    },
    "mixtral": mixtral_config(
        vocab_size=300, d_model=24, n_layers=2, n_heads=6, n_kv_heads=2, d_mlp=40, max_positions=64, n_experts=4
    ),
}  # fmt: skip


def random_model(config: TransformerConfig) -> Transformer:
    made = Transformer(config, generator=torch.Generator().manual_seed(0)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
    return made


@torch.no_grad()
@pytest.mark.parametrize("name", ROUND)
def test_what_our_own_export_writes_is_read_back_whole(name, bpe, tmp_path) -> None:
    config = ROUND[name].replace(eos=bpe.eos, bos=bpe.bos)
    lm = LanguageModel(random_model(config), Tokenizer(bpe.backend, eos=bpe.eos, bos=bpe.bos, files={
        "chat_template.jinja": "{{ messages }}", "additional_chat_templates/tools.jinja": "{{ tools }}"}))  # fmt: skip
    export(lm, "gguf", tmp_path / "m.gguf")
    again = load(tmp_path / "m.gguf")
    assert again.config == config
    ids = tokens(2, 30, vocab=300)
    assert torch.equal(again.model(ids), lm.model(ids))
    assert [again.tokenizer.encode(text) for text in HARD] == [bpe.encode(text) for text in HARD]
    assert again.tokenizer.files == lm.tokenizer.files
    assert (again.tokenizer.bos, again.tokenizer.eos, again.tokenizer.pad) == (bpe.bos, bpe.eos, None)
    assert again.tokenizer.vocab_size == bpe.vocab_size


def test_a_file_says_only_what_gguf_has_no_field_for_in_an_entry_of_our_own(bpe, tmp_path) -> None:
    for name, kept in (
        ("llama", None),
        ("gpt_neox", None),
        ("mistral", {"family", "max_positions", "windows"}),
    ):
        export(LanguageModel(random_model(ROUND[name])), "gguf", tmp_path / "m.gguf")
        fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
        found = fields.get("gpt2lab.config")
        assert (found and set(json.loads(found.contents()))) == kept


RULES = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}


@pytest.mark.parametrize("pre", [*RULES, "llama-bpe", "qwen2", "tekken"])
def test_ids_are_those_of_the_rule_that_the_file_names(pre, bpe, tmp_path) -> None:
    fields = byte_level_fields(bpe, pre)
    gguf_files.write(tmp_path / "m.gguf", "llama", tokenizer=fields)
    lm = load(tmp_path / "m.gguf")
    ours = lm.tokenizer
    if pre in RULES:
        theirs = PreTrainedTokenizerFast(tokenizer_object=bpe.backend.from_str(bpe.backend.to_str()))
        theirs.backend_tokenizer.pre_tokenizer = RULES[pre]
    else:
        theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    for text in HARD:
        expected = theirs(text, add_special_tokens=False).input_ids
        assert ours.encode(text) == expected, text
        assert ours.decode(ours.encode(text), skip_special=False) == text
    assert ours.vocab_size == bpe.vocab_size  # rows without a token are none


def test_a_sentencepiece_tokenizer_is_made_of_tokens_and_scores_alone(tmp_path) -> None:
    tokenizer = sentencepiece()
    model = random_model(ROUND["llama"].replace(vocab_size=tokenizer.vocab_size + 1))
    export(LanguageModel(model, tokenizer), "gguf", tmp_path / "m.gguf")
    fields = GGUFFile(tmp_path / "m.gguf").fields
    fields.pop("tokenizer.huggingface.json")  # which our export adds, as this tokenizer has no decoder
    again = read_tokenizer(fields, "m.gguf")
    for text in (*HARD, "then an ant sang; thin ten, the Zürich 12", "cat", "<s>the cat</s> the cat"):
        ids = tokenizer.encode(text, special=True)
        assert again.encode(text, special=True) == ids, text
    assert again.decode(again.encode("the Zürich cat 🙂")) == "the Zürich cat 🙂"
    assert (again.bos, again.eos, again.unk) == (1, 2, 0)


@torch.no_grad()
def test_a_saved_file_is_an_ordinary_folder_that_transformers_opens(bpe, tmp_path) -> None:
    fields = byte_level_fields(
        bpe, "smollm", chat_template="{{ messages }}", **{"ggml.eot_token_id": bpe.id("<|user|>")}
    )
    gguf_files.write(tmp_path / "m.gguf", "llama", matrices="Q8_0", tokenizer=fields, tied=True)
    lm = gpt2lab.load(tmp_path / "m.gguf")
    assert lm.source == str(tmp_path / "m.gguf") and lm.config.tied_head
    assert lm.generation.eos == (bpe.eos, bpe.id("<|user|>"))
    gpt2lab.save(lm, tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = tokens(2, 30, vocab=SIZES["vocab"])
    assert torch.allclose(theirs(ids).logits, lm.model(ids), atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == "{{ messages }}"
    for text in HARD:
        assert tokenizer(text).input_ids == lm.tokenizer.encode(text, special=True)
    assert theirs.generation_config.eos_token_id == [bpe.eos, bpe.id("<|user|>")]


def scaled(original: int, factor: float, base: float, width: int) -> np.ndarray:
    """What a converter writes for llama3 scaling with limits 1 and 4, after Grattafiori et al. 2024."""
    found = []
    for i in range(width // 2):
        length = 2 * np.pi * base ** (2 * i / width)
        smooth = (original / length - 1) / 3
        found.append(
            1
            if length < original / 4
            else factor
            if length > original
            else 1 / ((1 - smooth) / factor + smooth)
        )
    return np.array(found, np.float32)


@pytest.mark.parametrize(
    ("original", "width"), [(8192, 64), (8192, 128), (24, 16), (40, 16), (300, 16), (9, 16), (8192, 32)]
)
def test_llama3_scaling_is_recovered_from_its_factors(original, width, tmp_path) -> None:
    base = 500000.0 if width >= 64 else 500.0
    factors = scaled(original, 8.0, base, width)
    own = {
        "block_count": 1,
        "context_length": 131072,
        "rope.freq_base": base,
        "embedding_length": 64,
        "attention.head_count": 4,
        "rope.dimension_count": width,
        "attention.key_length": width,
        "attention.value_length": width,
    }
    fields = {"general.architecture": "llama", **{f"llama.{name}": value for name, value in own.items()}}
    config = read_metadata(fields, {"token_embd.weight": (9, 64)}, "m", torch.from_numpy(factors))
    ours = rotary_frequencies(width, base, config.rotary_scaling, 1)
    plain = rotary_frequencies(width, base, None, 1)
    np.testing.assert_allclose((plain / ours).numpy(), factors, rtol=1e-5)
    if width >= 64:
        assert config.rotary_scaling == RotaryScaling(kind="llama3", factor=8.0, original_positions=8192)


def test_factors_of_another_kind_are_refused(tmp_path) -> None:
    gguf_files.write(
        tmp_path / "m.gguf",
        "llama",
        tensors={"rope_freqs.weight": np.array([1, 2, 1, 4, 1, 8, 8, 8], np.float32)},
    )
    with pytest.raises(LabError, match=r"rope_freqs\.weight is not of llama3's kind"):
        load_model(tmp_path / "m.gguf")


def test_windows_and_yarn_of_the_file_are_followed(tmp_path) -> None:
    fields = {
        "llama.attention.sliding_window": 16, "llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 32, "llama.rope.scaling.yarn_beta_fast": 16.0,
    }  # fmt: skip
    gguf_files.write(tmp_path / "m.gguf", "llama", fields=fields)
    config = read_config(tmp_path / "m.gguf")
    assert (config.family, config.windows, config.norm_eps, config.rotary_base) == (
        "mistral",
        (16, 16),
        1e-6,
        500.0,
    )
    assert config.rotary_scaling == RotaryScaling(
        kind="yarn", factor=4.0, original_positions=32, beta_fast=16.0
    )
    assert read_outline(tmp_path / "m.gguf").config == config


def refused(path: Path, words: str) -> None:
    with pytest.raises(LabError, match=words) as caught:
        gpt2lab.load(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_what_cannot_be_read_is_refused_in_a_sentence(bpe, tmp_path) -> None:
    path, fields = tmp_path / "m.gguf", byte_level_fields(bpe, "gpt-2")
    for kind, changes, words in (
        ("gemma2", {}, "the architecture 'gemma2' is not supported, only gpt2, gptneox, llama, qwen2"),
        ("llama", {"fields": {"split.count": 3}}, "one of 3 parts of a model"),
        ("llama", {"tokenizer": {**fields, "tokenizer.ggml.pre": "viking"}}, "the rule 'viking' for cutting text"),
        ("llama", {"tokenizer": {k: v for k, v in fields.items() if "merges" not in k}}, "300 tokens without its merges"),
        ("llama", {"tokenizer": {k: v for k, v in fields.items() if "pre" not in k}}, "tokenizer.ggml.pre, .*missing"),
        ("llama", {"tokenizer": {**fields, "tokenizer.ggml.model": "bert"}}, "kind 'bert' is not supported"),
        ("llama", {"tokenizer": {**fields, "tokenizer.ggml.model": "llama"}}, "with 0 scores"),
        ("llama", {"tokenizer": {**fields, "tokenizer.ggml.merges": ["t x"]}}, "merges 't' and 'x'"),
        ("llama", {"without": ("blk.1.attn_k.weight",)}, r"tensor blk\.1\.attn_k\.weight is missing"),
        ("llama", {"tensors": {"blk.0.attn_k_norm.weight": np.ones(4, np.float32)}}, "no place for blk.0.attn_k_norm"),
        ("llama", {"fields": {"llama.attention.value_length": 8}}, "different widths"),
        ("llama", {"fields": {"llama.rope.scaling.type": "longrope"}}, "rotary scaling 'longrope' is not supported"),
        ("gpt2", {"fields": {"gpt2lab.config": "{]"}}, "an entry has a wrong type or value"),
    ):  # fmt: skip
        gguf_files.write(path, kind if kind != "gemma2" else "llama", **changes)
        if kind == "gemma2":
            path.write_bytes(
                path.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0gemma2"[:13])
            )
            words = "the architecture 'gemma' is not supported, only gpt2, gptneox, llama, qwen2"
        refused(path, words)


def test_damaged_files_are_refused_in_a_sentence(bpe, tmp_path) -> None:
    path = tmp_path / "m.gguf"
    gguf_files.write(path, "llama", matrices="Q4_0", tokenizer=byte_level_fields(bpe, "gpt-2"))
    whole = path.read_bytes()
    for cut_at in (0, 3, 7, 20, 40, 500, 5000, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:cut_at])
        refused(path, "truncated|not a GGUF file|damaged")
    for start, words in (
        (whole[:4] + (3).to_bytes(4, "big"), "big-endian"),
        (whole[:4] + (1).to_bytes(4, "little"), "version 1 of GGUF"),
        (whole[:8] + (2**60).to_bytes(8, "little"), "promises"),
        (b"\x80\x02}" + whole[3:4], "not a GGUF file"),
    ):
        path.write_bytes(start + whole[len(start) :])
        refused(path, words)
    path.write_bytes(whole)
    assert gpt2lab.load(path).tokenizer is not None


def test_a_header_that_promises_more_than_the_file_holds_takes_no_time(tmp_path) -> None:
    header = b"GGUF" + b"".join(n.to_bytes(8, "little")[:k] for n, k in ((3, 4), (0, 8), (1, 8)))
    for kind, count in ((8, 2**50), (4, 2**62), (9, 5)):
        entry = (
            (1).to_bytes(8, "little")
            + b"a"
            + (9).to_bytes(4, "little")
            + kind.to_bytes(4, "little")
            + count.to_bytes(8, "little")
        )
        (tmp_path / "m.gguf").write_bytes(header + entry + bytes(64))
        refused(tmp_path / "m.gguf", "truncated|damaged")


def test_a_type_that_the_package_does_not_know_is_named(tmp_path) -> None:
    path = tmp_path / "m.gguf"
    gguf_files.write(path, "llama", matrices="Q4_0")
    name = b"blk.0.attn_q.weight"
    data = bytearray(path.read_bytes())
    at = data.index(name) + len(name) + 4 + 16
    data[at : at + 4] = (250).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    refused(path, r"tensor blk\.0\.attn_q\.weight is of a type \(number 250\)")


def test_a_file_without_tokenizer_has_none_and_its_tokenizer_alone_can_be_opened(bpe, tmp_path) -> None:
    gguf_files.write(tmp_path / "m.gguf", "gpt2", fields={"tokenizer.ggml.model": "no_vocab"})
    assert gpt2lab.load(tmp_path / "m.gguf").tokenizer is None
    with pytest.raises(LabError, match="holds no tokenizer"):
        load_tokenizer(tmp_path / "m.gguf")
    gguf_files.write(tmp_path / "n.gguf", "gpt2", tokenizer=byte_level_fields(bpe, "gpt-2"))
    assert load_tokenizer(tmp_path / "n.gguf").encode(TEXT) == bpe.encode(TEXT)
    save(load(tmp_path / "n.gguf"), tmp_path / "folder")
    assert load_tokenizer(tmp_path / "folder").encode(TEXT) == bpe.encode(TEXT)
