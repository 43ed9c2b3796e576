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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.papers.conda.bases import (
    BASES,
    SIDES,
    BasisOf,
    Side,
    begin,
    check_side,
    due,
    is_due,
    named,
    on_the_right,
    own_state,
    replaced,
    rotated,
    rotated_back,
)
from gpt2lab.papers.conda.matrices import (
    FORM,
    PROJECTED,
    apart,
    is_matrix,
    matrices_and_others,
    shapes,
    together,
)
from gpt2lab.training.grouped import (
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


class Conda(GroupedOptimizer):
    """Adam in a rotated space, for the matrices of attention and feed-forward.

    `for_model` groups a model's parameters as the paper does. Given bare parameters, every one with two dimensions is
    projected, embeddings too, which the paper does not do. A group may set `project` (True, False, or None: by its
    dimensions), and any of the options below for itself. Matrices are [out, in]; `transposed` marks a group whose
    matrices are stored [in, out] (Hugging Face's Conv1D), which are treated as their transposes, `stacked` one of
    [experts, out, in], a matrix for each expert, `rows` one of tensors that hold several matrices of so many rows one
    below the other (q, k and v), each of which has a basis of its own.

    State is float32 (float64 for float64 parameters) and consists of tensors only: `first`, `second`, `steps`, and for
    projected matrices `bases` (how many were taken) and `basis` [k, k], k the smaller side, with `basis_left` for side
    "full" and `covariance` [k, k] where that is decomposed; of several matrices in a tensor those of one height together
    [n, k, k], the next height's named `basis_1`, and so on.

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
    form = FORM
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
            "rows": (),
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
            if _is_projected(parameter, group):
                for shape in shapes(parameter, group):
                    check_side(shape, group["side"])

    def check_gradients(self, ready: Ready) -> None:
        """LabError for gradients that are sparse or complex, or that are not finite where a basis is to be taken."""
        super().check_gradients(ready)
        for group, parameters in ready:
            for parameter in parameters:
                if not _is_projected(parameter, group) or not is_due(self.state.get(parameter, {}), group):
                    continue
                assert parameter.grad is not None
                if not bool(torch.isfinite(whole(parameter.grad)).all()):
                    raise LabError("conda: a gradient is not finite; no basis can be taken from it")

    def check_saved(self, parameter: Tensor, group: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
        """LabError for a state of another parameter, or with a basis for other matrices than the parameter holds."""
        super().check_saved(parameter, group, entries)
        if "basis" not in entries:
            return
        for number, shape in enumerate(shapes(parameter, group)):
            own, k = own_state(dict(entries), number), min(shape[-2:])
            expected = {"bases": shape[:-2], "basis": (*shape[:-2], k, k)}
            if any(name not in own or own[name].shape != size for name, size in expected.items()):
                raise LabError(
                    f"conda: the saved bases of a parameter of shape {list(parameter.shape)} are not those of the "
                    "matrices in it; the state is of a version that took them for one, so start the optimizer anew"
                )

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
        """The rule for the matrices of one parameter; see the module's first lines.

        A sharded one is gathered, and what changed scattered.
        """
        state = self.state[parameter]
        first, second = whole(state["first"]), whole(state["second"])
        gradient = widened([whole(tensor) for tensor in gradients([parameter], group)], [first])[0]
        updates, every = [], (apart(tensor, group) for tensor in (gradient, first, second))
        for number, (g, m, v) in enumerate(zip(*every, strict=True)):
            own = own_state(state, number)
            updates.append(self._projected(g, m, v, own, group))
            state.update({named(name, number): value for name, value in own.items()})
        size = self._counted(state, group) * group["scale"]
        update = together(updates, group).mul_(-size)
        if first is not state["first"]:
            state["first"].copy_(sharded(first, parameter))
            state["second"].copy_(sharded(second, parameter))
            update = sharded(update, parameter)
        move([parameter], [update], after=_kept(group))  # formula: W

    def _projected(
        self, gradient: Tensor, first: Tensor, second: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> Tensor:
        """Advance both moments of matrices [..., out, in] of one shape and return (M' / (√v + ε)) rotated back."""
        (beta1, beta2), side = group["betas"], group["side"]
        if "basis" not in state:
            begin(state, first, group)
        first.lerp_(gradient, 1 - beta1)  # formula: first moment M
        if group["basis_of"] == "covariance":
            product = gradient.mT @ gradient if on_the_right(gradient, side) else gradient @ gradient.mT
            state["covariance"].lerp_(product, 1 - beta2)
        wanted = due(state["bases"], state["steps"], group)
        if wanted.any():
            with _Clock(self.seconds, "svd"):
                self._refresh(state, first, second, gradient, wanted, group)
        if not state["bases"].any():
            return torch.zeros_like(first)
        with _Clock(self.seconds, "projection"):
            turned = rotated(gradient, state, side)
            second.mul_(beta2).addcmul_(turned, turned, value=1 - beta2)  # formula: second moment v
            update = rotated(first, state, side).div_(second.sqrt().add_(group["eps"]))  # formula: N
            update = rotated_back(update, state, side)
        if (waits := state["bases"] == 0).any():  # no gradient so far; with ε = 0 that would be 0 / 0
            update[waits.to(update.device)] = 0.0
        return update

    def _counted(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        """Count the update and return η √(1 - β₂ᵗ) / (1 - β₁ᵗ)."""
        state["steps"] += 1
        if not group["bias_correction"]:
            return float(group["lr"])
        t, (beta1, beta2) = int(state["steps"]), group["betas"]
        return float(group["lr"]) * math.sqrt(1 - beta2**t) / (1 - beta1**t)  # formula: bias correction

    def _refresh(
        self,
        state: dict[str, Any],
        first: Tensor,
        second: Tensor,
        gradient: Tensor,
        wanted: Tensor,
        group: dict[str, Any],
    ) -> None:
        """Take new bases for the matrices that are due; if the decomposition does not converge, keep the old and warn.

        A matrix of zeros has none: before its first gradient that is not zero (the A of a new low-rank adapter beside
        its B of zeros, an expert without a token) nothing moves, and no arbitrary basis is kept for `refresh` updates.
        """
        source = {"momentum": first, "gradient": gradient}.get(group["basis_of"], state.get("covariance"))
        assert source is not None
        if not torch.isfinite(source).all():
            raise LabError("conda: the momentum is not finite; no basis can be taken from it")
        wanted = wanted & (source != 0).flatten(-2).any(-1).cpu()
        if not wanted.any():
            return
        dtype = torch.float64 if group["double_svd"] else torch.promote_types(source.dtype, torch.float32)
        chosen = wanted.to(source.device)
        right = on_the_right(first, group["side"])
        try:
            left_vectors, right_vectors = self._singular_vectors(source[chosen].to(dtype))
        except torch.linalg.LinAlgError as error:
            if not state["bases"][wanted].all():
                raise LabError(f"conda: the first singular value decomposition failed ({error})") from error
            warnings.warn(f"conda: a decomposition failed, the basis is kept ({error})", stacklevel=2)
            return
        basis = (right_vectors if right else left_vectors.mT).to(first.dtype)  # formula: basis B
        if group["rotate_second_moment"]:  # before the first basis it is zero, and stays so
            shares = (basis @ state["basis"][chosen].mT).square()  # [..., new direction, old direction]
            second[chosen] = second[chosen] @ shares.mT if right else shares @ second[chosen]
        state["basis"] = replaced(state["basis"], chosen, basis)
        if group["side"] == "full":
            state["basis_left"] = replaced(state["basis_left"], chosen, left_vectors.mT.to(first.dtype))
        state["bases"] += wanted

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


def _is_projected(parameter: Tensor, group: dict[str, Any]) -> bool:
    return is_matrix(parameter, group, group["project"], "conda: a projected parameter")


def _kept(group: dict[str, Any]) -> float:
    """What the decay leaves of a weight."""
    return 1 - float(group["lr"]) * float(group["weight_decay"])


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
