"""Generated biographies of invented people: six sentences of facts drawn uniformly and independently, so that the
information in them is known exactly (Allen-Zhu and Li 2024, section 2: bioS, bioS_simple, bioR).

A person has a full name of 400 · 400 · 1000, drawn without replacement, and a birth date (12 months, 28 days, 200 years
from 1900 on), a birth city (200), a university (300), a major (100), an employer (263) and a pronoun (2). The working city
is that of the employer's headquarters and holds no information of its own. The first sentence begins with the full name,
the others with the pronoun, a blank stands before each. No full stop follows a value that itself ends in a mark, so that no
token joins the two.

Three variants: *rewritten* draws one of about fifty sentences for every attribute, and their order, anew at each exposure;
*fixed* draws them once a person; *varied* has forty fixed texts a person with openings, and sentences without facts between
the others: it stands for texts that a language model has written. The wording is the lab's own, the values are those of the
paper's public code (`data/SOURCE.md`). All of it is generated.
"""

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import unknown
from gpt2lab.text.generators.fact_text import NAME, FactText, Information, check_people, rows_of, uniforms
from gpt2lab.text.permutation import Permutation
from gpt2lab.text.spans import Span

Variant = Literal["rewritten", "fixed", "varied"]
VARIANTS: tuple[Variant, ...] = ("rewritten", "fixed", "varied")
TEXTS_OF_A_PERSON = 40
"""Fixed texts of each person in the variant `varied`."""
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
DAYS, FIRST_YEAR, YEARS = 28, 1900, 200
PRONOUNS = ("He", "She")
GENDER, EMPLOYER, WORKING_CITY = "gender", "employer", "working city"
SENTENCES = ("birth date", "birth city", "university", "major", EMPLOYER, WORKING_CITY)
"""What each of the six sentences tells."""
_DRAWS = 12 + 5 * 6
"""Uniform numbers of a text: sentences and their order, and of `varied` what stands around each."""
_PEOPLE, _TOLD, _JUDGED = 0, 1, 2


@cache
def vocabulary() -> Mapping[str, tuple[str, ...]]:
    """Return the values by field: first name, middle name, last name, city, university, major, employer, headquarters."""
    return {name: tuple(values) for name, values in _data("biography_values.toml").items()}


@cache
def sentences() -> Mapping[str, tuple[str, ...]]:
    """Return the sentences of each attribute; `{}` is the value, the subject stands before."""
    return {name: tuple(texts) for name, texts in _data("biography_sentences.toml")["sentences"].items()}


@cache
def _around() -> Mapping[str, tuple[str, ...]]:
    return {name: tuple(texts) for name, texts in _data("biography_sentences.toml")["around"].items()}


def _data(name: str) -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parents[1] / "data" / name).read_text(encoding="utf-8"))


@dataclass(frozen=True, kw_only=True)
class Biographies:
    """The people of a seed and their biographies; the first n of more people are the same n."""

    people: int
    """How many."""
    seed: int = 0
    """Of names, values and texts."""
    variant: Variant = "rewritten"
    """rewritten, fixed or varied."""

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise unknown("variant of biographies", str(self.variant), VARIANTS)
        check_people("biographies", self.people, self.seed, self.name_pool)

    @property
    def name_pool(self) -> int:
        """N0: the full names there are."""
        return math.prod(map(len, _names()))

    @property
    def choices(self) -> dict[str, int]:
        """How many values each attribute that holds information can have."""
        known = vocabulary()
        return {
            "birth date": len(MONTHS) * DAYS * YEARS,
            "birth city": len(known["city"]),
            "university": len(known["university"]),
            "major": len(known["major"]),
            EMPLOYER: len(known["employer"]),
            GENDER: len(PRONOUNS),
        }

    @property
    def information(self) -> Information:
        """What is to be known of the people."""
        return Information(
            self.people, self.name_pool, {name: math.log2(count) for name, count in self.choices.items()}
        )

    def values(self, person: int) -> dict[str, str]:
        """Return a person's values by attribute, the name first."""
        known = vocabulary()
        drawn = [int(count * draw) for count, draw in zip(_counts(), self._drawn[person], strict=True)]
        month, day, year, city, university, major, employer, pronoun = drawn
        return {
            NAME: full_name(int(self._named[person])),
            "birth date": f"{MONTHS[month]} {day + 1}, {FIRST_YEAR + year}",
            "birth city": known["city"][city],
            "university": known["university"][university],
            "major": known["major"][major],
            EMPLOYER: known["employer"][employer],
            WORKING_CITY: known["headquarters"][employer],
            GENDER: PRONOUNS[pronoun],
        }

    def told(self, exposure: int, people: Sequence[int] | None = None) -> Iterator[FactText]:
        """Yield the texts of one exposure, of everybody in the order of their numbers, or of some."""
        which = {"rewritten": exposure, "fixed": 0, "varied": exposure % TEXTS_OF_A_PERSON}[self.variant]
        return self._texts((_TOLD, which), people, ordered=self.variant != "rewritten")

    def judged(self, draw: int, people: Sequence[int] | None = None) -> Iterator[FactText]:
        """Yield texts on which a model is judged: the employer stands before the working city, which gives it away.

        Of the variant `rewritten` they are drawn anew; the others have no texts but those that are told, where the
        employer always comes first.
        """
        if self.variant != "rewritten":
            return self.told(draw, people)
        return self._texts((_JUDGED, draw), people, ordered=True)

    def inventory(self) -> Iterator[str]:
        """Yield texts of the first person that hold every sentence, opening and distraction."""
        values = self.values(0)
        for name, texts in sentences().items():
            for text in texts:
                yield _sentence(values[NAME], text, values[name])[0]
        for subject in PRONOUNS:
            yield f" {subject} {sentences()['major'][0].format(values['major'])}."
            if self.variant == "varied":
                yield from (f" {opening} {subject.lower()}" for opening in _around()["openings"])
                yield from (
                    f" {subject} {adverb} {activity}."
                    for adverb in _around()["adverbs"]
                    for activity in _around()["activities"]
                )

    @cached_property
    def _named(self) -> npt.NDArray[np.int64]:
        """The number of everybody's name, all different, [people]."""
        numbers = np.arange(self.people, dtype=np.int64)
        return Permutation(self.name_pool, f"names {self.seed}")(numbers)

    @cached_property
    def _drawn(self) -> npt.NDArray[np.float64]:
        """What decides everybody's values, [people, 8], uniform in [0, 1)."""
        return np.random.default_rng([self.seed, _PEOPLE]).random((self.people, len(_counts())))

    def _texts(
        self, what: tuple[int, int], people: Sequence[int] | None, *, ordered: bool
    ) -> Iterator[FactText]:
        draws = uniforms([self.seed, *what, VARIANTS.index(self.variant)], self.people, _DRAWS)
        for person in range(self.people) if people is None else people:
            yield self._told(self.values(person), draws[person].tolist(), ordered)

    def _told(self, values: Mapping[str, str], draws: list[float], ordered: bool) -> FactText:
        order = sorted(range(6), key=lambda place: draws[6 + place])
        first, second = order.index(SENTENCES.index(EMPLOYER)), order.index(SENTENCES.index(WORKING_CITY))
        if ordered and second < first:
            order[first], order[second] = order[second], order[first]
        text, spans, subject = "", list[Span](), values[NAME]
        for number, place in enumerate(order):
            name = SENTENCES[place]
            opening, between = "", ""
            if self.variant == "varied" and number:
                opening, between = _surroundings(draws[12 + 5 * place : 17 + 5 * place], subject)
            text += between
            wording = sentences()[name]
            told, (start, end) = _sentence(
                subject, wording[int(len(wording) * draws[place])], values[name], opening
            )
            if number < 2:
                spans.append(_subject_span(text, told, subject, NAME if number == 0 else GENDER, spans))
            spans.append(Span(len(text) + start, len(text) + end, name))
            text, subject = text + told, values[GENDER]
        return FactText(text, tuple(sorted(spans)))


def full_name(number: int) -> str:
    """Return one of the full names by its number, 0 … N0 - 1."""
    first, middle, last = _names()
    index, last_name = divmod(number, len(last))
    return f"{first[index // len(middle)]} {middle[index % len(middle)]} {last[last_name]}"


def _subject_span(text: str, told: str, subject: str, label: str, spans: Sequence[Span]) -> Span:
    """Where the subject first stands: the name at the beginning, the pronoun after the first sentence."""
    behind = max((span.end for span in spans), default=0)
    start = (text + told).lower().index(f" {subject.lower()} ", behind) + 1
    return Span(start, start + len(subject), label)


def _sentence(subject: str, wording: str, value: str, opening: str = "") -> tuple[str, tuple[int, int]]:
    """Return ` subject …value….` and the characters of the value."""
    head, tail = wording.split("{}")
    begun = f" {opening}{subject.lower() if opening else subject} {head}"
    closed = "" if not tail and not value[-1].isalnum() else "."
    return f"{begun}{value}{tail}{closed}", (len(begun), len(begun) + len(value))


def _surroundings(draws: Sequence[float], subject: str) -> tuple[str, str]:
    """An opening of a sentence of the variant `varied` and a sentence without facts before it; either may be empty."""
    around = _around()
    opening, adverb, activity = (
        texts[int(len(texts) * draw)]
        for texts, draw in zip(
            (around["openings"], around["adverbs"], around["activities"]), draws[2:], strict=True
        )
    )
    before = f" {subject} {adverb} {activity}." if draws[0] < 0.5 else ""
    return f"{opening} " if draws[1] < 0.5 else "", before


@cache
def _names() -> tuple[tuple[str, ...], ...]:
    return tuple(vocabulary()[f"{which} name"] for which in ("first", "middle", "last"))


@cache
def _counts() -> tuple[int, ...]:
    known = vocabulary()
    lists = (known[name] for name in ("city", "university", "major", "employer"))
    return (len(MONTHS), DAYS, YEARS, *map(len, lists), len(PRONOUNS))


def rows(seed: int, size: int, exposures: int, variant: Variant = "rewritten") -> Iterator[dict[str, Any]]:
    """Yield the texts of `size` people, each told `exposures` times, as rows; see `fact_text.rows_of`."""
    return rows_of(Biographies(people=size, seed=seed, variant=variant), exposures, seed)
