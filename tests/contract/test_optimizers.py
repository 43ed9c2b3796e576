"""What every optimizer must do: ours, a paper's, a plug-in's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gpt2lab.base.registry import Part
from gpt2lab.train.checkpoints import load_checkpoint, save_checkpoint
from tests.contract.parts import built

pytestmark = pytest.mark.parametrize("part", built("optimizer"))

SHAPES = {
    "tall": (7, 3),
    "wide": (3, 7),
    "row": (1, 5),
    "column": (5, 1),
    "one": (1, 1),
    "vector": (4,),
    "scalar": (),
}


class Shapes(nn.Module):
    """Parameters of every awkward shape."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in SHAPES.items():
            setattr(self, name, nn.Parameter(torch.randn(shape, generator=generator).to(dtype)))


def gradients(model: nn.Module, step: int, *, missing: str | None = None) -> None:
    generator = torch.Generator().manual_seed(step)
    for name, parameter in model.named_parameters():
        gradient = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        parameter.grad = None if name == missing else gradient


def run(
    part: Part, model: nn.Module, steps: range, optimizer: torch.optim.Optimizer | None = None
) -> torch.optim.Optimizer:
    optimizer = optimizer or part.load()(model.parameters(), lr=0.01)
    for step in steps:
        # Now and then a parameter takes no part in the loss.
        gradients(model, step, missing="tall" if step % 3 == 1 else None)
        optimizer.step()
    return optimizer


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_shape_moves_and_stays_finite(part: Part, dtype: torch.dtype) -> None:
    model = Shapes(dtype)
    before = weights(model)
    # A step of 0.01 is below half the distance of two bfloat16 numbers around 3.
    optimizer = part.load()(model.parameters(), lr=0.1 if dtype is torch.bfloat16 else 0.01)
    run(part, model, range(4), optimizer)
    for (name, parameter), old in zip(model.named_parameters(), before, strict=True):
        assert parameter.dtype is dtype
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, old), name


def test_the_same_gradients_give_the_same_bits(part: Part) -> None:
    first, second = Shapes(), Shapes()
    run(part, first, range(5))
    run(part, second, range(5))
    assert equal(weights(first), weights(second))


def test_a_missing_gradient_leaves_the_parameter_alone(part: Part) -> None:
    model = Shapes()
    optimizer = part.load()(model.parameters(), lr=0.01)
    gradients(model, 0, missing="wide")
    before = model.wide.detach().clone()
    optimizer.step()
    assert torch.equal(model.wide, before)


def test_gradients_are_left_as_they_were(part: Part) -> None:
    model = Shapes()
    optimizer = part.load()(model.parameters(), lr=0.01)
    gradients(model, 0)
    before = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    optimizer.step()
    after = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert equal(before, after)


def test_saved_state_continues_exactly(part: Part, tmp_path: Path) -> None:
    whole, stopped, again = Shapes(), Shapes(), Shapes()
    run(part, whole, range(9))
    optimizer = run(part, stopped, range(4))
    path = save_checkpoint(tmp_path, 4, stopped, optimizer, {})
    fresh = part.load()(again.parameters(), lr=0.01)
    assert load_checkpoint(path, again, fresh)[0] == 4
    run(part, again, range(4, 9), fresh)
    assert equal(weights(whole), weights(again))


def test_groups_that_differ_in_everything_are_kept_apart(part: Part) -> None:
    together, first, second = Shapes(), Shapes(), Shapes()
    split = [p for n, p in together.named_parameters() if n in ("tall", "vector")]
    rest = [p for n, p in together.named_parameters() if n not in ("tall", "vector")]
    options: list[dict[str, Any]] = [{"lr": 0.02, "weight_decay": 0.3}, {"lr": 0.001, "weight_decay": 0.0}]
    optimizer = part.load()([{"params": split, **options[0]}, {"params": rest, **options[1]}])
    alone = [
        part.load()(model.parameters(), **option)
        for model, option in zip((first, second), options, strict=True)
    ]
    for step in range(4):
        for model in (together, first, second):
            gradients(model, step)
        for one in (optimizer, *alone):
            one.step()
    for name, parameter in together.named_parameters():
        expected = getattr(first if name in ("tall", "vector") else second, name)
        assert torch.allclose(parameter, expected, atol=1e-7), name


def test_an_empty_parameter_is_no_trouble(part: Part) -> None:
    empty = nn.Parameter(torch.zeros(0, 3))
    other = nn.Parameter(torch.ones(2, 3))
    optimizer = part.load()([empty, other], lr=0.01)
    empty.grad, other.grad = torch.zeros(0, 3), torch.ones(2, 3)
    optimizer.step()
    assert (other != 1).all()


@pytest.mark.parametrize("rate", [float("nan"), -0.1])
def test_a_learning_rate_that_is_none_is_refused(part: Part, rate: float) -> None:
    with pytest.raises(ValueError, match=r"learning rate|lr"):
        part.load()(Shapes().parameters(), lr=rate)


def test_a_misspelt_option_is_refused(part: Part) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        part.load()(Shapes().parameters(), lr=0.01, wieght_decay=0.1)
