"""The study of Conda: smoke scale end to end, what its arms are, and what its diagnostics measure."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gpt2lab.papers.conda import Conda
from gpt2lab.papers.conda.diagnostics import UpdateWatch, drift, spectrum
from gpt2lab.papers.conda.rivals import Adafactor
from gpt2lab.papers.conda.study import ARMS, CLAIMS, PRESETS, Settings, candidate
from gpt2lab.studies.study import reproduce
from tests.claims import unreported


def test_a_study_runs_at_smoke_scale_and_shows_every_arm_with_its_sweep(tmp_path: Path) -> None:
    study = reproduce("conda", scale="smoke", seeds=1, home=tmp_path, workers=1)
    assert not study.failures
    assert unreported(study) == {}
    results = study.runs[0].results
    trials = set()
    for arm in (*ARMS, "conda_often"):
        assert 3 < results[f"{arm}.loss.s20"] < 6
        assert results[f"{arm}.full"] == results[f"{arm}.loss.s20"]
        assert results[f"{arm}.condition"] >= 1
    for arm in ARMS:
        trials.add(len(study.runs[0].arms[f"{arm}.sweep"].tables["sweep"]))
    assert len(trials) == 1
    assert results["conda.seconds.svd"] > 0
    assert results["conda_often.learning_rate"] == results["conda.learning_rate"]
    assert (
        results["conda_over.best"]
        == min(results[f"{arm}.loss.s20"] for arm in ("adamw", "muon", "soap", "adafactor"))
        - results["conda.loss.s20"]
    )
    names = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"training_loss", "loss_by_length", "sweeps", "conditioning"} <= names
    assert "adamw_control" in study.report.read_text()


LEARNT: dict[str, float] = {
    "adamw.full": 3.3, "bigram_table": 3.5, "adamw.at_edge": 0.0, "conda.at_edge": 0.0, "adamw_control.at_edge": 0.0,
    "edges": 0.0, "conda_over.best": 0.01,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "not_tested"),
    [
        ({}, ""),
        ({"adamw.full": 3.5}, "ABCDEF"),
        ({"adamw.full": math.nan}, "ABCDEF"),
        ({"conda.at_edge": 1.0}, "ABCDEF"),
        ({"adamw.at_edge": 1.0}, "ABCDEF"),
        ({"adamw_control.at_edge": 1.0}, "F"),
        ({"edges": 1.0}, "C"),
        ({"edges": 1.0, "conda_over.best": -0.01}, ""),
    ],
)
def test_the_claims_ask_that_adamw_has_learnt_and_that_the_sweeps_they_read_ended_inside(
    changed: dict[str, float], not_tested: str
) -> None:
    results = LEARNT | changed
    assert {claim.name for claim in CLAIMS if not claim.is_testable(results)} == set(not_tested)


@pytest.mark.parametrize("scale", PRESETS)
def test_every_arm_chooses_in_as_many_trials(scale: str) -> None:
    assert len({candidate(PRESETS[scale], arm).trials for arm in ARMS}) == 1


@pytest.mark.parametrize("scale", PRESETS)
def test_a_new_basis_comes_within_every_schedule_as_often_as_its_share_says(scale: str) -> None:
    settings = PRESETS[scale]
    for steps in settings.lengths:
        period, often = (
            candidate(settings, arm).by_length(steps)["refresh"] for arm in ("conda", "conda_often")
        )
        assert 1 <= often <= period < steps
    assert period == round(settings.refresh * steps)
    assert often < period


@pytest.mark.parametrize("shape", [(5,), (4, 7), (7, 4)])
def test_adafactor_is_that_of_its_paper(shape: tuple[int, ...]) -> None:
    """Algorithms 4 and 5 of Shazeer & Stern 2018, with the momentum of section 7.1 and decoupled decay."""
    rng = np.random.default_rng(0)
    slow = rng.normal(size=shape)
    weight = nn.Parameter(torch.tensor(slow))
    optimizer = Adafactor([weight], lr=0.1, weight_decay=0.1)
    row = column = whole = momentum = 0.0
    for step in range(1, 5):
        gradient = rng.normal(size=shape) * 10
        beta = 1 - step**-0.8
        square = gradient**2 + 1e-30
        whole = beta * whole + (1 - beta) * square
        estimate = whole
        if len(shape) == 2:
            row = beta * row + (1 - beta) * square.sum(axis=1)
            column = beta * column + (1 - beta) * square.sum(axis=0)
            estimate = np.outer(row, column) / row.sum()
        update = gradient / np.sqrt(estimate)
        update /= max(1.0, np.sqrt((update**2).mean()))
        momentum = 0.9 * momentum + 0.1 * (0.1 * update)
        slow = slow * (1 - 0.1 * 0.1) - momentum
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    assert np.allclose(weight.detach().numpy(), slow, rtol=1e-10)


def test_the_control_gives_embeddings_and_norms_a_higher_rate_as_conda_does() -> None:
    from gpt2lab.training import make_optimizer

    settings = Settings()
    control = candidate(settings, "adamw_control")
    model = settings.workload.model(0)
    optimizer = make_optimizer(
        control.optimizer, model, learning_rate=3e-3, weight_decay=0.01, **control.options[0]
    )
    assert control.options == ({"ratio": 4.0},)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(model.embedding.weight)] == rates[id(model.final_norm.weight)] == 1.2e-2
    assert rates[id(model.blocks[0].mlp.up.weight)] == 3e-3


def test_a_spectrum_is_that_of_known_singular_values() -> None:
    values = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(5, 3, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    found = spectrum(left @ torch.diag(values) @ right)
    assert found.condition == pytest.approx(4.0)
    assert found.stable_rank == pytest.approx(21 / 16)
    shares = values / 7
    assert found.effective_rank == pytest.approx(float((-(shares * shares.log()).sum()).exp()))
    assert math.isnan(spectrum(torch.zeros(2, 2)).condition)
    assert spectrum(torch.ones(2, 2)).condition > 1e12
    assert drift(right, right) == pytest.approx(1.0)
    assert drift(torch.eye(2), torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5) == pytest.approx(2**-0.5)


def test_a_watch_sees_the_step_without_the_decay() -> None:
    model = nn.ModuleDict({"mlp": nn.Linear(4, 4, bias=False)}).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = UpdateWatch(model, optimizer, [2])
    gradient = torch.diag(torch.tensor([8.0, 4.0, 2.0, 1.0])).double()
    for _ in range(3):
        model["mlp"].weight.grad = gradient
        optimizer.step()
    assert len(watch.spectra) == 1
    assert watch.median("condition") == pytest.approx(8.0)
    decayed = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=5.0, betas=(0.0, 0.0), eps=1e12)
    watch = UpdateWatch(model, decayed, [1])  # so large an eps makes it descent with a tiny step
    model["mlp"].weight.grad = gradient
    decayed.step()
    assert watch.median("condition") == pytest.approx(8.0, rel=1e-2)
    rotated = Conda.for_model(model, refresh=1)
    watch = UpdateWatch(model, rotated, [])
    for seed in range(3):
        model["mlp"].weight.grad = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)).double()
        rotated.step()
    assert len(watch.drifts) == 2
    assert all(0.3 < value <= 1 for value in watch.drifts)


def test_a_watch_sees_every_matrix_of_a_stack_of_experts() -> None:
    from gpt2lab.model.experts import ExpertLinear

    model = nn.ModuleDict({"mlp": ExpertLinear(2, 3, 3, bias=False)}).double()
    with torch.no_grad():
        model["mlp"].weight.zero_()
    watch = UpdateWatch(model, optimizer := torch.optim.SGD(model.parameters(), lr=0.1), [1])
    model["mlp"].weight.grad = torch.stack(
        [torch.diag(torch.tensor(values)).double() for values in ((8.0, 4.0, 2.0), (6.0, 3.0, 1.0))]
    )
    optimizer.step()
    assert [found.condition for found in watch.spectra] == pytest.approx([4.0, 6.0])
    rotated = Conda.for_model(model, refresh=1)
    watch = UpdateWatch(model, rotated, [1, 2])
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        model["mlp"].weight.grad = torch.randn(2, 3, 3, generator=generator).double()
        rotated.step()
    assert len(watch.spectra) == 4
    assert watch.median("stable_rank") >= 1
    assert 0.3 < watch.drifts[0] <= 1
