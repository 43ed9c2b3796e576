"""config.json as other versions and other hands wrote it: read as transformers reads it, or refused in a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from gpt2lab.base.errors import LabError
from gpt2lab.decode.prompts import end_tokens
from gpt2lab.model import Transformer, load_model, save_model
from gpt2lab.model.checkpoints.families import CONSTRUCTORS, bert_config, gpt2_config, llama_config
from gpt2lab.model.checkpoints.huggingface import read_config
from gpt2lab.model.rotary import RotaryScaling
from gpt2lab.text.language_model import LanguageModel
from tests.tiny import tiny, tokens

LLAMA = {"hidden_size": 64, "intermediate_size": 20, "num_hidden_layers": 2, "max_position_embeddings": 16}
BASE: dict[str, dict[str, Any]] = {
    "llama": {**LLAMA, "num_attention_heads": 4, "num_key_value_heads": 2},
    "mistral": {**LLAMA, "num_attention_heads": 16, "num_key_value_heads": 8, "sliding_window": 3},
    "mixtral": {**LLAMA, "num_attention_heads": 16, "num_key_value_heads": 8, "num_local_experts": 2},
    "qwen2": {**LLAMA, "num_attention_heads": 32, "num_key_value_heads": 32},
    "gpt_neox": {**LLAMA, "num_attention_heads": 4},
    "gpt2": {"n_embd": 36, "n_layer": 2, "n_head": 3, "n_positions": 30},
    "gpt_neo": {
        "hidden_size": 36, "num_layers": 2, "num_heads": 3, "max_position_embeddings": 30, "window_size": 4,
        "attention_types": [[["global", "local"], 1]],
    },
}  # fmt: skip
LAYERS = (
    ("gpt2", "n_layer"), ("gpt_neo", "num_layers"), ("gpt_neox", "num_hidden_layers"), ("llama", "num_hidden_layers"),
    ("mistral", "num_hidden_layers"), ("mixtral", "num_hidden_layers"), ("qwen2", "num_hidden_layers"),
)  # fmt: skip
ROPE, LONGEST = "rope_parameters", "max_position_embeddings"


def folder_of(family: str, path: Path, without: tuple[str, ...] = (), **entries: Any) -> Path:
    """A random model as transformers saves it, its config.json then changed."""
    config = transformers.AutoConfig.for_model(
        family, vocab_size=61, bos_token_id=0, eos_token_id=1, **BASE[family]
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    told = json.loads((path / "config.json").read_text(encoding="utf-8"))
    told = {name: value for name, value in told.items() if name not in without}
    (path / "config.json").write_text(json.dumps({**told, **entries}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("family", "without", "entries"),
    [
        ("gpt2", ("n_head", "n_embd"), {"num_attention_heads": 3, "hidden_size": 36}),
        ("gpt_neo", ("num_heads",), {"num_attention_heads": 3}),
        ("gpt_neox", (), {ROPE: {"rope_type": "default", "rope_theta": 50.0}}),
        ("gpt_neox", (ROPE,), {"rotary_pct": 0.5, "rotary_emb_base": 50}),
        ("mistral", (), {"layer_types": ["full_attention", "sliding_attention"]}),
        ("mistral", ("num_key_value_heads", LONGEST, ROPE), {"rope_scaling": {"type": "yarn", "factor": 2.0}}),
        ("mixtral", ("num_key_value_heads", ROPE), {}),
        ("qwen2", ("num_key_value_heads",), {}),
        ("qwen2", ("layer_types",), {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}),
        ("llama", (ROPE,), {"rope_theta": 50.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        ("llama", (), {ROPE: {"rope_type": "dynamic", "rope_theta": 50.0, "factor": 2.0, f"original_{LONGEST}": 8}}),
        ("llama", (), {"rope_scaling": {"type": "linear", "factor": 2.0}, ROPE: {"rope_type": "linear", "factor": 4.0}}),
    ],
)  # fmt: skip
def test_a_config_of_another_hand_means_what_it_means_to_transformers(
    family: str, without: tuple[str, ...], entries: dict[str, Any], tmp_path: Path
) -> None:
    folder = folder_of(family, tmp_path / "theirs", without, **entries)
    their, ours = (
        AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval(),
        load_model(folder),
    )
    ids = tokens(2, 25)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), their(ids).logits, atol=1e-5, rtol=1e-4)
    save_model(ours, tmp_path / "ours", layout="huggingface")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, their(ids).logits, atol=1e-6, rtol=1e-5)


def test_a_mistral_without_the_entry_has_the_window_that_transformers_fills_in(tmp_path: Path) -> None:
    folder = folder_of("mistral", tmp_path / "absent", ("sliding_window",))
    assert read_config(folder).windows == (4096, 4096)
    folder = folder_of("mistral", tmp_path / "null", sliding_window=None)
    assert read_config(folder).windows is None


@pytest.mark.parametrize(
    ("family", "entries", "sentence"),
    [
        ("llama", {ROPE: {"rope_type": "llama3", "factor": 2.0}}, "an entry lacks low_freq_factor"),
        ("llama", {ROPE: {"rope_type": "default", "rope_theta": "x"}}, "wrong type or value"),
        (
            "llama",
            {ROPE: {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary_factor=0.5 is not",
        ),
        ("llama", {"num_attention_heads": 0}, "wrong type or value"),
        ("llama", {"intermediate_size": 20.0}, "d_mlp must be a whole number from 0 to 4,194,304, got 20.0"),
        ("llama", {"tie_word_embeddings": "false"}, "tied_head must be true or false, got 'false'"),
        ("llama", {"rms_norm_eps": float("nan")}, "norm_eps must be a finite number"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, "packed by another program"),
        ("llama", {"model_type": None}, "model_type, which says what family"),
        ("llama", {"head_dim": 2, ROPE: {"rope_type": "dynamic", "factor": 2.0}}, "needs two pairs"),
        ("mistral", {"layer_types": ["full_attention"]}, "layer_types must name"),
        ("gpt2", {"num_attention_heads": 4}, "num_attention_heads and n_head are one setting, and differ"),
        ("gpt_neo", {"attention_layers": ["global", "odd"]}, "attention is global or local"),
        ("llama", {"rope_theta": 0, ROPE: {}}, "rotary_base must be above 0, got 0.0"),
        ("llama", {ROPE: {"rope_type": "default", "rope_theta": 0}}, "rotary_base must be above 0, got 0.0"),
        ("llama", {ROPE: {"rope_type": "linear", "factor": 0}}, "factor must be at least 1, got 0.0"),
        ("llama", {ROPE: {"rope_type": "linear", "factor": "2"}}, "expected a number, found '2'"),
        ("llama", {ROPE: {"rope_type": "linear", "factor": float("inf")}}, "its numbers must be finite"),
        ("llama", {ROPE: {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1.0}}, "rotary_base above 1"),
        (
            "llama",
            {ROPE: {"full_attention": {"rope_theta": 5.0}}},
            r"of each kind of layer \(full_attention\)",
        ),
        ("gpt_neox", {"rotary_pct": 0.0}, r"rotary_fraction must lie in \(0, 1\]"),
        ("llama", {"rms_norm_eps": -1e-6}, "norm_eps must be above 0"),
        ("llama", {"rms_norm_eps": True}, "rms_norm_eps must be a number with a point, got True"),
        ("llama", {"num_key_value_heads": -2}, "n_kv_heads must be a whole number from 0"),
        ("llama", {"num_key_value_heads": 0}, "n_heads 4 is not a multiple of n_kv_heads 0"),
        ("llama", {"vocab_size": True}, "vocab_size must be a whole number"),
        ("llama", {"vocab_size": 10**12}, "vocab_size must be a whole number from 1 to 16,777,216"),
        ("llama", {"bos_token_id": [[1]]}, "bos_token_id must be a whole number"),
        ("llama", {"hidden_size": 10**400}, "d_model must be a whole number"),
        ("llama", {ROPE: {"rope_type": "default", "rope_theta": 10**400}}, "wrong type or value"),
        *(
            (family, {name: 10**12}, "n_layers must be a whole number from 0 to 10,000")
            for family, name in LAYERS
        ),
        ("gpt_neo", {"attention_types": [[["global"], 10**9]]}, "names 1000000000 layers of num_layers 2"),
        ("gpt_neo", {"attention_types": [[[], 10**9]]}, "names 0 layers of num_layers 2"),
        (
            "gpt_neo",
            {"attention_types": [[["global"], 10**9], [["global"], 2 - 10**9]]},
            "names 1000000000 layers",
        ),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "n_layer": 10**12}, "n_layers must be a whole"),
        ("gpt_neo", {"num_heads": None}, "num_heads must not be null; leave it out for its default"),
        (
            "gpt_neo",
            {"attention_layers": ["local", "local"], "attention_types": ["local"]},
            "wrong type or value",
        ),
        ("llama", {"rms_norm_eps": None}, "rms_norm_eps must be a number with a point, got None"),
        ("llama", {"initializer_range": 2.0}, r"init_std must lie in \[0, 1\], got 2.0"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types must name"),
        ("gpt2", {"dtype": "a b"}, "dtype must be one of auto, float16, .*got 'a b'"),
        ("llama", {"hidden_act": ["silu"]}, r"hidden_act \['silu'\] is not supported"),
        ("llama", {"rms_norm_eps": "x" * 5000}, "rms_norm_eps must be a number with a point, got 'xxx"),
        ("mistral", {"sliding_window": 10**30}, "windows must be a whole number from 1"),
    ],
)
def test_a_config_that_cannot_be_followed_is_refused_in_a_sentence_with_its_path(
    family: str, entries: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    told = {"model_type": family, "vocab_size": 61, **BASE[family], **entries}
    (tmp_path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(LabError, match=sentence) as error:
        read_config(tmp_path)
    assert "config.json" in str(error.value)


def test_several_end_ids_are_kept_and_end_a_text(tmp_path: Path) -> None:
    folder = folder_of("llama", tmp_path / "theirs", eos_token_id=[2, 3])
    model = load_model(folder)
    assert end_tokens(LanguageModel(model, None)) == (2, 3)
    save_model(model, tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text(encoding="utf-8"))["eos_token_id"] == [
        2,
        3,
    ]
    model.config = model.config.replace(eos=5)
    save_model(model, tmp_path / "other")
    assert json.loads((tmp_path / "other" / "config.json").read_text(encoding="utf-8"))["eos_token_id"] == 5
    assert end_tokens(LanguageModel(model, None)) == (5,)


def test_dynamic_scaling_that_counts_from_elsewhere_has_no_place_in_a_checkpoint(tmp_path: Path) -> None:
    scaling = RotaryScaling(kind="dynamic", factor=2.0, original_positions=8)
    config = llama_config(
        vocab_size=61, d_model=24, n_layers=1, n_heads=3, max_positions=16, rotary_scaling=scaling
    )
    with pytest.raises(LabError, match="counts dynamic scaling from its 16 positions, this model from 8"):
        save_model(Transformer(config), tmp_path / "model", layout="huggingface")


def with_types(folder: Path, *types: torch.dtype) -> None:
    """Store a folder's tensors in these types, in turn."""
    stored = load_file(folder / "model.safetensors")
    stored = {name: tensor.to(types[i % len(types)]) for i, (name, tensor) in enumerate(stored.items())}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_of_several_types_come_in_the_one_that_holds_them_all(tmp_path: Path) -> None:
    folder = folder_of("llama", tmp_path)
    with_types(folder, torch.bfloat16, torch.float32)
    model = load_model(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with_types(folder, torch.bfloat16, torch.float16)
    assert load_model(folder).dtype == torch.float32
    assert load_model(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    with torch.no_grad():
        assert model(tokens(1, 3)).isfinite().all()


def test_weights_that_are_codes_are_refused(tmp_path: Path) -> None:
    folder = folder_of("llama", tmp_path)
    with_types(folder, torch.int8)
    with pytest.raises(
        LabError, match=r"tensor model\.embed_tokens\.weight holds int8; weights in Hugging Face's layout are"
    ):
        load_model(folder)


def test_a_bert_without_token_types_goes_into_the_own_layout(tmp_path: Path) -> None:
    model = Transformer(bert_config(vocab_size=61, d_model=24, n_layers=1, n_heads=3, token_types=0)).eval()
    with pytest.raises(LabError, match="at least one row of token types"):
        save_model(model, tmp_path / "model", layout="huggingface")
    save_model(model, tmp_path / "model")
    assert torch.equal(load_model(tmp_path / "model")(tokens(1, 4)), model(tokens(1, 4)))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "llama", "mistral", "mixtral", "qwen2"])
def test_a_model_without_layers_is_kept(family: str, tmp_path: Path) -> None:
    config = CONSTRUCTORS[family](vocab_size=11, d_model=8, n_layers=0, n_heads=2, max_positions=16)
    model = Transformer(config, generator=torch.Generator().manual_seed(0)).eval()
    save_model(model, tmp_path / "model")
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(load_model(tmp_path / "model")(tokens), model(tokens))


def test_sizes_by_layer_of_no_layers_are_refused() -> None:
    with pytest.raises(LabError, match="n_heads is given by layer, and there are none"):
        gpt2_config(vocab_size=11, d_model=8, n_layers=0, n_heads=(), d_head=4, max_positions=16)


def test_a_model_of_more_layers_than_its_files_hold_tensors_is_not_built(tmp_path: Path) -> None:
    folder = folder_of("gpt2", tmp_path / "many", n_layer=9_999)
    with pytest.raises(LabError, match="says 9,999 layers, the files hold 28 tensors"):
        load_model(folder)
    own = tmp_path / "own"
    save_model(
        Transformer(gpt2_config(vocab_size=7, d_model=4, n_layers=1, n_heads=2)), own, layout="gpt2lab"
    )
    told = json.loads((own / "config.json").read_text(encoding="utf-8"))
    told["gpt2lab"]["config"]["n_layers"] = 9_999
    (own / "config.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(LabError, match="says 9,999 layers"):
        load_model(own)


def test_a_model_larger_than_the_machine_is_refused_before_it_is_allocated() -> None:
    config = gpt2_config(vocab_size=2**24, d_model=2**18, n_layers=1, n_heads=2)
    with pytest.raises(LabError, match=r"weights takes 19,457\.0 GiB, this machine has"):
        Transformer(config)
    with torch.device("meta"):
        assert sum(weight.numel() for weight in Transformer(config).parameters()) > 2**42


@pytest.mark.parametrize("scaling", [{}, {"rope_type": "dynamic", "factor": 2.0}])
def test_two_billion_positions_cost_what_is_read_of_them(scaling: dict[str, Any], tmp_path: Path) -> None:
    told = {ROPE: {"rope_type": "default", "rope_theta": 50.0, **scaling}}
    few, many = folder_of("llama", tmp_path / "few", **told), folder_of("llama", tmp_path / "many", **told)
    content = json.loads((many / "config.json").read_text(encoding="utf-8"))
    (many / "config.json").write_text(json.dumps({**content, LONGEST: 2_000_000_000}), encoding="utf-8")
    with torch.no_grad():
        torch.testing.assert_close(
            load_model(many)(tokens(2, 16)), load_model(few)(tokens(2, 16)), atol=0, rtol=0
        )


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"architectures": [3]}, r"architectures must be a list of names of classes, got \[3\]"),
        ({"architectures": "BertForSequenceClassification"}, "architectures must be a list of names"),
        ({"architectures": {"x": 1}}, "architectures must be a list of names"),
        ({"num_labels": 10**12}, "num_labels must lie between 1 and 1,000,000, got 1000000000000"),
        ({"num_labels": "3"}, "num_labels must lie between 1 and 1,000,000, got '3'"),
        ({"id2label": {"0": "a", "5": "b"}}, "id2label should name the outputs"),
        ({"problem_type": ["x"]}, r"problem_type \['x'\] is not supported"),
        ({"classifier_dropout": "x"}, "classifier_dropout must be a number, got 'x'"),
        ({"head_name": 3}, "head_name must be a name, got 3"),
    ],
)
def test_a_head_that_is_described_in_another_form_is_one_sentence(
    entries: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    save_model(Transformer(bert_config(vocab_size=9, d_model=8, n_layers=1, n_heads=2)), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told = {**told, "architectures": ["BertForSequenceClassification"], **entries}
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(LabError, match=sentence):
        load_model(tmp_path / "model")


@pytest.mark.parametrize("name", ["bos_token_id", "pad_token_id"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "llama", "bert"])
def test_only_ends_of_text_may_be_several(family: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(tiny(family), folder)
    entries = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(entries | {name: [1, 2]}))
    with pytest.raises(LabError, match=rf"{name} must be a whole number or null, got \[1, 2\]"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps(entries | {"eos_token_id": [1, 2]}))
    assert load_model(folder).config.eos == 1
