"""The probe of states: its logistic regression beside scikit-learn's, and what it finds or cannot find."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from gpt2lab.base.errors import LabError
from gpt2lab.measures.linear_probe import logistic_regression, probe


def states(examples: int, features: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(examples, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_regression_is_that_of_scikit_learn() -> None:
    x = states(60, 7)
    y = (x @ states(7, 3, seed=1)).argmax(-1)
    weights, bias = logistic_regression(x, y, 3)
    other = LogisticRegression(C=1.0, max_iter=5000, tol=1e-10).fit(x.numpy(), y.numpy())
    ours = (x @ weights.T + bias).softmax(-1).numpy()
    assert ours == pytest.approx(other.predict_proba(x.numpy()), abs=1e-4)


def test_what_is_there_is_found_on_examples_that_were_not_fitted_whatever_its_scale() -> None:
    x, labels = states(90, 6), [str(i % 3) for i in range(90)]
    told = x + 6 * torch.nn.functional.one_hot(torch.arange(90) % 3, 6)
    fitted = torch.arange(90) < 60
    right = probe(told, labels, fitted)
    assert len(right) == 30 and float(right.double().mean()) > 0.95
    assert torch.equal(probe(told * torch.tensor([1e3, 1, 1e-3, 1, 1, 1]) + 7, labels, fitted), right)
    assert float(probe(x, labels, fitted).double().mean()) < 0.7


def test_a_label_that_was_never_fitted_counts_as_wrong() -> None:
    fitted = torch.tensor([True, True, True, True, False])
    assert probe(states(5, 2), ["a", "b", "a", "b", "c"], fitted).tolist() == [False]


def test_what_cannot_be_probed_is_refused() -> None:
    x, labels = states(6, 2), list("aabbab")
    for wrong, names, fitted, said in (
        (x * float("nan"), labels, torch.arange(6) < 4, "NaN"),
        (x, labels, torch.arange(6) < 2, "got 1 labels"),
        (x, labels, torch.ones(6, dtype=torch.bool), "0 to judge"),
    ):
        with pytest.raises(LabError, match=said):
            probe(wrong, names, fitted)
