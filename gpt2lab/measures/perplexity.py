"""Perplexity of text: per token, per byte, and adjusted to words, in windows that overlap as far as one likes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures import corpus
from gpt2lab.measures.detokenize import Style
from gpt2lab.measures.held_out import scores_loss
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.scoring import Row, RowScore, check_batch_size, score_rows
from gpt2lab.model import Transformer
from gpt2lab.plots.figures import column_chart

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

_LONGEST_DEFAULT = 2048
_CAP = 20.0
"""The exponent at which the public evaluation of Megatron-LM cuts its perplexities."""
_LISTED = 1000
"""Documents that the table lists."""


@dataclass(frozen=True)
class Window:
    """A piece of a sequence: tokens start … stop - 1 are read, the last `scored` of start + 1 … stop predicted."""

    start: int
    stop: int
    scored: int


def windows(n_targets: int, window: int, stride: int) -> list[Window]:
    """Cut `n_targets` predictions into windows of `window` tokens that advance by `stride`.

    The first window scores all its targets, each later one only those that no window scored before, so that every
    target is scored once; the last window ends with the text. LabError unless 1 ≤ stride ≤ window.
    Shoeybi et al. 2019, appendix E (window 1024, stride 32).
    """
    if window < 1:
        raise LabError(f"window must be at least 1 token, got {window}")
    if not 1 <= stride <= window:
        raise LabError(
            f"stride must lie between 1 and the window of {window}, got {stride}: else tokens are left out"
        )
    cut = [Window(0, min(window, n_targets), min(window, n_targets))]
    while cut[-1].stop < n_targets:
        start = cut[-1].start + stride
        stop = min(start + window, n_targets)
        cut.append(Window(start, stop, stop - cut[-1].stop))
    return cut


def token_losses(
    model: Transformer,
    ids: Tensor | Sequence[int],
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
) -> Tensor:
    """Return -log p(token | what its window holds before it) in nats, for every token of `ids` but the first.

    ids [length] → [length - 1] float64 on the CPU. `window` defaults to the model's positions (at most 2048),
    `stride` to half the window. LabError: fewer than two ids, ids outside the vocabulary, a window longer than the
    model's positions, a stride outside 1 … window, NaN logits.
    """
    score = score_sequences(model, [ids], window=window, stride=stride, batch_size=batch_size)[0]
    return score.losses.double()


def score_sequences(
    model: Transformer,
    sequences: Sequence[Tensor | Sequence[int]],
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
    label: str = "perplexity",
) -> list[RowScore]:
    """Score every token but the first of several sequences, none of which sees another; as `token_losses`."""
    window, stride = resolve(model, window, stride)
    check_batch_size(batch_size)
    rows: list[Row] = []
    owners: list[int] = []
    for number, sequence in enumerate(sequences):
        ids = torch.as_tensor(sequence, dtype=torch.int64, device="cpu")
        if ids.dim() != 1 or len(ids) < 2:
            raise LabError(
                f"perplexity needs sequences of at least two tokens, got one of shape {list(ids.shape)}"
            )
        for cut in windows(len(ids) - 1, window, stride):
            rows.append(Row(ids[cut.start : cut.stop + 1], cut.scored))
            owners.append(number)
    pieces: list[list[RowScore]] = [[] for _ in sequences]
    for owner, score in zip(owners, score_rows(model, rows, batch_size=batch_size, label=label), strict=True):
        pieces[owner].append(score)
    return [RowScore(torch.cat([p.losses for p in own]), torch.cat([p.hits for p in own])) for own in pieces]


def resolve(model: Transformer, window: int | None, stride: int | None) -> tuple[int, int]:
    """Return window and stride with their defaults filled in. LabError if the model has not so many positions."""
    most = model.context
    window = min(most, _LONGEST_DEFAULT) if window is None else window
    if window > most and model.config.positions != "none":
        raise LabError(f"window {window} is longer than the model's {most} positions")
    return window, max(1, window // 2) if stride is None else stride


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Perplexity of a model on text."""

    data: tuple[str, ...] = ("docstrings:65536",)
    """Text to score: files, folders, hub:ID or built-in sources; by default 65,536 characters of prose and code."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    documents: bool = False
    """Score each document separately instead of all text as one stream."""
    window: int | None = None
    """Tokens the model reads at once; none means its positions, at most 2048."""
    stride: int | None = None
    """Tokens by which the window advances; a small stride is slower and gives every token more context; none means half."""
    batch_size: int = 8
    """Windows in one forward pass; changes speed and memory, not the numbers."""
    detokenize: Style = "none"
    """Undo the spacing of WikiText or Penn Treebank files first."""
    word_adjusted: bool = False
    """Also report perplexity per blank-separated word of the text as stored, comparable across tokenizers."""
    bos: bool | None = None
    """Put a start token first, so that the first token is scored; none means for documents only."""
    limit: int | None = None
    """Score at most this many tokens."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure; LabError for settings that do not fit the model or text that is too short."""
        tokenizer = corpus.need_tokenizer(lm, "perplexity")
        window, stride = resolve(lm.model, self.window, self.stride)
        windows(1, window, stride)
        check_batch_size(self.batch_size)
        if self.limit is not None and self.limit < 1:
            raise LabError(f"limit must be at least 1 token, got {self.limit}")
        if self.limit is not None and self.word_adjusted:
            raise LabError("word_adjusted counts the words of the whole text; leave limit out")
        bos = self.documents if self.bos is None else self.bos
        if self.bos is None and tokenizer.bos is None and tokenizer.eos is None:
            bos = False
        texts = corpus.read_texts(self.data, self.field)
        if self.documents:
            found = corpus.passages(texts, tokenizer, style=self.detokenize, bos=bos, limit=self.limit)
        else:
            found = [corpus.stream(texts, tokenizer, style=self.detokenize, bos=bos, limit=self.limit)]
        ids = [passage.ids for passage in found]
        scores = score_sequences(lm.model, ids, window=window, stride=stride, batch_size=self.batch_size)
        return self._report(found, scores, window, stride, bos)

    def _report(
        self, found: list[corpus.Passage], scores: list[RowScore], window: int, stride: int, bos: bool
    ) -> Measurement:
        losses = torch.cat([score.losses for score in scores]).double()
        hits = torch.cat([score.hits for score in scores])
        n_bytes = sum(passage.n_bytes for passage in found)
        held_out = scores_loss(scores, n_bytes=n_bytes)
        numbers = {
            "perplexity": exponential(held_out.loss),
            "loss": held_out.loss,
            "bits_per_byte": held_out.bits_per_byte,
            "accuracy": float(hits.double().mean()),
        }
        units = {"loss": "nats/token", "bits_per_byte": "bits/byte", "accuracy": "share of tokens"}
        about: dict[str, Any] = {"data": [self.data] if isinstance(self.data, str) else list(self.data)}
        about |= {"tokens": len(losses), "bytes": n_bytes, "window": window, "stride": stride, "bos": bos}
        if self.documents:
            numbers["document_perplexity"] = exponential(held_out.row_loss)
            units["document_perplexity"] = "geometric mean over documents"
            if len(scores) > 1:
                numbers["loss_standard_error"] = held_out.standard_error
                units["loss_standard_error"] = "nats/token, over documents"
            about["documents"] = len(found)
        if self.detokenize != "none":
            about["detokenize"] = self.detokenize
        if self.word_adjusted:
            adjusted = adjust(held_out.nats, sum(passage.n_words for passage in found), len(losses))
            numbers, about = numbers | adjusted, about | {"capped": adjusted["adjusted_loss"] > _CAP}
            units["adjusted_loss"] = "nats/word"
        by_context = _by_context([len(score.losses) for score in scores], losses, window, stride)
        tables = {"by_context": by_context}
        if self.documents:
            tables["documents"] = [
                _document_row(i, *pair) for i, pair in enumerate(zip(found, scores, strict=True))
            ]
            del tables["documents"][_LISTED:]
        drawing = partial(
            column_chart,
            by_context,
            "context",
            "loss",
            x_label="tokens of context, at most",
            y_label="nats/token",
            log_x=True,
        )
        return Measurement(
            name="perplexity",
            numbers=numbers,
            units=units,
            tables=tables,
            about=about,
            figures={"by_context": drawing},
        )


def adjust(total: float, n_words: int, n_targets: int) -> dict[str, float]:
    """Return perplexity per word from the summed loss (nats) of a text of `n_words` blank-separated words.

    adjusted_perplexity = exp(min(20, total / (To - 1))), the public code's; adjusted_perplexity_paper =
    exp(total / To), the paper's formula; token_ratio = targets / (To - 1). LabError for fewer than two words.
    Shoeybi et al. 2019, appendix E.
    """
    if n_words < 2:
        raise LabError(f"word-adjusted perplexity needs at least two words, got {n_words}")
    return {
        "adjusted_perplexity": math.exp(min(_CAP, total / (n_words - 1))),
        "adjusted_perplexity_paper": exponential(total / n_words),
        "adjusted_loss": total / (n_words - 1),
        "token_ratio": n_targets / (n_words - 1),
        "words": n_words,
    }


def exponential(loss: float) -> float:
    """Return exp(loss), inf where that is beyond floating point."""
    return math.exp(loss) if loss < 709.0 else math.inf if not math.isnan(loss) else math.nan


def _by_context(lengths: list[int], losses: Tensor, window: int, stride: int) -> Table:
    """Mean loss by the number of tokens before the predicted one, in classes up to 1, 2, 4, 8, …"""
    cuts = (cut for length in lengths for cut in windows(length, window, stride))
    contexts = torch.cat(
        [torch.arange(cut.stop - cut.start - cut.scored, cut.stop - cut.start) + 1 for cut in cuts]
    )
    classes = contexts.double().log2().ceil().long()  # 1 → 0, 2 → 1, 3 and 4 → 2, …
    counts = torch.bincount(classes)
    sums = torch.bincount(classes, weights=losses)
    return [
        {"context": min(2**i, window), "tokens": int(count), "loss": float(total / count)}
        for i, (count, total) in enumerate(zip(counts, sums, strict=True))
        if count
    ]


def _document_row(index: int, passage: corpus.Passage, score: RowScore) -> dict[str, Any]:
    total = float(score.losses.double().sum())
    bits = total / math.log(2) / passage.n_bytes if passage.n_bytes else math.nan
    return {
        "document": index,
        "tokens": len(score.losses),
        "bytes": passage.n_bytes,
        "loss": total / len(score.losses),
        "bits_per_byte": bits,
    }
