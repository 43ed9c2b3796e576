"""Text metrics against the rouge-score package, brute force, and the papers' definitions worked by hand."""

import itertools
import math
import random
import time
from collections.abc import Hashable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from gpt2lab.base.errors import LabError
from gpt2lab.measures import copying
from gpt2lab.measures import text_metrics as ours

CAT = "The cat sat on the mat; the cat slept."
DOG = "A dog sat on the mat, and the cat slept on the dog!"

few_tokens = st.lists(st.integers(0, 3), max_size=12)
texts_of_tokens = st.lists(few_tokens, min_size=1, max_size=6)


@given(st.text("ab cd.1", max_size=40), st.text("ab cd.1", max_size=40))
@settings(max_examples=200, deadline=None)
def test_rouge_equals_the_rouge_score_package(candidate: str, reference: str) -> None:
    expected = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rouge3", "rougeL"]).score(reference, candidate)
    found = {f"rouge{n}": ours.rouge_n(candidate, reference, n) for n in (1, 2, 3)}
    found["rougeL"] = ours.rouge_l(candidate, reference)
    for name, rouge in found.items():
        assert (rouge.precision, rouge.recall, rouge.f) == pytest.approx(tuple(expected[name]), abs=1e-12)


def test_clipping_counts_a_repeated_ngram_once_and_membership_each_time() -> None:
    clipped = ours.rouge_n("the the the cat", "the cat", 1)
    member = ours.rouge_n("the the the cat", "the cat", 1, counting="membership")
    assert (clipped.precision, clipped.recall) == (0.5, 1.0)
    assert (member.precision, member.recall) == (1.0, 1.0)


def test_membership_by_the_definition() -> None:
    first, second = ours.words(CAT), ours.words(DOG)
    pairs, others = list(itertools.pairwise(first)), list(itertools.pairwise(second))
    rouge = ours.rouge_n(CAT, DOG, 2, counting="membership")
    assert rouge.precision == sum(pair in others for pair in pairs) / len(pairs)
    assert rouge.recall == sum(pair in pairs for pair in others) / len(others)


def test_a_text_shorter_than_n_scores_zero_and_not_one() -> None:
    assert ours.rouge_n("cat", "cat", 2) == ours.Rouge(0.0, 0.0)
    assert ours.rouge_n("", "", 1).f == 0.0
    assert ours.rouge_l("", "cat").f == 0.0


def test_words_are_lower_cased_letters_and_digits_of_any_script() -> None:
    assert ours.words("Don't_stop: Élan 42!") == ["don", "t", "stop", "élan", "42"]


def test_token_ids_and_strings_mean_the_same() -> None:
    ids = {word: i for i, word in enumerate(sorted(set(ours.words(CAT + DOG))))}
    cat, dog = ([ids[word] for word in ours.words(text)] for text in (CAT, DOG))
    assert ours.rouge_n(cat, dog, 2) == ours.rouge_n(CAT, DOG, 2)
    assert ours.rouge_l(cat, dog) == ours.rouge_l(CAT, DOG)


def _slow_lcs(first: Sequence[int], second: Sequence[int]) -> int:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(few_tokens, few_tokens)
@settings(max_examples=150, deadline=None)
def test_the_bitwise_subsequence_equals_the_table(first: list[int], second: list[int]) -> None:
    assert ours.common_subsequence(first, second) == _slow_lcs(first, second)


def _holds(text: Sequence[Hashable], span: Sequence[Hashable]) -> bool:
    return any(list(text[i : i + len(span)]) == list(span) for i in range(len(text) - len(span) + 1))


def _slow_longest(text: Sequence[int], corpus: Sequence[Sequence[int]]) -> int:
    lengths = [
        end - start
        for start in range(len(text))
        for end in range(start + 1, len(text) + 1)
        if any(_holds(other, text[start:end]) for other in corpus)
    ]
    return max(lengths, default=0)


@given(texts_of_tokens, texts_of_tokens)
@settings(max_examples=200, deadline=None)
def test_copied_spans_are_the_longest_and_stand_where_they_say(
    texts: list[list[int]], corpus: list[list[int]]
) -> None:
    for text, span in zip(texts, copying.copied_spans(texts, corpus), strict=True):
        assert span.length == _slow_longest(text, corpus)
        if span.length:
            assert _holds(corpus[span.index], text[span.start : span.start + span.length])


@given(texts_of_tokens, texts_of_tokens, st.integers(1, 4), st.sampled_from(["clipped", "membership"]))
@settings(max_examples=150, deadline=None)
def test_the_index_agrees_with_rouge_of_each_pair(
    texts: list[list[int]], corpus: list[list[int]], n: int, counting: ours.Counting
) -> None:
    nearest = copying.nearest_texts(texts, corpus, n, counting=counting)
    for text, found in zip(texts, nearest, strict=True):
        each = [ours.rouge_n(text, other, n, counting=counting) for other in corpus]
        best = max(range(len(each)), key=lambda i: each[i].precision)
        assert found.index == best
        assert (found.rouge.precision, found.rouge.recall) == pytest.approx(
            (each[best].precision, each[best].recall)
        )


@given(
    st.lists(few_tokens, min_size=2, max_size=6),
    st.integers(1, 3),
    st.sampled_from(["clipped", "membership"]),
)
@settings(max_examples=200, deadline=None)
def test_self_rouge_is_the_highest_f_with_another(
    texts: list[list[int]], n: int, counting: ours.Counting
) -> None:
    expected = [
        max(ours.rouge_n(a, b, n, counting=counting).f for j, b in enumerate(texts) if i != j)
        for i, a in enumerate(texts)
    ]
    assert copying.self_rouge(texts, n, counting=counting) == pytest.approx(expected)


def test_distinct_n_counts_over_all_texts() -> None:
    assert ours.distinct_n(["a b a b", "a b c"], 2) == pytest.approx(3 / 5)
    assert math.isnan(ours.distinct_n(["a"], 2))


def test_rep_n_counts_different_ngrams_within_each_text() -> None:
    texts = ["a b a b a", "a b"]  # pairs: ab ba ab ba | ab
    assert ours.repetition_n(texts, 2) == pytest.approx(1 - 3 / 5)
    assert ours.repetition_n(texts, 2, compat=True) == pytest.approx(1 - 2 / 3)
    assert math.isnan(ours.repetition_n(["a b"], 2, compat=True))


def test_rep_n_keeps_case_and_punctuation_as_its_paper_does() -> None:
    assert ours.repetition_n(["Yes, yes"], 1) == 0.0


def test_diversity_is_the_product_over_two_three_and_four() -> None:
    texts = ["a b c a b c a b", "d e f g"]
    expected = math.prod(1 - ours.repetition_n(texts, n) for n in (2, 3, 4))
    assert ours.diversity(iter(texts)) == pytest.approx(expected)
    assert ours.diversity(["a b c d e f"]) == 1.0


def test_a_text_is_cut_at_its_first_repeated_ngram() -> None:
    assert ours.cut_at_repetition([1, 2, 3, 9, 1, 2, 3, 4], 3) == [1, 2, 3, 9]
    assert ours.cut_at_repetition([1, 2, 3, 4], 3) == [1, 2, 3, 4]
    assert ours.cut_at_repetition([1, 1, 1, 1], 2) == [1]


def test_a_hundred_texts_against_five_thousand_take_seconds() -> None:
    generator = random.Random(3)
    vocabulary = [f"word{i}" for i in range(2000)]
    weights = [1 / (i + 3) for i in range(2000)]
    corpus = [" ".join(generator.choices(vocabulary, weights, k=80)) for _ in range(5_000)]
    texts = [*corpus[5:55], *(" ".join(generator.choices(vocabulary, weights, k=80)) for _ in range(50))]
    started = time.perf_counter()
    nearest = copying.nearest_texts(texts, corpus)
    spans = copying.copied_spans(texts, corpus)
    assert time.perf_counter() - started < 30  # about 1 s on an idle core (5 s for 20,000)
    assert all(found.rouge.precision == 1.0 for found in nearest[:50])
    assert all(span.length == 80 for span in spans[:50])
    assert all(found.rouge.precision < 0.5 for found in nearest[50:])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ours.distinct_n("one text", 2), "several texts"),
        (lambda: ours.rouge_n("a", "b", 0), "n = 0"),
        (lambda: ours.rouge_n("a", "b", 1, counting="twice"), "clipped or membership"),  # type: ignore[arg-type]  # on purpose
        (lambda: copying.NgramIndex([], 2), "at least one text"),
        (lambda: copying.NgramIndex(["a"], 0), "n = 0"),
        (lambda: copying.NgramIndex(["a"], 1).nearest("a", by="size"), "precision, recall or f"),
        (lambda: copying.self_rouge(["a"]), "needs two"),
    ],
)
def test_a_mistake_is_one_sentence(call: object, words: str) -> None:
    with pytest.raises(LabError, match=words):
        call()  # type: ignore[operator]  # a table of calls
