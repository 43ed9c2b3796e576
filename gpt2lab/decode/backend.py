"""Text in, text out: what a measure that needs only text asks of whatever writes it.

A back end is the lab's own model (`gpt2lab.measures.lab_backend`), a model of transformers, an OpenAI-compatible server or
a file of recorded answers (`gpt2lab.decode.backends`).
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from gpt2lab.base.errors import LabError

Finish = Literal["eos", "stop", "length"]
"""Why a text ended: an end token, a stop string, or its length; a server says "stop" of both of the first."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a back end wrote after a prompt."""

    text: str
    """The new text, without the stop string that ended it."""
    finished: Finish
    """Why it ended."""
    tokens: int | None = None
    """Number of new tokens; None where the back end does not say."""
    logprobs: tuple[float, ...] | None = None
    """If asked for and known: log p of each new token under the model's own distribution (nats)."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How likely a back end finds a text after a context."""

    logprob: float
    """log p of the text, summed over its tokens (nats)."""
    tokens: int
    """Its tokens."""
    likeliest: bool
    """Whether each of them was the likeliest one, so that greedy decoding would have said it."""


@runtime_checkable
class TextBackend(Protocol):
    """Something that continues texts and, where it can, says how likely a text is."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What a report calls it; no secret."""
        ...

    @abstractmethod
    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        n: int = 1,
        logprobs: bool = False,
    ) -> list[list[Completion]]:
        """Return `n` continuations of each prompt, in the order of the prompts.

        temperature 0 takes the likeliest token. seed: with the place of a prompt it decides the draws, as far as the
        back end keeps to it. LabError for an answer that cannot be had or read.
        """
        ...

    @abstractmethod
    def score(self, contexts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[list[Score]]:
        """Return, for each context, the score of each of its continuations.

        Continuations of one context are cut from it at the same character, so that their log-probabilities are of the
        same text and can be compared. LabError where the back end cannot score.
        """
        ...


def check_sampling(
    *, max_new_tokens: int, stop: Sequence[str], temperature: float, top_p: float, n: int
) -> None:
    """Raise LabError for settings of `TextBackend.generate` out of range."""
    if isinstance(stop, str) or any(not text for text in stop):
        raise LabError(f"stop is a list of texts that are not empty, got {stop!r}")
    if max_new_tokens < 1 or n < 1:
        raise LabError(f"max_new_tokens and n must be at least 1, got {max_new_tokens} and {n}")
    if not 0.0 <= temperature < math.inf:
        raise LabError(f"temperature must be at least 0 (the likeliest token), got {temperature}")
    if not 0.0 < top_p <= 1.0:
        raise LabError(f"top_p must lie in (0, 1], got {top_p}; 1 keeps all tokens")


def check_groups(contexts: Sequence[str], continuations: Sequence[Sequence[str]]) -> None:
    """Raise LabError unless each context has continuations, none empty."""
    if len(contexts) != len(continuations):
        raise LabError(
            f"{len(contexts)} contexts for {len(continuations)} lists of continuations; give one for each"
        )
    if any(not text for texts in continuations for text in texts):
        raise LabError("a continuation to be scored is empty")


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return a text up to its first stop string, and whether there was one."""
    found = [place for place in map(text.find, stop) if place >= 0]
    return (text[: min(found)], True) if found else (text, False)


@dataclass(frozen=True)
class ReadToken:
    """One token of a text that a model has read."""

    start: int
    """Where it begins, in characters of the text."""
    end: int
    """Where it ends."""
    logprob: float | None
    """log p after all before it (nats); None where nothing stands before it."""
    likeliest: bool
    """Whether it was the likeliest."""


def score_group(context: str, readings: Sequence[Sequence[ReadToken]]) -> list[Score]:
    """Return the scores of continuations of one context from the tokens of context + continuation, for each.

    A token that lies across the border belongs to the continuation, and then all are scored from where it begins.
    LabError if nothing stands before the first token that counts.
    """
    starts = [min((t.start for t in reading if t.end > len(context)), default=0) for reading in readings]
    first = min(starts, default=0)
    found = []
    for reading in readings:
        counted = [token for token in reading if token.start >= first and token.end > token.start]
        known = [token.logprob for token in counted if token.logprob is not None]
        if not counted or len(known) < len(counted):
            raise LabError(
                "a text cannot be scored without a token before it: this back end gives the first token no "
                "probability; give a context"
            )
        found.append(
            Score(
                logprob=math.fsum(known),
                tokens=len(counted),
                likeliest=all(token.likeliest for token in counted),
            )
        )
    return found
