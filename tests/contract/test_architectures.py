"""What every architecture must do, whatever it changes: ours, a paper's, a plug-in's, alone and on top of another."""

import copy
import dataclasses
import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.decode import Beam, Greedy, Limits, Sampling
from gpt2lab.model import Architecture, Transformer, load_model, save_model
from gpt2lab.model.checkpoints.native import blueprint, named_tensors
from gpt2lab.training import TrainSettings, next_token, train
from tests.architectures import CLASSES
from tests.contract.attached import everything, made
from tests.tiny import tiny, tokens
from tests.training.data import Counting

pytestmark = pytest.mark.parametrize("architectures", everything())

PROMPTS = [[3, 4], [5, 6, 7, 8, 9, 10, 11], [1, 2, 3], [40, 41, 42, 43, 44]]
FAMILIES = ("gpt2", "llama")


def test_it_is_frozen_options_and_refuses_others(architectures: list[Architecture]) -> None:
    for architecture in architectures:
        kind = type(architecture)
        assert isinstance(architecture, Architecture)
        assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen
        assert all(field.kw_only for field in dataclasses.fields(kind))
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            kind(an_option_nobody_has=1)
        assert inspect.getdoc(kind)


def test_the_generator_alone_decides_the_weights(architectures: list[Architecture]) -> None:
    before = torch.get_rng_state()
    first, second = made(architectures), made(architectures)
    assert torch.equal(before, torch.get_rng_state())
    state = named_tensors(first)
    assert all(torch.equal(state[name], tensor) for name, tensor in named_tensors(second).items())


@pytest.mark.parametrize("family", FAMILIES)
def test_without_numbers_it_makes_the_same_names_and_shapes(
    architectures: list[Architecture], family: str
) -> None:
    model = made(architectures, family)
    shapes = {name: tensor.shape for name, tensor in named_tensors(model).items()}
    on_meta = named_tensors(blueprint(model.config, architectures))
    assert {name: tensor.shape for name, tensor in on_meta.items()} == shapes
    assert all(tensor.is_meta for tensor in on_meta.values())


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_padding_on_either_side_changes_nothing(architectures: list[Architecture], family: str) -> None:
    model, ids = made(architectures, family), tokens(3, 9)
    alone = model(ids)
    for left in (0, 4):
        padded = torch.full((3, 13), 7)
        padded[:, left : left + 9] = ids
        mask = torch.zeros(3, 13)
        mask[:, left : left + 9] = 1
        logits = model(padded, attention_mask=mask)
        assert logits.isfinite().all()
        assert (logits[:, left : left + 9] - alone).abs().max() < 1e-5 * alone.abs().max()


@torch.no_grad()
def test_no_logit_depends_on_what_follows_beyond_a_prefix(architectures: list[Architecture]) -> None:
    model, ids = made(architectures), tokens(2, 12)
    other = ids.clone()
    other[:, 8:] = tokens(2, 4, seed=5)
    assert torch.allclose(model(ids)[:, :8], model(other)[:, :8], atol=1e-5)


@torch.no_grad()
def test_one_token_no_rows_embeddings_and_positions_pass_through(architectures: list[Architecture]) -> None:
    model, ids = made(architectures), tokens(2, 6)
    assert model(tokens(1, 1)).shape == (1, 1, 61)
    assert model(torch.zeros(0, 3, dtype=torch.long)).shape == (0, 3, 61)
    expected = model(ids)
    assert torch.allclose(model(embeddings=model.embed(ids)), expected, atol=1e-5)
    assert torch.allclose(model(ids, positions=torch.arange(6)[None]), expected, atol=1e-5)


@torch.no_grad()
def test_bf16_stays_near_float32(architectures: list[Architecture]) -> None:
    ids = tokens(3, 12)
    exact, rough = made(architectures, "llama")(ids), made(architectures, "llama").to(torch.bfloat16)(ids)
    assert rough.dtype is torch.bfloat16
    assert (exact - rough).norm() < 0.05 * exact.norm()


@torch.no_grad()
def test_a_copy_is_a_model_of_its_own(architectures: list[Architecture]) -> None:
    model, ids = made(architectures), tokens(2, 6)
    copied, expected = copy.deepcopy(model), model(ids)
    for parameter in model.parameters():
        parameter.fill_(0.5)
    assert torch.equal(copied(ids), expected)
    assert copied.architectures == model.architectures


def slow_greedy(model: Transformer, prompt: list[int], new: int) -> list[int]:
    """Without a cache: everything is computed anew for every token."""
    row = list(prompt)
    with torch.no_grad():
        for _ in range(new):
            row.append(int(model(torch.tensor([row]))[0, -1].argmax()))
    return row[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_generation_equals_computing_everything_anew(
    architectures: list[Architecture], family: str
) -> None:
    model = made(architectures, family)
    expected = [slow_greedy(model, prompt, 8) for prompt in PROMPTS]
    assert list(Greedy().decode(model, PROMPTS, Limits(max_new_tokens=8))) == expected
    assert list(Beam(beams=1).decode(model, PROMPTS, Limits(max_new_tokens=8))) == expected


@pytest.mark.parametrize("decoder", [Sampling(temperature=0.8), Beam(beams=3)], ids=["sampling", "beam"])
def test_no_text_depends_on_the_batch(architectures: list[Architecture], decoder: Sampling | Beam) -> None:
    model, limits = made(architectures), Limits(max_new_tokens=7, eos=(9,))
    generators = [lambda i=i: torch.Generator().manual_seed(i) for i in range(4)]
    together = list(decoder.decode(model, PROMPTS, limits, generator=[make() for make in generators]))
    alone = [
        decoder.decode(model, [prompt], limits, generator=[make()])[0]
        for prompt, make in zip(PROMPTS, generators, strict=True)
    ]
    assert together == alone


@torch.no_grad()
def test_the_cache_is_reordered_selected_and_rewound(architectures: list[Architecture]) -> None:
    model, ids = made(architectures), tokens(3, 8)
    cache = model.new_cache(batch=3, length=12)
    model(ids, cache=cache)
    assert (cache.batch, cache.length, cache.capacity) == (3, 8, 12)
    cache.rewind(6)
    rows = torch.tensor([2, 0, 0])
    cache.reorder(rows)
    one = cache.select(torch.tensor([1]))
    following = torch.tensor([[5, 6], [7, 8], [9, 10]])
    expected = model(torch.cat([ids[rows, :6], following], 1))[:, 6:]
    assert torch.allclose(model(following, cache=cache), expected, atol=1e-4)
    assert torch.allclose(model(following[1:2], cache=one), expected[1:2], atol=1e-4)
    cache.rewind(0)
    assert torch.allclose(model(ids, cache=cache), model(ids), atol=1e-4)


@torch.no_grad()
def test_alternatives_for_the_next_place_do_not_see_each_other(architectures: list[Architecture]) -> None:
    model, ids, candidates = made(architectures), tokens(2, 6), tokens(2, 3, seed=4)
    cache = model.new_cache(batch=2, length=9)
    model(ids, cache=cache)
    together = model.hidden(candidates, cache=cache, siblings=True)
    for index in range(3):
        alone = model.hidden(torch.cat([ids, candidates[:, index : index + 1]], 1))[:, -1]
        assert torch.allclose(together[:, index], alone, atol=1e-4)


def test_it_learns_and_a_resumed_run_ends_with_the_same_bits(
    architectures: list[Architecture], tmp_path: Path
) -> None:
    whole = made(architectures)
    assert any(parameter.requires_grad for parameter in whole.parameters())
    frozen = {name: p.clone() for name, p in whole.named_parameters() if not p.requires_grad}
    settings = TrainSettings(steps=12, learning_rate=3e-3, precision="float32", checkpoint_every=6)
    before = loss(whole)
    train(whole, Counting(padded=True), settings=settings)
    assert loss(whole) < before
    with pytest.raises(RuntimeError, match="power cut"):
        train(made(architectures), Cut(8), settings=settings, checkpoints=tmp_path)
    again = made(architectures)
    train(again, Counting(padded=True), settings=settings, checkpoints=tmp_path, resume=True)
    expected = named_tensors(whole)
    assert all(torch.equal(expected[name], tensor) for name, tensor in named_tensors(again).items())
    assert all(torch.equal(expected[name], start) for name, start in frozen.items())


@torch.no_grad()
def loss(model: Transformer) -> float:
    """Mean over what it is trained on."""
    return sum(float(next_token(model, Counting(padded=True)[index])[0]) for index in range(12)) / 12


class Cut(Counting):
    """The stream, until the power goes."""

    def __init__(self, at: int) -> None:
        super().__init__(padded=True)
        self.at = at

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if index == self.at:
            raise RuntimeError("power cut")
        return super().__getitem__(index)


def test_gradient_checkpointing_changes_no_gradient(architectures: list[Architecture]) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = made(architectures).train()
        model.gradient_checkpointing = checkpointing
        next_token(model, Counting(padded=True)[0])[0].backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0] and gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


def test_every_activation_it_announces_can_be_read_and_replaced(architectures: list[Architecture]) -> None:
    model, ids = made(architectures), tokens(2, 6)
    names = model.activation_names()
    assert len(set(names)) == len(names)
    with torch.no_grad():
        plain = model(ids)
        with model.tap(read=names) as tap:
            watched = model(ids)
    assert torch.allclose(plain, watched, atol=1e-5)
    assert tap["logits"].shape == (2, 6, 61)
    assert tap["resid_post"].shape[0] == model.config.n_layers
    with torch.no_grad(), model.tap(write={"blocks.1.hook_mlp_out": lambda x, name: 0 * x}):
        assert not torch.allclose(model(ids), plain, atol=1e-3)


@torch.no_grad()
def test_saved_and_loaded_it_gives_the_same_bits(architectures: list[Architecture], tmp_path: Path) -> None:
    model = made(architectures, "llama")
    save_model(model, tmp_path / "model", shard_bytes=20_000)
    again = load_model(tmp_path / "model", architectures=CLASSES)
    assert again.architectures == tuple(architectures)
    assert again.config == model.config
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in model.parameters()]
    assert torch.equal(model(tokens(2, 8)), again(tokens(2, 8)))
    assert list(Greedy().decode(again, PROMPTS, Limits(max_new_tokens=5))) == list(
        Greedy().decode(model, PROMPTS, Limits(max_new_tokens=5))
    )
    save_model(again, tmp_path / "again", shard_bytes=20_000)
    for file in (tmp_path / "model").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_hugging_faces_layout_is_refused_with_nothing_written(
    architectures: list[Architecture], tmp_path: Path
) -> None:
    with pytest.raises(LabError, match="Hugging Face's gpt2"):
        save_model(made(architectures), tmp_path / "model", layout="huggingface")
    assert not (tmp_path / "model").exists()


def test_the_callers_tensors_are_untouched(architectures: list[Architecture]) -> None:
    model = made(architectures)
    ids, mask = tokens(2, 6), torch.ones(2, 6, dtype=torch.long)
    mask[0, :2] = 0
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    copies = [tensor.clone() for tensor in (ids, mask, positions)]
    with torch.no_grad():
        model(ids, attention_mask=mask, positions=positions, cache=model.new_cache(batch=2, length=6))
    assert all(torch.equal(a, b) for a, b in zip((ids, mask, positions), copies, strict=True))


def test_another_models_cache_is_refused_or_as_good(architectures: list[Architecture]) -> None:
    model = made(architectures)
    plain, own = tiny("gpt2").new_cache(batch=1, length=9), model.new_cache(batch=1, length=9)
    if type(plain) is type(own):
        return
    with pytest.raises(LabError, match="made for another model"), torch.no_grad():
        model(tokens(1, 4), cache=plain)
