"""The two-dimensional example of the paper (Fig. 2): a steep direction with negative curvature and a flat one.

L(a, b) = 8 (a - 1)² (1.3 a² + 2 a + 1) + ½ (b - 4)²
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gpt2lab.base.errors import unknown

START = (0.25, 0.1)
"""Where all begin: the first coordinate has curvature of either sign on its way."""
METHODS = ("gradient descent", "sign descent", "Adam", "Newton", "Sophia")


def loss(point: Tensor) -> Tensor:
    """Return L at points [..., 2]."""
    a, b = point.unbind(-1)
    return 8 * (a - 1) ** 2 * (1.3 * a**2 + 2 * a + 1) + 0.5 * (b - 4) ** 2


def trajectory(method: str, *, steps: int = 50, start: tuple[float, float] = START) -> Tensor:
    """Return the points that a method visits, [steps + 1, 2], float64; exact gradients and diagonal Hessians.

    The step of each is the largest of a factor 2 apart with which it does not diverge. LabError for another method.
    """
    rules: dict[str, Callable[[Tensor, Tensor, dict[str, Tensor], int], Tensor]] = {
        "gradient descent": lambda g, h, state, t: 0.02 * g,
        "sign descent": lambda g, h, state, t: 0.2 * g.sign(),
        "Adam": _adam,
        "Newton": lambda g, h, state, t: g / h,
        "Sophia": lambda g, h, state, t: 0.2 * (g / (0.2 * h).clamp_min(1e-12)).clamp(-1, 1),
    }
    if method not in rules:
        raise unknown("method", method, METHODS)
    point = torch.tensor(start, dtype=torch.float64)
    visited, state = [point], dict[str, Tensor]()
    for step in range(1, steps + 1):
        gradient, curvature = _derivatives(point)
        point = point - rules[method](gradient, curvature, state, step)
        visited.append(point)
    return torch.stack(visited)


def _adam(gradient: Tensor, curvature: Tensor, state: dict[str, Tensor], step: int) -> Tensor:
    first = 0.9 * state.get("first", torch.zeros(2, dtype=torch.float64)) + 0.1 * gradient
    second = 0.99 * state.get("second", torch.zeros(2, dtype=torch.float64)) + 0.01 * gradient**2
    state["first"], state["second"] = first, second
    return 0.2 * (first / (1 - 0.9**step)) / ((second / (1 - 0.99**step)).sqrt() + 1e-8)


def _derivatives(point: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and diagonal of the Hessian."""
    x = point.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x, create_graph=True)
    diagonal = [torch.autograd.grad(gradient[i], x, retain_graph=True)[0][i] for i in range(2)]
    return gradient.detach(), torch.stack(diagonal).detach()
