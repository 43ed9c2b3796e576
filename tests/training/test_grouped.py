"""What our own optimizers share, on each of them: checks before anything moves, types of the state, copies."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from gpt2lab.base.errors import LabError
from gpt2lab.papers.conda import Conda, Muon
from gpt2lab.papers.sophia import Lion, SophiaG, SophiaH
from gpt2lab.training import GroupedOptimizer, grouped

Make = Callable[..., GroupedOptimizer]
EVERY: dict[str, Make] = {
    "conda": Conda,
    "lion": Lion,
    "muon": Muon,
    "sophia-g": SophiaG,
    "sophia-h": SophiaH,
}
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY.keys())


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moved(make: Make, parameters: list[nn.Parameter], steps: int = 3, **options: Any) -> GroupedOptimizer:
    optimizer = make(parameters, **{"lr": 0.01, **options})
    for step in range(steps):
        for number, parameter in enumerate(parameters):
            parameter.grad = drawn(10 * step + number, *parameter.shape).to(parameter.dtype)
        optimizer.step()
    return optimizer


@every
@pytest.mark.parametrize("kind", ["sparse", "complex"])
def test_a_gradient_that_cannot_be_used_is_refused_before_anything_moves(make: Make, kind: str) -> None:
    good, bad = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(4, 2))
    if kind == "complex":
        bad = nn.Parameter(torch.ones(4, 2, dtype=torch.complex64))
    good.grad = torch.eye(3)
    bad.grad = torch.ones_like(bad) if kind == "complex" else torch.ones(4, 2).to_sparse()
    optimizer = make([{"params": [good]}, {"params": [bad]}], lr=0.1)
    with pytest.raises(LabError, match="sparse and complex"):
        optimizer.step()
    assert torch.equal(good, torch.ones(3, 3))
    assert not optimizer.state


@every
def test_weights_in_bf16_are_rounded_once_an_update_with_their_decay(make: Make) -> None:
    """A decay of 0.3 % is below what bf16 resolves, but not together with the step."""
    narrow = nn.Parameter(torch.full((4, 4), 100.0).bfloat16())
    wide = nn.Parameter(torch.full((4, 4), 100.0))
    gradient = drawn(0, 4, 4).bfloat16()
    narrow.grad, wide.grad = gradient, gradient.float()
    for parameter in (narrow, wide):
        make([parameter], lr=1e-3, weight_decay=3.0).step()
    assert torch.equal(narrow, wide.bfloat16())


@every
def test_a_large_tensor_is_worked_on_in_pieces_without_a_trace(make: Make) -> None:
    """Three vectors, or one that holds their coordinates in turn: more than two pieces, the last not full."""
    size = 3 * 100_001
    whole = nn.Parameter(drawn(0, size))
    parts = [nn.Parameter(whole.detach()[i::3].clone()) for i in range(3)]
    first, second = make([whole], lr=0.01), make(parts, lr=0.01)
    for step in range(2):
        whole.grad = drawn(step + 1, size)
        for i, part in enumerate(parts):
            part.grad = whole.grad[i::3].clone()
        first.step()
        second.step()
    assert all(torch.equal(whole.detach()[i::3], part) for i, part in enumerate(parts))


@every
def test_maximizing_is_minimizing_the_negative(make: Make) -> None:
    first, second = [nn.Parameter(drawn(0, 4, 3)), nn.Parameter(drawn(1, 5))], [nn.Parameter(drawn(0, 4, 3))]
    second.append(nn.Parameter(drawn(1, 5)))
    down = make(first, lr=0.01)
    up = make(second, lr=0.01, maximize=True)
    for step in range(3):
        for number, (a, b) in enumerate(zip(first, second, strict=True)):
            a.grad = drawn(10 * step + number, *a.shape)
            b.grad = -a.grad
        down.step()
        up.step()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(second[0].grad, -first[0].grad)  # type: ignore[operator,arg-type]  # both have one


@every
def test_a_learning_rate_may_be_a_tensor(make: Make) -> None:
    ends = []
    for rate in (0.25, torch.tensor(0.25)):
        parameters = [nn.Parameter(drawn(0, 4, 3)), nn.Parameter(drawn(1, 5))]
        moved(make, parameters, lr=rate)
        ends.append(parameters)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@every
@pytest.mark.parametrize(
    "options", [{"lr": -1.0}, {"lr": float("inf")}, {"weight_decay": float("nan")}, {"betas": (0.9,)}]
)
def test_options_of_a_single_group_are_checked_too(make: Make, options: dict[str, Any]) -> None:
    optimizer = make([nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(LabError, match=f"{next(iter(options))}"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], **options})
    assert len(optimizer.param_groups) == 1


@every
def test_the_state_of_another_optimizer_or_model_is_refused(make: Make) -> None:
    parameters = [nn.Parameter(drawn(0, 4, 3)), nn.Parameter(drawn(1, 3, 4))]
    foreign = torch.optim.Adagrad(parameters)
    mine = moved(make, parameters)
    saved = foreign.state_dict()
    with pytest.raises(LabError, match="another optimizer's"):
        mine.load_state_dict(saved)
    turned = [nn.Parameter(p.detach().T.clone()) for p in parameters]
    with pytest.raises(LabError, match="in another order"):
        make(turned, lr=0.1).load_state_dict(mine.state_dict())
    with pytest.raises(ValueError, match="size of optimizer's group"):
        make(turned[:1], lr=0.1).load_state_dict(mine.state_dict())


@every
def test_a_state_saved_before_an_option_existed_gets_its_default(make: Make) -> None:
    parameters = [nn.Parameter(drawn(0, 4, 3))]
    saved = moved(make, parameters).state_dict()
    for group in saved["param_groups"]:
        del group["maximize"]
    fresh = make(parameters, lr=0.5)
    fresh.load_state_dict(saved)
    fresh.step()
    assert fresh.param_groups[0]["lr"] == 0.01


@every
def test_loaded_counters_are_whole_numbers_on_the_cpu(make: Make) -> None:
    parameters = [nn.Parameter(drawn(0, 4, 3).bfloat16()), nn.Parameter(drawn(0, 3).bfloat16())]
    optimizer = moved(make, parameters)
    fresh = make(parameters, lr=0.5)
    fresh.load_state_dict(optimizer.state_dict())
    for parameter in parameters:
        for name, value in optimizer.state[parameter].items():
            found = fresh.state[parameter][name]
            assert found.dtype == value.dtype
            assert torch.equal(found, value)
            assert found is not value


def test_copies_keep_what_stands_beside_the_groups() -> None:
    weight = nn.Parameter(torch.ones(2))
    first = SophiaG(
        [weight], refresh_every=7, refresh_when="before", curvature_rows=3, correct_curvature=True, clip=2.0,
        vocab_size=9,
    )  # fmt: skip
    again = copy.deepcopy(first)
    for name in (
        "refresh_every",
        "refresh_when",
        "curvature_rows",
        "correct_curvature",
        "clip",
        "vocab_size",
    ):
        assert getattr(again, name) == getattr(first, name)
    assert copy.deepcopy(SophiaH([weight], noise="rademacher")).noise == "rademacher"
    timed = Conda([weight])
    timed.seconds = {"svd": 1.0}
    assert copy.deepcopy(timed).seconds == {"svd": 1.0}
    assert copy.deepcopy(Conda([weight])).seconds is None


@every
def test_many_tensors_in_one_call_as_on_a_gpu_move_as_each_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = [(4, 3), (5,), (), (2, 3, 4), (3, 5), (7,), (300, 2)]
    kinds = [torch.float32, torch.bfloat16, torch.float64, torch.float32]
    ends = []
    for together in (False, True):
        parameters = [
            nn.Parameter(drawn(i, *shape).to(kinds[i % len(kinds)])) for i, shape in enumerate(shapes)
        ]
        with monkeypatch.context() as patch:
            if together:
                patch.setattr(grouped, "_has_cache", lambda tensor: False)
                patch.setattr(grouped, "_BUNCH", 30)
            optimizer = make(parameters, lr=0.01, **({"correct_curvature": True} if make is SophiaG else {}))
            for step in range(4):
                for number, parameter in enumerate(parameters):
                    missing = (step + number) % 3 == 0  # so that counters differ within a bunch
                    gradient = drawn(10 * step + number, *parameter.shape).to(parameter.dtype)
                    parameter.grad = None if missing else gradient
                optimizer.step()
                if isinstance(optimizer, SophiaG):
                    optimizer.update_curvature(terms=50)
        ends.append(parameters)
    for alone, bunched in zip(*ends, strict=True):
        assert torch.allclose(alone, bunched, rtol=1e-6, atol=0)


@every
def test_a_distributed_checkpoint_continues_exactly(make: Make, tmp_path: Path) -> None:
    """Its loader fills the tensors that a fresh optimizer has after an update with gradients of zero."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5))
    again = copy.deepcopy(model)
    optimizer = moved(make, list(model.parameters()))
    saved = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
    dcp.save(saved, checkpoint_id=tmp_path)
    fresh = make(again.parameters(), lr=0.01)
    found = {"model": again.state_dict(), "optimizer": get_optimizer_state_dict(again, fresh)}
    dcp.load(found, checkpoint_id=tmp_path)
    again.load_state_dict(found["model"])
    set_optimizer_state_dict(again, fresh, found["optimizer"])
    for parameters, one in ((model.parameters(), optimizer), (again.parameters(), fresh)):
        for number, parameter in enumerate(parameters):
            parameter.grad = drawn(100 + number, *parameter.shape)
        one.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
