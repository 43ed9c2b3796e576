"""The language of the optimizer studies: does the stream follow its own description?"""

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text.generators.topic_bigrams import TOPICS, VOCAB_SIZE, stream, tables


def test_the_tables_are_distributions_with_the_stated_supports() -> None:
    language = tables()
    assert language.base[0] / language.base[5] == pytest.approx(2.0)
    for table, rows, members in ((language.successors, VOCAB_SIZE, 8), (language.topics, TOPICS, 16)):
        assert table.shape == (rows, VOCAB_SIZE)
        assert np.allclose(table.sum(axis=1), 1.0)
        assert ((table > 0).sum(axis=1) == members).all()
        heaviest = np.sort(table, axis=1)[:, ::-1]
        assert np.allclose(heaviest[:, 0] / heaviest[:, 1], 2.0)  # ranks 1 and 2


def test_a_stream_is_a_function_of_seed_and_size_and_a_longer_one_is_another_draw_of_the_same_language() -> (
    None
):
    first, again, other = stream(3, 500), stream(3, 500), stream(4, 500)
    assert np.array_equal(first.tokens, again.tokens)
    assert not np.array_equal(first.tokens, other.tokens)
    assert stream(0, 0).tokens.shape == (0,)
    with pytest.raises(LabError, match="negative"):
        stream(0, -1)


def test_how_often_each_rule_is_used_matches_the_description() -> None:
    """Every token is scored by hand-written mixtures; a wrong rule or weight makes the frequencies disagree."""
    language, made = tables(), stream(1, 60_000)
    tokens, topics = made.tokens, made.topics
    assert (topics[:64] == topics[0]).all()
    followed: dict[int, int] = {}
    bigram = topic = 0.0
    expected_bigram = expected_topic = expected_copy = copied = 0.0
    loss = 0.0
    for i in range(1, len(tokens)):
        a, x = int(tokens[i - 1]), int(tokens[i])
        last = followed.get(a)
        mixture = 0.5 * language.successors[a] + 0.25 * language.topics[topics[i]]
        mixture = mixture + (0.08 if last is not None else 0.25) * language.base
        if last is not None:
            mixture[last] += 0.17
            expected_copy += mixture[last]
            copied += x == last
        assert mixture.sum() == pytest.approx(1.0)
        expected_bigram += mixture[language.successors[a] > 0].sum()
        bigram += language.successors[a, x] > 0
        expected_topic += mixture[language.topics[topics[i]] > 0].sum()
        topic += language.topics[topics[i], x] > 0
        loss -= np.log(mixture[x])
        followed[a] = x
    within = 4 * np.sqrt(len(tokens) / 4)  # four standard deviations of a fair coin, the widest there is
    assert abs(bigram - expected_bigram) < within
    assert abs(topic - expected_topic) < within
    assert abs(copied - expected_copy) < within
    assert made.oracle_loss == pytest.approx(loss / len(tokens), abs=1e-3)
