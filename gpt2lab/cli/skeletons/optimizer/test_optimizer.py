"""The method against the equation, written once more and slowly."""

import torch

from gpt2lab.cli.skeletons.optimizer.optimizer import ExampleOptimizer


def test_an_update_is_the_equations() -> None:
    """Every entry moves by lr towards the gradient's sign, after the decay."""
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], dtype=torch.float64))
    expected = weight.tolist()
    optimizer = ExampleOptimizer([weight], lr=0.1, weight_decay=0.01)
    for step in range(3):
        weight.grad = torch.tensor([[0.3, -7.0, 0.0], [1e-9, step - 1.0, -2.0]], dtype=torch.float64)
        optimizer.step()
        for i, row in enumerate(weight.grad.tolist()):
            for j, slope in enumerate(row):
                sign = (slope > 0) - (slope < 0)
                expected[i][j] -= 0.1 * (sign + 0.01 * expected[i][j])
    assert torch.allclose(weight, torch.tensor(expected, dtype=torch.float64), atol=1e-12)


def test_a_parameter_without_gradient_stays() -> None:
    """The loop may freeze some parameters."""
    moved, frozen = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    moved.grad = torch.ones(2)
    ExampleOptimizer([moved, frozen], lr=0.5).step()
    assert moved.tolist() == [0.5, 0.5]
    assert frozen.tolist() == [1.0, 1.0]
