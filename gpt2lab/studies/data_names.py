"""What `--on` names: text that is made or read, or a model. Checked before a comparison imports what it needs."""

from collections.abc import Sequence
from pathlib import Path

from gpt2lab.actions.models import find_model, holds_model, refuse_missing
from gpt2lab.base.errors import LabError
from gpt2lab.text import sources
from gpt2lab.text.built_in import BUILT_IN

BIGRAMS = ("topic-bigrams",)
"""The data of the generated language of topics and bigrams."""
STORIES = "tinystories"
"""What people call the generated stories; the source's own name is tinyworld."""


def is_text(name: str) -> bool:
    """Tell whether a word names text that the lab makes or fetches itself: no file and no model."""
    return name in BIGRAMS or name.startswith("hub:") or source_of(name).partition(":")[0] in BUILT_IN


def check_sources(data: Sequence[str]) -> None:
    """LabError for a file, folder or built-in source that is not there; the hub is not asked."""
    if tuple(data) != BIGRAMS:
        sources.files([source_of(name) for name in data])


def source_of(name: str) -> str:
    """Return the source's own name of what people call it: tinyworld:20 of tinystories:20."""
    head, colon, size = name.partition(":")
    return f"tinyworld{colon}{size}" if head == STORIES else name


def given_model(on: Sequence[str]) -> str | None:
    """Return the model that `on` names, None if it names text. LabError for a run without a model."""
    if len(on) != 1 or is_text(on[0]):
        return None
    place = find_model(on[0])
    if isinstance(place, Path) and holds_model(place):
        return on[0]
    try:
        sources.files(on[0])
    except LabError:
        return on[0]  # a hub id, or a mistake that loading puts in words
    return None


def check_on(kind: str, on: Sequence[str]) -> None:
    """LabError for data, or for decoders a model, that are not there: what a comparison of this kind is `--on`."""
    model = given_model(on) if kind == "decoders" else None
    if model is not None:
        refuse_missing(model)
    else:
        check_sources(on)
