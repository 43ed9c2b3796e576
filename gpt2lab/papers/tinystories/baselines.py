"""Stories that are worse on purpose, so that a grader can show what it sees: trigram and shuffled stories."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import accumulate

from gpt2lab.base.errors import LabError

_START, _END = "\n<start>", "\n<end>"


class TrigramModel:
    """p(word | two words before), by counts, as a source of locally fluent stories without any plan.

    Words are separated by blanks. Contexts that occur are the only ones that can be reached, so no smoothing.
    LabError without stories.
    """

    def __init__(self, stories: Sequence[str]) -> None:
        if not stories:
            raise LabError("a trigram model needs at least one story")
        counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for story in stories:
            words = [_START, _START, *story.split(), _END]
            for first, second, third in zip(words, words[1:], words[2:], strict=False):
                counts[first, second][third] += 1
        self._next = {
            context: (list(words), list(accumulate(words.values()))) for context, words in counts.items()
        }

    def sample(self, size: int, *, seed: int, max_words: int = 400) -> list[str]:
        """Draw `size` stories of at most `max_words` words, a pure function of its arguments."""
        draw = random.Random(f"trigram {seed}")
        return [self._story(draw, max_words) for _ in range(size)]

    def _story(self, draw: random.Random, max_words: int) -> str:
        words = [_START, _START]
        while len(words) < max_words + 2:
            choices, cumulative = self._next[words[-2], words[-1]]
            word = draw.choices(choices, cum_weights=cumulative)[0]
            if word == _END:
                break
            words.append(word)
        return " ".join(words[2:])


def shuffled(stories: Sequence[str], *, seed: int) -> list[str]:
    """Return each story with its words in random order, a pure function of its arguments."""
    draw = random.Random(f"shuffle {seed}")
    return [" ".join(draw.sample(words, len(words))) for words in (story.split() for story in stories)]
