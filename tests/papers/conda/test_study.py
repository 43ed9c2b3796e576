"""The study of Conda: smoke scale end to end, its rule on made-up results, and what its diagnostics measure."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from gpt2lab.papers.conda import Conda
from gpt2lab.papers.conda.diagnostics import UpdateWatch, drift, spectrum
from gpt2lab.papers.conda.study import CLAIMS, PRESETS, Settings, arms, candidate
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.claim import Results
from gpt2lab.studies.study import reproduce


def test_a_study_runs_at_smoke_scale_and_shows_every_arm_with_its_sweep(tmp_path: Path) -> None:
    study = reproduce("conda", scale="smoke", seeds=1, home=tmp_path, workers=1)
    assert not study.failures
    results = study.runs[0].results
    for arm in arms(PRESETS["smoke"]):
        assert 3 < results[f"{arm}.loss.s20"] < 6
        assert results[f"{arm}.condition"] >= 1
        assert study.runs[0].arms[arm].tables["sweep"]
    assert results["conda.seconds.svd"] > 0
    assert {row["refresh"] for row in study.runs[0].arms["conda"].tables["sweep"]} == {2000, 5}
    names = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"training_loss", "loss_by_length", "sweeps", "conditioning"} <= names
    assert "adamw_control" in study.report.read_text()


@pytest.mark.parametrize(
    ("ratios", "muon", "edge", "status"),
    [
        ((2.1, 2.2, 2.3), (0.01, 0.02, 0.01), 0, Status.HOLDS),
        ((2.1, 2.2, 2.3), (-0.05, -0.06, -0.05), 0, Status.IN_PART),  # worse than Muon
        ((1.4, 1.5, 1.3), (0.0, 0.0, 0.01), 0, Status.IN_PART),
        ((1.0, 1.05, 0.9), (0.0, 0.0, 0.01), 0, Status.DOES_NOT_HOLD),
        ((2.1, 2.2, 2.3), (0.01, 0.02, 0.01), 1, Status.INCONCLUSIVE),
    ],
)
def test_the_rule_of_the_specification(
    ratios: tuple[float, ...], muon: tuple[float, ...], edge: int, status: Status
) -> None:
    seeds = [
        Results(
            {
                "conda.step_ratio": ratio,
                "conda_over_muon": gain,
                "conda_over_control": 0.0,
                "adamw.at_edge": 0.0,
                "conda.at_edge": float(edge),
            }
        )
        for ratio, gain in zip(ratios, muon, strict=True)
    ]
    rule = CLAIMS[0].rule
    assert rule is not None
    assert rule(seeds).status is status


def test_the_control_gives_embeddings_and_norms_the_rate_of_conda() -> None:
    from gpt2lab.training import make_optimizer

    settings = Settings()
    control = candidate(settings, "adamw_control")
    model = settings.workload.model(0)
    optimizer = make_optimizer(
        control.optimizer, model, learning_rate=3e-3, weight_decay=0.01, **control.options[0]
    )
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(model.embedding.weight)] == rates[id(model.final_norm.weight)] == 1e-2
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


@pytest.mark.parametrize(
    ("conda", "status"),
    [
        ((46.40, 37.78, 39.99), Status.HOLDS),  # three standard errors below AdamW's
        ((50.0, 30.0, 70.0), Status.INCONCLUSIVE),
        ((90.0, 95.0, 92.0), Status.DOES_NOT_HOLD),
    ],
)
def test_better_conditioned_means_by_two_standard_errors(conda: tuple[float, ...], status: Status) -> None:
    seeds = [
        Results({"adamw.condition": a, "conda.condition": c})
        for a, c in zip((51.14, 53.25, 59.25), conda, strict=True)
    ]
    rule = next(claim.rule for claim in CLAIMS if "conditioned" in claim.sentence)
    assert rule is not None
    assert rule(seeds).status is status


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
