"""Conda and Muon on the models of every family: each matrix of the published form moves as if it were a parameter alone."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, save_model
from gpt2lab.model.checkpoints.families import FAMILIES
from gpt2lab.model.matrices import Matrix, matrices
from gpt2lab.papers.conda import Conda, Muon
from gpt2lab.papers.conda.diagnostics import UpdateWatch, spectrum
from gpt2lab.papers.conda.matrices import apart
from gpt2lab.training.checkpoints import load_checkpoint, save_checkpoint
from tests.model.test_matrices import config_of

HIDDEN = ("attention", "mlp")


def model_of(family: str, **changes: object) -> Transformer:
    config = config_of(family, n_layers=1, **changes)
    return Transformer(config, generator=torch.Generator().manual_seed(0)).double()


def hidden(model: Transformer) -> list[Matrix]:
    return [matrix for matrix in matrices(model) if any(word in matrix.name for word in HIDDEN)]


def draw_gradients(model: nn.Module, step: int) -> None:
    """Random gradients of which the first rows of every tensor, queries and gates, are a hundredth of the others."""
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        gradient = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
        if gradient.dim() >= 2:
            gradient[..., : gradient.shape[-2] // 3, :] *= 0.01
        parameter.grad = gradient


def alone(model: Transformer) -> dict[str, nn.Parameter]:
    """Each hidden matrix as a parameter of its own."""
    weights = {m.name: m.of(model.get_parameter(f"{m.module}.weight")).detach() for m in hidden(model)}
    return {name: nn.Parameter(weight.clone()) for name, weight in weights.items()}


def hand_over(model: Transformer, apart: dict[str, nn.Parameter]) -> None:
    for matrix in hidden(model):
        gradient = model.get_parameter(f"{matrix.module}.weight").grad
        assert gradient is not None
        apart[matrix.name].grad = matrix.of(gradient).clone()


def pairs(model: Transformer, apart: dict[str, nn.Parameter]) -> list[tuple[str, Tensor, Tensor]]:
    return [
        (m.name, m.of(model.get_parameter(f"{m.module}.weight")).detach(), apart[m.name].detach())
        for m in hidden(model)
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
def test_muon_moves_each_published_matrix_as_torchs_muon_does(family: str, adjust: str) -> None:
    model = model_of(family).float()
    apart = alone(model)
    start = {name: weight.detach().clone() for name, weight in apart.items()}
    ours = Muon.for_model(model, lr=0.1, weight_decay=0.1, adjust=adjust)  # type: ignore[arg-type]  # each is one
    theirs = torch.optim.Muon(list(apart.values()), lr=0.1, weight_decay=0.1, adjust_lr_fn=adjust)
    for step in range(3):
        draw_gradients(model, step)
        hand_over(model, apart)
        ours.step()
        theirs.step()
    for name, found, expected in pairs(model, apart):
        moved = (expected - start[name]).norm()
        assert (found - expected).norm() < 0.05 * moved, name  # products in bf16


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("basis_of", ["momentum", "gradient", "covariance"])
def test_conda_moves_each_published_matrix_as_if_it_were_alone(family: str, basis_of: str) -> None:
    model = model_of(family)
    apart = alone(model)
    options: dict[str, Any] = {
        "lr": 0.02, "refresh": 2, "weight_decay": 0.1, "betas": (0.9, 0.99), "basis_of": basis_of,
        "rotate_second_moment": True,
    }  # fmt: skip
    ours, theirs = Conda.for_model(model, **options), Conda(list(apart.values()), **options)
    for step in range(5):
        draw_gradients(model, step)
        hand_over(model, apart)
        ours.step()
        theirs.step()
    for name, found, expected in pairs(model, apart):
        assert torch.allclose(found, expected, atol=1e-9), name


@pytest.mark.parametrize("family", [name for name in FAMILIES if config_of(name).causal])
def test_hugging_faces_model_has_the_same_matrices_as_ours(family: str, tmp_path: Path) -> None:
    ours = model_of(family).float()
    save_model(ours, tmp_path / "model")
    theirs = getattr(transformers, FAMILIES[family].architecture).from_pretrained(tmp_path / "model")
    found = []
    for model in (ours, theirs):
        groups = [group for group in Conda.for_model(model).param_groups if group["project"]]
        parts = [one for group in groups for p in group["params"] for one in apart(p.detach(), group)]
        found.append([matrix for part in parts for matrix in part.reshape(-1, *part.shape[-2:])])
    assert len(found[0]) == len(found[1]) == len(hidden(ours))
    norms = [sorted(float(torch.linalg.matrix_norm(matrix, 2)) for matrix in some) for some in found]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


@pytest.mark.parametrize("family", ["llama", "mixtral", "bert"])
@pytest.mark.parametrize("cls", [Conda, Muon])
def test_a_run_resumed_between_two_bases_ends_with_the_same_bits(
    family: str, cls: type[Conda] | type[Muon], tmp_path: Path
) -> None:
    whole = model_of(family).float()
    cut, again = copy.deepcopy(whole), copy.deepcopy(whole)
    options: dict[str, Any] = {"refresh": 3} if cls is Conda else {}

    def steps(model: Transformer, optimizer: torch.optim.Optimizer, numbers: range) -> None:
        for step in numbers:
            draw_gradients(model, step)
            optimizer.step()

    steps(whole, cls.for_model(whole, lr=0.02, **options), range(7))
    stopped = cls.for_model(cut, lr=0.02, **options)
    steps(cut, stopped, range(5))
    path = save_checkpoint(tmp_path, 5, cut, stopped, {})
    fresh = cls.for_model(again, lr=0.02, **options)
    load_checkpoint(path, again, fresh)
    steps(again, fresh, range(5, 7))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_a_state_that_took_several_matrices_for_one_is_refused_by_conda_and_read_by_muon() -> None:
    model = model_of("llama")
    before: dict[str, Any] = {}
    for cls in (Conda, Muon):
        old = cls.for_model(model)
        for group in old.param_groups:
            group["rows"] = ()
        draw_gradients(model, 0)
        old.step()
        before[cls.__name__] = old.state_dict()
    with pytest.raises(LabError, match="took them for one, so start the optimizer anew"):
        Conda.for_model(model).load_state_dict(before["Conda"])
    new = Muon.for_model(model)
    new.load_state_dict(before["Muon"])  # a momentum is the same either way
    assert {group["rows"] for group in new.param_groups if group["orthogonal"]} == {
        (),
        (24, 12, 12),
        (40, 40),
    }


def test_an_expert_without_a_token_waits_for_its_first_basis() -> None:
    model = model_of("mixtral")
    optimizer = Conda.for_model(model, refresh=100)
    weight = model.get_parameter("blocks.0.mlp.down.weight")
    start = weight.detach().clone()
    for step in range(3):
        draw_gradients(model, step)
        assert weight.grad is not None
        if step < 2:
            weight.grad[1] = 0.0
        optimizer.step()
        assert torch.equal(weight[1], start[1]) == (step < 2)
    assert optimizer.state[weight]["bases"].tolist() == [1, 1, 1]
    left = torch.linalg.svd(weight.grad[1]).U  # type: ignore[index]  # it has one
    overlap = (optimizer.state[weight]["basis"][1] @ left).abs()
    assert torch.allclose(overlap, torch.eye(len(left), dtype=torch.float64), atol=1e-9)


def test_a_side_must_fit_every_matrix_and_not_the_tensor_that_holds_it() -> None:
    model = model_of("llama")  # 48 x 24 holds 24 x 24 and twice 12 x 24
    with pytest.raises(LabError, match='side "right" does not fit a matrix of 12 x 24'):
        Conda.for_model(model, side="right", projected=("*qkv*",))
    with pytest.raises(LabError, match=r"of shape \[48, 24\] has not the rows \[24, 12\]"):
        Conda([{"params": [model.blocks[0].attention.qkv.weight], "project": True, "rows": (24, 12)}])


def test_a_watch_sees_the_spectra_of_the_published_matrices() -> None:
    model = model_of("llama")
    watch = UpdateWatch(model, optimizer := torch.optim.SGD(model.parameters(), lr=0.1), [1])
    draw_gradients(model, 0)
    optimizer.step()
    expected = [
        spectrum(m.of(p)).condition
        for m in hidden(model)
        if (p := model.get_parameter(f"{m.module}.weight").grad) is not None
    ]
    assert sorted(one.condition for one in watch.spectra) == pytest.approx(sorted(expected))
    rotated = Conda.for_model(model, refresh=1)
    watch = UpdateWatch(model, rotated, [])
    for step in range(2):
        draw_gradients(model, step)
        rotated.step()
    assert len(watch.drifts) == 5  # q; k and v together; out; gate and up together; down
