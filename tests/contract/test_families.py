"""What every family must do."""

from pathlib import Path

import pytest
import torch

from gpt2lab.model import load_model, save_model
from gpt2lab.model.checkpoints.families import FAMILIES as KNOWN
from gpt2lab.training import default_objective
from tests.contract.parts import FAMILIES
from tests.tiny import tiny, tokens

pytestmark = pytest.mark.parametrize("family", FAMILIES)


def test_every_family_is_in_the_battery(family: str) -> None:
    heirs = {"mistral", "mixtral", "qwen2"}  # the blocks of llama, with other entries in config.json
    assert set(FAMILIES) == set(KNOWN) - heirs
    assert tiny(family).config.family == family


@torch.no_grad()
def test_one_token_and_an_empty_batch_pass_through(family: str) -> None:
    model = tiny(family)
    assert model(tokens(1, 1)).shape == (1, 1, 61)
    assert model(torch.zeros(0, 3, dtype=torch.long)).shape == (0, 3, 61)


@torch.no_grad()
def test_bf16_stays_near_float32(family: str) -> None:
    ids = tokens(3, 12)
    exact, rough = tiny(family)(ids), tiny(family).to(torch.bfloat16)(ids)
    assert rough.dtype is torch.bfloat16
    assert (exact - rough).norm() < 0.03 * exact.norm()


def test_padding_changes_neither_loss_nor_gradient(family: str) -> None:
    ids = tokens(2, 9)
    results = []
    for padding in (0, 4):
        model = tiny(family).double()
        filled = torch.cat([ids[:, :-1], torch.full((2, padding), 7)], 1)
        targets = torch.cat([ids[:, 1:], torch.full((2, padding), -100)], 1)
        mask = (targets != -100).long()
        batch = {"tokens": filled, "targets": targets, "attention_mask": mask}
        loss, _ = default_objective(model.config)(model, batch)
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    for a, b in zip(*results, strict=True):
        shape = tuple(slice(0, size) for size in a.shape)
        assert torch.allclose(a, b[shape], atol=1e-12)


def test_the_gradient_is_that_of_finite_differences(family: str) -> None:
    model = tiny(family).double()
    batch = {"tokens": tokens(2, 6), "targets": tokens(2, 6, seed=1)}
    generator = torch.Generator().manual_seed(0)
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in model.parameters()]
    default_objective(model.config)(model, batch)[0].backward()
    slope = sum((p.grad * d).sum() for p, d in zip(model.parameters(), directions, strict=True))

    def at(step: float) -> torch.Tensor:
        with torch.no_grad():
            for parameter, direction in zip(model.parameters(), directions, strict=True):
                parameter.add_(direction, alpha=step)
            loss = default_objective(model.config)(model, batch)[0]
            for parameter, direction in zip(model.parameters(), directions, strict=True):
                parameter.sub_(direction, alpha=step)
        return loss

    assert torch.allclose(slope, (at(1e-6) - at(-1e-6)) / 2e-6, rtol=1e-5)


@torch.no_grad()
def test_a_saved_model_gives_the_same_bits(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert torch.equal(model(tokens(2, 8)), again(tokens(2, 8)))
    assert again.config == model.config


@torch.no_grad()
def test_the_callers_tensors_are_untouched(family: str) -> None:
    model = tiny(family)
    ids, mask = tokens(2, 6), torch.ones(2, 6, dtype=torch.long)
    mask[0, :2] = 0
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    copies = [tensor.clone() for tensor in (ids, mask, positions)]
    cache = model.new_cache(batch=2, length=6) if model.config.causal else None
    model(ids, attention_mask=mask, positions=positions, cache=cache)
    assert all(torch.equal(a, b) for a, b in zip((ids, mask, positions), copies, strict=True))
