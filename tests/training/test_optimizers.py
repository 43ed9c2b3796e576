"""How optimizers are made for a model, and how the loop serves one that reads curvature."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import pytest
import torch
from torch import nn

from gpt2lab.model import Transformer
from gpt2lab.training import TrainSettings, make_optimizer, next_token, train
from gpt2lab.training.micro_batches import Batch
from gpt2lab.training.objectives import Objective
from tests.tiny import tiny
from tests.training.data import Counting


class Probing(torch.optim.SGD):
    """Plain descent that scales its step by a number drawn and a loss read every third update."""

    when: Literal["before", "after"] = "after"

    def __init__(self, params: Any, lr: float = 1e-2) -> None:
        super().__init__(params, lr=lr)
        self.seen: list[tuple[int, int, float]] = []
        self.step_read = 0

    def refreshes(self, step: int) -> Literal["before", "after"] | None:
        self.step_read = step
        return self.when if step % 3 == 2 else None

    def refresh(
        self, model: Transformer, batches: Sequence[Batch], objective: Objective, generator: torch.Generator
    ) -> dict[str, float]:
        assert objective is next_token
        drawn = float(torch.rand((), generator=generator))
        self.seen.append((self.step_read, int(batches[0]["tokens"][0, 0]), drawn))
        for group in self.param_groups:
            group["initial_lr"] = 1e-2 * (0.5 + drawn)
        return {"drawn": drawn}


class ByPlace(torch.optim.SGD):
    @classmethod
    def for_model(cls, model: nn.Module, *, lr: float, weight_decay: float, twice: str) -> Self:
        named = dict(model.named_parameters())
        faster = named.pop(twice)
        return cls([{"params": [faster], "lr": 2 * lr}, {"params": list(named.values())}], lr=lr)


@pytest.mark.parametrize(("when", "offset"), [("before", 0), ("after", 1)])
def test_a_refresh_sees_the_batches_of_its_update_or_of_the_next(
    monkeypatch: pytest.MonkeyPatch, when: Literal["before", "after"], offset: int
) -> None:
    monkeypatch.setattr(Probing, "when", when)
    model, logged = tiny("gpt2"), dict[int, float]()
    optimizer = Probing(model.parameters())
    settings = TrainSettings(steps=7, accumulation=2, log_every=1, schedule="constant")
    train(
        model,
        Counting(),
        settings=settings,
        optimizer=optimizer,
        log=lambda step, **n: logged.update({step: n["drawn"]} if "drawn" in n else {}),
        seed=5,
    )
    assert [step for step, _, _ in optimizer.seen] == [2, 5]
    for step, first, drawn in optimizer.seen:
        assert first == int(Counting()[2 * (step + offset)]["tokens"][0, 0])
        assert logged[step + 1] == drawn
    assert optimizer.seen[0][2] != optimizer.seen[1][2]


def test_a_resumed_run_refreshes_with_the_same_draws(tmp_path: Path) -> None:
    def run(steps: int, folder: Path, resume: bool) -> Transformer:
        model = tiny("gpt2")
        settings = TrainSettings(steps=9, learning_rate=1e-2, schedule="constant", checkpoint_every=4)
        cut = _StopsAt(steps)
        try:
            train(
                model, cut, settings=settings, optimizer=Probing(model.parameters()),
                checkpoints=folder, resume=resume, seed=1,
            )  # fmt: skip
        except InterruptedError:
            assert steps < 9
        return model

    whole = run(99, tmp_path / "whole", False)
    run(6, tmp_path / "cut", False)
    again = run(99, tmp_path / "cut", True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


class _StopsAt(Counting):
    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index >= self.index:
            raise InterruptedError
        return super().__getitem__(index)


def test_a_class_may_group_a_models_parameters_itself() -> None:
    model = tiny("gpt2")
    made = make_optimizer(ByPlace, model, learning_rate=0.1, weight_decay=0.0, twice="embedding.weight")
    assert [group["lr"] for group in made.param_groups] == [0.2, 0.1]
    plain = make_optimizer(torch.optim.AdamW, model, learning_rate=0.1, weight_decay=0.3, eps=1e-6)
    assert [group["weight_decay"] for group in plain.param_groups] == [0.3, 0.0]
    assert {group["eps"] for group in plain.param_groups} == {1e-6}
