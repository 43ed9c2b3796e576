"""Instruction following: does a story use the words and show the features it was asked for?

Words count only when used exactly. Features are detected by their surface: quotation marks for Dialogue, a
lexicon of the last sentences for BadEnding; a feature that no rule detects is not counted at all.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence

from gpt2lab.papers.tinystories.corpus import words_of
from gpt2lab.papers.tinystories.instruct import Record
from gpt2lab.papers.tinystories.lexicon import LEXICON

QUOTES = re.compile('"[^"]+"|“[^”]+”|â€œ.+?â€')
BAD_ENDING = LEXICON["bad_ending"]
"""Words that tell of a bad end when they stand in the last two sentences."""
GOOD_ENDING = LEXICON["good_ending"]
"""Words that tell of a good one."""


def has_dialogue(story: str) -> bool:
    """Tell whether somebody speaks: a pair of quotation marks with words between them."""
    return any(words_of(quote) for quote in QUOTES.findall(story))


def has_bad_ending(story: str) -> bool:
    """Tell whether the last two sentences have more words of a bad end than of a good one."""
    sentences = [part for part in re.split(r"[.!?]+", story) if words_of(part)]
    last = words_of(". ".join(sentences[-2:]))
    return sum(word in BAD_ENDING for word in last) > sum(word in GOOD_ENDING for word in last)


DETECTORS: Mapping[str, Callable[[str], bool]] = {"Dialogue": has_dialogue, "BadEnding": has_bad_ending}


def following(records: Sequence[Record], stories: Sequence[str]) -> dict[str, float]:
    """Return shares over all that was asked: {"words": …, "features": …, "sentences": …}; nan if none was.

    stories[i] is what was written for records[i]. words: required words that occur exactly. features: detected
    among those a rule exists for. sentences: required sentences that occur as they are.
    """
    asked: dict[str, list[bool]] = {"words": [], "features": [], "sentences": []}
    for record, story in zip(records, stories, strict=True):
        present = set(words_of(story))
        asked["words"] += [word.lower() in present for word in record.words]
        asked["features"] += [DETECTORS[name](story) for name in record.features if name in DETECTORS]
        sentence = record.field("Random sentence")
        if sentence is not None:
            asked["sentences"].append(" ".join(sentence.split()) in " ".join(story.split()))
    return {name: sum(hits) / len(hits) if hits else math.nan for name, hits in asked.items()}
