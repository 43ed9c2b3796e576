"""The nested variant of TinyWorld: sentences whose verbs agree with nouns that stand far before them.

Between a noun and its verb stand other nouns, of their own number, and up to two clauses with verbs of their own.
Neighbouring words do not give the right form away: a model that knows only which words follow which writes sentences
that the grammar refuses. The wording is the lab's own.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TypeVar

T = TypeVar("T")

NOUNS = (
    *(("girl", "girls"), ("boy", "boys"), ("dog", "dogs"), ("cat", "cats"), ("bird", "birds")),
    *(("horse", "horses"), ("duck", "ducks"), ("mouse", "mice"), ("rabbit", "rabbits"), ("frog", "frogs")),
)
"""Singular and plural, as all pairs below."""
_FORMS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": NOUNS,
    "verb": (("likes", "like"), ("sees", "see"), ("hears", "hear"), ("knows", "know"), ("helps", "help")),
    "goes": (("runs", "run"), ("sings", "sing"), ("sleeps", "sleep"), ("waits", "wait"), ("jumps", "jump")),
    "is": (("is", "are"),),
    "was": (("was", "were"),),
    "some": (("a", "some"),),
}
ADJECTIVES = ("happy", "sad", "small", "big", "old", "young", "kind", "loud")
OPENING = "once upon a time there {was_a} {some_a} {noun_a} near the {place} ."
SENTENCES = (
    "the {noun_a} near the {place} {goes_a} .",
    "the {noun_a} that {verb_a} the {noun_b} {is_a} {adjective} .",
    "the {noun_a} that the {noun_b} {verb_b} {goes_a} .",
    "the {noun_a} near the {noun_b} that {verb_b} the {noun_c} {goes_a} every day .",
    "the {noun_a} that the {noun_b} near the {noun_c} {verb_b} {is_a} {adjective} .",
    "the {noun_a} that the {noun_b} that the {noun_c} {verb_c} {verb_b} {goes_a} near the {place} .",
)
"""Slots of one letter agree in number."""
COUNT = 6
"""Sentences of a story between its first and its last."""
_LETTERS = "abc"
_EACH = 1 + 3 * len(_LETTERS) + 3
DRAWS = 3 + COUNT * _EACH
"""Uniform numbers that a story takes."""
_NUMBERS = {form: number for pairs in _FORMS.values() for pair in pairs for number, form in enumerate(pair)}

Agreement = tuple[str, ...]
"""Words that agree in number, in the order they stand: a noun and its verb."""


def tell(draws: Sequence[float], places: Sequence[str]) -> tuple[list[str], tuple[Agreement, ...]]:
    """Return the sentences of a story before its last, and what agrees in them."""
    number, noun, place = int(2 * draws[0]), _pick(NOUNS, draws[1]), _pick(places, draws[2])
    words = {slot: _FORMS[slot][0][number] for slot in ("was", "some")} | {"noun": noun[number]}
    told = [(OPENING, {f"{slot}_a": word for slot, word in words.items()} | {"place": place})]
    for start in range(3, DRAWS, _EACH):
        told.append(_sentence(draws[start : start + _EACH], places))
    agreed = (agreements((slot, words[slot]) for slot in slots(text)) for text, words in told)
    return [text.format_map(words) for text, words in told], tuple(one for each in agreed for one in each)


def _sentence(draws: Sequence[float], places: Sequence[str]) -> tuple[str, dict[str, str]]:
    text = _pick(SENTENCES, draws[0])
    words = {"adjective": _pick(ADJECTIVES, draws[1]), "place": _pick(places, draws[2])}
    goes = _pick(_FORMS["goes"], draws[3])
    for letter, which in zip(_LETTERS, range(4, _EACH, 3), strict=True):
        number = int(2 * draws[which])
        words[f"noun_{letter}"] = _pick(NOUNS, draws[which + 1])[number]
        words[f"verb_{letter}"] = _pick(_FORMS["verb"], draws[which + 2])[number]
        words[f"goes_{letter}"], words[f"is_{letter}"] = goes[number], _FORMS["is"][0][number]
    return text, words


def agreements(filled: Iterable[tuple[str, str]]) -> list[Agreement]:
    """Return the words of a sentence's (slot, word) pairs that should agree: those of one letter."""
    groups: dict[str, list[str]] = {}
    for slot, word in filled:
        if word in _NUMBERS and "_" in slot:
            groups.setdefault(slot[-1], []).append(word)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def agree(filled: Iterable[tuple[str, str]]) -> bool:
    """Tell whether all words of a sentence agree that should."""
    return all(len({_NUMBERS[word] for word in group}) == 1 for group in agreements(filled))


@cache
def lexicon(slot: str) -> frozenset[str] | None:
    """Return the words that a slot takes, of both numbers; None for a slot of other variants."""
    base = slot.partition("_")[0]
    if base == "adjective":
        return frozenset(ADJECTIVES)
    return frozenset(form for pair in _FORMS[base] for form in pair) if base in _FORMS else None


@cache
def words() -> frozenset[str]:
    """Return every word that fills a slot, but for places."""
    return frozenset({*_NUMBERS, *ADJECTIVES})


def slots(text: str) -> list[str]:
    """Return the slots of a template in the order they stand."""
    return re.findall(r"{(\w+)}", text)


def _pick(choices: Sequence[T], draw: float) -> T:
    return choices[int(draw * len(choices))]
