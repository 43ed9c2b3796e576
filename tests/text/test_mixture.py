"""A mixture holds its sources in their shares, each in its own order."""

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text import sources
from gpt2lab.text.mixture import mixture


def test_documents_come_in_the_shares_of_the_weights_and_in_the_order_of_their_source() -> None:
    weights = {"sentences:3000": 2.0, "proteins:3000": 1.0, "coding-dna:3000": 0.0}
    found = list(mixture(weights, 3000, seed=1))
    sentences = [text for text in found if " " in text]
    proteins = [text for text in found if " " not in text]
    assert abs(len(sentences) - 2000) < 5 * (3000 * 2 / 9) ** 0.5
    assert sentences == list(sources.documents("sentences:3000"))[: len(sentences)]
    assert proteins == list(sources.documents("proteins:3000"))[: len(proteins)]
    assert found == list(mixture(weights, 3000, seed=1)) != list(mixture(weights, 3000, seed=2))


@pytest.mark.parametrize(
    "weights", [{}, {"proteins:5": 0.0}, {"proteins:5": -1.0}, {"proteins:5": float("nan")}]
)
def test_weights_that_say_nothing_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(LabError, match="weights must be"):
        mixture(weights, 3)


def test_a_source_that_ends_is_named() -> None:
    with pytest.raises(LabError, match="proteins:5: 5 documents, and this mixture needs 20"):
        list(mixture({"proteins:5": 1.0}, 20))
