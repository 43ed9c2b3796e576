"""A generated language of topics and recurring names, for the removal at reduced scale.

236 words: end of text, full stop, 4 determiners, 40 adjectives, 80 nouns, 40 names in 20 couples, 50 verbs, 10 verbs of
giving, 10 prepositions. A document has one of 8 topics, which weights adjectives, nouns and verbs, the 2 names of a couple,
and 8 to 19 sentences: a quarter are NAME GIVES the other NAME NP full stop, the rest NP V [NP [P NP]] full stop.

The couple is ours, in the place of the specification's 3 names at random, and so are the sentences of giving, in which
its names recur: a small model learns in a short training to expect the names that a text has named, which is what patching
can bring back. Of the names at random it learns next to nothing in that time.
"""

import bisect
import random
from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.papers.layernorm_removal.patching import Prompts

END, DOT = 0, 1
SIZES = {
    "end": 1,
    "dot": 1,
    "determiner": 4,
    "adjective": 40,
    "noun": 80,
    "name": 40,
    "verb": 50,
    "giving": 10,
    "preposition": 10,
}
VOCAB_SIZE = sum(SIZES.values())
TOPICS, GIVING = 8, 0.25
_TABLE_SEED = 2507


def words(kind: str) -> range:
    """Return the ids of a word class. LabError for one that is not there."""
    if kind not in SIZES:
        raise LabError(f"{kind}: no such word class; there are {', '.join(SIZES)}")
    before = list(SIZES.values())[: list(SIZES).index(kind)]
    return range(sum(before), sum(before) + SIZES[kind])


_COUPLES = [[first, first + 1] for first in words("name")[::2]]


def tokens(seed: int, size: int) -> npt.NDArray[np.int64]:
    """Return the first `size` ids of documents drawn with a seed; a pure function of its arguments."""
    ids = list[int]()
    for document in documents(seed):
        if len(ids) >= size:
            break
        ids += document
    return np.array(ids[:size], dtype=np.int64)


def documents(seed: int) -> Iterator[list[int]]:
    """Yield documents without end, each closed by the end of text."""
    draw = random.Random(f"norms {seed}")  # faster than numpy by the word
    while True:
        topic, names = _topics()[draw.randrange(TOPICS)], draw.choice(_COUPLES)
        ids = list[int]()
        for _ in range(draw.randint(8, 19)):
            ids += _sentence(draw, topic, names)
        yield [*ids, END]


def _sentence(draw: random.Random, topic: dict[str, list[float]], names: list[int]) -> list[int]:
    if draw.random() < GIVING:
        giver, other = draw.sample(names, 2)
        return [giver, draw.choice(words("giving")), other, *_thing(draw, topic), DOT]
    ids = [*_noun_phrase(draw, topic, names), _word(draw, topic, "verb")]
    if draw.random() < 0.70:
        ids += _noun_phrase(draw, topic, names)
        if draw.random() < 0.25 / 0.70:  # a quarter of all sentences
            ids += [draw.choice(words("preposition")), *_noun_phrase(draw, topic, names)]
    return [*ids, DOT]


def _noun_phrase(draw: random.Random, topic: dict[str, list[float]], names: list[int]) -> list[int]:
    if draw.random() < 0.35:
        return [draw.choice(names)]
    return _thing(draw, topic)


def _thing(draw: random.Random, topic: dict[str, list[float]]) -> list[int]:
    adjective = [_word(draw, topic, "adjective")] if draw.random() < 0.4 else []
    return [draw.choice(words("determiner")), *adjective, _word(draw, topic, "noun")]


def _word(draw: random.Random, topic: dict[str, list[float]], kind: str) -> int:
    cumulative = topic[kind]
    return words(kind)[bisect.bisect_left(cumulative, draw.random() * cumulative[-1])]


@cache
def _topics() -> list[dict[str, list[float]]]:
    """Cumulative weights 1/rank · Gamma(0.3, 1) + 0.001 of the words of each class, by topic; the same for every seed."""
    rng = np.random.default_rng(_TABLE_SEED)
    made = list[dict[str, list[float]]]()
    for _ in range(TOPICS):
        weights = {
            kind: rng.gamma(0.3, 1.0, SIZES[kind]) / np.arange(1, SIZES[kind] + 1) + 1e-3
            for kind in ("adjective", "noun", "verb")
        }
        made.append({kind: np.cumsum(values).tolist() for kind, values in weights.items()})
    return made


def name_prompts(seed: int, count: int) -> Prompts:
    """Return prompts `NAME verb preposition determiner noun . determiner noun verb`; in the corrupt one another name.

    The answer is the clean prompt's name, which its text has named; against it stands that of the corrupt one, who is of
    another couple. They differ at position 1.
    """
    draw, pairs = random.Random(f"names {seed}"), list[list[int]]()
    rests = list[list[int]]()
    for _ in range(count):
        pairs.append([draw.choice(names) for names in draw.sample(_COUPLES, 2)])
        kinds = ("verb", "preposition", "determiner", "noun", "dot", "determiner", "noun", "verb")
        rests.append([draw.choice(words(kind)) for kind in kinds])
    named, other = torch.tensor(pairs).T
    clean, corrupt = (
        torch.tensor([[END, name, *rest] for name, rest in zip(column.tolist(), rests, strict=True)])
        for column in (named, other)
    )
    return Prompts(clean, corrupt, named, other)
