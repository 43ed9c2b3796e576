"""Shared beginnings are read once; every sum is that of a full pass for itself."""

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.continuation import Continuation, score_continuations
from gpt2lab.model import Transformer
from gpt2lab.papers.occupational_bias.scoring import log_probabilities
from tests.tiny import tiny

CONTEXT, OTHER = [5, 3, 9], [5, 3]
TITLES = [[7], [7, 2], [7, 2, 4], [7, 8], [1, 2, 4, 6], [1], [7]]
ITEMS = [Continuation(context, title) for title in TITLES for context in (CONTEXT, OTHER)]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gpt_neox", "llama"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_sums_equal_those_of_continuations_scored_alone(family: str, batch_size: int) -> None:
    model = tiny(family).double()
    wanted = [
        -float(score.losses.double().sum())
        for item in ITEMS
        for score in score_continuations(model, [item], batch_size=1)
    ]
    assert log_probabilities(model, ITEMS, batch_size=batch_size) == pytest.approx(wanted, abs=1e-5)


def test_a_context_that_does_not_fit_loses_its_beginning() -> None:
    model = tiny("gpt2").double()
    items = [Continuation([4, 2, 1] * 20, title) for title in TITLES]
    wanted = [-float(score.losses.double().sum()) for score in score_continuations(model, items)]
    assert model.context < 60
    assert log_probabilities(model, items) == pytest.approx(wanted, abs=1e-5)


def test_what_several_share_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("gpt2")
    read, real = [], Transformer.hidden

    def hidden(self, tokens, *args, **options):
        read.append(tokens.shape[0])
        return real(self, tokens, *args, **options)

    monkeypatch.setattr(Transformer, "hidden", hidden)
    log_probabilities(model, [Continuation(CONTEXT, title) for title in TITLES])
    assert read == [2]  # 5 3 9 7 2 and 5 3 9 1 2 4; the rest lies on them


def test_what_cannot_be_scored_is_refused() -> None:
    model = tiny("gpt2")
    with pytest.raises(LabError, match="leave no room for a context"):
        log_probabilities(model, [Continuation([1], [1] * (model.context + 1))])
    with pytest.raises(LabError, match="needs at least one token"):
        log_probabilities(model, [Continuation([1], [])])
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(LabError, match="NaN"):
        log_probabilities(model, ITEMS)
    assert log_probabilities(model, []) == []
