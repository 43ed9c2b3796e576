"""Linear probes: what a logistic regression reads off a model's states, judged on examples that it was not fitted to."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError


def probe(states: Tensor, labels: Sequence[str], fitted: Tensor) -> Tensor:
    """Fit a logistic regression to some examples and tell which of the others it gets right: bool [others].

    states [examples, features] float64; fitted [examples] bool. Multinomial, with an L2 penalty of 1 on the weights
    (scikit-learn's default), each column scaled to the spread of the fitted part, and fitted to the optimum. LabError for
    states that are not finite, and unless there are examples to judge and two labels to fit.
    """
    if not states.isfinite().all():
        raise LabError("probe: the model's states are NaN or infinite")
    names = list(dict.fromkeys(label for label, one in zip(labels, fitted.tolist(), strict=True) if one))
    if len(names) < 2 or bool(fitted.all()):
        raise LabError(
            f"a probe is fitted to at least two labels and judged on other examples; got {len(names)} labels, "
            f"{int((~fitted).sum())} to judge"
        )
    y = torch.tensor([names.index(label) if label in names else -1 for label in labels])
    spread = states[fitted].std(0, correction=0)
    x = (states - states[fitted].mean(0)) / spread.clamp_min(1e-8)
    weights, bias = logistic_regression(x[fitted], y[fitted], len(names))
    return (x[~fitted] @ weights.T + bias).argmax(-1) == y[~fitted]


def logistic_regression(x: Tensor, y: Tensor, classes: int, *, penalty: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return weights [classes, features] and bias [classes] that minimise Σ cross entropy + penalty / 2 · |weights|².

    x [examples, features] float64, y [examples] int64. The problem is convex; L-BFGS begins at 0.
    """
    weights = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias],
        max_iter=300,
        history_size=20,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (
            F.cross_entropy(x @ weights.T + bias, y, reduction="sum") + penalty / 2 * weights.square().sum()
        )
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weights.detach(), bias.detach()
