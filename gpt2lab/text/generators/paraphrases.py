"""Generated sentences of a small template English, and pairs of them that say the same or do not.

A sentence says who does what to whom and where: "the small dog chased the old wheel near the river". Its 8 adjectives, 14
nouns, 8 verbs and 5 places each have a synonym, and the place may come first. Two realisations of one content are a
paraphrase. Half of the other pairs differ in one noun or verb, half are unrelated. Further languages are word ciphers: every
word is replaced by an invented one, everything else stays. All of it is generated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gpt2lab.base.errors import LabError
from gpt2lab.text.generators.sequence_pairs import MATCH, Pair

ADJECTIVES = "small/little big/large old/ancient quick/fast glad/happy ill/sick smart/clever calm/quiet"
NOUNS = (
    "dog/hound cat/kitten child/kid doctor/physician teacher/tutor boat/ship stone/rock road/street "
    "house/home king/ruler thief/robber coat/jacket gift/present wheel/disc"
)
VERBS = "chased/pursued saw/noticed helped/aided found/located lifted/raised fixed/repaired sold/traded hid/concealed"
PLACES = "forest/woods river/stream hill/mound shop/store garden/yard"
LANGUAGES = 8
"""English and its ciphers."""
ONE_WORD, UNRELATED = "one_word", "unrelated"

_CONTENT, _PAIR, _ORDER, _CIPHER, _RETOLD = 0, 1, 2, 3, 4
_SLOTS = tuple(
    tuple(tuple(word.split("/")) for word in words.split())
    for words in (ADJECTIVES, NOUNS, VERBS, ADJECTIVES, NOUNS, PLACES)
)
_CHANGEABLE = (1, 2, 4)
"""The slots of nouns and the verb."""
_FUNCTION_WORDS = ("the", "near")
Content = tuple[int, ...]


def realise(content: Content, generator: np.random.Generator, language: int = 0) -> str:
    """Return a sentence that says a content: a synonym drawn for each of its words, the place first or last."""
    drawn = generator.integers(2, size=7).tolist()
    words = [slot[number][pick] for slot, number, pick in zip(_SLOTS, content, drawn, strict=False)]
    agent, place = f"the {words[0]} {words[1]}", f"near the {words[5]}"
    event = f"{agent} {words[2]} the {words[3]} {words[4]}"
    said = f"{place} {event}" if drawn[6] else f"{event} {place}"
    return said if language == 0 else " ".join(cipher(language)[word] for word in said.split())


@cache
def cipher(language: int) -> dict[str, str]:
    """Return the invented word for each English one. LabError for a language that there is not."""
    if not 1 <= language < LANGUAGES:
        raise LabError(f"paraphrases: languages are numbered 0 (English) to {LANGUAGES - 1}, got {language}")
    words = sorted({word for slot in _SLOTS for pair in slot for word in pair} | {*_FUNCTION_WORDS})
    generator = np.random.default_rng([_CIPHER, language])
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    found = dict[str, str]()
    for word in words:
        while word not in found or list(found.values()).count(found[word]) > 1:
            syllables = int(generator.integers(2, 4))
            letters = [
                (consonants[int(generator.integers(14))], vowels[int(generator.integers(5))])
                for _ in range(syllables)
            ]
            found[word] = "".join(a + b for a, b in letters)
    return found


@dataclass(frozen=True, kw_only=True)
class Paraphrases:
    """Sentences and pairs of a seed; number i is a pure function of the seed, the languages and i."""

    seed: int = 0
    """Of contents and realisations."""
    languages: int = 1
    """Languages, in turn: 1 is English alone, 3 are English and two ciphers of it."""

    def __post_init__(self) -> None:
        if self.seed < 0 or not 1 <= self.languages <= LANGUAGES:
            raise LabError(
                f"paraphrases: seed must be at least 0 and languages 1 to {LANGUAGES}, got {self.seed} and {self.languages}"
            )

    def sentence(self, number: int) -> str:
        """Return one sentence."""
        draw = np.random.default_rng([self.seed, _CONTENT, number])
        return realise(_content(draw), draw, number % self.languages)

    def retold(self, number: int) -> str:
        """Return one sentence and the same content in other words after it, as texts come back to what they have said."""
        draw = np.random.default_rng([self.seed, _RETOLD, number])
        content, language = _content(draw), number % self.languages
        return f"{realise(content, draw, language)} {realise(content, draw, language)}"

    def pair(self, number: int) -> Pair:
        """Return one pair, both of one language: type match, one_word or unrelated."""
        draw, language = np.random.default_rng([self.seed, _PAIR, number]), number % self.languages
        content, kind = _content(draw), self._kind(number // self.languages)
        other = content
        if kind == ONE_WORD:
            slot = _CHANGEABLE[int(draw.integers(len(_CHANGEABLE)))]
            changed = (content[slot] + 1 + int(draw.integers(len(_SLOTS[slot]) - 1))) % len(_SLOTS[slot])
            other = (*content[:slot], changed, *content[slot + 1 :])
        elif kind == UNRELATED:
            while other == content:
                other = _content(draw)
        first = realise(content, draw, language)
        second = realise(other, draw, language)
        while second == first:
            second = realise(other, draw, language)
        return Pair(first, second, int(kind == MATCH), kind)

    def _kind(self, number: int) -> str:
        """Of every four pairs of a language two match, one differs in a word, one is unrelated."""
        block, place = divmod(number, 4)
        order = np.random.default_rng([self.seed, _ORDER, block]).permutation(4)
        return (MATCH, MATCH, ONE_WORD, UNRELATED)[int(order[place])]


def _content(generator: np.random.Generator) -> Content:
    return tuple(int(generator.integers(len(slot))) for slot in _SLOTS)


def documents(seed: int, size: int, languages: int) -> Iterator[str]:
    """Yield sentences, one a document."""
    source = Paraphrases(seed=seed, languages=languages)
    return (source.sentence(number) for number in range(size))


def retold(seed: int, size: int, languages: int) -> Iterator[str]:
    """Yield documents of two sentences that say the same."""
    source = Paraphrases(seed=seed, languages=languages)
    return (source.retold(number) for number in range(size))


def rows(seed: int, size: int, languages: int) -> Iterator[dict[str, Any]]:
    """Yield pairs as rows; the field text holds both sentences with a blank between them."""
    source = Paraphrases(seed=seed, languages=languages)
    for number in range(size):
        pair = source.pair(number)
        yield {**pair.row(), "text": f"{pair.first} {pair.second}", "language": number % languages}
