"""What every optimizer must do: ours, a paper's, a plug-in's."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gpt2lab.base.registry import Part
from gpt2lab.training import GroupedOptimizer
from gpt2lab.training.checkpoints import load_checkpoint, save_checkpoint
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
    "stack": (3, 2, 4),
    "kernel": (3, 2, 5, 5),
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


def made(part: Part, parameters: Any, **options: Any) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = part.load()(parameters, **{"lr": 0.01, **options})
    return optimizer


def test_a_copy_goes_on_by_itself(part: Part) -> None:
    model = Shapes()
    optimizer = run(part, model, range(4))
    # Together, so that the copied optimizer moves the copied parameters.
    again, copied = copy.deepcopy((model, optimizer))
    run(part, model, range(4, 8), optimizer)
    run(part, again, range(4, 8), copied)
    assert equal(weights(model), weights(again))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_save_reads_back_without_pickle_and_continues_exactly(part: Part, dtype: torch.dtype) -> None:
    model = Shapes(dtype)
    optimizer = run(part, model, range(4))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    run(part, model, range(4, 8), optimizer)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = Shapes(dtype)
    again.load_state_dict(saved["model"])
    fresh = made(part, again.parameters())
    fresh.load_state_dict(saved["optimizer"])
    run(part, again, range(4, 8), fresh)
    assert equal(weights(model), weights(again))


def test_a_loaded_state_is_no_longer_the_other_optimizers(part: Part) -> None:
    model, other = Shapes(), Shapes()
    optimizer = run(part, model, range(3))
    twin = made(part, other.parameters())
    twin.load_state_dict(optimizer.state_dict())
    other.load_state_dict(model.state_dict())
    run(part, model, range(3, 5), optimizer)
    run(part, other, range(3, 5), twin)
    if isinstance(optimizer, GroupedOptimizer):  # torch's own share their tensors
        assert equal(weights(model), weights(other))


def test_a_parameters_layout_in_memory_does_not_matter(part: Part) -> None:
    plain = nn.Parameter(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    turned = nn.Parameter(plain.detach().t().contiguous().t())
    strided = nn.Parameter(torch.zeros(12, 8)[::2, ::2].copy_(plain.detach()))
    ends = []
    for parameter in (plain, turned, strided):
        optimizer = made(part, [parameter])
        for step in range(4):
            gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
            parameter.grad = gradient if parameter is not turned else gradient.t().contiguous().t()
            optimizer.step()
        ends.append(parameter.detach())
    assert torch.allclose(ends[0], ends[1], atol=1e-6)
    assert torch.allclose(ends[0], ends[2], atol=1e-6)


def test_types_may_differ_within_a_group(part: Part) -> None:
    kinds = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
    together = [nn.Parameter(torch.full((3, 2), 0.5, dtype=kind)) for kind in kinds]
    alone = [nn.Parameter(parameter.detach().clone()) for parameter in together]
    optimizers = [made(part, together), *(made(part, [parameter]) for parameter in alone)]
    for step in range(3):
        gradient = torch.randn(3, 2, generator=torch.Generator().manual_seed(step))
        for parameter in (*together, *alone):
            parameter.grad = gradient.to(parameter.dtype)
        for optimizer in optimizers:
            optimizer.step()
    assert equal([p.detach() for p in together], [p.detach() for p in alone])


def test_without_a_learning_rate_nothing_moves(part: Part) -> None:
    model = Shapes()
    before = weights(model)
    optimizer = run(part, model, range(2))
    before = weights(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    run(part, model, range(2, 5), optimizer)
    assert equal(before, weights(model))


def test_a_schedule_a_closure_and_a_scaler_work_as_with_any_optimizer(part: Part) -> None:
    ends = []
    for scaled in (False, True):
        generator = torch.Generator().manual_seed(0)
        layer = nn.Linear(3, 4)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(4, 3, generator=generator))
            layer.bias.zero_()
        optimizer = made(part, layer.named_parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.1, total_steps=6, cycle_momentum=False
        )
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

        def closure(layer: nn.Linear = layer, optimizer: torch.optim.Optimizer = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            loss = layer(torch.ones(2, 3)).square().sum()
            loss.backward()
            return loss

        for _ in range(5):
            if scaled:
                optimizer.zero_grad()
                scaler.scale(layer(torch.ones(2, 3)).square().sum()).backward()  # type: ignore[no-untyped-call]  # torch's
                scaler.step(optimizer)
                scaler.update()
            else:
                assert float(optimizer.step(closure).detach()) > 0  # type: ignore[union-attr]  # a closure gives a tensor here
            schedule.step()
        ends.append(layer.weight.detach())
    assert torch.allclose(ends[0], ends[1], atol=1e-6)


def test_a_group_added_later_has_its_own_options_and_bad_ones_are_refused(part: Part) -> None:
    first, second = (nn.Parameter(torch.ones(3, 3)) for _ in range(2))
    optimizer = made(part, [first])
    first.grad = torch.eye(3) + 0.1
    optimizer.step()
    optimizer.add_param_group({"params": [second], "lr": 0.0})
    moved = first.detach().clone()
    second.grad = torch.eye(3) + 0.1
    optimizer.step()
    assert torch.equal(second, torch.ones(3, 3))
    assert not torch.equal(first, moved)
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [second]})
    assert len(optimizer.param_groups) == 2
