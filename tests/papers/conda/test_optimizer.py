"""Conda and Muon against slow float64 references written from their rules."""

import copy
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.papers.conda import Conda, Muon
from gpt2lab.papers.conda.muon import orthogonalised
from gpt2lab.training.checkpoints import load_checkpoint, save_checkpoint
from tests.tiny import tiny

SHAPES = [(7, 3), (3, 7), (5, 5), (1, 6), (6, 1), (1, 1)]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Reference:
    """The rule of the authors' code for one parameter, line by line, with explicit loops where that is clearer."""

    def __init__(
        self, weight: Tensor, *, projected: bool, scale: float, refresh: int, **options: Any
    ) -> None:
        self.w, self.projected, self.scale, self.refresh = weight.clone(), projected, scale, refresh
        self.lr, self.b1, self.b2, self.eps, self.wd = (
            options[name] for name in ("lr", "b1", "b2", "eps", "wd")
        )
        self.m, self.v, self.t = torch.zeros_like(weight), torch.zeros_like(weight), 0
        self.u: Tensor | None = None
        self.left = False

    def step(self, g: Tensor) -> None:
        self.m = self.b1 * self.m + (1 - self.b1) * g
        if self.projected:
            rows, columns = g.shape
            if self.t % self.refresh == 0:
                u, _, vt = torch.linalg.svd(self.m, full_matrices=False)
                self.left = rows < columns
                self.u = u if self.left else vt.T  # columns are directions
            assert self.u is not None
            gp = self.u.T @ g if self.left else g @ self.u
            mp = self.u.T @ self.m if self.left else self.m @ self.u
        else:
            gp, mp = g, self.m
        self.v = self.b2 * self.v + (1 - self.b2) * gp**2
        self.t += 1
        step = self.lr * math.sqrt(1 - self.b2**self.t) / (1 - self.b1**self.t)
        n = mp / (self.v.sqrt() + self.eps)
        if self.projected:
            assert self.u is not None
            n = self.scale * (self.u @ n if self.left else n @ self.u.T)
        self.w = self.w - step * n
        self.w = self.w - self.lr * self.wd * self.w


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("projected", [True, False])
def test_every_update_is_the_rule_of_the_paper(shape: tuple[int, int], projected: bool) -> None:
    weight = nn.Parameter(drawn(0, *shape))
    slow = Reference(
        weight.detach(),
        projected=projected,
        scale=0.25,
        refresh=3,
        lr=0.02,
        b1=0.9,
        b2=0.99,
        eps=1e-8,
        wd=0.1,
    )
    optimizer = Conda(
        [{"params": [weight], "project": projected}],
        lr=0.02, betas=(0.9, 0.99), weight_decay=0.1, refresh=3, scale=0.25,
    )  # fmt: skip
    for step in range(8):
        gradient = drawn(step + 1, *shape)
        weight.grad = gradient.clone()
        optimizer.step()
        slow.step(gradient)
        assert torch.allclose(weight, slow.w, rtol=1e-9, atol=1e-12), step


@pytest.mark.parametrize("shape", SHAPES)
def test_conv1d_weights_move_as_their_transposes(shape: tuple[int, int]) -> None:
    straight, turned = nn.Parameter(drawn(0, *shape)), nn.Parameter(drawn(0, *shape).T.contiguous())
    first = Conda([{"params": [straight], "project": True}], refresh=2)
    second = Conda([{"params": [turned], "project": True, "transposed": True}], refresh=2)
    for step in range(5):
        straight.grad = drawn(step + 1, *shape)
        turned.grad = drawn(step + 1, *shape).T.contiguous()
        first.step()
        second.step()
    assert torch.allclose(straight, turned.T, atol=1e-12)


def test_a_square_matrix_is_rotated_on_the_right_and_the_left_is_another_rule() -> None:
    results = {}
    for side in ("std", "right", "left", "reverse_std", "full"):
        weight = nn.Parameter(drawn(0, 5, 5))
        optimizer = Conda([weight], side=side, refresh=2)  # type: ignore[arg-type]  # each is a Side
        for step in range(4):
            weight.grad = drawn(step + 1, 5, 5)
            optimizer.step()
        results[side] = weight.detach()
    assert torch.equal(results["std"], results["right"])
    assert torch.equal(results["left"], results["reverse_std"])
    assert not torch.allclose(results["left"], results["right"], atol=1e-6)
    assert not torch.allclose(results["full"], results["right"], atol=1e-6)


def test_the_basis_comes_from_what_was_asked_for() -> None:
    gradients = [drawn(step, 6, 4) for step in range(3)]
    mean = torch.zeros(4, 4, dtype=torch.float64)
    momentum = torch.zeros(6, 4, dtype=torch.float64)
    for gradient in gradients:
        mean = 0.99 * mean + 0.01 * gradient.T @ gradient
        momentum = 0.9 * momentum + 0.1 * gradient
    expected = {
        "momentum": torch.linalg.eigh(momentum.T @ momentum).eigenvectors,
        "gradient": torch.linalg.eigh(gradients[-1].T @ gradients[-1]).eigenvectors,
        "covariance": torch.linalg.eigh(mean).eigenvectors,
    }
    for source, vectors in expected.items():
        weight = nn.Parameter(drawn(9, 6, 4))
        optimizer = Conda([weight], betas=(0.9, 0.99), refresh=1, basis_of=source)  # type: ignore[arg-type]  # each is one
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        basis = optimizer.state[weight]["basis"]
        overlap = (basis @ vectors.flip(1)).abs()  # largest singular value first; signs are free
        assert torch.allclose(overlap, torch.eye(4, dtype=torch.float64), atol=1e-8), source


def test_rotating_the_second_moment_carries_variances_along() -> None:
    """With independent coordinates of known variance, the rotated v is the variance in the new basis."""
    weight = nn.Parameter(drawn(0, 50, 3))
    optimizer = Conda([weight], refresh=1, rotate_second_moment=True, betas=(0.0, 0.5))
    weight.grad = drawn(1, 50, 3)
    optimizer.step()
    state = optimizer.state[weight]
    old_basis, old_second = state["basis"].clone(), state["second"].clone()
    gradient = drawn(2, 50, 3)
    weight.grad = gradient.clone()
    optimizer.step()
    new_basis = state["basis"]
    rotated = gradient @ new_basis.T
    for row in range(50):
        covariance = old_basis.T @ torch.diag(old_second[row]) @ old_basis
        expected = 0.5 * torch.diag(new_basis @ covariance @ new_basis.T) + 0.5 * rotated[row] ** 2
        assert torch.allclose(state["second"][row], expected, atol=1e-12)


def test_bases_are_taken_at_the_first_update_and_every_refresh_after_it() -> None:
    weight = nn.Parameter(drawn(0, 6, 4))
    optimizer = Conda([weight], refresh=3)
    bases = []
    for step in range(7):
        weight.grad = drawn(step + 1, 6, 4)
        optimizer.step()
        bases.append(optimizer.state[weight]["basis"].clone())
    changed = [i for i in range(1, 7) if not torch.equal(bases[i], bases[i - 1])]
    assert changed == [3, 6]
    assert torch.allclose(bases[0] @ bases[0].T, torch.eye(4, dtype=torch.float64), atol=1e-12)


def test_updates_that_a_parameter_misses_do_not_count() -> None:
    weight, other = nn.Parameter(drawn(0, 4, 4)), nn.Parameter(drawn(1, 4, 4))
    optimizer = Conda([weight, other], refresh=2)
    for step in range(3):
        weight.grad = drawn(step, 4, 4)
        other.grad = drawn(step, 4, 4) if step == 2 else None
        optimizer.step()
    assert int(optimizer.state[weight]["steps"]) == 3
    assert int(optimizer.state[other]["steps"]) == 1


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gpt_neox", "llama"])
def test_a_model_is_grouped_as_in_the_paper(family: str) -> None:
    model = tiny(family)
    optimizer = Conda.for_model(model, lr=1e-2, other_lr=3e-3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    projected = {names[id(p)] for g in optimizer.param_groups if g["project"] for p in g["params"]}
    expected = {
        f"blocks.{i}.{place}.weight"
        for i in range(model.config.n_layers)
        for place in ("attention.qkv", "attention.out", "mlp.up", "mlp.down")
    }
    assert projected == expected
    every = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(every) == len(names) == len({id(p) for p in every})
    assert {g["lr"] for g in optimizer.param_groups if not g["project"]} == {3e-3}


def test_huggingface_modules_are_grouped_with_conv1d_turned() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    groups = Conda.for_model(theirs).param_groups
    assert [len(group["params"]) for group in groups if group["project"]] == [4]
    assert all(group["transposed"] for group in groups if group["project"])
    with pytest.raises(LabError, match="no matrix"):
        Conda.for_model(nn.Sequential(nn.Linear(2, 2)))


def test_bf16_weights_keep_float32_state_through_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
        for step in numbers:
            for i, parameter in enumerate(model.parameters()):
                parameter.grad = drawn(100 * step + i, *parameter.shape).to(parameter.dtype)
            optimizer.step()

    makers: list[Callable[[nn.Module], torch.optim.Optimizer]] = [
        lambda model: Conda(model.parameters(), lr=0.1, refresh=3),
        lambda model: Muon(model.parameters(), lr=0.1),
    ]
    for number, make in enumerate(makers):
        whole = nn.Linear(6, 4).bfloat16()
        cut = copy.deepcopy(whole)
        steps(whole, make(whole), range(6))
        stopped = make(cut)
        steps(cut, stopped, range(4))
        path = save_checkpoint(tmp_path / str(number), 4, cut, stopped, {})
        fresh = make(cut)
        load_checkpoint(path, cut, fresh)
        state = fresh.state[cut.weight]
        assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())
        steps(cut, fresh, range(4, 6))
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((3, 7), {"side": "right"}, "does not fit a matrix of 3 x 7"),
        ((7, 3), {"side": "left"}, "does not fit a matrix of 7 x 3"),
        ((7, 3), {"side": "reverse_std"}, "does not fit"),
        ((7, 3), {"side": "full"}, "does not fit"),
        ((3, 3), {"side": "middle"}, "middle"),
        ((3, 3), {"basis_of": "hessian"}, "hessian"),
        ((3, 3), {"refresh": 0}, "at least 1"),
        ((3, 3), {"betas": (0.9, 1.0)}, "betas"),
        ((3, 3), {"eps": -1.0}, "negative"),
        ((3, 3), {"scale": math.nan}, "negative"),
        ((3, 3), {"weight_decay": -0.1}, "negative"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    shape: tuple[int, int], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(LabError, match=words):
        Conda([nn.Parameter(drawn(0, *shape))], **options)


def test_what_cannot_be_projected_is_refused() -> None:
    with pytest.raises(LabError, match="a matrix"):
        Conda([{"params": [nn.Parameter(drawn(0, 3))], "project": True}])
    weight = nn.Parameter(drawn(0, 3, 3))
    optimizer = Conda([weight])
    weight.grad = torch.full((3, 3), math.nan, dtype=torch.float64)
    with pytest.raises(LabError, match="not finite"):
        optimizer.step()
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = Conda(table.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(LabError, match="sparse"):
        optimizer.step()


def test_a_failed_decomposition_keeps_the_basis_and_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = nn.Parameter(drawn(0, 4, 3))
    optimizer = Conda([weight], refresh=1)
    weight.grad = drawn(1, 4, 3)
    optimizer.step()
    before = optimizer.state[weight]["basis"].clone()

    def fails(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "svd", fails)
    with pytest.warns(UserWarning, match="basis is kept"):
        optimizer.step()
    assert torch.equal(optimizer.state[weight]["basis"], before)
    with pytest.raises(LabError, match="first"):
        other = nn.Parameter(drawn(0, 4, 3))
        other.grad = drawn(1, 4, 3)
        Conda([other]).step()


def test_the_time_of_its_parts_is_added_up_when_asked_for() -> None:
    weight = nn.Parameter(drawn(0, 40, 30))
    optimizer = Conda([weight])
    optimizer.seconds = {}
    weight.grad = drawn(1, 40, 30)
    optimizer.step()
    assert set(optimizer.seconds) == {"svd", "projection"}
    assert all(value > 0 for value in optimizer.seconds.values())


def test_newton_schulz_brings_singular_values_near_one() -> None:
    for shape in ((8, 20), (20, 8), (12, 12)):
        values = torch.linalg.svdvals(orthogonalised(drawn(3, *shape)).float())
        assert 0.5 < float(values.min()) <= float(values.max()) < 1.3
    assert torch.equal(orthogonalised(torch.zeros(3, 4)), torch.zeros(3, 4, dtype=torch.bfloat16))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (8, 20), (20, 8), (64, 48), (3, 16, 24)])
def test_newton_schulz_multiplies_exactly_and_rounds_each_product_to_bf16(shape: tuple[int, ...]) -> None:
    def rounded(values: torch.Tensor) -> torch.Tensor:
        return values.to(torch.bfloat16).double()

    matrix = drawn(5, *shape)
    x = rounded(matrix)
    x = x.mT if shape[-2] > shape[-1] else x
    x = rounded(x / (rounded(torch.linalg.matrix_norm(x, keepdim=True)) + 1e-7))
    for _ in range(5):
        gram = rounded(x @ x.mT)
        x = rounded(3.4445 * x + rounded(-4.7750 * gram + 2.0315 * gram @ gram) @ x)
    expected = x.mT if shape[-2] > shape[-1] else x
    found = orthogonalised(matrix)
    assert found.dtype == torch.bfloat16
    # Sums in float32 and in float64 round apart in a few entries, and five steps carry that on.
    assert float((found.double() - expected).norm() / expected.norm()) < 4e-3


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (12, 12)])
@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_torchs_muon_up_to_the_rounding_of_bf16(
    shape: tuple[int, int], adjust: str, nesterov: bool
) -> None:
    ours, theirs = nn.Parameter(drawn(0, *shape).float()), nn.Parameter(drawn(0, *shape).float())
    first = Muon([ours], lr=0.02, weight_decay=0.1, adjust=adjust, nesterov=nesterov)  # type: ignore[arg-type]  # each is one
    second = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn=adjust, nesterov=nesterov)
    start = ours.detach().clone()
    for step in range(4):
        ours.grad, theirs.grad = drawn(step + 1, *shape).float(), drawn(step + 1, *shape).float()
        first.step()
        second.step()
    moved, apart = (theirs - start).norm(), (ours - theirs).norm()
    assert (
        apart < 0.05 * moved
    )  # five products in bf16; the other momentum rule is apart by more than a tenth


def test_what_muon_does_not_orthogonalise_moves_as_in_adamw() -> None:
    ours, theirs = nn.Parameter(drawn(0, 7)), nn.Parameter(drawn(0, 7))
    first = Muon([ours], lr=0.02, weight_decay=0.1, betas=(0.9, 0.95))
    second = torch.optim.AdamW([theirs], lr=0.02, weight_decay=0.1, betas=(0.9, 0.95))
    for step in range(4):
        ours.grad, theirs.grad = drawn(step, 7), drawn(step, 7)
        first.step()
        second.step()
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_a_model_trains_with_either() -> None:
    from gpt2lab.studies.race import Candidate, race
    from gpt2lab.studies.workload import Workload

    workload = Workload(d_model=16, n_heads=2, context=16, batch_size=8, train_tokens=4000, valid_tokens=800)
    for cls, rate in ((Conda, 2e-2), (Muon, 5e-3)):
        candidate = Candidate(name=cls.__name__, optimizer=cls, learning_rates=(rate,))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            finish = race(workload, candidate, steps=40, learning_rate=rate)
        assert finish.loss < 5.3  # ln 256 = 5.55; p0 alone gives about 5.2


def test_a_gradient_that_is_not_finite_at_a_refresh_changes_nothing() -> None:
    first, second = nn.Parameter(drawn(0, 4, 3)), nn.Parameter(drawn(1, 3, 3))
    optimizer = Conda([first, second], refresh=2)
    for step in range(2):
        first.grad, second.grad = drawn(step, 4, 3), drawn(step, 3, 3)
        optimizer.step()
    before = copy.deepcopy(optimizer.state_dict()), first.detach().clone()
    second.grad = torch.full((3, 3), math.inf).double()
    with pytest.raises(LabError, match="not finite"):
        optimizer.step()
    after = optimizer.state_dict()
    assert torch.equal(first, before[1])
    for index, entries in before[0]["state"].items():
        assert all(torch.equal(value, after["state"][index][name]) for name, value in entries.items())


@pytest.mark.parametrize("basis_of", ["momentum", "gradient", "covariance"])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_a_stack_of_matrices_moves_as_its_matrices_do(shape: tuple[int, int], basis_of: Any) -> None:
    stack = nn.Parameter(drawn(0, 3, *shape))
    alone = [nn.Parameter(matrix.clone()) for matrix in stack.detach()]
    options: dict[str, Any] = {
        "lr": 0.02, "refresh": 2, "weight_decay": 0.1, "rotate_second_moment": True, "basis_of": basis_of
    }  # fmt: skip
    pairs: list[tuple[torch.optim.Optimizer, torch.optim.Optimizer]] = [
        (Conda([{"params": [stack], "project": True, "stacked": True}], **options), Conda(alone, **options))
    ]
    for together, apart in pairs:
        for step in range(5):
            stack.grad = drawn(step + 1, 3, *shape)
            for matrix, gradient in zip(alone, stack.grad, strict=True):
                matrix.grad = gradient.clone()
            together.step()
            apart.step()
    assert torch.allclose(stack, torch.stack([matrix.detach() for matrix in alone]), atol=1e-10)
    found = orthogonalised(stack.grad.float())  # type: ignore[union-attr]  # it has one
    for matrix, expected in zip(found, stack.grad, strict=True):  # type: ignore[arg-type]  # it has one
        assert torch.allclose(matrix.float(), orthogonalised(expected.float()).float(), atol=0.05)


def test_experts_and_adapters_are_matrices_of_their_own() -> None:
    from gpt2lab.model import Transformer
    from gpt2lab.model.adapters import Lora
    from gpt2lab.model.checkpoints.families import mixtral_config

    generator = torch.Generator().manual_seed(0)
    config = mixtral_config(
        vocab_size=61, d_model=24, n_layers=1, n_heads=4, n_kv_heads=2, d_mlp=40, n_experts=3, max_positions=40
    )  # fmt: skip
    experts = Transformer(config, generator=generator)
    for made in (Conda.for_model(experts), Muon.for_model(experts)):
        stacks = [p for group in made.param_groups if group["stacked"] for p in group["params"]]
        assert {id(p) for p in stacks} == {
            id(experts.blocks[0].mlp.up.weight),
            id(experts.blocks[0].mlp.down.weight),
        }
    adapted = tiny("gpt2")
    Lora(rank=2).attach(adapted, generator=generator)
    groups = Conda.for_model(adapted).param_groups
    names = {id(p): name for name, p in adapted.named_parameters()}
    projected = {names[id(p)] for group in groups if group["project"] for p in group["params"]}
    assert projected
    assert all(name.endswith((".A", ".B")) for name in projected)


def test_names_match_in_capitals_or_not_and_without_bias_correction_if_asked() -> None:
    model = nn.ModuleDict({"SelfAttention": nn.Linear(3, 3), "wi": nn.Linear(3, 3)})
    groups = Conda.for_model(model, bias_correction=False).param_groups
    assert [p is model["SelfAttention"].weight for p in groups[0]["params"]] == [True]
    assert all(group["bias_correction"] is False for group in groups)


@pytest.mark.parametrize("mark", ["project", "orthogonal"])
def test_a_group_of_matrices_holds_nothing_else(mark: str) -> None:
    cls: Any = Conda if mark == "project" else Muon
    for shape, more in (((3,), {}), ((2, 3, 3), {}), ((3, 3), {"stacked": True})):
        with pytest.raises(LabError, match="matri"):
            cls([{"params": [nn.Parameter(drawn(0, *shape))], mark: True, **more}])
    with pytest.raises(LabError, match="adjust"):
        Muon([{"params": [nn.Parameter(drawn(0, 3))], "adjust": "other"}])


def test_a_matrix_without_gradient_so_far_takes_its_basis_from_the_first_that_it_gets() -> None:
    """A of a new low-rank adapter: its gradient is zero as long as B is."""
    weight = nn.Parameter(drawn(0, 4, 6))
    optimizer = Conda([weight], lr=0.02, weight_decay=0.5, refresh=2000)
    weight.grad = torch.zeros(4, 6).double()
    optimizer.step()
    assert torch.allclose(weight, 0.99 * drawn(0, 4, 6), rtol=1e-14)
    assert int(optimizer.state[weight]["bases"]) == 0
    weight.grad = drawn(1, 4, 6)
    optimizer.step()
    left = torch.linalg.svd(drawn(1, 4, 6)).U
    overlap = (optimizer.state[weight]["basis"] @ left).abs()
    assert torch.allclose(overlap, torch.eye(4, dtype=torch.float64), atol=1e-9)
    weight.grad = torch.full((4, 6), math.nan).double()
    optimizer.step()  # between two bases the loop's own check of the gradient's norm is enough
    assert int(optimizer.state[weight]["steps"]) == 3
