"""Texts that state facts, with the characters at which each fact stands: what the generators of facts have in common."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError
from gpt2lab.text.permutation import Permutation
from gpt2lab.text.spans import Span

NAME = "name"
"""Label of the span of a name."""
MOST_PEOPLE = 20_000_000
"""People of one source: the paper's largest."""


@dataclass(frozen=True, slots=True)
class FactText:
    """One text about one person."""

    text: str
    """The text, without an end token."""
    spans: tuple[Span, ...]
    """The name and every value once each, in the order of the text, labelled with the attribute."""


@dataclass(frozen=True)
class Information:
    """How much there is to know of people, in bits of uniform draws."""

    people: int
    """N: how many there are."""
    name_pool: int
    """N0: from how many names theirs are drawn without replacement."""
    values: Mapping[str, float]
    """log2 of how many values each attribute can have, which are drawn independently for every person."""
    sets: int = 0
    """K: how many diversity sets are themselves drawn."""
    set_size: int = 1
    """D: different strings in each of them."""
    string_bits: float = 0.0
    """L log2 T: log2 of how many strings there are."""


class FactSource(Protocol):
    """People with a name and values drawn at random, told in texts of which each is one exposure."""

    @property
    def people(self) -> int:
        """How many people there are."""
        ...

    @property
    def information(self) -> Information:
        """What is to be known of the people."""
        ...

    def told(self, exposure: int, people: Sequence[int] | None = None) -> Iterator[FactText]:
        """Yield the texts of one exposure, of everybody in the order of their numbers, or of some."""
        ...

    def judged(self, draw: int, people: Sequence[int] | None = None) -> Iterator[FactText]:
        """Yield texts on which a model is judged: no fact gives another away that is asked for later."""
        ...

    def inventory(self) -> Iterator[str]:
        """Yield texts that hold every sentence, whatever the people: with their texts, all that the source can say."""
        ...

    def values(self, person: int) -> Mapping[str, str]:
        """Return the values of a person by attribute, the name among them."""
        ...


def check_people(where: str, people: int, seed: int, pool: int) -> None:
    """LabError for a number of people or a seed that cannot be."""
    if seed < 0:
        raise LabError(f"{where}: seed must be at least 0, got {seed}")
    if people < 1 or people > MOST_PEOPLE:
        raise LabError(f"{where}: people must lie between 1 and {MOST_PEOPLE:,}, got {people:,}")
    if people > pool:
        raise LabError(
            f"{where}: {people:,} people cannot have different names, there are {pool:,}; ask for fewer people"
        )


def uniforms(key: Sequence[int], rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Return numbers of [0, 1) [rows, columns], a pure function of the arguments; fewer rows are the first ones."""
    return np.random.default_rng(list(key)).random((rows, columns), dtype=np.float32)


def rows_of(source: FactSource, exposures: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each text of so many exposures: text, exposure, person and the values by attribute.

    In every exposure each person stands once, in an order of its own. LabError for fewer than one exposure.
    """
    if exposures < 1:
        raise LabError(f"exposures must be at least 1, got {exposures}")
    return _rows(source, exposures, seed)


def _rows(source: FactSource, exposures: int, seed: int) -> Iterator[dict[str, Any]]:
    for exposure in range(exposures):
        order = Permutation(source.people, f"people {seed} {exposure}")(
            np.arange(source.people, dtype=np.int64)
        )
        for person, told in zip(order.tolist(), source.told(exposure, order.tolist()), strict=True):
            yield {"text": told.text, "exposure": exposure, "person": person, **source.values(person)}
