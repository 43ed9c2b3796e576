"""What a report says of a claim can be read without knowing the names of its results."""

import pytest

from gpt2lab.base.registry import Paper, papers
from gpt2lab.studies.experiment import load_experiment

BUILT = [paper for paper in papers() if paper.built]


@pytest.mark.parametrize("paper", BUILT, ids=lambda paper: paper.slug)
def test_every_quantity_of_a_claim_has_words(paper: Paper) -> None:
    claims = load_experiment(paper).claims
    assert claims
    for claim in claims:
        if isinstance(claim.measure, str):
            assert " " in claim.quantity, claim.name
