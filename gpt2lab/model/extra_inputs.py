"""Inputs beside the tokens, by name: images, audio, latents, and what else an architecture reads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from gpt2lab.base.errors import LabError, nearest


@dataclass(frozen=True, kw_only=True)
class ExtraInput:
    """What an architecture says of an input that it reads."""

    name: str
    """Under which it is given."""
    by_token: bool = False
    """[batch, time, ...], one entry for each token; otherwise [batch, ...], whatever the length of the row."""
    required: bool = True
    """The model is refused without it. With a cache, that is asked of the first pass only, which reads the prompt."""


def by_name(inputs: Iterable[ExtraInput]) -> dict[str, ExtraInput]:
    """Return what several architectures read together. LabError if two read one name in different shapes."""
    found: dict[str, ExtraInput] = {}
    for one in inputs:
        known = found.get(one.name, one)
        if known.by_token != one.by_token:
            raise LabError(
                f"extra input {one.name}: one architecture reads it for each token, another for each row"
            )
        found[one.name] = replace(one, required=one.required or known.required)
    return found


def checked(
    given: Mapping[str, Tensor], reads: Mapping[str, ExtraInput], rows: int, time: int, *, first: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the inputs of rows, [batch, ...], and those of tokens, [batch, time, ...].

    first: whether this pass reads the beginning of the text. LabError for a name that nobody reads, a required one that is
    missing, a shape that does not fit the tokens.
    """
    for name in given:
        if name not in reads:
            match = nearest(name, reads)
            hint = f"did you mean {match}?" if match else f"they read {', '.join(reads) or 'none'}"
            raise LabError(f"extra input {name}: no architecture of this model reads it; {hint}")
    for name, one in reads.items():
        if name not in given:
            if one.required and first:
                raise LabError(
                    f'extra input {name}: an architecture of this model needs it; give extra_inputs={{"{name}": ...}}'
                )
            continue
        expected = (rows, time) if one.by_token else (rows,)
        if given[name].shape[: len(expected)] != expected:
            raise LabError(
                f"extra input {name} is {list(given[name].shape)}; it begins with {list(expected)}, as the tokens do"
            )
    by_row = {name: x for name, x in given.items() if not reads[name].by_token}
    return by_row, {name: x for name, x in given.items() if reads[name].by_token}
