"""Conda: Adam's second moment kept in the singular basis of the first (Wang et al. 2025, arXiv 2509.24218).

For a matrix W [r, c] with gradient G, in the form of the authors' code (the paper writes the case r <= c):

    M ← β₁ M + (1 - β₁) G                             first moment, never rotated itself
    B ← right singular vectors of M if r >= c, else left ones; every `refresh` updates, else kept
    G' = G Bᵀ, M' = M Bᵀ   (left: Bᵀ G, Bᵀ M)         both in the basis
    v ← β₂ v + (1 - β₂) G'²                           element by element, not rotated when B changes
    W ← W - η (√(1 - β₂ᵗ) / (1 - β₁ᵗ)) · scale · (M' / (√v + ε)) B
    W ← W - η λ W

Everything else (embeddings, head, norms, biases) follows the same rule with B the identity and scale 1, which is AdamW as
Hugging Face once wrote it: ε stands beside √v before the bias correction, and the decay comes after the step.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.train.optimizers import restore_state

Side = Literal["std", "right", "left", "reverse_std", "full"]
BasisOf = Literal["momentum", "gradient", "covariance"]
SIDES: tuple[Side, ...] = ("std", "right", "left", "reverse_std", "full")
BASES: tuple[BasisOf, ...] = ("momentum", "gradient", "covariance")
PROJECTED = ("*attn*", "*attention*", "*mlp*")
"""Modules whose matrices are projected: the authors' rule on Hugging Face's names, and the same places here."""


class Conda(Optimizer):
    """Adam in a rotated space, for the matrices of attention and feed-forward.

    `for_model` groups a model's parameters as the paper does. Given bare parameters, every one with two dimensions is
    projected, embeddings too, which the paper does not do. A group may set `project` (True, False, or None: by its
    dimensions), and any of the options below for itself. Matrices are [out, in]; `transposed` marks a group whose
    matrices are stored [in, out] (Hugging Face's Conv1D), which are treated as their transposes.

    State is float32 (float64 for float64 parameters) and consists of tensors only: `first`, `second`, `steps`, and for
    projected matrices `basis` [k, k], k the smaller side (`basis_left` beside it for side "full"; `covariance` [k, k]).

    refresh: updates between two bases. scale: factor on projected updates. side: "std" takes the smaller side; "right"
    refuses wide matrices, "left" tall ones, "reverse_std" and "full" (both sides) all but square ones. basis_of: what is
    decomposed: the momentum (Conda), the gradient (full-rank GaLore), or a running mean of GᵀG (one-sided SOAP).
    rotate_second_moment: carry v into each new basis as variances of independent coordinates, v ← v (R∘R)ᵀ with
    R = B_new B_oldᵀ (not in the paper). double_svd: decompose in float64.

    LabError: options out of range, a projected parameter without two dimensions, a side that does not fit, gradients
    that are sparse or complex, momentum that is not finite at a refresh.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        refresh: int = 2000,
        scale: float = 0.25,
        side: Side = "std",
        basis_of: BasisOf = "momentum",
        rotate_second_moment: bool = False,
        bias_correction: bool = True,
        double_svd: bool = False,
        project: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "refresh": refresh,
            "scale": scale,
            "side": side,
            "basis_of": basis_of,
            "rotate_second_moment": rotate_second_moment,
            "bias_correction": bias_correction,
            "double_svd": double_svd,
            "project": project,
            "transposed": False,
        }
        super().__init__(params, defaults)
        self.seconds: dict[str, float] | None = None
        """Set to {} to have the processor time in "svd" and "projection" added up."""

    @classmethod
    def for_model(
        cls,
        model: nn.Module,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        refresh: int = 2000,
        scale: float = 0.25,
        side: Side = "std",
        basis_of: BasisOf = "momentum",
        rotate_second_moment: bool = False,
        double_svd: bool = False,
        other_lr: float | None = None,
        projected: tuple[str, ...] = PROJECTED,
    ) -> Self:
        """Group a model's trainable parameters as the paper does, with the betas of its GPT-2 runs.

        Projected are the weights of linear modules (nn.Linear, Conv1D) whose name matches one of the globs `projected`.
        other_lr: learning rate of all others, which the paper gives the same one (the control of its claim).
        LabError if no module matches.
        """
        groups = matrices_and_others(model, projected, "project")
        for group in groups:
            if other_lr is not None and not group["project"]:
                group["lr"] = other_lr
        return cls(
            groups,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            refresh=refresh,
            scale=scale,
            side=side,
            basis_of=basis_of,
            rotate_second_moment=rotate_second_moment,
            double_svd=double_svd,
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, its options checked."""
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except LabError:
            self.param_groups.pop()
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a saved state in the types it was saved in."""
        super().load_state_dict(state_dict)
        restore_state(self, state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # as torch's
        """Update every parameter that has a gradient; `closure` recomputes the loss first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            plain = list[Tensor]()
            for parameter in group["params"]:
                if parameter.grad is None or not parameter.numel():
                    continue
                if parameter.grad.is_sparse or parameter.grad.is_complex():
                    raise LabError("conda: sparse and complex gradients have no singular basis here")
                self._prepare(parameter)
                if _is_projected(parameter, group):
                    self._update_projected(parameter, group)
                else:
                    plain.append(parameter)
            if plain:
                self._update_plain(plain, group)
        return loss

    def _prepare(self, parameter: Tensor) -> None:
        """Make the state of a parameter that is seen for the first time."""
        state = self.state[parameter]
        if not state:
            dtype = _state_dtype(parameter)
            state["first"] = torch.zeros_like(parameter, dtype=dtype, memory_format=torch.contiguous_format)
            state["second"] = torch.zeros_like(parameter, dtype=dtype, memory_format=torch.contiguous_format)
            state["steps"] = torch.zeros((), dtype=torch.int64)

    def _update_plain(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        """AdamW with ε beside √v before the bias correction; all tensors of a group in one call an operation."""
        beta1, beta2 = group["betas"]
        states = [self.state[parameter] for parameter in parameters]
        first, second = [state["first"] for state in states], [state["second"] for state in states]
        gradients = [
            parameter.grad.to(moment.dtype)  # type: ignore[union-attr]  # step() left out those without
            for parameter, moment in zip(parameters, first, strict=True)
        ]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        denominators = torch._foreach_sqrt(second)
        torch._foreach_add_(denominators, group["eps"])
        updates = torch._foreach_div(first, denominators)
        sizes = [self._counted(state, group) for state in states]
        torch._foreach_mul_(updates, [-size for size in sizes])
        _move(parameters, updates)
        if group["weight_decay"]:
            torch._foreach_mul_(list(parameters), 1 - group["lr"] * group["weight_decay"])

    def _update_projected(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """The rule for one matrix; see the module's first lines."""
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        turned = group["transposed"]
        gradient = _as_matrix(parameter.grad.to(state["first"].dtype), turned)  # type: ignore[union-attr]  # has one
        first, second = _as_matrix(state["first"], turned), _as_matrix(state["second"], turned)
        first.lerp_(gradient, 1 - beta1)
        if group["basis_of"] == "covariance":
            self._accumulate(state, gradient, _on_the_right(gradient, group["side"]), beta2)
        if int(state["steps"]) % group["refresh"] == 0:
            with _Clock(self.seconds, "svd"):
                self._refresh(state, first, second, gradient, group)
        with _Clock(self.seconds, "projection"):
            rotated = _rotated(gradient, state, group["side"])
            second.mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
            update = _rotated(first, state, group["side"]).div_(second.sqrt().add_(group["eps"]))
            update = _rotated_back(update, state, group["side"])
        size = self._counted(state, group) * group["scale"]
        _move([parameter], [_as_matrix(update.mul_(-size), turned)])
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])

    def _counted(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        """Count the update and return η √(1 - β₂ᵗ) / (1 - β₁ᵗ)."""
        state["steps"] += 1
        if not group["bias_correction"]:
            return float(group["lr"])
        t, (beta1, beta2) = int(state["steps"]), group["betas"]
        return float(group["lr"] * math.sqrt(1 - beta2**t) / (1 - beta1**t))

    def _accumulate(self, state: dict[str, Any], gradient: Tensor, right: bool, beta2: float) -> None:
        """Running mean of GᵀG (right) or GGᵀ (left)."""
        product = gradient.T @ gradient if right else gradient @ gradient.T
        if "covariance" not in state:
            state["covariance"] = torch.zeros_like(product)
        state["covariance"].lerp_(product, 1 - beta2)

    def _refresh(
        self, state: dict[str, Any], first: Tensor, second: Tensor, gradient: Tensor, group: dict[str, Any]
    ) -> None:
        """Take a new basis; if the decomposition does not converge, keep the old one and warn."""
        source = {"momentum": first, "gradient": gradient}.get(group["basis_of"], state.get("covariance"))
        assert source is not None
        if not torch.isfinite(source).all():
            raise LabError("conda: the momentum is not finite; no basis can be taken from it")
        dtype = torch.float64 if group["double_svd"] else torch.promote_types(source.dtype, torch.float32)
        right = _on_the_right(first, group["side"])
        try:
            left_vectors, _, right_vectors = torch.linalg.svd(source.to(dtype), full_matrices=False)
        except torch.linalg.LinAlgError as error:
            if "basis" not in state:
                raise LabError(f"conda: the first singular value decomposition failed ({error})") from error
            warnings.warn(f"conda: a decomposition failed, the basis is kept ({error})", stacklevel=2)
            return
        basis = (right_vectors if right else left_vectors.mT).to(first.dtype).contiguous()
        if group["rotate_second_moment"] and "basis" in state:
            shares = (basis @ state["basis"].T).square()  # [new direction, old direction]
            second.copy_(second @ shares.T if right else shares @ second)
        state["basis"] = basis
        if group["side"] == "full":
            state["basis_left"] = left_vectors.mT.to(first.dtype).contiguous()


def _check(group: dict[str, Any]) -> None:
    """LabError for options out of range and matrices that the side does not fit."""
    for name in ("lr", "eps", "weight_decay", "scale"):
        if not group[name] >= 0:  # also refuses NaN
            raise LabError(f"conda: {name} (learning rate: lr) must not be negative, got {group[name]}")
    if not all(0 <= beta < 1 for beta in group["betas"]):
        raise LabError(f"conda: betas must lie in [0, 1), got {group['betas']}")
    if group["refresh"] < 1:
        raise LabError(f"conda: refresh counts updates and must be at least 1, got {group['refresh']}")
    if group["side"] not in SIDES:
        raise unknown("side", str(group["side"]), SIDES)
    if group["basis_of"] not in BASES:
        raise unknown("basis_of", str(group["basis_of"]), BASES)
    if group["side"] == "full" and (group["rotate_second_moment"] or group["basis_of"] == "covariance"):
        raise LabError(
            'conda: side "full" goes neither with rotate_second_moment nor with basis_of covariance'
        )
    for parameter in group["params"]:
        if group["project"] and parameter.dim() != 2:
            raise LabError(f"conda: a projected parameter is a matrix, got shape {list(parameter.shape)}")
        if _is_projected(parameter, group):
            rows, columns = parameter.shape[::-1] if group["transposed"] else parameter.shape
            wrong = {
                "right": rows < columns,
                "left": rows > columns,
                "reverse_std": rows != columns,
                "full": rows != columns,
            }
            if wrong.get(group["side"], False):
                raise LabError(
                    f'conda: side "{group["side"]}" does not fit a matrix of {rows} x {columns}; "std" fits all'
                )


def _is_projected(parameter: Tensor, group: dict[str, Any]) -> bool:
    return bool(group["project"]) or (group["project"] is None and parameter.dim() == 2)


def _on_the_right(matrix: Tensor, side: Side) -> bool:
    """Whether the basis acts on columns: right singular vectors. Square matrices use the right side under "std"."""
    if side == "std":
        return matrix.shape[0] >= matrix.shape[1]
    return side in ("right", "full")


def _rotated(matrix: Tensor, state: dict[str, Any], side: Side) -> Tensor:
    """M Bᵀ, or B M where the rows of B are the left singular vectors; for "full" both."""
    if side == "full":
        return state["basis_left"] @ matrix @ state["basis"].T
    return matrix @ state["basis"].T if _on_the_right(matrix, side) else state["basis"] @ matrix


def _rotated_back(matrix: Tensor, state: dict[str, Any], side: Side) -> Tensor:
    if side == "full":
        return state["basis_left"].T @ matrix @ state["basis"]
    return matrix @ state["basis"] if _on_the_right(matrix, side) else state["basis"].T @ matrix


def _as_matrix(tensor: Tensor, transposed: bool) -> Tensor:
    return tensor.mT if transposed else tensor


def _state_dtype(parameter: Tensor) -> torch.dtype:
    return torch.promote_types(parameter.dtype, torch.float32)


def _move(parameters: Sequence[Tensor], updates: Sequence[Tensor]) -> None:
    """Add updates to parameters; those narrower than the updates are added to in the updates' type."""
    for parameter, update in zip(parameters, updates, strict=True):
        if parameter.dtype == update.dtype:
            parameter.add_(update)
        else:
            parameter.copy_(parameter.to(update.dtype) + update)


class _Clock:
    """Adds the processor time of a block to a dictionary, if there is one."""

    def __init__(self, seconds: dict[str, float] | None, name: str) -> None:
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        if self.seconds is not None:
            self.began = time.process_time()

    def __exit__(self, *_: object) -> None:
        if self.seconds is not None:
            self.seconds[self.name] = self.seconds.get(self.name, 0.0) + time.process_time() - self.began


def matrices_and_others(model: nn.Module, patterns: tuple[str, ...], mark: str) -> list[dict[str, Any]]:
    """Split a model's trainable parameters: weights of the linear modules that match, marked, and all others.

    Conv1D modules, stored [in, out], are a group of their own with `transposed`. LabError if nothing matches.
    """
    chosen: dict[bool, list[Tensor]] = {False: [], True: []}
    taken = set[int]()
    for name, module in model.named_modules():
        conv1d = type(module).__name__ == "Conv1D"
        weight = getattr(module, "weight", None)
        if not (isinstance(module, nn.Linear) or conv1d) or not isinstance(weight, Tensor):
            continue
        if weight.requires_grad and id(weight) not in taken and any(fnmatchcase(name, p) for p in patterns):
            chosen[conv1d].append(weight)
            taken.add(id(weight))
    if not taken:
        raise LabError(
            f"no linear module's name matches {', '.join(patterns)}, so no matrix would be treated as one"
        )
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": matrices, mark: True, "transposed": transposed} for transposed, matrices in chosen.items()
    ]
    groups.append({"params": others, mark: False})
    return [group for group in groups if group["params"]]
