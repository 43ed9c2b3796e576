"""What every part is checked with: built parts of a kind from the registry, small models, and how options are refused."""

import dataclasses
import inspect
from typing import Any

import pytest
import torch

from gpt2lab.base.registry import Part, parts
from gpt2lab.model import Transformer
from tests.tiny import CONFIGS, tiny

FAMILIES = tuple(CONFIGS)


def built(kind: str) -> list[Any]:
    """Every built part of a kind, as pytest parameters named after it."""
    return [pytest.param(part, id=part.name) for part in parts(kind) if part.built]


def refuses_unknown_options(part: Part) -> None:
    """A misspelt option is an error of the constructor, which therefore takes no **kwargs."""
    made = part.load()
    signature = inspect.signature(made)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds, f"{part.name} swallows any option"
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        made(an_option_nobody_has=1)


def is_frozen_settings(part: Part) -> None:
    """Decoders, measures and transforms are frozen dataclasses whose fields are documented options."""
    from gpt2lab.base.settings import field_docs

    made = part.load()
    assert dataclasses.is_dataclass(made)
    assert made.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(made))
    undocumented = {field.name for field in dataclasses.fields(made)} - field_docs(made).keys()
    assert not undocumented
    assert (made.__doc__ or "").strip()


def broken(model: Transformer | None = None) -> Transformer:
    """A model whose states are NaN from the first one on."""
    model = model if model is not None else tiny("gpt2")
    with torch.no_grad():
        model.embedding.weight[:, 0] = float("nan")
    return model
