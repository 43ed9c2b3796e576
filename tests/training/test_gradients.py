"""Gradient strategies: DP-SGD against algorithm 1 of Abadi et al. 2016 written row by row in float64."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.papers.sophia import SophiaG
from gpt2lab.training import TrainSettings, next_token, train
from gpt2lab.training.contrastive import SimCSE
from gpt2lab.training.gradients import PrivateGradient
from tests.tiny import tiny
from tests.training.data import Counting


def settings(**changes: object) -> TrainSettings:
    given: dict[str, object] = {
        "steps": 1, "learning_rate": 1.0, "schedule": "constant", "precision": "float32", "clip": 0.01, **changes,
    }  # fmt: skip
    return TrainSettings(**given)  # type: ignore[arg-type]  # each is one


def moved(strategy: PrivateGradient, *, accumulation: int = 1, seed: int = 0, steps: int = 1) -> list[Tensor]:
    """The gradient of the last of so many updates, in float64."""
    model = tiny("gpt2").double()
    last: list[Tensor] = []

    class Reads(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]  # without a loss
            last[:] = [p.grad.clone() for group in self.param_groups for p in group["params"]]

    train(
        model,
        Counting(padded=True),
        settings=settings(steps=steps, accumulation=accumulation, privacy=strategy),
        optimizer=Reads(model.parameters(), lr=1.0),
        seed=seed,
    )
    return last


def by_hand(clip_norm: float, micro_batches: int, lot: int) -> tuple[list[Tensor], int]:
    """Σᵢ gᵢ / max(1, ‖gᵢ‖ / C) / L, and how many rows were clipped."""
    model = tiny("gpt2").double()
    parameters = list(model.parameters())
    total, clipped = [torch.zeros_like(p) for p in parameters], 0
    for k in range(micro_batches):
        batch = Counting(padded=True)[k]
        for i in range(len(batch["tokens"])):
            kept = batch["targets"][i] != -100
            logits = model(batch["tokens"][i : i + 1], attention_mask=batch["attention_mask"][i : i + 1])[0]
            loss = F.cross_entropy(logits[kept], batch["targets"][i][kept])
            gradients = torch.autograd.grad(loss, parameters)
            norm = sum(float(g.square().sum()) for g in gradients) ** 0.5
            clipped += norm > clip_norm
            total = [t + g / max(1.0, norm / clip_norm) for t, g in zip(total, gradients, strict=True)]
    return [t / lot for t in total], clipped


@pytest.mark.parametrize(("clip_norm", "accumulation"), [(5.0, 1), (5.0, 3), (0.1, 2), (100.0, 1)])
def test_rows_are_clipped_one_by_one_then_added_and_divided_by_the_lot(
    clip_norm: float, accumulation: int
) -> None:
    found = moved(PrivateGradient(clip_norm=clip_norm, noise=0.0), accumulation=accumulation)
    wanted, clipped = by_hand(clip_norm, accumulation, 4 * accumulation)
    assert clipped == (0 if clip_norm == 100.0 else 4 * accumulation if clip_norm == 0.1 else clipped)
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-13)
    halved = moved(
        PrivateGradient(clip_norm=clip_norm, noise=0.0, lot_size=8 * accumulation), accumulation=accumulation
    )
    assert all(torch.allclose(a, 2 * b, rtol=1e-12) for a, b in zip(found, halved, strict=True))


def test_some_rows_are_clipped_and_others_not_in_that_test() -> None:
    assert 0 < by_hand(5.0, 3, 1)[1] < 12


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_the_noise_is_normal_of_the_stated_size_and_another_one_at_every_update() -> None:
    plain = flat(moved(PrivateGradient(clip_norm=0.5, noise=0.0), accumulation=2))
    noise = {
        seed: flat(moved(PrivateGradient(clip_norm=0.5, noise=3.0), accumulation=2, seed=seed)) - plain
        for seed in (0, 1)
    }
    count = len(plain) ** 0.5
    for drawn in noise.values():
        assert abs(float(drawn.std()) / (3.0 * 0.5 / 8) - 1) < 4 / count
        assert abs(float(drawn.mean())) < 4 * (3.0 * 0.5 / 8) / count
        assert abs(float((drawn / drawn.std()).pow(4).mean()) - 3) < 4 * 96**0.5 / count
    same = flat(moved(PrivateGradient(clip_norm=0.5, noise=3.0), accumulation=2)) - plain
    second = flat(moved(PrivateGradient(clip_norm=0.5, noise=3.0), steps=2)) - flat(
        moved(PrivateGradient(clip_norm=0.5, noise=0.0), steps=2)
    )
    assert torch.equal(same, noise[0])
    for other in (noise[1], second):
        assert abs(float(torch.corrcoef(torch.stack([noise[0], other]))[0, 1])) < 4 / count


def test_the_noise_is_no_stream_of_dropout() -> None:
    """The same numbers in both would tell one from the other."""
    plain = flat(moved(PrivateGradient(noise=0.0)))
    drawn = (flat(moved(PrivateGradient(noise=1.0))) - plain) * 4
    torch.manual_seed(0)
    assert abs(float(torch.corrcoef(torch.stack([drawn, torch.randn(len(drawn)).double()]))[0, 1])) < 0.05


def test_a_killed_private_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    class Breaks(Counting):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            if index == 13:
                raise InterruptedError
            return super().__getitem__(index)

    asked = settings(
        steps=10, accumulation=2, learning_rate=1e-3, checkpoint_every=3, privacy=PrivateGradient(noise=0.5)
    )
    whole, cut, again = (tiny("gpt2", residual_dropout=0.2) for _ in range(3))
    losses = train(whole, Counting(), settings=asked, seed=4).losses
    with pytest.raises(InterruptedError):
        train(cut, Breaks(), settings=asked, checkpoints=tmp_path, seed=4)
    train(again, Counting(), settings=asked, checkpoints=tmp_path, resume=True, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    assert len(set(losses)) == len(losses)


def test_rows_of_one_batch_drop_out_differently() -> None:
    model, seen = tiny("gpt2", residual_dropout=0.5), list[float]()

    def watched(model: Transformer, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        loss, numbers = next_token(model, batch)
        seen.append(float(loss.detach()))
        return loss, numbers

    class Same:
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {name: tensor[:1].repeat(3, 1) for name, tensor in Counting()[0].items()}

    train(model, Same(), settings=settings(privacy=PrivateGradient()), objective=watched)  # type: ignore[arg-type]  # a batch is a dict
    assert len(set(seen)) == 3


def test_what_has_no_loss_for_a_row_is_refused() -> None:
    private = settings(privacy=PrivateGradient())
    with pytest.raises(LabError, match="privacy: SimCSE has no loss for each row: the texts of a batch are"):
        train(tiny("gpt2"), [], settings=private, objective=SimCSE())
    experts = tiny("llama", n_experts=3, balance_weight=0.1)
    with pytest.raises(LabError, match="the balance of the experts' load is a statistic of the whole batch"):
        train(experts, [], settings=private)
    alone = tiny("llama", n_experts=3, balance_weight=0.0)
    assert train(alone, Counting(), settings=private).steps == 1
    model = tiny("gpt2")
    with pytest.raises(LabError, match="SophiaG reads the data a second time"):
        train(model, [], settings=private, optimizer=SophiaG(model.parameters()))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PrivateGradient(clip_norm=0.0), "clip_norm must be above 0"),
        (lambda: PrivateGradient(noise=-1.0), "noise must not be negative"),
        (lambda: PrivateGradient(noise=float("nan")), "noise must not be negative"),
        (lambda: PrivateGradient(lot_size=-1), "lot_size must not be negative"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(LabError, match=words):
        make()
