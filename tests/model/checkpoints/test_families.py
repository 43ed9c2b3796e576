"""Every family against `transformers`: logits, cache, padding, files."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    PreTrainedModel,
    Qwen2Config,
)

from gpt2lab.model import Transformer, load_model, save_model
from gpt2lab.model.checkpoints.huggingface import read_config
from tests.tiny import CONFIGS, tiny, tokens

SHARED = Path(__file__).parents[4] / "shared" / "data" / "models"
REAL = ["capp-gpt2-237k", "gpt-nano-sort-85k", "stories260k-llama", "tinystories-656k-llama"]
AUTO = {True: AutoModelForCausalLM, False: AutoModelForMaskedLM}
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared models are not beside the checkout")

SCALINGS = (
    {"rope_type": "linear", "factor": 2.5},
    {"rope_type": "dynamic", "factor": 3.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "beta_fast": 3.0, "beta_slow": 0.2},
    {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 12,
    },
)  # fmt: skip
HF_CONFIGS = {
    "gpt2": GPT2Config(vocab_size=53, n_embd=36, n_layer=2, n_head=3, n_positions=30, n_inner=50),
    "gpt2-untied-relu": GPT2Config(
        vocab_size=53, n_embd=20, n_layer=1, n_head=1, n_positions=30, activation_function="relu", tie_word_embeddings=False
    ),
    "gpt2-inverse-layer-scale": GPT2Config(
        vocab_size=53, n_embd=36, n_layer=3, n_head=3, n_positions=30, scale_attn_by_inverse_layer_idx=True,
        reorder_and_upcast_attn=True,
    ),
    "gpt2-unscaled-odd": GPT2Config(
        vocab_size=53, n_embd=20, n_layer=2, n_head=1, n_positions=30, scale_attn_weights=False,
    ),
    "gpt2-unscaled-inverse": GPT2Config(
        vocab_size=53, n_embd=30, n_layer=2, n_head=2, n_positions=30, scale_attn_weights=False,
        scale_attn_by_inverse_layer_idx=True,
    ),
    "gpt_neo": GPTNeoConfig(
        vocab_size=53, hidden_size=32, num_layers=4, attention_types=[[["global", "local"], 2]], num_heads=4,
        max_position_embeddings=30, window_size=6,
    ),
    "gpt_neo-all-local": GPTNeoConfig(
        vocab_size=53, hidden_size=32, num_layers=2, attention_types=[[["local"], 2]], num_heads=2,
        max_position_embeddings=30, window_size=1, intermediate_size=40, activation_function="gelu",
    ),
    "llama": LlamaConfig(
        vocab_size=53, hidden_size=40, intermediate_size=60, num_hidden_layers=2, num_attention_heads=5,
        num_key_value_heads=5, max_position_embeddings=30,
    ),
    "llama-grouped-biased": LlamaConfig(
        vocab_size=53, hidden_size=48, intermediate_size=44, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=10, max_position_embeddings=30, attention_bias=True, mlp_bias=True,
        tie_word_embeddings=True, rope_theta=500.0, rms_norm_eps=1e-4,
    ),
    "gpt_neox": GPTNeoXConfig(
        vocab_size=53, hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=30,
    ),
    "gpt_neox-serial-tied-whole": GPTNeoXConfig(
        vocab_size=53, hidden_size=40, num_hidden_layers=2, num_attention_heads=5, intermediate_size=40,
        max_position_embeddings=30, use_parallel_residual=False, tie_word_embeddings=True, attention_bias=False,
        rope_parameters={"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 1.0},
    ),
    "qwen2": Qwen2Config(
        vocab_size=53, hidden_size=36, intermediate_size=44, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=3, max_position_embeddings=30, use_sliding_window=True, sliding_window=4, max_window_layers=1,
    ),
    "mistral": MistralConfig(
        vocab_size=53, hidden_size=36, intermediate_size=44, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=30, sliding_window=5, head_dim=8,
    ),
    "mixtral": MixtralConfig(
        vocab_size=53, hidden_size=36, intermediate_size=20, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=30, num_local_experts=5, num_experts_per_tok=3,
    ),
    "mixtral-one-expert-windows": MixtralConfig(
        vocab_size=53, hidden_size=36, intermediate_size=20, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=30, num_local_experts=3, num_experts_per_tok=1,
        sliding_window=5, tie_word_embeddings=True, router_aux_loss_coef=0.02,
    ),
    "qwen2-odd-tied": Qwen2Config(
        vocab_size=53, hidden_size=40, intermediate_size=44, num_hidden_layers=2, num_attention_heads=5,
        num_key_value_heads=1, max_position_embeddings=30, tie_word_embeddings=True,
    ),
    "mistral-odd-tied": MistralConfig(
        vocab_size=53, hidden_size=42, intermediate_size=44, num_hidden_layers=2, num_attention_heads=7,
        num_key_value_heads=7, max_position_embeddings=30, sliding_window=None, tie_word_embeddings=True,
    ),
    **{
        f"llama-{scaling['rope_type']}": LlamaConfig(
            vocab_size=53, hidden_size=36, intermediate_size=44, num_hidden_layers=2, num_attention_heads=3,
            num_key_value_heads=3, max_position_embeddings=30, rope_parameters={"rope_theta": 50.0, **scaling},
        )
        for scaling in SCALINGS
    },
    **{
        f"gpt_neox-{scaling['rope_type']}": GPTNeoXConfig(
            vocab_size=53, hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
            max_position_embeddings=30,
            rope_parameters={"rope_theta": 50.0, "partial_rotary_factor": 0.5, **scaling},
        )
        for scaling in SCALINGS
    },
    "qwen2-yarn": Qwen2Config(
        vocab_size=53, hidden_size=36, intermediate_size=44, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=3, max_position_embeddings=30, rope_parameters={"rope_theta": 70.0, **SCALINGS[2]},
    ),
    "mistral-dynamic": MistralConfig(
        vocab_size=53, hidden_size=36, intermediate_size=44, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=30, sliding_window=9,
        rope_parameters={"rope_theta": 70.0, **SCALINGS[1]},
    ),
}  # fmt: skip


SCALED = [name for name in HF_CONFIGS if name.endswith(("linear", "dynamic", "yarn", "llama3"))]


@pytest.fixture(params=[*HF_CONFIGS, *(pytest.param(name, marks=needs_shared) for name in REAL)])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Transformer, PreTrainedModel, Path]:
    """Our model and transformers' with the same weights, and the folder that both came from."""
    if request.param in REAL:
        folder = SHARED / request.param
        return (
            load_model(folder),
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(),
            folder,
        )
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(HF_CONFIGS[request.param]).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)  # biases and gains start at 0 and 1
    theirs.save_pretrained(tmp_path / "hf")
    return load_model(tmp_path / "hf"), theirs, tmp_path / "hf"


def sample(model: Transformer, batch: int, time: int) -> torch.Tensor:
    return tokens(batch, min(time, model.config.max_positions), vocab=model.config.vocab_size)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Within 1e-5 of the largest logit: the promise of the design."""
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@torch.no_grad()
@pytest.mark.parametrize(("batch", "time"), [(1, 1), (3, 23), (2, 30)])
def test_logits_equal_transformers(pair, batch: int, time: int) -> None:
    ours, theirs, _ = pair
    ids = sample(ours, batch, time)
    close(ours(ids), theirs(ids).logits)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_real_token(pair, side: str) -> None:
    ours, theirs, _ = pair
    ids = sample(ours, 4, 11)
    time = ids.shape[1]
    mask = torch.ones_like(ids)
    for row, length in enumerate((time, time - 1, 3, 1)):
        padding = slice(0, time - length) if side == "left" else slice(length, None)
        mask[row, padding] = 0
    logits = ours(ids, attention_mask=mask)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    expected = theirs(ids, attention_mask=mask, position_ids=positions).logits
    kept = mask.bool()
    close(logits[kept], expected[kept])
    assert logits.isfinite().all()
    alone = torch.cat([ours(ids[row : row + 1, kept[row]])[0] for row in range(4)])
    close(logits[kept], alone)


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_decoding_through_the_cache_equals_one_pass(pair, padded: bool) -> None:
    ours, _, _ = pair
    ids = sample(ours, 3, 20)
    mask = torch.ones_like(ids)
    if padded:
        mask[0, :4] = 0
        mask[1, :1] = 0
    cache = ours.new_cache(batch=3, length=ids.shape[1])
    # A prefill, a chunk of several tokens, then one at a time: the three shapes that decoding uses.
    cuts = [0, 5, 8, *range(9, ids.shape[1] + 1)]
    parts = [
        ours(ids[:, a:b], attention_mask=mask[:, a:b] if padded else None, cache=cache)
        for a, b in pairwise(cuts)
    ]
    kept = mask.bool()
    whole = ours(ids, attention_mask=mask if padded else None)
    close(torch.cat(parts, 1)[kept], whole[kept])


def test_saving_and_loading_in_transformers_gives_identical_tensors(pair, tmp_path: Path) -> None:
    ours, theirs, _ = pair
    save_model(ours, tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    before, after = theirs.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert type(again) is type(theirs)


def test_config_entries_we_do_not_know_are_written_back(pair, tmp_path: Path) -> None:
    ours, _, _ = pair
    source = tmp_path / "source"
    save_model(ours, source)
    entries = json.loads((source / "config.json").read_text()) | {
        "favourite_colour": "teal",
        "summary_type": "mean",
    }
    (source / "config.json").write_text(json.dumps(entries))
    save_model(load_model(source), tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert written["favourite_colour"] == "teal"
    assert written["summary_type"] == "mean"
    assert read_config(tmp_path / "again") == read_config(source)


@pytest.mark.parametrize("family", CONFIGS)
def test_shards_hold_the_same_tensors(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    save_model(model, tmp_path / "one")
    save_model(model, tmp_path / "many", shard_bytes=4000)
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 3
    again = load_model(tmp_path / "many")
    for (name, tensor), other in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(tensor, other), name
    theirs = AUTO[model.config.causal].from_pretrained(tmp_path / "many")
    ids = tokens(2, 9)
    with torch.no_grad():
        close(model(ids), theirs(ids).logits)


@pytest.mark.parametrize("family", CONFIGS)
def test_bf16_is_kept_in_files_and_close_in_logits(family: str, tmp_path: Path) -> None:
    save_model(tiny(family).to(torch.bfloat16), tmp_path / "saved")
    model = load_model(tmp_path / "saved")
    assert model.dtype is torch.bfloat16
    theirs = AUTO[model.config.causal].from_pretrained(tmp_path / "saved")
    assert theirs.dtype is torch.bfloat16
    ids = tokens(2, 9)
    with torch.no_grad():
        difference = (model(ids) - theirs(ids).logits).abs().max()
    assert difference <= 0.03 * theirs(ids).logits.abs().max()  # bf16 keeps 8 bits


@torch.no_grad()
@pytest.mark.parametrize("name", SCALED)
def test_positions_beyond_training_follow_the_scaling(name: str, tmp_path: Path) -> None:
    ours, theirs = both(name, tmp_path)
    for time in (70, 12, 45):  # dynamic scaling goes back when the next sequence is shorter
        ids = tokens(2, time, vocab=53)
        close(ours(ids), theirs(ids).logits)


@torch.no_grad()
@pytest.mark.parametrize("name", SCALED)
def test_positions_beyond_training_follow_the_scaling_through_the_cache(name: str, tmp_path: Path) -> None:
    """Dynamic scaling leaves keys in the cache turned as they were; transformers does too."""
    ours, theirs = both(name, tmp_path)
    ids, past = tokens(2, 47, vocab=53), None
    cache = ours.new_cache(batch=2, length=47)
    for start, stop in pairwise([0, 26, 33, *range(34, 48)]):
        expected = theirs(ids[:, start:stop], past_key_values=past, use_cache=True)
        past = expected.past_key_values
        close(ours(ids[:, start:stop], cache=cache), expected.logits)
    if "dynamic" not in name:
        close(ours(ids)[:, -1:], expected.logits[:, -1:])


def both(name: str, folder: Path) -> tuple[Transformer, PreTrainedModel]:
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(HF_CONFIGS[name]).eval()
    theirs.save_pretrained(folder)
    return load_model(folder), theirs
