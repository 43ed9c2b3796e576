"""Who is who in free text: names that come from nowhere, pronouns that do not fit. Rules, no model.

A name is a capitalised word in the middle of a sentence that is not a title, day or the like. The rules miss
much and err now and then; `free_text` measures how well they tell real stories from shuffled ones before it
grades anything with them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpt2lab.papers.tinystories.lexicon import LEXICON

GIRLS = LEXICON["girls"]
BOYS = LEXICON["boys"]
NOT_NAMES = LEXICON["not_names"]
SHE = frozenset(["she", "her", "hers", "herself"])
HE = frozenset(["he", "him", "his", "himself"])
INTRODUCTIONS = frozenset(
    ["named", "called", "name", "friend", "friends", "brother", "sister", "cousin", "neighbor"]
)
SPEAKING = frozenset(
    ["said", "asked", "replied", "shouted", "told", "answered", "cried", "yelled", "whispered"]
)

_TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|[.!?]+|[\"“”]|â€œ|â€\x9d|\n")
_END = re.compile(r"[.!?]+|\n")


@dataclass(frozen=True)
class Mention:
    """A name in a text."""

    name: str
    """Lower-cased, without 's."""
    introduced: bool
    """Whether the word beside it introduces somebody (`a boy named …`) or makes it a speaker (`said …`)."""


def mentions(text: str) -> Iterator[Mention]:
    """Yield the names of a text in order."""
    tokens = _TOKEN.findall(text)
    for i, token in enumerate(tokens):
        starts = i == 0 or not tokens[i - 1][0].isalpha()
        name = _stem(token)
        if starts or not token[0].isupper() or name in NOT_NAMES:
            continue
        before, after = tokens[i - 1].lower(), tokens[i + 1].lower() if i + 1 < len(tokens) else ""
        yield Mention(name, before in INTRODUCTIONS | SPEAKING or after in SPEAKING)


def known_names(prompt: str, continuation: str) -> list[bool]:
    """Return, for each name in the continuation, whether the reader can know who that is.

    True if the prompt has the word, or if this or an earlier mention introduced it or let it speak. A shuffled
    text fails here, because words that begin sentences come to stand in the middle of them.
    """
    known = {_stem(token) for token in _TOKEN.findall(prompt) if token[0].isupper()}
    outcomes = []
    for mention in mentions(continuation):
        if mention.introduced:
            known.add(mention.name)
        outcomes.append(mention.name in known)
    return outcomes


def fitting_pronouns(text: str) -> list[bool]:
    """Return, for each he/she pronoun near a person of known gender, whether it fits one named last.

    "Last" is the last person named in this sentence or the two before; when these sentences name both genders
    the pronoun fits either and is not counted. Names and words of unknown gender are left out.
    """
    outcomes = []
    window: list[set[bool]] = [set()]  # genders (True: she) named in the last three sentences
    for token in _TOKEN.findall(text):
        if _END.fullmatch(token):
            window = [*window, set()][-3:]
            continue
        word = _stem(token)
        if word in GIRLS or word in BOYS:
            window[-1].add(word in GIRLS)
        elif word in SHE or word in HE:
            near = set().union(*window)
            if len(near) == 1:
                outcomes.append((word in SHE) in near)
    return outcomes


def split_prompt(story: str, share: float) -> tuple[str, str]:
    """Cut a story after about `share` of its words: (prompt, continuation), blanks kept with the prompt."""
    ends = [match.end() for match in re.finditer(r"\S+\s*", story)]
    if len(ends) < 2:
        return story, ""
    cut = ends[min(max(round(share * len(ends)), 1), len(ends) - 1) - 1]
    return story[:cut], story[cut:]


def _stem(token: str) -> str:
    return re.sub(r"['’]s$", "", token).lower()


def share(outcomes: Sequence[bool]) -> float:
    """Return the share that is true, nan of nothing."""
    return sum(outcomes) / len(outcomes) if outcomes else float("nan")
