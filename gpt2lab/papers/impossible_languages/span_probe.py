"""Measure `span-probe`: how well the states of each block tell which kind of phrase a span of tokens is."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import ModelTokenizer
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.statistics import exact_binomial_interval
from gpt2lab.papers.impossible_languages.corpus import sentences_of
from gpt2lab.papers.impossible_languages.probe import (
    LABELS,
    Span,
    balanced,
    find_span,
    fit_and_judge,
    parts_of,
    phrases,
    span_states,
)
from gpt2lab.plots.over_seeds import dots
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.text.tokenizer_files import load_tokenizer

_CHARACTERS, _WORDS = 50, 5
"""A sentence of the probe has at least so many, as in the authors' code."""


@dataclass(frozen=True, kw_only=True)
class SpanProbe:
    """Accuracy of a logistic regression that tells noun, verb, adjective, adverb and prepositional phrases apart."""

    annotated: tuple[str, ...] = ("agreement:300:1",)
    """Sentences with bracketed parses: the authors' JSON, agreement:SIZE:SEED (generated)."""
    order: Literal["forward", "reversed"] = "forward"
    """reversed: sentences are read from their end, as a model of full reversal reads them."""
    pool: Literal["mean", "max"] = "mean"
    """How the states of a span become one."""
    per_label: int = 100
    """Phrases of each kind, at most; the paper takes 2000."""
    seed: int = 62
    """Seed of the phrases that are drawn and of the fifth that is judged."""
    tokenizer: ModelTokenizer = ""
    """MODEL or folder whose tokenizer reads the text: for spelled tokens the corpus's DIR/tokenizer; empty: the model's."""
    batch_size: int = 32
    """Sentences in one forward pass; changes speed and memory, not the numbers."""

    def __post_init__(self) -> None:
        if self.per_label < 5:
            raise LabError(
                f"span-probe: per_label must be at least 5 phrases of each kind, got {self.per_label}"
            )

    def __call__(self, lm: LanguageModel) -> Measurement:
        """Measure a model; LabError for sentences without parses, and fewer than two kinds of five phrases each."""
        if self.tokenizer:
            lm = LanguageModel(lm.model, load_tokenizer(self.tokenizer))
        tokenizer = need_tokenizer(lm, "span-probe")
        if not lm.config.n_layers:
            raise LabError("span-probe: this model has no blocks whose states could be read")
        spans = balanced(self._spans(tokenizer), self.per_label, seed=self.seed)
        spans = [span.reversed() for span in spans] if self.order == "reversed" else spans
        labels = [span.label for span in spans]
        _, judged = parts_of(labels, seed=self.seed)
        states = span_states(lm.model, spans, pool=self.pool, batch_size=self.batch_size)
        right = {place: fit_and_judge(x, labels, seed=self.seed) for place, x in states.items()}
        n = int(judged.sum())
        rows: Table = []
        for place, hits in right.items():
            found = exact_binomial_interval(int(hits.sum()), n)
            rows.append(
                {"place": place, "accuracy": found.mean, "95 % low": found.low, "95 % high": found.high}
            )
        kept = [label for label, one in zip(labels, judged.tolist(), strict=True) if one]
        majority = max(map(kept.count, kept)) / n
        accuracy = {row["place"]: [row["accuracy"]] for row in rows}
        spread = {row["place"]: (row["95 % low"], row["95 % high"]) for row in rows}
        return Measurement(
            name="span-probe",
            numbers={
                "last4": accuracy["last4"][0],
                "embed": accuracy["embed"][0],
                "majority": majority,
            },
            units={
                "last4": "accuracy, mean of the last four blocks' states",
                "embed": "accuracy, what the first block reads",
                "majority": "accuracy of the most frequent kind",
            },
            tables={"accuracy": rows},
            arrays={f"right.{place}": hits.numpy() for place, hits in right.items()},
            figures={
                "accuracy": partial(
                    dots, accuracy, label="accuracy of the probe", intervals=spread, reference={"majority": majority},
                )
            },
            about={"phrases": {label: labels.count(label) for label in LABELS}, "judged": n, "order": self.order},
        )  # fmt: skip

    def _spans(self, tokenizer: Tokenizer) -> list[Span]:
        found: list[Span] = []
        parsed = False
        for sentence in sentences_of(self.annotated, annotated=True):
            parsed |= bool(sentence.parse)
            if len(sentence.text) < _CHARACTERS or len(sentence.words) < _WORDS or not sentence.parse:
                continue
            ids = tokenizer.encode(sentence.text)
            for label, words in phrases(sentence.parse):
                span = find_span(ids, " ".join(words), label, tokenizer)
                if span is not None:
                    found.append(span)
        if not parsed:
            raise LabError(
                "span-probe: none of the sentences has a bracketed parse; give the authors' JSON with constituency_parse, "
                "or agreement:SIZE:SEED"
            )
        return found
