"""The fifteen languages, each a rule that turns the tokens of one sentence into others, and how to make one's own.

Shuffles and reversals need token ids alone; hops need words with lemma and features (`hops`). Every permutation is the one
that `numpy.random.default_rng(seed).shuffle(list)` makes, as in the authors' code; tests pin it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from numpy.random import Generator, default_rng

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.papers.impossible_languages import hops
from gpt2lab.papers.impossible_languages.annotations import Sentence

R, S, P = "\U0001f141", "\U0001f142", "\U0001f13f"
"""Glyphs of the markers: of reversal, of a singular and of a plural verb."""
REVERSE_SEED = 21
"""Seed of the places of R, the same in all languages of its family."""
LOCAL_SEED = 0
"""Seed of the shuffle of every window, and of the whole run of the nondeterministic shuffle."""
LONGEST = 350
"""Tokens of a sentence of the shuffle family, at most."""
HOPS = 4
"""Words that every marker of an affected sentence must be able to hop over, in all languages of the hop family."""


@dataclass(frozen=True)
class Coding:
    """How a language sees text: the ids of a stretch of text, and those of the language's markers."""

    encode: Callable[[str], list[int]] | None
    """Text → ids, without special tokens; None where sentences come as ids."""
    markers: tuple[int, ...] = ()
    """Ids of the language's markers, in its order."""

    def tokens(self, sentence: Sentence) -> list[int]:
        """Return the ids of a whole sentence. LabError where there is nothing to encode its text with."""
        return list(sentence.ids) if sentence.ids is not None else self.text(sentence.text)

    def text(self, text: str) -> list[int]:
        """Return the ids of a text. LabError where there is no tokenizer."""
        if self.encode is None:
            raise LabError("a sentence of text or words needs a tokenizer; give one, or token ids")
        return self.encode(text)


Rule = Callable[[Sentence, Coding], list[int]]
"""Turns a sentence into the ids of the language; it may carry a random state from one sentence to the next."""


def _always(sentence: Sentence) -> bool:
    return True


def _kept(sentence: Sentence, coding: Coding) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Language:
    """A language: its rule, which sentences it changes, which of these it keeps, and its markers."""

    name: str
    """As it is typed."""
    begin: Callable[[], Rule]
    """Returns the rule for a run over sentences, with its random state at the start."""
    family: str = "own"
    """shuffle, reverse, hop, or own: perplexities are compared within a family alone."""
    control: str = ""
    """The language of the family that leaves the order alone; empty where there is none."""
    markers: tuple[str, ...] = ()
    """Glyphs that it adds to the vocabulary, in the order of their ids."""
    annotated: bool = False
    """Whether it needs words with lemma and features."""
    affected: Callable[[Sentence], bool] = _always
    """Whether the language changes a sentence; only those that it changes are evaluated."""
    keep: Callable[[Sentence, Coding], bool] = _kept
    """Whether an affected sentence is kept."""
    summary: str = ""
    """What it does, in a few words."""

    @classmethod
    def of_tokens(
        cls, name: str, function: Callable[[list[int]], Sequence[int]], *, summary: str = ""
    ) -> "Language":
        """Make a language of a function from token ids to token ids, without state and without markers."""
        return cls(
            name=name, begin=lambda: lambda s, coding: list(function(coding.tokens(s))), summary=summary
        )


NAMES = (
    *("shuffle_control", "shuffle_nondeterministic"),
    *("shuffle_deterministic21", "shuffle_deterministic57", "shuffle_deterministic84"),
    *("shuffle_local3", "shuffle_local5", "shuffle_local10", "shuffle_even_odd"),
    *("reverse_control", "reverse_partial", "reverse_full"),
    *("hop_control", "hop_tokens4", "hop_words4"),
)
"""The fifteen of the paper, by the names of the authors' code."""

_NUMBERED = re.compile(r"(shuffle_deterministic|shuffle_local|hop_tokens|hop_words)(\d{0,9})")


def language(name: "str | Language") -> Language:
    """Return a language by name; a number that ends the name is its seed, window or distance, also one of one's own.

    `shuffle_local7` cuts windows of 7. A name may be written with dashes. LabError: no such language, a deterministic
    shuffle without a seed, a window below 2, hops without a distance.
    """
    if isinstance(name, Language):
        return name
    typed = name.lower().replace("-", "_")
    if found := _NUMBERED.fullmatch(typed):
        return _numbered(found[1], found[2])
    if typed not in NAMES:
        raise unknown("language", name, NAMES)
    family, _, kind = typed.partition("_")
    if family == "hop":
        return _hop(typed, hops.hop_tokens, 0, "each marker directly after its verb")
    if family == "reverse":
        return _reverse(typed, kind)
    if kind == "nondeterministic":
        return _shuffle(typed, _nondeterministic, "every sentence in a random order of its own")
    rules = {
        "control": (_same, "tokens as they are"),
        "even_odd": (even_odd, "tokens at even places, then at odd ones"),
    }
    function, summary = rules[kind]
    return _shuffle(typed, partial(_stateless, function), summary)


def _numbered(base: str, digits: str) -> Language:
    if not digits:
        what = {
            "shuffle_deterministic": "needs its seed", "shuffle_local": "needs the length of its window",
            "hop_tokens": "needs a distance", "hop_words": "needs a distance",
        }[base]  # fmt: skip
        usual = {"shuffle_deterministic": 21, "shuffle_local": 5}.get(base, HOPS)
        raise LabError(f"{base} {what}, such as {base}{usual}")
    number, name = int(digits), f"{base}{int(digits)}"
    match base:
        case "shuffle_deterministic":
            rule = partial(shuffle_all, seed=number)
            return _shuffle(name, partial(_stateless, rule), f"one order for each length, of seed {number}")
        case "shuffle_local":
            rule = partial(shuffle_local, window=number)
            shuffle_local([], window=number)  # refuses a window that leaves everything as it is
            return _shuffle(name, partial(_stateless, rule), f"shuffled within windows of {number} tokens")
        case "hop_tokens":
            return _hop(name, hops.hop_tokens, number, f"each marker {number} tokens after its verb")
        case _:
            return _hop(name, hops.hop_words, number, f"each marker {number} words after its verb")


# The rules on token ids.


def shuffle_all(tokens: Sequence[int], *, seed: int) -> list[int]:
    """Return tokens in an order that depends on seed and length alone (DeterministicShuffle)."""
    shuffled = list(tokens)
    default_rng(seed).shuffle(shuffled)  # DeterministicShuffle(s): a new generator for each sentence
    return shuffled


def shuffle_local(tokens: Sequence[int], *, window: int) -> list[int]:
    """Return tokens shuffled within consecutive windows (LocalShuffle). LabError for a window below 2.

    The generator begins anew in each, so that all full windows are permuted alike.
    """
    if window < 2:
        raise LabError(
            f"shuffle_local: a window holds at least 2 tokens, got {window}; 3, 5 and 10 are the paper's"
        )
    cuts = (tokens[start : start + window] for start in range(0, len(tokens), window))
    return [token for cut in cuts for token in shuffle_all(cut, seed=LOCAL_SEED)]  # LocalShuffle(w)


def even_odd(tokens: Sequence[int]) -> list[int]:
    """Return the tokens at places 0, 2, 4, ... and then those at 1, 3, 5, ... (EvenOddShuffle)."""
    return [*tokens[::2], *tokens[1::2]]  # EvenOddShuffle


def reverse(tokens: Sequence[int], marker: int, place: int, kind: str) -> list[int]:
    """Return tokens with a marker inserted at `place`; partial: reversed after it; full: reversed whole, marker too."""
    before, after = [*tokens[:place], marker], list(tokens[place:])
    if kind == "partial":
        after.reverse()  # PartialReverse: the marker stays where it is
    whole = before + after
    return whole[::-1] if kind == "full" else whole  # FullReverse


def _same(tokens: Sequence[int]) -> list[int]:
    return list(tokens)


def _stateless(function: Callable[[Sequence[int]], list[int]]) -> Rule:
    return lambda sentence, coding: function(coding.tokens(sentence))


def _nondeterministic() -> Rule:
    generator = default_rng(LOCAL_SEED)  # NondeterministicShuffle: one generator for a whole run

    def rule(sentence: Sentence, coding: Coding) -> list[int]:
        tokens = coding.tokens(sentence)
        generator.shuffle(tokens)
        return tokens

    return rule


# Families.


def _shuffle(name: str, begin: Callable[[], Rule], summary: str) -> Language:
    def keep(sentence: Sentence, coding: Coding) -> bool:
        return 1 < len(coding.tokens(sentence)) <= LONGEST

    return Language(
        name=name, family="shuffle", control="shuffle_control", begin=begin, keep=keep, summary=summary
    )


def _reverse(name: str, kind: str) -> Language:
    def begin() -> Rule:
        generator: Generator = default_rng(REVERSE_SEED)

        def rule(sentence: Sentence, coding: Coding) -> list[int]:
            tokens = coding.tokens(sentence)
            place = int(generator.choice(len(tokens) + 1))  # R at 0 ... n, one draw a sentence
            return reverse(tokens, coding.markers[0], place, kind)

        return rule

    summary = {
        "control": "a marker at a random place",
        "partial": "a marker at a random place, the tokens after it reversed",
        "full": "a marker at a random place, then everything reversed",
    }[kind]
    return Language(
        name=name, family="reverse", control="reverse_control", begin=begin, markers=(R,), summary=summary
    )


def _hop(name: str, rule: Callable[..., list[int]], k: int, summary: str) -> Language:
    def begin() -> Rule:
        return lambda sentence, coding: rule(sentence, coding.text, coding.markers, k)

    def keep(sentence: Sentence, coding: Coding) -> bool:
        return hops.word_hops_complete(sentence, HOPS)  # the same sentences in the whole family

    return Language(
        name=name, family="hop", control="hop_control", begin=begin, markers=(S, P), annotated=True,
        affected=hops.hop_affected, keep=keep, summary=summary,
    )  # fmt: skip
