"""Skip-gram and CBOW with n-grams: the loss against a slow reference, the examples of a text, and what is learnt."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.text.skipgram import (
    SkipgramOptions,
    _pairs,
    _Table,
    _Training,
    negative_sampling_loss,
    train_skipgram,
)

ANIMALS, FOODS = ["catling", "dogling", "cowling"], ["breadful", "soupful", "riceful"]


def text(rows: int = 150) -> list[list[str]]:
    draw = np.random.default_rng(1)
    made = [[str(draw.choice(ANIMALS)), "runs", "very", "far"] for _ in range(rows)]
    return made + [[str(draw.choice(FOODS)), "tastes", "quite", "good"] for _ in range(rows)]


SMALL = SkipgramOptions(
    dimensions=12, buckets=300, epochs=6, batch_size=64, subsample=0, window=3, least=2, learning_rate=0.2
)


def test_the_loss_is_that_of_the_right_word_against_those_drawn() -> None:
    draw = np.random.default_rng(0)
    inputs, right, noise = (
        draw.standard_normal((3, 4)),
        draw.standard_normal((3, 4)),
        draw.standard_normal((3, 2, 4)),
    )
    drawn = np.array([[1, 1], [0, 1], [0, 0]], dtype=bool)
    found = negative_sampling_loss(*map(torch.tensor, (inputs, right, noise, drawn)))
    for i in range(3):
        slow = math.log(1 + math.exp(-sum(a * b for a, b in zip(inputs[i], right[i], strict=True))))
        for n in range(2):
            score = sum(a * b for a, b in zip(inputs[i], noise[i, n], strict=True))
            slow += math.log(1 + math.exp(score)) * drawn[i, n]
        assert float(found[i]) == pytest.approx(slow, rel=1e-12)


def test_pairs_are_those_of_a_walk_over_each_line_with_the_width_of_each_word() -> None:
    draw = np.random.default_rng(2)
    lines = np.repeat(np.arange(5), [4, 1, 7, 2, 3])
    widths = draw.integers(1, 4, len(lines))
    slow = Counter(
        (i, j)
        for i, j in itertools.permutations(range(len(lines)), 2)
        if lines[i] == lines[j] and abs(i - j) <= widths[i]
    )
    centres, contexts = _pairs(lines, widths, 3)
    assert Counter(zip(centres.tolist(), contexts.tolist(), strict=True)) == slow


@pytest.mark.parametrize("objective", ["skipgram", "cbow"])
def test_words_predict_through_the_mean_of_all_their_rows(objective: str) -> None:
    options = SkipgramOptions(**(SMALL.__dict__ | {"objective": objective}))
    words = sorted({word for line in text(20) for word in line})
    counts = Counter(word for line in text(20) for word in line)
    training = _Training(text(20), words, [counts[word] for word in words], options)
    seen = Counter()
    for some, lengths, predicted in training._batches():
        means = training._means(some, lengths).detach()
        ends = np.cumsum(lengths)
        for number, (start, end) in enumerate(zip(ends - lengths, ends, strict=True)):
            rows = [
                row
                for word in some[start:end]
                for row in training.row_ids[training.row_starts[word] :][: training.row_counts[word]]
            ]
            slow = training.inputs.rows[rows].double().mean(0)
            np.testing.assert_allclose(means[number], slow, rtol=1e-5, atol=1e-7)
            seen[len(some[start:end])] += 1
            assert 0 <= predicted[number] < len(words)
    assert set(seen) == ({1} if objective == "skipgram" else {1, 2, 3})


@pytest.mark.parametrize("objective", ["skipgram", "cbow"])
def test_words_of_like_contexts_come_near_and_unknown_words_have_vectors(objective: str) -> None:
    vectors = train_skipgram(text(100), SkipgramOptions(**(SMALL.__dict__ | {"objective": objective})))
    known = vectors.known()
    assert known.counts == tuple(sorted(known.counts or (), reverse=True))
    assert {word for word, _ in known.neighbours("catling", 2)} == {"dogling", "cowling"}
    assert {word for word, _ in known.neighbours("soupful", 2)} == {"breadful", "riceful"}
    assert known.neighbours(vectors["pigling"], 1)[0][0] in ANIMALS


def test_the_seed_decides_every_bit_and_n_grams_can_be_left_out() -> None:
    one, same, other, plain = (
        train_skipgram(text(10), SkipgramOptions(**(SMALL.__dict__ | {"epochs": 1} | changed)))
        for changed in ({}, {}, {"seed": 1}, {"longest": 0})
    )
    assert np.array_equal(one.rows, same.rows) and not np.array_equal(one.rows, other.rows)
    assert one.has_ngrams and not plain.has_ngrams and len(plain.rows) == len(plain.words)


def test_an_update_is_adagrads_on_the_rows_that_were_read() -> None:
    draw = np.random.default_rng(0)
    table = _Table(torch.from_numpy(draw.standard_normal((5, 2))))
    rows, squares = table.rows.numpy().copy(), np.zeros((5, 2))
    for ids in (np.array([3, 1, 3]), np.array([1, 4])):
        taken, where = table.take(ids)
        (
            taken[where].square().sum() / 2
        ).backward()  # the gradient of a row is itself, as often as it is read
        table.update(0.1)
        for row in set(ids.tolist()):
            gradient = rows[row] * (ids == row).sum()
            squares[row] += gradient**2
            rows[row] -= 0.1 * gradient / (np.sqrt(squares[row]) + 1e-10)
        np.testing.assert_allclose(table.rows.numpy(), rows, rtol=1e-8)


def test_frequent_words_are_left_out_more_often() -> None:
    lines = [["the", "the", "the", "rare"]] * 500
    training = _Training(lines, ["the", "rare"], [1500, 500], SkipgramOptions(least=1, subsample=0.1))
    ids, _ = training._subsampled()
    for word, share in ((0, 0.75), (1, 0.25)):
        expected = min(1.0, math.sqrt(0.1 / share) + 0.1 / share) * (1500, 500)[word]
        assert abs(int((ids == word).sum()) - expected) < 4 * math.sqrt(expected)


@pytest.mark.parametrize(
    ("sentences", "options", "reason"),
    [
        ([["a"] * 9], {}, "1 words occur 5 times"),
        ([["a"], ["b"]] * 9, {}, "no two kept words"),
        ([], {"window": 0}, "window must be at least 1"),
        ([], {"shortest": 7}, "n-grams of 7 to 6"),
        ([], {"buckets": 0}, "at least 1 bucket"),
        ([], {"learning_rate": 0.0}, "above 0"),
    ],
)
def test_what_cannot_be_trained_is_refused(sentences: list[list[str]], options: dict, reason: str) -> None:
    with pytest.raises(LabError, match=reason):
        train_skipgram(sentences, SkipgramOptions(**options))
