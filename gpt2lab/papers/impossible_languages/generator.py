"""Generated English whose every verb is annotated: sentences for the hop languages, with known numbers and attractors.

A sentence is a subject, a verb and five to twelve further words: `the small dog near the trees watches a red boat slowly .`
The subject's number is a fair coin. Half of the sentences are in the past, and no hop language changes them. Words are drawn
with weights 1, 1/2, 1/3, ... within their class, so that some are common and some are rare. The wording is the
lab's own; the languages that the sentences are made for are those of Kallini et al. 2024.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpt2lab.base.errors import LabError
from gpt2lab.papers.impossible_languages.annotations import Sentence, Word, features

_NOUNS = (
    "girl boy dog cat bird teacher doctor farmer king queen driver sailor baker singer painter writer "
    "nurse guard hunter friend sister brother cousin student lawyer banker pilot waiter clown giant horse "
    "duck rabbit frog goose:geese mouse:mice wolf:wolves fox:foxes child:children man:men woman:women "
    "baby:babies lady:ladies thief:thieves hero:heroes neighbour visitor captain soldier worker player "
    "dancer minister merchant gardener traveller stranger villager"
)
_THINGS = (
    "book ball boat house tree river garden table chair window door road bridge hill field lamp letter "
    "picture basket bottle box:boxes cup hat coat ring key clock bell drum flag stone flower apple cake "
    "knife:knives candle ladder mirror carpet wagon barrel blanket castle tower kitchen market forest "
    "island meadow valley village library station harbour"
)
_VERBS = (
    "see:sees:saw like:likes:liked watch:watches:watched find:finds:found keep:keeps:kept hold:holds:held "
    "want:wants:wanted paint:paints:painted clean:cleans:cleaned carry:carries:carried "
    "bring:brings:brought leave:leaves:left visit:visits:visited follow:follows:followed hear:hears:heard "
    "draw:draws:drew build:builds:built sell:sells:sold buy:buys:bought choose:chooses:chose "
    "open:opens:opened close:closes:closed lose:loses:lost hide:hides:hid touch:touches:touched "
    "study:studies:studied remember:remembers:remembered describe:describes:described "
    "admire:admires:admired protect:protects:protected repair:repairs:repaired measure:measures:measured "
    "examine:examines:examined decorate:decorates:decorated discover:discovers:discovered "
    "borrow:borrows:borrowed deliver:delivers:delivered polish:polishes:polished "
    "collect:collects:collected abandon:abandons:abandoned"
)
_ADJECTIVES = (
    "small big old young red blue green tall happy sad clean dark kind quiet loud warm cold round heavy "
    "empty broken golden wooden gentle clever famous ancient beautiful peculiar enormous"
)
_ADVERBS = (
    "often slowly quickly today again here there always carefully quietly together outside yesterday "
    "secretly happily suddenly politely patiently eventually accidentally"
)
_PREPOSITIONS = "near in by with behind under beside on at from across beyond"

ATTRACTORS = 0.3
"""Share of the subjects that are followed by a noun of the other number."""
COMPANIONS = 0.2
"""Share that are followed by a noun of their own number."""


@dataclass(frozen=True, slots=True)
class Made:
    """A generated sentence and what is known of it."""

    sentence: Sentence
    """Its words, annotated."""
    plural: bool
    """The number of subject and verb."""
    present: bool
    """Whether it is in the present tense, so that the hop languages change it."""
    attractor: bool
    """Whether a noun of the other number stands between subject and verb."""


def annotated(seed: int, size: int) -> list[Made]:
    """Return `size` sentences, a pure function of the seed; of more sentences the first ones are the same.

    LabError for a size below 1.
    """
    if size < 1:
        raise LabError(f"a generated corpus has at least one sentence, got {size}")
    draw = _Draw(np.random.default_rng(seed))
    return [_sentence(draw) for _ in range(size)]


def plural_of(noun: str) -> str | None:
    """Return the plural of a singular noun of the generator, None for any other word."""
    return dict(_BOTH).get(noun)


def vocabulary() -> list[str]:
    """Return every word that a sentence may hold, sorted, in all its forms."""
    forms = {form for pair in _BOTH for form in pair} | {form for verb in _PAST for form in verb}
    others = itertools.chain(*map(str.split, (_ADJECTIVES, _ADVERBS, _PREPOSITIONS)), *_DETERMINERS)
    return sorted(forms | set(others) | {",", "."})


class _Draw:
    """Uniform numbers of one generator, of which each sentence takes as many as it needs."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self._stock: Iterator[float] = iter(())

    def __call__(self) -> float:
        for value in self._stock:
            return value
        self._stock = iter(self.generator.random(4096).tolist())
        return next(self._stock)

    def chance(self, share: float) -> bool:
        return self() < share

    def of(self, choices: Sequence[str]) -> str:
        return choices[int(self() * len(choices))]

    def ranked(self, choices: "_Ranked") -> tuple[str, ...]:
        return choices.forms[int(np.searchsorted(choices.bounds, self(), side="right"))]


class _Ranked:
    """Words of one class, the r-th drawn with a weight of 1 / r."""

    def __init__(self, text: str, inflect: Callable[[str], tuple[str, ...]]) -> None:
        self.forms = [inflect(entry) for entry in text.split()]
        weights = 1.0 / np.arange(1, len(self.forms) + 1)
        self.bounds = np.cumsum(weights / weights.sum())[:-1]


def _noun(entry: str) -> tuple[str, ...]:
    singular, _, plural = entry.partition(":")
    return singular, plural or singular + "s"


_PEOPLE, _OBJECTS = _Ranked(_NOUNS, _noun), _Ranked(_THINGS, _noun)
_ACTIONS = _Ranked(_VERBS, lambda entry: tuple(entry.split(":")))
_BOTH = [(forms[0], forms[1]) for forms in (*_PEOPLE.forms, *_OBJECTS.forms)]
_PAST = _ACTIONS.forms
_QUALITIES, _MANNERS = (_Ranked(text, lambda word: (word,)) for text in (_ADJECTIVES, _ADVERBS))
_DETERMINERS = (
    ("the", "the", "a", "this", "that", "every"),
    ("the", "the", "some", "these", "those", "many"),
)


_Chunk = tuple[str, list[str]]
"""Words with their constituent, as a treebank brackets it: `(NP (DT the) (NN dog))`."""


def _phrase(draw: _Draw, nouns: _Ranked, plural: bool, *, adjective: float = 0.3) -> _Chunk:
    words, tags = [draw.of(_DETERMINERS[plural])], ["DT"]
    if draw.chance(adjective):
        words += draw.ranked(_QUALITIES)
        tags.append("JJ")
    words.append(draw.ranked(nouns)[plural])
    leaves = " ".join(
        f"({tag} {word})" for tag, word in zip([*tags, "NNS" if plural else "NN"], words, strict=True)
    )
    return f"(NP {leaves})", words


def _place(draw: _Draw, plural: bool, *, adjective: float = 0.3) -> _Chunk:
    preposition = draw.of(_PREPOSITIONS.split())
    parse, words = _phrase(draw, _OBJECTS, plural, adjective=adjective)
    return f"(PP (IN {preposition}) {parse})", [preposition, *words]


def _manner(draw: _Draw) -> _Chunk:
    (word,) = draw.ranked(_MANNERS)
    return f"(ADVP (RB {word}))", [word]


def _sentence(draw: _Draw) -> Made:
    plural, present = draw.chance(0.5), draw.chance(0.5)
    parse, subject = _phrase(draw, _PEOPLE, plural)
    kind = draw()
    attractor = kind < ATTRACTORS
    if kind < ATTRACTORS + COMPANIONS:
        further, between = _place(draw, plural ^ attractor)
        parse, subject = f"(NP {parse} {further})", [*subject, *between]
    base, third, past = draw.ranked(_ACTIONS)
    form = past if not present else base if plural else third
    chunks = _rest(draw)
    words = [Word(word, word) for word in subject]
    words.append(Word(form, base, _VERB_FEATURES[present, plural], "VERB"))
    words += [Word(word, word) for _, chunk in chunks for word in chunk]
    words.append(Word(".", "."))
    behind = " ".join(one for one, _ in chunks)
    whole = f"(S {parse} (VP (V {form}) {behind}) (. .))"
    sentence = Sentence(" ".join(word.text for word in words), tuple(words), parse=whole)
    return Made(sentence, plural, present, attractor)


_VERB_FEATURES = {
    (present, plural): features(
        f"Number={'Plur' if plural else 'Sing'}|Person=3|Tense={'Pres' if present else 'Past'}|VerbForm=Fin"
    )
    for present in (False, True)
    for plural in (False, True)
}


def _rest(draw: _Draw) -> list[_Chunk]:
    """Return the five to twelve words after the verb, in a quarter of the sentences a comma between constituents."""
    wanted, chunks = 5 + int(8 * draw()), [_phrase(draw, _OBJECTS, draw.chance(0.5), adjective=0.4)]
    while (left := wanted - sum(len(words) for _, words in chunks)) > 0:
        if left < 3 or not draw.chance(0.7):
            chunks.append(_manner(draw))
        else:
            chunks.append(_place(draw, draw.chance(0.5), adjective=0.4 * (left > 3)))
    if draw.chance(0.25):
        chunks.insert(1 + int(draw() * (len(chunks) - 1)), ("(, ,)", [","]))
    return chunks
