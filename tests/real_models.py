"""Real pretrained models, in the tests that can run where they are at hand: `make test` fetches them."""

import pytest

from gpt2lab.actions.catalogue import FOLDER, NOTE, catalogue_model
from gpt2lab.runs.home import home_folder

MODELS_AT_HAND = (home_folder() / FOLDER).resolve()
"""The folder of the fetched models of whoever runs the tests, read before a test has a home folder of its own."""


def is_at_hand(name: str) -> bool:
    """Whether a model of the catalogue is there."""
    return (MODELS_AT_HAND / name / NOTE).is_file()


def skip_without(name: str) -> None:
    """Skip a test that needs a model of the catalogue if it is not there."""
    if not is_at_hand(name):
        pytest.skip(
            f"{name} is not at hand in {MODELS_AT_HAND} ({catalogue_model(name).command}, or make test)"
        )
