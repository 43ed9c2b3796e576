"""The recipe by which the stories were made: a prompt for a large model with three words and some features.

A story of 3 to 5 short paragraphs must use one random verb, one noun and one adjective that a small child
knows, and show a random subset of features (Eldan and Li 2023, section 2). The wording and the word lists are
the lab's own: the paper's list has about 1,500 words. Nothing here calls a model.
"""

import json
import random
from dataclasses import dataclass
from functools import cache

from gpt2lab.base.errors import LabError
from gpt2lab.papers.tinystories.lexicon import DATA

FEATURES = {
    "dialogue": "somebody speaks in it",
    "bad ending": "it ends badly",
    "moral value": "it teaches something",
    "plot twist": "something happens that nobody expects",
    "foreshadowing": "an early detail hints at what comes",
    "conflict": "two of its characters want different things",
}
"""The first four are quoted by the paper; the last two are known from its data."""


@dataclass(frozen=True)
class WordLists:
    """Words a small child knows, by class."""

    verbs: tuple[str, ...]
    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("verbs", "nouns", "adjectives"):
            if not getattr(self, name):
                raise LabError(f"word lists: {name} is empty; give at least one word of each class")


@dataclass(frozen=True)
class Recipe:
    """One prompt and what it asks for."""

    verb: str
    noun: str
    adjective: str
    features: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """The text to send to a large model."""
        lines = [
            "Please write a short story of three to five short paragraphs.",
            "Every word in it should be known to a child of three or four.",
            f'It uses the verb "{self.verb}", the noun "{self.noun}" and the adjective "{self.adjective}".',
        ]
        lines += [f"Also: {FEATURES[feature]}." for feature in self.features]
        return "\n".join([*lines, "Return the story and nothing else."])


@cache
def own_words() -> WordLists:
    """Return the word lists that come with the lab."""
    content = json.loads((DATA / "words.json").read_text("utf-8"))
    return WordLists(*(tuple(content[name]) for name in ("verbs", "nouns", "adjectives")))


def recipes(size: int, *, seed: int, words: WordLists | None = None) -> list[Recipe]:
    """Draw `size` recipes: three words uniformly, each feature with probability 1/3.

    The paper does not state the share of features; a third gives two of six on average (our choice). The first
    n of a larger size are the same n. LabError for a negative size.
    """
    if size < 0:
        raise LabError(f"cannot draw {size} recipes")
    words = words or own_words()
    draw = random.Random(f"recipes {seed}")
    return [
        Recipe(
            verb=draw.choice(words.verbs),
            noun=draw.choice(words.nouns),
            adjective=draw.choice(words.adjectives),
            # section 2: random features
            features=tuple(feature for feature in FEATURES if draw.random() < 1 / 3),
        )
        for _ in range(size)
    ]
