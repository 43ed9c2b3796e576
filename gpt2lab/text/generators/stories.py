"""TinyWorld: short stories drawn from a small grammar, so that every fact in them is known.

Three variants. *standard*: a child with a coloured toy loses it, meets a friend, finds it or does not; later
sentences must agree with the first mention of hero, friend, toy, colour and gender. *binding*: two children
with a place each and two toys with a colour each; later sentences name a child with its place or a toy with
its colour, so that the right word depends on which of two was named, and no word class gives it away. *nested*: verbs agree
in number with nouns that stand before other nouns and clauses (`nested`); its grammar is harder, and nobody is named.

Words are separated by single blanks, a sentence ends in " ." (a full stop stands nowhere else), everything
is lower case but the names. `gpt2lab.text.generators.story_parser` inverts the grammar exactly. The wording is
the lab's own; the shape follows the reduced-scale study of tinystories (after Eldan and Li 2023, arXiv
2305.07759). All of it is generated: no sentence comes from a corpus.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

import numpy as np

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.text.generators import nested

Variant = Literal["standard", "binding", "nested"]
Gender = Literal["girl", "boy"]
Ending = Literal["good", "bad", "none"]
VARIANTS: tuple[Variant, ...] = ("standard", "binding", "nested")

GIRLS = ("Anna", "Bella", "Clara", "Daisy", "Emma", "Fiona", "Grace", "Holly", "Ivy", "Julia", "Kate", "Lucy")
BOYS = ("Adam", "Ben", "Carl", "David", "Eric", "Fred", "George", "Henry", "Ian", "Jack", "Leo", "Max")
NAMES = GIRLS + BOYS
COLOURS = ("red", "blue", "green", "yellow", "pink", "purple", "brown", "white")
OBJECTS = (
    *("ball", "kite", "doll", "hat", "book", "cup", "drum", "boat", "car", "train"),
    *("bear", "bell", "box", "bag", "coat", "key", "ring", "spoon", "truck", "whistle"),
)
PLACES = (
    *("park", "garden", "forest", "beach", "farm", "school"),
    *("lake", "market", "hill", "river", "barn"),
)
GENDER_OF: dict[str, Gender] = {**dict.fromkeys(GIRLS, "girl"), **dict.fromkeys(BOYS, "boy")}
PRONOUNS: dict[Gender, dict[str, str]] = {
    "girl": {"boy": "girl", "he": "she", "him": "her", "his": "her"},
    "boy": {"boy": "boy", "he": "he", "him": "him", "his": "his"},
}
BAD_ENDING_SHARE = 0.3

T = TypeVar("T")

_GOOD_FIND = (
    "then {friend} found the {colour} {object} near the {place} .",
    "they looked and found the {object} near the {place} .",
)
_GOOD_END = (
    "{hero} said thank you to {friend} and gave {friend_him} a hug .",
    "{he} hugged {friend} and they were happy .",
)
_BAD_FIND = (
    "but they did not find the {object} near the {place} .",
    "they found the {colour} {object} but it was broken .",
)
_BAD_END = (
    "{hero} went home without {his} {object} and cried .",
    "{he} was sad and went home without it .",
)
STANDARD_OPENING: tuple[tuple[str, ...], ...] = (
    (
        "once upon a time there was a little {boy} named {hero} .",
        "one day a little {boy} named {hero} went to the {home} .",
        "{hero} was a little {boy} who lived near the {home} .",
    ),
    (
        "{he} had a {colour} {object} .",
        "{his} mom gave {him} a {colour} {object} .",
        "{he} liked to play with {his} {colour} {object} .",
    ),
    (
        "but one day the {object} was lost .",
        "then {he} could not find the {colour} {object} .",
        "one day {hero} lost the {object} .",
    ),
    (
        "{hero} was very sad and cried .",
        "{he} looked for the {object} all day .",
        "{hero} felt sad and did not want to play .",
    ),
    (
        "then {hero} saw {his} friend {friend} near the {place} .",
        "a {friend_boy} named {friend} came to the {place} and saw {him} .",
        "{hero} met {friend} near the {place} and told {friend_him} about it .",
    ),
    (
        '" did you see my {colour} {object} ? " asked {hero} .',
        '{friend} said , " i will help you find the {colour} {object} " .',
        '" please help me find my {colour} {object} , " said {hero} .',
    ),
)
"""Sentences 1-6: hero, object, loss, reaction, friend, dialogue; one of three each."""
STANDARD_ENDINGS: dict[Ending, tuple[tuple[str, ...], ...]] = {
    "good": (_GOOD_FIND, _GOOD_END),
    "bad": (_BAD_FIND, _BAD_END),
}
"""Sentences 7-8 by ending; one of two each."""

BINDING_OPENING: tuple[tuple[str, ...], ...] = (
    (
        "once upon a time {child_a} lived near the {place_a} and {child_b} lived near the {place_b} .",
        "{child_a} came from the {place_a} and {child_b} came from the {place_b} .",
        "one day {child_a} was at the {place_a} and {child_b} was at the {place_b} .",
    ),
    (
        "they had a {colour_a} {object_a} and a {colour_b} {object_b} .",
        "their mom gave them a {colour_a} {object_a} and a {colour_b} {object_b} .",
        "there was a {colour_a} {object_a} and a {colour_b} {object_b} .",
    ),
)
"""Sentences 1-2: the pairs (child, place) and (colour, object)."""
BINDING_QUERIES: tuple[str, ...] = (
    "then {child} went back to the {place} .",
    "they saw {child} play near the {place} .",
    "the home of {child} was near the {place} .",
    "the {object} was {colour} .",
    "they liked the {object} that was {colour} .",
    "they played with the {colour} {object} .",
)
"""Each later sentence is one of these about one of the two children or toys."""
BINDING_QUERY_SENTENCES = 6
LAST = ("then they all went home .", "they were all very happy .")


@dataclass(frozen=True, slots=True)
class Facts:
    """The ground truth of a standard story."""

    hero: str
    gender: Gender
    friend: str
    friend_gender: Gender
    colour: str
    object: str
    home: str | None
    """The place of sentence 1, where its template names one."""
    place: str
    """Where the friend is met and the search happens."""
    ending: Ending


@dataclass(frozen=True, slots=True)
class BindingFacts:
    """The ground truth of a binding story: who belongs where, which toy has which colour."""

    children: tuple[tuple[str, str], tuple[str, str]]
    """Two (child, place) pairs in the order told."""
    objects: tuple[tuple[str, str], tuple[str, str]]
    """Two (object, colour) pairs in the order told."""


@dataclass(frozen=True, slots=True)
class NestedFacts:
    """The ground truth of a nested story: which words agree."""

    agreements: tuple[nested.Agreement, ...]
    """Words of one number, a noun and its verbs, in the order told."""


AnyFacts = Facts | BindingFacts | NestedFacts


@dataclass(frozen=True, slots=True)
class Story:
    """A story: its text, one line without a separator, and what is true in it."""

    text: str
    facts: AnyFacts


MOST_STORIES = 10_000_000
"""Stories that are drawn at once, about 10 GB of them."""


def stories(seed: int, size: int, *, variant: Variant = "standard") -> list[Story]:
    """Return `size` stories, a pure function of its arguments; the first n of a larger size are the same n.

    seed: any integer >= 0. LabError for a negative seed or size, or an unknown variant.
    """
    if variant not in VARIANTS:
        raise unknown("TinyWorld variant", str(variant), VARIANTS)
    if seed < 0 or size < 0:
        raise LabError(f"TinyWorld needs a seed and a size of at least 0, got seed {seed}, size {size}")
    if size > MOST_STORIES:
        raise LabError(f"TinyWorld makes at most {MOST_STORIES:,} stories at once, got size {size:,}")
    tell, draws = _TELLERS[variant]
    # one row of uniforms a story, row-major: the prefix property, and 20 times faster than drawing one by one
    rows = np.random.default_rng([seed, VARIANTS.index(variant)]).random((size, draws)).tolist()
    return [tell(row) for row in rows]


def documents(seed: int, size: int, *, variant: Variant = "standard") -> list[str]:
    """Return only the texts of `stories`."""
    return [story.text for story in stories(seed, size, variant=variant)]


def templates(variant: Variant) -> tuple[tuple[str, ...], ...]:
    """Return the templates of a variant grouped by the place in the story where they may stand."""
    match variant:
        case "standard":
            return (*STANDARD_OPENING, *(_both_endings(i) for i in range(2)))
        case "binding":
            return (*BINDING_OPENING, *([BINDING_QUERIES] * BINDING_QUERY_SENTENCES), LAST)
        case "nested":
            return ((nested.OPENING,), *([nested.SENTENCES] * nested.COUNT), LAST)


@cache
def vocabulary(variant: Variant = "standard") -> tuple[str, ...]:
    """Return every word a story can contain, sorted (139 types in the standard variant, 101 and 84 in the others)."""
    fixed = {
        word for group in templates(variant) for text in group for word in text.split() if "{" not in word
    }
    filled = {*NAMES, *COLOURS, *OBJECTS, *PLACES}
    if variant == "standard":
        filled |= {word for forms in PRONOUNS.values() for word in forms.values()}
    elif variant == "nested":
        filled = {*nested.words(), *PLACES}
    return tuple(sorted(fixed | filled))


def _both_endings(i: int) -> tuple[str, ...]:
    return tuple(text for ending in STANDARD_ENDINGS.values() for text in ending[i])


def _pick(choices: Sequence[T], draw: float) -> T:
    return choices[int(draw * len(choices))]


def _other(choices: Sequence[T], first: T, draw: float) -> T:
    """Pick uniformly among the choices that are not `first`."""
    index = int(draw * (len(choices) - 1))
    return choices[index + (index >= choices.index(first))]


def _standard(draws: list[float]) -> Story:
    hero = _pick(NAMES, draws[0])
    friend = _other(NAMES, hero, draws[1])
    gender, friend_gender = GENDER_OF[hero], GENDER_OF[friend]
    colour, thing = _pick(COLOURS, draws[2]), _pick(OBJECTS, draws[3])
    home = _pick(PLACES, draws[4])
    place = _other(PLACES, home, draws[5])
    ending: Ending = "bad" if draws[6] < BAD_ENDING_SHARE else "good"
    groups = STANDARD_OPENING + STANDARD_ENDINGS[ending]
    chosen = [_pick(group, draw) for group, draw in zip(groups, draws[7:], strict=True)]
    words = {"hero": hero, "friend": friend, "colour": colour, "object": thing, "home": home, "place": place}
    words |= PRONOUNS[gender]
    words |= {"friend_boy": friend_gender, "friend_him": PRONOUNS[friend_gender]["him"]}
    told_home = home if "{home}" in chosen[0] else None
    facts = Facts(hero, gender, friend, friend_gender, colour, thing, told_home, place, ending)
    return Story(" ".join(chosen).format_map(words), facts)


def _binding(draws: list[float]) -> Story:
    child = _pick(NAMES, draws[0])
    place, colour, thing = _pick(PLACES, draws[1]), _pick(COLOURS, draws[2]), _pick(OBJECTS, draws[3])
    children = ((child, place), (_other(NAMES, child, draws[4]), _other(PLACES, place, draws[5])))
    objects = ((thing, colour), (_other(OBJECTS, thing, draws[6]), _other(COLOURS, colour, draws[7])))
    words = {f"child_{letter}": pair[0] for letter, pair in zip("ab", children, strict=True)}
    words |= {f"place_{letter}": pair[1] for letter, pair in zip("ab", children, strict=True)}
    words |= {f"object_{letter}": pair[0] for letter, pair in zip("ab", objects, strict=True)}
    words |= {f"colour_{letter}": pair[1] for letter, pair in zip("ab", objects, strict=True)}
    told = [
        _pick(group, draw).format_map(words) for group, draw in zip(BINDING_OPENING, draws[8:10], strict=True)
    ]
    for which, template in zip(draws[10:-1:2], draws[11:-1:2], strict=True):
        (child, place), (thing, colour) = _pick(children, which), _pick(objects, which)
        query = _pick(BINDING_QUERIES, template)
        told.append(query.format(child=child, place=place, object=thing, colour=colour))
    told.append(_pick(LAST, draws[-1]))
    return Story(" ".join(told), BindingFacts(children, objects))


def _nested(draws: list[float]) -> Story:
    *told, last = draws
    sentences, agreements = nested.tell(told, PLACES)
    return Story(" ".join([*sentences, _pick(LAST, last)]), NestedFacts(agreements))


_TELLERS: dict[Variant, tuple[Callable[[list[float]], Story], int]] = {
    "standard": (_standard, 15),
    "binding": (_binding, 10 + 2 * BINDING_QUERY_SENTENCES + 1),
    "nested": (_nested, nested.DRAWS + 1),
}
"""What tells a story, and how many uniform numbers it takes."""
