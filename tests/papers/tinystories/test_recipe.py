"""Prompts for the generation recipe."""

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.tinystories.recipe import FEATURES, WordLists, own_words, recipes


def test_a_prompt_names_its_three_words_and_every_feature():
    for recipe in recipes(200, seed=1):
        words = own_words()
        assert (
            recipe.verb in words.verbs and recipe.noun in words.nouns and recipe.adjective in words.adjectives
        )
        for word in (recipe.verb, recipe.noun, recipe.adjective):
            assert f'"{word}"' in recipe.prompt
        for feature, meaning in FEATURES.items():
            assert (meaning in recipe.prompt) == (feature in recipe.features)


def test_recipes_are_a_function_of_the_seed_and_begin_alike():
    assert recipes(5, seed=0) == recipes(9, seed=0)[:5] != recipes(5, seed=1)
    shares = [feature for recipe in recipes(3000, seed=0) for feature in recipe.features]
    for feature in FEATURES:
        assert shares.count(feature) / 3000 == pytest.approx(1 / 3, abs=0.04)


def test_own_lists_are_words_without_repetition_and_may_be_replaced():
    words = own_words()
    for group in (words.verbs, words.nouns, words.adjectives):
        assert len(group) > 100 and len(set(group)) == len(group)
        assert all(word.isalpha() and word.islower() for word in group)
    mine = recipes(3, seed=0, words=WordLists(("hop",), ("log",), ("big",)))
    assert {(recipe.verb, recipe.noun, recipe.adjective) for recipe in mine} == {("hop", "log", "big")}
    with pytest.raises(LabError, match="nouns is empty"):
        WordLists(("hop",), (), ("big",))
    with pytest.raises(LabError, match="-1"):
        recipes(-1, seed=0)
