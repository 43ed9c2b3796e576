"""The offline grader for free text: a reference model for grammar, rules for consistency.

Grammar: mean log-probability per word under a reference model that shares no training data with the graded one,
put on a scale where held-out real stories are 10 and the same stories with shuffled words are 0. Consistency:
names that come from nowhere and pronouns that do not fit (`characters`), on the same kind of scale. The scale is
laid on one half of the held-out stories; the other half calibrates it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.continuation import split_continuations
from gpt2lab.measures.corpus import need_tokenizer, start_token
from gpt2lab.measures.scoring import Row, score_rows
from gpt2lab.papers.tinystories.baselines import shuffled
from gpt2lab.papers.tinystories.characters import fitting_pronouns, known_names, mentions, share, split_prompt

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

TIMES_LARGER = 4
"""How many times more parameters a reference model needs than the model it grades."""


@dataclass(frozen=True)
class Scale:
    """Raw figures of real stories (grade 10) and of shuffled ones (grade 0)."""

    real: float
    shuffled: float

    def grade(self, raw: float) -> float:
        """Return 10 · (raw - shuffled) / (real - shuffled), cut off at 0 and 10; nan without a difference."""
        gap = self.real - self.shuffled
        if math.isnan(raw) or not gap > 0:
            return math.nan
        return min(max(10.0 * (raw - self.shuffled) / gap, 0.0), 10.0)


class FreeTextGrader:
    """Grades free text for grammar and consistency against held-out stories.

    LabError for fewer than 8 held-out stories, and for a reference without an end-of-text token.
    """

    def __init__(
        self,
        reference: "LanguageModel",
        held_out: Sequence[str],
        *,
        prompt_share: float = 0.4,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        if len(held_out) < 8:
            raise LabError(f"the free-text grader needs at least 8 held-out stories, got {len(held_out)}")
        self.reference, self.prompt_share, self.batch_size = reference, prompt_share, batch_size
        anchors, self.calibration_stories = list(held_out[::2]), list(held_out[1::2])
        worse = shuffled(anchors, seed=seed)
        self.scales = {
            "grammar": Scale(self.word_log_probability(anchors), self.word_log_probability(worse)),
            "consistency": Scale(self.coherence(anchors), self.coherence(worse)),
        }

    def grades(self, texts: Sequence[str]) -> dict[str, float]:
        """Return grammar and consistency from 0 to 10; nan where nothing can be graded."""
        raw = {"grammar": self.word_log_probability(texts), "consistency": self.coherence(texts)}
        return {name: scale.grade(raw[name]) for name, scale in self.scales.items()}

    def word_log_probability(self, texts: Sequence[str]) -> float:
        """Return the mean log-probability per word under the reference, nats, pooled over texts; nan of nothing."""
        return word_log_probability(self.reference, texts, batch_size=self.batch_size)

    def coherence(self, texts: Sequence[str]) -> float:
        """Return the mean of two shares: names that are known when they are used, pronouns that fit."""
        names = [ok for text in texts for ok in known_names(*split_prompt(text, self.prompt_share))]
        pronouns = [ok for text in texts for ok in fitting_pronouns(text)]
        shares = [value for value in (share(names), share(pronouns)) if not math.isnan(value)]
        return fmean(shares) if shares else math.nan


def word_log_probability(lm: "LanguageModel", texts: Sequence[str], *, batch_size: int = 32) -> float:
    """Return the mean log-probability per word of texts under a model, nats, pooled; nan of nothing.

    Each text is read after a start token; what does not fit the model's positions is left out.
    """
    tokenizer = need_tokenizer(lm, "the free-text grader")
    start, rows, words = start_token(tokenizer), [], 0
    for text in texts:
        ids = tokenizer.encode(text)
        kept = ids[: lm.config.max_positions]
        if kept:
            rows.append(Row(torch.tensor([start, *kept]), len(kept)))
            words += round(len(text.split()) * len(kept) / len(ids))
    if not words:
        return math.nan
    scores = score_rows(lm.model, rows, batch_size=batch_size, label="reference model")
    return -math.fsum(float(score.losses.double().sum()) for score in scores) / words


def check_reference(reference: "LanguageModel", graded: "LanguageModel") -> None:
    """LabError unless the reference is another model with at least four times the parameters."""
    theirs, ours = (lm.model.count_parameters()["total"] for lm in (reference, graded))
    if reference.model is graded.model:
        raise LabError("a model must not grade itself; give another reference model")
    if theirs < TIMES_LARGER * ours:
        raise LabError(
            f"the reference model has {theirs:,} parameters, the graded one {ours:,}; "
            f"it must be at least {TIMES_LARGER} times as large"
        )


def check_disjoint(reference_stories: Sequence[str], training: Sequence[str]) -> None:
    """LabError if the reference model and the graded one were trained on a common story."""
    common = set(reference_stories) & set(training)
    if common:
        raise LabError(
            f"{len(common)} stories train both the reference and the graded model, such as {min(common)[:40]!r}; "
            "give the reference stories of its own"
        )


def name_cloze(lm: "LanguageModel", stories: Sequence[str], *, batch_size: int = 32) -> tuple[float, int]:
    """Return how often a model prefers the right name to another: (share, stories counted).

    In each story with two names, the last mention of one that stood before is compared with the other name
    mentioned most recently: log p(right) > log p(other), both after a start token and the same words. nan without
    such a story.
    """
    rows: list[Row] = []
    tokenizer = need_tokenizer(lm, "the name cloze")
    for story in stories:
        item = _cloze_item(story)
        if item is None:
            continue
        before, right, other = item
        for name in split_continuations(tokenizer, before, [f" {right}", f" {other}"], bos=True):
            context = name.context[-(lm.config.max_positions - len(name.tokens)) :]
            rows.append(Row(torch.tensor([*context, *name.tokens]), len(name.tokens)))
    if not rows:
        return math.nan, 0
    losses = [
        float(score.losses.sum())
        for score in score_rows(lm.model, rows, batch_size=batch_size, label="names")
    ]
    wins = [right < other for right, other in zip(losses[::2], losses[1::2], strict=True)]
    return share(wins), len(wins)


def _cloze_item(story: str) -> tuple[str, str, str] | None:
    """Return (text before the last repeated name, that name, another name), None if there are not two names."""
    names = [mention.name.capitalize() for mention in mentions(story)]
    for i in range(len(names) - 1, 0, -1):
        others = [name for name in names[:i] if name != names[i]]
        if names[i] in names[:i] and others:
            place = story.rfind(f" {names[i]}")
            return (story[:place], names[i], others[-1]) if place > 0 else None
    return None
