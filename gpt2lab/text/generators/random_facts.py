"""Generated facts without meaning: people whose attributes are random strings, so that the information in them is known
exactly and every part of it can be set (Allen-Zhu and Li 2024, definition 2.2: bioD(N, K, C, D, L, T)).

N names are drawn without replacement from N0. Each of K attributes has a diversity set of D different strings of L symbols
out of T, drawn without replacement. A value is C strings, each uniform in the attribute's set. Two styles:

*sentences*: ` Jacob Noah Smith's ID 2 is qzk, abf. Their ID 1 is xyz, mno.`, names as in `biographies` (N0 = 1.6e8). A
symbol is written as small letters, as many for each, without a blank.
*symbols*: ` f12 m7 l40 id2 v1 v63 id1 v5 v6`, every symbol a word of its own, names of three words with 64 possible each
(N0 = 64³): for word-level tokenizers and models of a few thousand parameters.

The attributes stand in an order that is drawn anew at each exposure. All of it is generated.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.text.generators import biographies
from gpt2lab.text.generators.fact_text import NAME, FactText, Information, check_people, rows_of, uniforms
from gpt2lab.text.permutation import Permutation
from gpt2lab.text.spans import Span

Style = Literal["sentences", "symbols"]
STYLES: tuple[Style, ...] = ("sentences", "symbols")
FIRST = ", first string"
"""Ends the label of the span of a value's first string."""
_PEOPLE, _TOLD, _JUDGED, _STRINGS = 0, 1, 2, 3
_MOST_KEPT = 100_000
"""People whose values are kept as text."""
_MOST = 2**30
"""Symbols of all the diversity sets together, and strings of all the values together, at most."""
_MOST_WORDS = 1_000_000
"""Symbols of an alphabet, and words of each place of a name, at most."""
_COUNTED = 62
"""Bits of the numbers by which strings are told apart; more strings are never counted, T^L may have billions of digits."""


@dataclass(frozen=True, kw_only=True)
class RandomFacts:
    """The people of a seed and their facts; the first n of more people are the same n."""

    people: int
    """N: how many."""
    seed: int = 0
    """Of names, sets, values and orders."""
    attributes: int = 6
    """K: attributes of a person."""
    strings: int = 2
    """C: strings of a value."""
    diversity: int = 64
    """D: strings that an attribute draws from."""
    length: int = 1
    """L: symbols of a string."""
    alphabet: int = 64
    """T: symbols there are."""
    style: Style = "symbols"
    """sentences or symbols."""
    name_symbols: int = 64
    """symbols: how many words each of the three places of a name can have."""

    def __post_init__(self) -> None:
        for name in ("attributes", "strings", "diversity", "length", "alphabet", "name_symbols"):
            if getattr(self, name) < 1:
                raise LabError(f"random facts: {name} must be at least 1, got {getattr(self, name)}")
        if self.style not in STYLES:
            raise unknown("style of random facts", str(self.style), STYLES)
        for name in ("alphabet", "name_symbols"):
            if getattr(self, name) > _MOST_WORDS:
                raise LabError(
                    f"random facts: {name} must be at most {_MOST_WORDS:,}, got {getattr(self, name):,}"
                )
        if self._string_bits < _COUNTED and self.diversity > self.alphabet**self.length:
            raise LabError(
                f"random facts: diversity {self.diversity:,} is more than there are strings, "
                f"{self.alphabet}^{self.length} = {self.alphabet**self.length:,}"
            )
        if self.attributes * self.diversity * self.length > _MOST:
            raise LabError(
                f"random facts: the diversity sets of {self.attributes:,} attributes hold more than {_MOST:,} symbols; "
                "give fewer or shorter strings"
            )
        check_people("random facts", self.people, self.seed, self.name_pool)
        if self.people * self.attributes * self.strings > _MOST:
            raise LabError(
                f"random facts: the values of {self.people:,} people hold more than {_MOST:,} strings; ask for fewer"
            )

    @property
    def name_pool(self) -> int:
        """N0: the names there are."""
        if self.style == "symbols":
            return self.name_symbols**3
        return math.prod(
            len(biographies.vocabulary()[f"{which} name"]) for which in ("first", "middle", "last")
        )

    @property
    def information(self) -> Information:
        """What is to be known of the people."""
        return Information(
            self.people,
            self.name_pool,
            {_attribute(a): self.strings * math.log2(self.diversity) for a in self._numbers},
            sets=self.attributes,
            set_size=self.diversity,
            string_bits=self._string_bits,
        )

    def values(self, person: int) -> dict[str, str]:
        """Return a person's values by attribute, the name first."""
        return {NAME: self._name(person), **{_attribute(a): self._spelt(person)[a][0] for a in self._numbers}}

    def told(self, exposure: int, people: Sequence[int] | None = None) -> Iterator[FactText]:
        """Yield the texts of one exposure, of everybody in the order of their numbers, or of some."""
        return self._texts((_TOLD, exposure), people)

    def judged(self, draw: int, people: Sequence[int] | None = None) -> Iterator[FactText]:
        """Yield texts on which a model is judged, in orders drawn for that."""
        return self._texts((_JUDGED, draw), people)

    def inventory(self) -> Iterator[str]:
        """Yield texts that hold every marker: nothing else is the same for all people."""
        yield from (told.text for told in self.judged(0, [0]))

    def symbols(self) -> list[str]:
        """Return every word of the style `symbols`, for a word-level tokenizer. LabError for the other style."""
        if self.style != "symbols":
            raise LabError("random facts: sentences have no list of words; train a tokenizer on them")
        names = [f"{place}{i}" for place in "fml" for i in range(self.name_symbols)]
        return [*names, *map(_marker, self._numbers), *(f"v{i}" for i in range(self.alphabet))]

    @property
    def _string_bits(self) -> float:
        return self.length * math.log2(self.alphabet)

    @property
    def _numbers(self) -> range:
        return range(self.attributes)

    @cached_property
    def _named(self) -> npt.NDArray[np.int64]:
        """The number of everybody's name, all different, [people]."""
        return Permutation(self.name_pool, f"names {self.seed}")(np.arange(self.people, dtype=np.int64))

    @cached_property
    def _chosen(self) -> npt.NDArray[np.int64]:
        """Which strings each value is made of, [people, attributes, strings]."""
        shape = (self.people, self.attributes, self.strings)
        return np.random.default_rng([self.seed, _PEOPLE]).integers(self.diversity, size=shape)

    @cached_property
    def _sets(self) -> list[npt.NDArray[np.int64]]:
        """The diversity set of each attribute, [diversity, length] symbols."""
        return [self._set(attribute) for attribute in self._numbers]

    def _set(self, attribute: int) -> npt.NDArray[np.int64]:
        """Draw `diversity` different strings."""
        if self._string_bits < _COUNTED:
            count = self.alphabet**self.length
            numbers = Permutation(count, f"strings {self.seed} {attribute}")(np.arange(self.diversity))
            powers = self.alphabet ** np.arange(self.length, dtype=np.int64)
            return numbers[:, None] // powers % self.alphabet
        rng, found = np.random.default_rng([self.seed, _STRINGS, attribute]), dict[tuple[int, ...], None]()
        while len(found) < self.diversity:  # of so many strings hardly one is drawn twice
            found[tuple(rng.integers(self.alphabet, size=self.length).tolist())] = None
        return np.array(list(found), dtype=np.int64)

    def _texts(self, what: tuple[int, int], people: Sequence[int] | None) -> Iterator[FactText]:
        orders = uniforms([self.seed, *what], self.people, self.attributes).argsort(axis=1)
        for person in range(self.people) if people is None else people:
            yield self._told(person, orders[person].tolist())

    def _told(self, person: int, order: Sequence[int]) -> FactText:
        sentences, name = self.style == "sentences", self._name(person)
        text, spans = f" {name}", [Span(1, 1 + len(name), NAME)]
        for number, attribute in enumerate(order):
            if sentences:
                subject = " Their" if number else "'s"
                text += f"{subject} ID {attribute + 1} is "
            else:
                text += f" {_marker(attribute)} "
            value, first = self._spelt(person)[attribute]
            spans.append(Span(len(text), len(text) + len(value), _attribute(attribute)))
            spans.append(Span(len(text), len(text) + len(first), _attribute(attribute) + FIRST))
            text += f"{value}." if sentences else value
        return FactText(text, tuple(spans))

    def _name(self, person: int) -> str:
        number = int(self._named[person])
        if self.style == "sentences":
            return biographies.full_name(number)
        parts = []
        for place in "fml":
            number, symbol = divmod(number, self.name_symbols)
            parts.append(f"{place}{symbol}")
        return " ".join(parts)

    def _spelt(self, person: int) -> list[tuple[str, str]]:
        """Each value of a person as it is written, and its first string; kept, because every exposure asks again."""
        if person not in self._kept:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            between = ", " if self.style == "sentences" else " "
            strings = [
                [self._string(symbols) for symbols in self._sets[a][self._chosen[person, a]].tolist()]
                for a in self._numbers
            ]
            self._kept[person] = [(between.join(own), own[0]) for own in strings]
        return self._kept[person]

    @cached_property
    def _kept(self) -> dict[int, list[tuple[str, str]]]:
        return {}

    def _string(self, symbols: Sequence[int]) -> str:
        if self.style == "symbols":
            return " ".join(f"v{symbol}" for symbol in symbols)
        return "".join(self._letters[symbol] for symbol in symbols)

    @cached_property
    def _letters(self) -> list[str]:
        """How each symbol is written: small letters, as many for each."""
        width = max(1, math.ceil(math.log(self.alphabet, 26) - 1e-9))
        letters = "abcdefghijklmnopqrstuvwxyz"
        return [
            "".join(one) for one in itertools.islice(itertools.product(letters, repeat=width), self.alphabet)
        ]


def _attribute(number: int) -> str:
    return f"id {number + 1}"


def _marker(number: int) -> str:
    return f"id{number + 1}"


def rows(seed: int, size: int, exposures: int, **options: Any) -> Iterator[dict[str, Any]]:
    """Yield the texts of `size` people, each told `exposures` times, as rows; options as for `RandomFacts`."""
    return rows_of(RandomFacts(people=size, seed=seed, **options), exposures, seed)
