"""Modules of an objective: a frozen teacher, an auxiliary head, a multiplier; trained, checkpointed, resumed to the bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.training import Batch, Objective, OwnedModule, TrainSettings, next_token, train
from gpt2lab.training.checkpoints import newest_checkpoint
from gpt2lab.training.objectives import Owned
from gpt2lab.training.owned_modules import Multiplier, save_modules
from tests.tiny import tiny
from tests.training.data import Counting

Found = tuple[Tensor, dict[str, float]]


class Taught(Objective):
    """Cross entropy to a frozen teacher's distribution; the teacher drops out if it is ever in training mode."""

    def __init__(self, seed: int = 8) -> None:
        self.teacher = tiny("gpt2", seed=seed, residual_dropout=0.5).requires_grad_(False)

    def modules(self) -> Owned:
        return {"teacher": OwnedModule(module=self.teacher)}

    def __call__(self, model: Transformer, batch: Batch) -> Found:
        with torch.no_grad():
            wanted = self.teacher(batch["tokens"]).softmax(-1)
        logits = model(batch["tokens"]).flatten(0, 1)
        return F.cross_entropy(logits, wanted.flatten(0, 1)), {}


class Auxiliary(Objective):
    """The next token, and its parity by a head of its own, made in `prepare` for the model's width."""

    def __init__(self, rate: float | None = 0.05) -> None:
        self.rate, self.prepared = rate, 0
        self.head = nn.Linear(1, 1)

    def prepare(self, model: Transformer) -> None:
        self.prepared += 1
        torch.manual_seed(3)
        self.head = nn.Linear(model.config.d_model, 2)

    def modules(self) -> Owned:
        return {"parity": OwnedModule(module=self.head, learning_rate=self.rate, weight_decay=0.2)}

    def __call__(self, model: Transformer, batch: Batch) -> Found:
        hidden = model.hidden(batch["tokens"])
        loss, numbers = next_token(model, batch)
        parity = F.cross_entropy(self.head(hidden).flatten(0, 1), batch["targets"].flatten() % 2)
        return loss + parity, {**numbers, "parity": float(parity.detach())}


class Constrained(Objective):
    """The next token under the constraint that the embeddings' mean square is at most a bound: L + λ (c - bound)."""

    def __init__(self, bound: float = 1e-4) -> None:
        self.bound, self.multiplier = bound, Multiplier(0.5)

    def modules(self) -> Owned:
        return {"multiplier": OwnedModule(module=self.multiplier, learning_rate=1.0, maximize=True)}

    def __call__(self, model: Transformer, batch: Batch) -> Found:
        excess = model.embedding.weight.square().mean() - self.bound
        return next_token(model, batch)[0] + self.multiplier() * excess, {"excess": float(excess.detach())}


class Breaks(Counting):
    """Ends in the middle of a run."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if index == 9:
            raise InterruptedError
        return super().__getitem__(index)


def settings(**changes: object) -> TrainSettings:
    given: dict[str, object] = {"steps": 12, "learning_rate": 3e-3, "precision": "float32", **changes}
    return TrainSettings(**given)  # type: ignore[arg-type]  # each is one


def weights(model: Transformer, objective: Objective) -> list[Tensor]:
    own = [p for one in objective.modules().values() for p in one.module.state_dict().values()]
    return [*(p.detach() for p in model.parameters()), *own]


@pytest.mark.parametrize("make", [Taught, Auxiliary, Constrained])
def test_a_killed_run_ends_with_the_same_bits_in_model_and_modules(
    make: Callable[[], Objective], tmp_path: Path
) -> None:
    asked = settings(checkpoint_every=4)
    whole, cut, again = (tiny("gpt2", residual_dropout=0.1) for _ in range(3))
    undisturbed, killed, resumed = make(), make(), make()
    train(whole, Counting(), settings=asked, objective=undisturbed, seed=1)
    with pytest.raises(InterruptedError):
        train(cut, Breaks(), settings=asked, objective=killed, checkpoints=tmp_path, seed=1)
    train(again, Counting(), settings=asked, objective=resumed, checkpoints=tmp_path, resume=True, seed=1)
    pairs = zip(weights(whole, undisturbed), weights(again, resumed), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    fresh = zip(
        weights(whole, undisturbed), weights(tiny("gpt2", residual_dropout=0.1), make()), strict=False
    )
    assert not all(torch.equal(a, b) for a, b in fresh if a.shape == b.shape)


def test_a_frozen_teacher_is_left_alone_and_out_of_the_checkpoint(tmp_path: Path) -> None:
    model, objective = tiny("gpt2"), Taught()
    before = [p.clone() for p in objective.teacher.parameters()]
    model_before = [p.clone() for p in model.parameters()]
    objective.teacher.train()
    losses = train(model, Counting(), settings=settings(), objective=objective, checkpoints=tmp_path).losses
    assert not objective.teacher.training
    assert all(torch.equal(a, b) for a, b in zip(before, objective.teacher.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(model_before, model.parameters(), strict=True))
    assert losses[-1] < losses[0]
    path = newest_checkpoint(tmp_path)
    assert path is not None
    with safe_open(path / "tensors.safetensors", "pt") as file:
        assert not [name for name in file.keys() if name.startswith("objective.")]  # noqa: SIM118  # no mapping
    with pytest.raises(
        LabError, match=r"objective\.teacher\.\S+, which is frozen, has changed since this run"
    ):
        train(
            tiny("gpt2"),
            Counting(),
            settings=settings(steps=14),
            objective=Taught(seed=9),
            checkpoints=tmp_path,
            resume=True,
        )


def test_a_head_of_its_own_learns_at_its_own_rate_and_is_saved(tmp_path: Path) -> None:
    model, objective = tiny("gpt2"), Auxiliary()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rows = list[dict[str, float]]()
    asked = settings(steps=60, warmup=2, log_every=1, clip=0.0)
    train(
        model,
        Counting(),
        settings=asked,
        objective=objective,
        optimizer=optimizer,
        log=lambda step, **numbers: rows.append(numbers),
    )
    assert objective.prepared == 1
    added = optimizer.param_groups[1:]
    assert [(group["initial_lr"], group["weight_decay"]) for group in added] == [(0.05, 0.2), (0.05, 0.0)]
    assert added[0]["lr"] == pytest.approx(0.05 * 0.1)
    assert rows[-1]["parity"] < rows[0]["parity"] - 0.01
    (file,) = save_modules(tmp_path / "modules", objective.modules())
    assert file.name == "parity.safetensors"
    assert torch.equal(load_file(file)["weight"], objective.head.weight.detach())
    assert save_modules(tmp_path / "none", Taught().modules()) == []


def test_without_a_rate_of_its_own_a_module_has_that_of_the_first_group() -> None:
    model = tiny("gpt2")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    train(model, Counting(), settings=settings(steps=1), objective=Auxiliary(rate=None), optimizer=optimizer)
    assert {group["initial_lr"] for group in optimizer.param_groups} == {0.02}


def test_a_multiplier_ascends_while_the_weights_descend() -> None:
    """Against both updates by hand, in float64: θ ← θ - η ∂L/∂θ, raw ← raw + η' ∂L/∂raw."""
    ours, slow = tiny("gpt2").double(), tiny("gpt2").double()
    objective = Constrained()
    raw = objective.multiplier.raw.detach().double().clone()
    objective.multiplier.double()
    asked = settings(steps=5, schedule="constant", clip=0.0)
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1)
    train(ours, Counting(), settings=asked, objective=objective, optimizer=optimizer)
    parameters = list(slow.parameters())
    for step in range(5):
        loss, _ = next_token(slow, Counting()[step])
        excess = slow.embedding.weight.square().mean() - 1e-4
        multiplier = torch.log1p(raw.exp())
        gradients = torch.autograd.grad(loss + multiplier * excess, parameters)
        with torch.no_grad():
            raw = raw + 1.0 * torch.sigmoid(raw) * excess
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.1 * gradient
    assert float(objective.multiplier.raw.detach()) == pytest.approx(float(raw), rel=1e-9)
    assert float(objective.multiplier().detach()) > 0.5
    for a, b in zip(ours.parameters(), parameters, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_an_optimizer_that_cannot_ascend_is_refused() -> None:
    class Descends(torch.optim.Optimizer):
        def __init__(self, params: object) -> None:
            super().__init__(params, {"lr": 0.1})  # type: ignore[arg-type]  # parameters

        def step(self, closure: object = None) -> None:  # type: ignore[override]  # never called
            raise AssertionError

    model = tiny("gpt2")
    with pytest.raises(LabError, match="multiplier is maximised, and Descends has no `maximize`"):
        train(
            model,
            Counting(),
            settings=settings(),
            objective=Constrained(),
            optimizer=Descends(model.parameters()),
        )
    with pytest.raises(LabError, match="a multiplier starts above 0, got 0"):
        Multiplier(0.0)
