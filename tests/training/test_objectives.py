"""The objectives against slow float64 loops."""

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.training import default_objective, masked_tokens, next_token
from tests.tiny import BIDIRECTIONAL, CAUSAL, CONFIGS, tiny, tokens


def batch(rows: int = 3, time: int = 7) -> dict[str, torch.Tensor]:
    ids = tokens(rows, time)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    targets = torch.full_like(ids, -100)
    for row, place in ((0, 0), (0, 3), (1, 4), (2, 6)):
        targets[row, place] = ids[row, place]
        ids[row, place] = 60
    return {"tokens": ids, "targets": targets, "attention_mask": mask}


@pytest.mark.parametrize("family", BIDIRECTIONAL)
def test_masked_tokens_is_the_mean_over_hidden_places(family: str) -> None:
    model = tiny(family).double()
    given = batch()
    losses = []
    for row, place in (given["targets"] != -100).nonzero().tolist():
        real = given["attention_mask"][row].bool()
        with torch.no_grad():
            logits = model(given["tokens"][row : row + 1, real])[0, place]
        losses.append(-float(logits.log_softmax(-1)[given["targets"][row, place]]))
    loss, metrics = masked_tokens(model, given)
    assert float(loss.detach()) == pytest.approx(sum(losses) / 4, rel=1e-9)
    assert metrics == {}


def test_token_types_reach_the_model() -> None:
    model, given = tiny("bert"), batch()
    plain = masked_tokens(model, given)[0]
    zeros = masked_tokens(model, {**given, "token_types": torch.zeros_like(given["tokens"])})[0]
    ones = masked_tokens(model, {**given, "token_types": torch.ones_like(given["tokens"])})[0]
    assert torch.allclose(zeros, plain)
    assert not torch.allclose(ones, plain)


def test_nothing_hidden_is_no_loss_and_no_gradient() -> None:
    model = tiny("bert")
    loss, _ = masked_tokens(model, {"tokens": tokens(2, 4), "targets": torch.full((2, 4), -100)})
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_a_model_is_trained_on_what_it_is_made_for() -> None:
    assert {default_objective(CONFIGS[family]) for family in CAUSAL} == {next_token}
    assert {default_objective(CONFIGS[family]) for family in BIDIRECTIONAL} == {masked_tokens}
    with pytest.raises(
        LabError, match="predicting the next token needs a causal model, and this bert reads in"
    ):
        next_token(tiny("bert"), batch())
    with pytest.raises(LabError, match="this roberta has no language-model head"):
        masked_tokens(tiny("roberta", head="none"), batch())
