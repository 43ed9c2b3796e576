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
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.papers.conda.matrices import PROJECTED, is_matrix, matrices_and_others
from gpt2lab.train.grouped import (
    GroupedOptimizer,
    Ready,
    bunches,
    check_count,
    check_ranges,
    gradients,
    move,
    sharded,
    whole,
    widened,
    zeros,
)

Side = Literal["std", "right", "left", "reverse_std", "full"]
BasisOf = Literal["momentum", "gradient", "covariance"]
SIDES: tuple[Side, ...] = ("std", "right", "left", "reverse_std", "full")
BASES: tuple[BasisOf, ...] = ("momentum", "gradient", "covariance")


class Conda(GroupedOptimizer):
    """Adam in a rotated space, for the matrices of attention and feed-forward.

    `for_model` groups a model's parameters as the paper does. Given bare parameters, every one with two dimensions is
    projected, embeddings too, which the paper does not do. A group may set `project` (True, False, or None: by its
    dimensions), and any of the options below for itself. Matrices are [out, in]; `transposed` marks a group whose
    matrices are stored [in, out] (Hugging Face's Conv1D), which are treated as their transposes, `stacked` one of
    [experts, out, in], a matrix for each expert.

    State is float32 (float64 for float64 parameters) and consists of tensors only: `first`, `second`, `steps`, and for
    projected matrices `bases` (how many were taken) and `basis` [k, k], k the smaller side, with `basis_left` for side
    "full" and `covariance` [k, k] where that is decomposed.

    refresh: updates between two bases. scale: factor on projected updates. side: "std" takes the smaller side; "right"
    refuses wide matrices, "left" tall ones, "reverse_std" and "full" (both sides) all but square ones. basis_of: what is
    decomposed: the momentum (Conda), the gradient (full-rank GaLore), or a running mean of GᵀG (one-sided SOAP).
    rotate_second_moment: carry v into each new basis as variances of independent coordinates, v ← v (R∘R)ᵀ with
    R = B_new B_oldᵀ (not in the paper). double_svd: decompose in float64. maximize: ascend.

    process_group: of ranks that hold the same parameters (data parallelism); all take the basis of its first rank, since
    other hardware finds another one where singular values are equal. Sharded parameters (DTensor, as of FSDP2) are
    gathered for a projected update; their moments stay sharded.

    LabError: options out of range, a projected parameter that is no matrix, a side that does not fit, gradients that are
    sparse or complex, or not finite at a refresh; nothing has moved then.
    """

    title = "conda"
    moments = ("first", "second")
    options = ("seconds",)
    seconds: dict[str, float] | None = None
    """Set to {} to have the processor time in "svd" and "projection" added up."""
    process_group: ProcessGroup | None = None

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
        maximize: bool = False,
        project: bool | None = None,
        process_group: ProcessGroup | None = None,
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
            "maximize": maximize,
            "project": project,
            "transposed": False,
            "stacked": False,
        }
        super().__init__(params, defaults)
        self.process_group = process_group

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
        bias_correction: bool = True,
        double_svd: bool = False,
        maximize: bool = False,
        other_lr: float | None = None,
        projected: tuple[str, ...] = PROJECTED,
        process_group: ProcessGroup | None = None,
    ) -> Self:
        """Group a model's trainable parameters as the paper does, with the betas of its GPT-2 runs.

        Projected are the weights of linear maps (nn.Linear, Conv1D, experts, low-rank adapters) whose module's name
        matches one of the globs `projected`, in capitals or not. other_lr: learning rate of all others, which the paper
        gives the same one (the control of its claim). LabError if no module matches.
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
            bias_correction=bias_correction,
            double_svd=double_svd,
            maximize=maximize,
            process_group=process_group,
        )

    def check_group(self, group: dict[str, Any]) -> None:
        """LabError for options out of range and matrices that the side does not fit."""
        check_ranges("conda", group, positive=("lr", "eps", "weight_decay", "scale"), below_one=("betas",))
        check_count("conda", "refresh, which counts updates,", group["refresh"])
        if group["side"] not in SIDES:
            raise unknown("side", str(group["side"]), SIDES)
        if group["basis_of"] not in BASES:
            raise unknown("basis_of", str(group["basis_of"]), BASES)
        if group["side"] == "full" and (group["rotate_second_moment"] or group["basis_of"] == "covariance"):
            raise LabError(
                'conda: side "full" goes neither with rotate_second_moment nor with basis_of covariance'
            )
        for parameter in group["params"]:
            if is_matrix(parameter, group, group["project"], "conda: a projected parameter"):
                _check_side(parameter, group)

    def check_gradients(self, ready: Ready) -> None:
        """LabError for gradients that are sparse or complex, or that are not finite where a basis is to be taken."""
        super().check_gradients(ready)
        for group, parameters in ready:
            for parameter in parameters:
                if not _is_projected(parameter, group) or not _is_due(self.state.get(parameter, {}), group):
                    continue
                assert parameter.grad is not None
                if not bool(torch.isfinite(whole(parameter.grad)).all()):
                    raise LabError("conda: a gradient is not finite; no basis can be taken from it")

    def update_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Update the matrices one by one and the others together."""
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["first"], state["second"] = zeros(parameter), zeros(parameter)
                state["steps"] = torch.zeros((), dtype=torch.int64)
        for parameter in parameters:
            if _is_projected(parameter, group):
                self._update_projected(parameter, group)
        if plain := [parameter for parameter in parameters if not _is_projected(parameter, group)]:
            self._update_plain(plain, group)

    def _update_plain(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        """AdamW with ε beside √v before the bias correction."""
        beta1, beta2 = group["betas"]
        states = [self.state[parameter] for parameter in parameters]
        sizes = [self._counted(state, group) for state in states]
        firsts, seconds = ([state[name] for state in states] for name in self.moments)
        for rows, bunch in bunches(parameters, gradients(parameters, group), firsts, seconds):
            weights, narrow, first, second = bunch
            gradient = widened(narrow, first)
            torch._foreach_lerp_(first, gradient, 1 - beta1)
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, gradient, gradient, 1 - beta2)
            denominator = torch._foreach_sqrt(second)
            torch._foreach_add_(denominator, group["eps"])
            update = torch._foreach_div(first, denominator)
            torch._foreach_mul_(update, [-sizes[row] for row in rows])
            move(weights, update, after=_kept(group))

    def _update_projected(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """The rule for one matrix; see the module's first lines. A sharded one is gathered, and what changed scattered."""
        state, turned = self.state[parameter], group["transposed"]
        first, second = whole(state["first"]), whole(state["second"])
        gradient = widened([whole(tensor) for tensor in gradients([parameter], group)], [first])[0]
        update = self._projected(
            _as_matrix(gradient, turned), _as_matrix(first, turned), _as_matrix(second, turned), state, group
        )
        size = self._counted(state, group) * group["scale"]
        update = _as_matrix(update.mul_(-size), turned)
        if first is not state["first"]:
            state["first"].copy_(sharded(first, parameter))
            state["second"].copy_(sharded(second, parameter))
            update = sharded(update, parameter)
        move([parameter], [update], after=_kept(group))

    def _projected(
        self, gradient: Tensor, first: Tensor, second: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> Tensor:
        """Advance both moments of a matrix and return (M' / (√v + ε)) rotated back."""
        (beta1, beta2), side = group["betas"], group["side"]
        if "basis" not in state:
            _begin(state, first, group)
        first.lerp_(gradient, 1 - beta1)
        if group["basis_of"] == "covariance":
            product = gradient.mT @ gradient if _on_the_right(gradient, side) else gradient @ gradient.mT
            state["covariance"].lerp_(product, 1 - beta2)
        if _is_due(state, group):
            with _Clock(self.seconds, "svd"):
                self._refresh(state, first, second, gradient, group)
        if not int(state["bases"]):
            return torch.zeros_like(first)
        with _Clock(self.seconds, "projection"):
            rotated = _rotated(gradient, state, side)
            second.mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
            update = _rotated(first, state, side).div_(second.sqrt().add_(group["eps"]))
            return _rotated_back(update, state, side)

    def _counted(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        """Count the update and return η √(1 - β₂ᵗ) / (1 - β₁ᵗ)."""
        state["steps"] += 1
        if not group["bias_correction"]:
            return float(group["lr"])
        t, (beta1, beta2) = int(state["steps"]), group["betas"]
        return float(group["lr"]) * math.sqrt(1 - beta2**t) / (1 - beta1**t)

    def _refresh(
        self, state: dict[str, Any], first: Tensor, second: Tensor, gradient: Tensor, group: dict[str, Any]
    ) -> None:
        """Take a new basis; if the decomposition does not converge, keep the old one and warn.

        A matrix of zeros has none: before its first gradient that is not zero (the A of a new low-rank adapter beside
        its B of zeros) nothing moves, and no arbitrary basis is kept for `refresh` updates.
        """
        source = {"momentum": first, "gradient": gradient}.get(group["basis_of"], state.get("covariance"))
        assert source is not None
        if not torch.isfinite(source).all():
            raise LabError("conda: the momentum is not finite; no basis can be taken from it")
        if not source.any():
            return
        dtype = torch.float64 if group["double_svd"] else torch.promote_types(source.dtype, torch.float32)
        right = _on_the_right(first, group["side"])
        try:
            left_vectors, right_vectors = self._singular_vectors(source.to(dtype))
        except torch.linalg.LinAlgError as error:
            if not int(state["bases"]):
                raise LabError(f"conda: the first singular value decomposition failed ({error})") from error
            warnings.warn(f"conda: a decomposition failed, the basis is kept ({error})", stacklevel=2)
            return
        basis = (right_vectors if right else left_vectors.mT).to(first.dtype).contiguous()
        if group["rotate_second_moment"] and int(state["bases"]):
            shares = (basis @ state["basis"].mT).square()  # [new direction, old direction]
            second.copy_(second @ shares.mT if right else shares @ second)
        state["basis"] = basis
        state["bases"] += 1
        if group["side"] == "full":
            state["basis_left"] = left_vectors.mT.to(first.dtype).contiguous()

    def _singular_vectors(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """U [r, k] and Vᵀ [k, c] of the thin decomposition; in a process group those of its first rank."""
        if self.process_group is None:
            left, _, right = torch.linalg.svd(matrix, full_matrices=False)
            return left, right
        failure = ""
        *stack, rows, columns = matrix.shape
        k = min(rows, columns)
        left, right = matrix.new_empty(*stack, rows, k), matrix.new_empty(*stack, k, columns)
        if torch.distributed.get_rank(self.process_group) == 0:
            try:
                left, _, right = torch.linalg.svd(matrix, full_matrices=False)
            except torch.linalg.LinAlgError as error:
                failure = str(error)
        failed = torch.tensor(float(bool(failure)), device=matrix.device)
        for tensor in (failed, left := left.contiguous(), right := right.contiguous()):
            torch.distributed.broadcast(tensor, group_src=0, group=self.process_group)
        if failed:
            raise torch.linalg.LinAlgError(failure or "on the first rank")
        return left, right


def _check_side(parameter: Tensor, group: dict[str, Any]) -> None:
    rows, columns = parameter.shape[-2:][:: -1 if group["transposed"] else 1]
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
    return is_matrix(parameter, group, group["project"], "conda: a projected parameter")


def _is_due(state: dict[str, Any], group: dict[str, Any]) -> bool:
    """Whether a matrix takes a new basis with its next update."""
    return not int(state.get("bases", 0)) or int(state["steps"]) % int(group["refresh"]) == 0


def _begin(state: dict[str, Any], first: Tensor, group: dict[str, Any]) -> None:
    """Make the state of a matrix whole at its first update: what is loaded into a state finds all its tensors there."""
    k = first.shape[-1] if _on_the_right(first, group["side"]) else first.shape[-2]
    identity = torch.eye(k, dtype=first.dtype, device=first.device).expand(*first.shape[:-2], k, k)
    state["basis"], state["bases"] = identity.clone(), torch.zeros((), dtype=torch.int64)
    if group["side"] == "full":
        state["basis_left"] = identity.clone()
    if group["basis_of"] == "covariance":
        state["covariance"] = torch.zeros_like(state["basis"])


def _kept(group: dict[str, Any]) -> float:
    """What the decay leaves of a weight."""
    return 1 - float(group["lr"]) * float(group["weight_decay"])


def _on_the_right(matrix: Tensor, side: Side) -> bool:
    """Whether the basis acts on columns: right singular vectors. Square matrices use the right side under "std"."""
    if side == "std":
        return matrix.shape[-2] >= matrix.shape[-1]
    return side in ("right", "full")


def _rotated(matrix: Tensor, state: dict[str, Any], side: Side) -> Tensor:
    """M Bᵀ, or B M where the rows of B are the left singular vectors; for "full" both."""
    if side == "full":
        return state["basis_left"] @ matrix @ state["basis"].mT
    return matrix @ state["basis"].mT if _on_the_right(matrix, side) else state["basis"] @ matrix


def _rotated_back(matrix: Tensor, state: dict[str, Any], side: Side) -> Tensor:
    if side == "full":
        return state["basis_left"].mT @ matrix @ state["basis"]
    return matrix @ state["basis"] if _on_the_right(matrix, side) else state["basis"].mT @ matrix


def _as_matrix(tensor: Tensor, transposed: bool) -> Tensor:
    return tensor.mT if transposed else tensor


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
