"""Originality against slow counts, and completions of stories."""

import itertools
from collections import Counter

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.tinystories.diversity import StoryDiversity, complete, ending_overlap, originality
from gpt2lab.text.generators.stories import documents


def pairs(text: str) -> Counter:
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return Counter(itertools.pairwise(words))


def precision(a: str, b: str) -> float:
    found, reference = pairs(a), pairs(b)
    return sum((found & reference).values()) / max(sum(found.values()), 1)


def test_originality_is_the_slow_count():
    texts, training = documents(1, 6), documents(2, 40)
    found = originality(texts, training)
    nearest = [max(precision(text, story) for story in training) for text in texts]
    assert found.nearest_rouge_2 == pytest.approx(sum(nearest) / 6)
    assert found.nearest_rouge_2_max == pytest.approx(max(nearest))

    def f(a: str, b: str) -> float:
        p, q = precision(a, b), precision(b, a)
        return 2 * p * q / (p + q) if p + q else 0.0

    alike = [max(f(a, b) for j, b in enumerate(texts) if j != i) for i, a in enumerate(texts)]
    assert found.self_rouge_2 == pytest.approx(sum(alike) / 6)
    grams = [gram for text in texts for gram in pairs(text).elements()]
    assert found.distinct_2 == pytest.approx(len(set(grams)) / len(grams))
    assert found.copied_whole == 0.0


def test_a_copied_story_is_seen_as_one():
    training = documents(2, 40)
    found = originality([training[3], training[7]], training)
    assert found.nearest_rouge_2 == found.copied_whole == 1.0
    with pytest.raises(LabError, match="at least one of each"):
        originality([], training)


def test_endings_are_compared_with_their_own_and_with_another():
    endings = [f"{word} ran to the old mill ." for word in ("Anna", "Ben", "Carl")]
    true, other = ending_overlap(endings, endings)
    assert true == 1.0 and other == pytest.approx(4 / 5)


def test_the_measure_stands_beside_held_out_stories(story_lm):
    part = StoryDiversity(train="tinyworld:60", held_out="tinyworld:20:7", prompts=6, max_new_tokens=20)
    found = part(story_lm)
    assert found.to_json() == part(story_lm).to_json()
    assert 0.0 <= found["nearest_rouge_2"] < found["held_out_nearest_rouge_2"] < 1.0
    assert found.about["completions"] == 6


def test_prompts_that_are_empty_or_fill_the_context_are_refused(story_lm):
    with pytest.raises(LabError, match="prompt is empty"):
        complete(story_lm, ["once upon", " "], temperature=1.0, seed=0)
    with pytest.raises(LabError, match="leaves no room"):
        complete(story_lm, ["the ball " * 50], temperature=1.0, seed=0)
    with pytest.raises(LabError, match="prompt_share"):
        StoryDiversity(prompt_share=1.0)(story_lm)
    with pytest.raises(LabError, match="clipped or membership"):
        StoryDiversity(counting="other")(story_lm)
