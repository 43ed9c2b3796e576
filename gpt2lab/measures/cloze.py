"""Cloze: does the model know the last word of a passage (LAMBADA, Paperno et al. 2016)?"""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError
from gpt2lab.measures import corpus
from gpt2lab.measures.continuation import (
    Continuation,
    opened,
    room_for,
    score_continuations,
    split_continuation,
)
from gpt2lab.measures.lab_backend import LabBackend, back_end_row, text_backend
from gpt2lab.measures.measurement import Measurement
from gpt2lab.measures.perplexity import exponential
from gpt2lab.measures.scoring import RowScore, check_batch_size
from gpt2lab.measures.statistics import wilson_interval
from gpt2lab.measures.text_measure import TextMeasure
from gpt2lab.text import sources
from gpt2lab.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2lab.decode.backend import TextBackend
    from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True)
class ClozeItem:
    """One passage with its last word set apart."""

    word: str
    label: Continuation
    """The word's tokens after what stands before it; all must be the likeliest (the strict rule)."""
    last: Continuation
    """The passage's last token after all others (the loose rule)."""


@dataclass(frozen=True, kw_only=True)
class Cloze(TextMeasure):
    """Accuracy and perplexity at the last word of passages; of a text back end without the loose rule."""

    data: tuple[str, ...] = ()
    """Passages: files, folders, names of built-in sources, or the published ones, hub:EleutherAI/lambada_openai:test."""
    field: str = "text"
    """Field of the passage in jsonl, csv, parquet and hub rows."""
    batch_size: int = 16
    """Passages in one forward pass; changes speed and memory, not the numbers."""
    bos: bool = False
    """Put a start token before each passage."""
    limit: int | None = None
    """Use only the first N passages."""

    def __call__(self, lm: "LanguageModel | TextBackend") -> Measurement:
        """Measure; LabError if there is no passage, or one is a single word and nothing can stand before it."""
        if not self.data:
            raise LabError("cloze: no passages given; give files, or hub:EleutherAI/lambada_openai:test")
        check_batch_size(self.batch_size)
        if self.limit is not None and self.limit < 1:
            raise LabError(f"limit must be at least 1 passage, got {self.limit}")
        data = self.data if isinstance(self.data, str) else list(self.data)
        backend = text_backend(lm, batch_size=self.batch_size, bos=self.bos, label="cloze")
        texts = itertools.islice(sources.documents(data, field=self.field), self.limit)
        if not isinstance(backend, LabBackend):
            return self._of_text(backend, list(texts))
        lm, tokenizer = backend.lm, corpus.need_tokenizer(backend.lm, "cloze")
        items = [
            cloze_item(tokenizer, text, f"passage {number}", bos=self.bos)
            for number, text in enumerate(texts, 1)
        ]
        if not items:
            raise LabError(f"{', '.join(self.data)}: no passages there")
        # The label's tokens are nearly always the passage's last ones; only where they are not, score those too.
        odd = [item for item in items if not _same(item)]
        scores = score_continuations(
            lm.model,
            [item.label for item in items] + [item.last for item in odd],
            batch_size=self.batch_size,
            keep=int(self.bos),
            label="cloze",
        )
        loose = {id(item): score for item, score in zip(odd, scores[len(items) :], strict=True)}
        rows = [
            _row(i, item, score, loose.get(id(item), score))
            for i, (item, score) in enumerate(zip(items, scores, strict=False))
        ]
        truncated = sum(len(item.label.context) > room_for(lm.model, item.label) for item in items)
        return self._report(rows, {"contexts_cut_on_the_left": truncated})

    def _of_text(self, backend: "TextBackend", texts: list[str]) -> Measurement:
        """Measure by the scores of a back end: one for each word, so that the loose rule cannot be tried."""
        if not texts:
            raise LabError(f"{', '.join(self.data)}: no passages there")
        split = [split_word(text, f"passage {number}") for number, text in enumerate(texts, 1)]
        scores = backend.score(
            [context for context, _ in split], [[f" {word}" if context else word] for context, word in split]
        )
        rows = [
            {"passage": i, "word": word, "tokens": one.tokens, "correct": one.likeliest, "loss": -one.logprob}
            for i, ((_, word), (one,)) in enumerate(zip(split, scores, strict=True))
        ]
        return self._report(rows, back_end_row(backend))

    def _report(self, rows: list[dict[str, Any]], more: dict[str, Any]) -> Measurement:
        n, loose = len(rows), "last_token" in rows[0]
        strict = wilson_interval(sum(row["correct"] for row in rows), n)
        n_tokens, total = sum(row["tokens"] for row in rows), sum(row["loss"] for row in rows)
        numbers = {
            "accuracy": strict.mean,
            "accuracy_low": strict.low,
            "accuracy_high": strict.high,
            **({"last_token_accuracy": sum(row["last_token"] for row in rows) / n} if loose else {}),
            "perplexity": exponential(total / n),
            "token_perplexity": exponential(total / n_tokens),
        }
        units = {
            "accuracy": "every token of the word the likeliest",
            "accuracy_low": "95 % (Wilson)",
            "accuracy_high": "95 % (Wilson)",
            **({"last_token_accuracy": "the last token the likeliest"} if loose else {}),
            "perplexity": "per word",
            "token_perplexity": "per token of the word",
        }
        about = {
            "data": [self.data] if isinstance(self.data, str) else list(self.data),
            "passages": n,
            "tokens": n_tokens,
            "bos": self.bos,
            **more,
        }
        return Measurement(name="cloze", numbers=numbers, units=units, tables={"passages": rows}, about=about)


def split_word(text: str, where: str) -> tuple[str, str]:
    """Return the context of a passage's last word, stripped, and the word. LabError, beginning with `where`, for no word."""
    passage = text.rstrip()
    if not passage:
        raise LabError(f"{where}: a cloze test needs words, got {text!r}")
    word = passage.split()[-1]
    return passage[: -len(word)].strip(), word


def cloze_item(tokenizer: Tokenizer, text: str, where: str = "a passage", *, bos: bool = False) -> ClozeItem:
    """Set the last word of a passage apart: the context is all before its last occurrence, stripped.

    Its tokens are those of the context, a blank and the word as they are encoded together; one that lies across the
    border is the word's. The loose rule reads the passage as it stands. LabError, beginning with `where`, if there is
    no word, or nothing can stand before it. Shoeybi et al. 2019, section 5.2, and the public zero-shot evaluation of
    Megatron-LM.
    """
    context, word = split_word(text, where)
    everything = tokenizer.encode(text.rstrip())
    try:
        label = split_continuation(tokenizer, context, f" {word}" if context else word, bos=bos)
        last = opened(tokenizer, everything[:-1], everything[-1:], bos=bos)
    except LabError as error:
        raise LabError(f"{where}: {text!r} is a single word, and {error}") from error
    return ClozeItem(word, label, last)


def _same(item: ClozeItem) -> bool:
    return item.label.context + item.label.tokens == item.last.context + item.last.tokens


def _row(index: int, item: ClozeItem, score: RowScore, last: RowScore) -> dict[str, Any]:
    return {
        "passage": index,
        "word": item.word,
        "tokens": len(score.losses),
        "correct": bool(score.hits.all()),
        "last_token": bool(last.hits[-1]),
        "loss": float(score.losses.double().sum()),
    }
