"""A generated language for comparing optimizers: bigrams, topics and copying, with a known best loss.

256 tokens. Token v has weight 1/(v + 5) in the base distribution p0, eight fixed successors and membership in some
of 16 topics of 16 tokens each; successors and topics are drawn from p0 and weighted 1/rank. The token after `a` is,
with probability

    0.50  a successor of a                                    (a bigram: learnt first)
    0.25  a token of the current topic                        (the topic changes every 64 tokens)
    0.17  what followed the previous occurrence of a          (copying: needs attention)
    0.08  a draw from p0; also in place of copying if a is new

The tables are the same for every seed; a seed decides the stream only. Everything is generated data.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError

VOCAB_SIZE = 256
TOPICS, TOPIC_TOKENS, SUCCESSORS, TOPIC_LENGTH = 16, 16, 8, 64
SUCCESSOR, TOPIC, COPY = 0.50, 0.25, 0.17
_TABLE_SEED = 1234

_Ids = npt.NDArray[np.int64]
_Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tables:
    """The language: what may follow what. All rows are distributions over the vocabulary."""

    base: _Probabilities
    """p0, [vocab]."""
    successors: _Probabilities
    """Next token after each token by bigram, [vocab, vocab]."""
    topics: _Probabilities
    """Tokens of each topic, [topics, vocab]."""


@dataclass(frozen=True)
class Stream:
    """A sample of the language with its ground truth."""

    tokens: _Ids
    """Token ids, [size]."""
    topics: _Ids
    """Topic in force at each token, [size]."""
    oracle_loss: float
    """Mean -log p(token) in nats under the process itself, which also knows the topic: no model does better on average."""


@cache
def tables() -> Tables:
    """Return the language's tables."""
    rng = np.random.default_rng(_TABLE_SEED)
    base = 1.0 / (np.arange(VOCAB_SIZE) + 5)
    base /= base.sum()
    return Tables(
        base,
        _ranked(rng, base, VOCAB_SIZE, SUCCESSORS),
        _ranked(rng, base, TOPICS, TOPIC_TOKENS),
    )


def stream(seed: int, size: int) -> Stream:
    """Draw `size` tokens; a pure function of its arguments. LabError for a negative seed or size."""
    if seed < 0 or size < 0:
        raise LabError(f"topic-bigrams: seed and size must not be negative, got {seed} and {size}")
    language, rng = tables(), np.random.default_rng(seed)
    topics = np.repeat(rng.integers(TOPICS, size=size // TOPIC_LENGTH + 1), TOPIC_LENGTH)[:size]
    kinds, places = rng.random(size), rng.random(size)
    # Plain lists: a token at a time they are several times faster than arrays, and draw the same.
    base = np.cumsum(language.base).tolist()
    successors, in_topic = (
        np.cumsum(rows, axis=1).tolist() for rows in (language.successors, language.topics)
    )
    tokens: list[int] = []
    copies: list[int] = []  # what followed the token before when it last occurred; -1 if it is new
    followed: dict[int, int] = {}
    before = -1
    for kind, place, topic in zip(kinds.tolist(), places.tolist(), topics.tolist(), strict=True):
        copied = followed.get(before, -1)
        if before >= 0 and kind < SUCCESSOR:
            token = _drawn(successors[before], place)
        elif SUCCESSOR <= kind < SUCCESSOR + TOPIC:
            token = _drawn(in_topic[topic], place)
        elif copied >= 0 and SUCCESSOR + TOPIC <= kind < SUCCESSOR + TOPIC + COPY:
            token = copied
        else:
            token = _drawn(base, place)
        tokens.append(token)
        copies.append(copied)
        if before >= 0:
            followed[before] = token
        before = token
    ids = np.array(tokens, dtype=np.int64)
    loss = (
        -np.log(_probabilities(language, ids, topics, np.array(copies, dtype=np.int64))).mean()
        if size
        else 0.0
    )
    return Stream(ids, topics, float(loss))


def _probabilities(language: Tables, tokens: _Ids, topics: _Ids, copied: _Ids) -> _Probabilities:
    """Return the process's own probability of each token, [size]."""
    before = np.concatenate([[-1], tokens[:-1]])
    follows, copies = before >= 0, copied >= 0
    rest = 1.0 - TOPIC - SUCCESSOR * follows - COPY * copies
    return np.asarray(
        TOPIC * language.topics[topics, tokens]
        + SUCCESSOR * follows * language.successors[before, tokens]
        + COPY * (copies & (copied == tokens))
        + rest * language.base[tokens]
    )


def _ranked(rng: np.random.Generator, base: _Probabilities, rows: int, members: int) -> _Probabilities:
    """Rows of `members` distinct tokens drawn from p0, weighted by 1/rank in the order they were drawn."""
    table = np.zeros((rows, VOCAB_SIZE))
    weights = 1.0 / np.arange(1, members + 1)
    for row in table:
        row[rng.choice(VOCAB_SIZE, size=members, replace=False, p=base)] = weights / weights.sum()
    return table


def _drawn(cumulative: Sequence[float], place: float) -> int:
    """The token at a place in [0, 1) of a cumulative distribution; rounding never leads to a token of weight zero."""
    return bisect_right(cumulative, place * cumulative[-1])
