"""Models without positions: order before a token is lost, weights are kept or drawn anew, files come back."""

from pathlib import Path

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.papers.impossible_languages.transform import RemovePositions
from gpt2lab.text.language_model import LanguageModel, load, save
from tests.tiny import tiny, tokens


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_without_positions_one_block_does_not_know_the_order_of_what_stands_before(
    family: str, tmp_path: Path
) -> None:
    lm = LanguageModel(tiny(family, n_layers=1))
    new = RemovePositions()(lm)
    given = tokens(1, 6)
    other = given[:, [3, 0, 1, 4, 2, 5]]
    with torch.no_grad():
        assert torch.allclose(new.model(given)[:, -1], new.model(other)[:, -1], atol=1e-5)
        assert not torch.allclose(lm.model(given)[:, -1], lm.model(other)[:, -1], atol=1e-3)
        save(new, tmp_path / "new")
        assert torch.equal(load(tmp_path / "new").model(given), new.model(given))
    old, state = lm.model.state_dict(), new.model.state_dict()
    assert all(torch.equal(old[name], tensor) for name, tensor in state.items())
    assert set(old) - set(state) == ({"position_embedding.weight"} if family == "gpt2" else set())


def test_fresh_weights_are_those_of_the_seed() -> None:
    lm = LanguageModel(tiny("gpt2"))
    one, same, other = (
        RemovePositions(fresh=True, seed=seed)(lm).model.embedding.weight for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert not torch.equal(one, lm.model.embedding.weight)


def test_a_model_that_it_does_not_fit_is_refused() -> None:
    bare = RemovePositions()(LanguageModel(tiny("gpt2")))
    for lm, words in ((bare, "has no positional"), (LanguageModel(tiny("bert")), "both directions")):
        with pytest.raises(LabError, match=words):
            RemovePositions()(lm)
