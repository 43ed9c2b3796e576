"""The method against the equation, written once more and slowly."""

import math

import torch

from gpt2lab.cli.skeletons.objective.objective import ExampleObjective
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.training import next_token

CONFIG = gpt2_config(vocab_size=11, d_model=16, n_layers=1, n_heads=2, max_positions=8)


def small() -> Transformer:
    """A model in float64."""
    return Transformer(CONFIG, generator=torch.Generator().manual_seed(0)).double().eval()


def test_the_loss_is_the_equation_and_places_without_a_target_do_not_count() -> None:
    """-log p + weight · log² Z, target by target."""
    model, tokens = small(), torch.tensor([[1, 2, 3], [4, 5, 6]])
    targets = torch.tensor([[2, 3, -100], [5, -100, -100]])
    logits = model(tokens).tolist()
    terms = []
    for row, column in ((0, 0), (0, 1), (1, 0)):
        own = logits[row][column]
        log_z = math.log(sum(math.exp(value) for value in own))
        terms.append(log_z - own[int(targets[row, column])] + 0.3 * log_z**2)
    loss, metrics = ExampleObjective(weight=0.3)(model, {"tokens": tokens, "targets": targets})
    assert math.isclose(loss.item(), sum(terms) / 3, rel_tol=1e-5)
    assert metrics["log_z"] > 0


def test_without_the_penalty_it_is_plain_training() -> None:
    """The same loss and the same gradients as the next-token objective."""
    batch = {"tokens": torch.tensor([[1, 2, 3]]), "targets": torch.tensor([[2, 3, 7]])}
    first, second = small(), small()
    ExampleObjective(weight=0.0)(first, batch)[0].backward()
    next_token(second, batch)[0].backward()
    for ours, plain in zip(first.parameters(), second.parameters(), strict=True):
        assert ours.grad is not None and plain.grad is not None
        assert torch.allclose(ours.grad, plain.grad, atol=1e-6)
