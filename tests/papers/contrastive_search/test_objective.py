"""SimCTG against a loop over pairs in float64, and through the verb train."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.actions.train import train_model
from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.base.errors import LabError
from gpt2lab.papers.contrastive_search.objective import SimCTG, batch_isotropy, contrastive_loss
from gpt2lab.training import TrainSettings, next_token
from tests.tiny import tiny, tokens


def slow(hidden: Tensor, real: Tensor, margin: float) -> Tensor:
    """A loop over the ordered pairs of each row, as the paper has it; autograd gives the gradient."""
    total, pairs = hidden.new_zeros(()), 0
    for row, there in zip(hidden, real, strict=True):
        places = [i for i in range(len(row)) if there[i]]
        for i in places:
            for j in places:
                if i != j:
                    own = F.cosine_similarity(row[i], row[i], dim=0)
                    total = total + (margin - own + F.cosine_similarity(row[i], row[j], dim=0)).clamp_min(0)
                    pairs += 1
    return total / max(pairs, 1)


REAL = torch.tensor([[True] * 7, [True] * 4 + [False] * 3, [True] + [False] * 6])


@pytest.mark.parametrize("chunk", [1, 3, 64])
@pytest.mark.parametrize("margin", [0.5, 1.0])
def test_loss_and_gradient_are_those_of_a_loop_over_pairs(chunk: int, margin: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 7, 5, generator=generator, dtype=torch.float64) + 0.7
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    loss, expected = contrastive_loss(ours, REAL, margin=margin, chunk=chunk), slow(theirs, REAL, margin)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-14)
    assert loss.detach() > 0.01
    (3.0 * loss).backward()
    (3.0 * expected).backward()
    assert ours.grad is not None and theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-13)
    assert not ours.grad[1, 4:].any()


def test_a_batch_without_pairs_costs_nothing() -> None:
    hidden = torch.randn(2, 1, 4, requires_grad=True)
    loss = contrastive_loss(hidden, torch.ones(2, 1, dtype=torch.bool))
    loss.backward()
    assert loss.detach() == 0.0
    assert math.isnan(batch_isotropy(hidden, torch.ones(2, 1, dtype=torch.bool)))


def test_the_objective_adds_both_losses_and_reports_isotropy() -> None:
    model = tiny("gpt2")
    ids = tokens(3, 8)
    targets = ids[:, 1:].clone()
    targets[1, 4:] = -100  # padding on the right, known by its targets only
    batch = {"tokens": ids[:, :-1], "targets": targets}
    loss, metrics = SimCTG(margin=0.5, chunk=2)(model, batch)
    plain, _ = next_token(model, batch)
    real = targets != -100
    hidden = model.hidden(batch["tokens"])
    assert float(loss) == pytest.approx(float(plain) + float(slow(hidden, real, 0.5)), abs=1e-5)
    assert metrics["likelihood"] == pytest.approx(float(plain))
    pairs = [1 - F.cosine_similarity(row[i], row[j], dim=0) for row, there in zip(hidden, real, strict=True)
             for i in range(7) for j in range(7) if i != j and there[i] and there[j]]  # fmt: skip
    assert metrics["isotropy"] == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-5)
    masked, _ = SimCTG()(model, {**batch, "attention_mask": real})
    assert float(masked) == pytest.approx(float(loss), abs=1e-5)
    without, more = SimCTG(margin=0.0)(model, batch)
    assert float(without) == pytest.approx(float(plain)) and "contrastive" not in more


def test_mistakes_are_named() -> None:
    with pytest.raises(LabError, match="margin"):
        SimCTG(margin=1.5)
    with pytest.raises(LabError, match="chunk"):
        SimCTG(chunk=0)
    with pytest.raises(LabError, match="margi"):
        TrainingSettings(objective="simctg", objective_options={"margi": "0.5"})
    with pytest.raises(LabError, match="simctg"):
        TrainingSettings(objective="simct")
    with pytest.raises(LabError, match="name the objective"):
        TrainingSettings(objective_options={"margin": "0.5"})


def test_train_takes_it_by_name_and_logs_isotropy(tmp_path: Path) -> None:
    run = train_model(
        TrainingSettings(
            data=("tinyworld:100",), objective="simctg", objective_options={"margin": "0.4"}, d_model=16, n_layers=1,
            n_heads=2, context=16, tokenizer="bytes", batch_size=4, samples=0, evaluation_tokens=64,
            train=TrainSettings(steps=3, log_every=1),
        ),
        home=tmp_path / "home",
    )  # fmt: skip
    assert len(run.record.series("isotropy")[1]) == 3
    assert run.record.series("contrastive")[1][0] > 0
