"""The field that holds the text has one name, `field`, in training, measures, transforms and comparisons."""

import dataclasses
from typing import Any

import pytest

from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.base.settings import field_docs
from gpt2lab.studies.workload import TextWorkload
from tests.contract.parts import built

READERS: list[Any] = [
    *(pytest.param(made.values[0].load(), id=made.id) for kind in ("measure", "transform") for made in built(kind)),
    pytest.param(TrainingSettings, id="train"),
    pytest.param(TextWorkload, id="compare"),
]  # fmt: skip


OF_THEIR_OWN_FORM = {
    "multiple-choice", "retrieval", "translation-pairs", "pair-judge", "codon-probe", "codon-attribution", "pair-components",
}  # fmt: skip
"""What reads no single texts: questions, a collection, pairs, genes."""


@pytest.mark.parametrize("settings", READERS)
def test_the_text_is_in_the_field_that_is_called_field(settings: type) -> None:
    said = field_docs(settings)
    naming = {name for name, doc in said.items() if doc.lower().startswith("field") and "the text" in doc}
    assert naming <= {"field"}, "another name for the field that holds the text"
    if "field" in said:
        default = next(f.default for f in dataclasses.fields(settings) if f.name == "field")
        assert default == "text"


@pytest.mark.parametrize("settings", READERS)
def test_whatever_reads_texts_can_be_told_their_field(settings: type, request: pytest.FixtureRequest) -> None:
    said = field_docs(settings).keys()
    if any(name in request.node.callspec.id for name in OF_THEIR_OWN_FORM):
        assert "field" not in said
    elif said & {"data", "train", "held_out"}:
        assert "field" in said
