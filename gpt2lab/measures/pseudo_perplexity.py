"""Pseudo-perplexity of text under a bidirectional model: one token hidden at a time (Salazar et al. 2020)."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import Progress, progress
from gpt2lab.measures import corpus
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.perplexity import exponential
from gpt2lab.measures.scoring import RowScore, check_batch_size, evaluating
from gpt2lab.model import Transformer
from gpt2lab.text.pieces import frame
from gpt2lab.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

_LONGEST_DEFAULT = 512
_LISTED = 1000
"""Documents that the table lists."""


@dataclass(frozen=True)
class Framed:
    """Tokens the model reads at once, of which start … stop - 1 are hidden and told, one after the other."""

    ids: list[int]
    start: int
    stop: int


def score_hidden(
    model: Transformer, rows: Sequence[Framed], *, mask: int, batch_size: int = 16
) -> list[RowScore]:
    """Return, for each row, -log p(token | all other tokens of the row) in nats of each of its told tokens, and hits.

    A token is told from a copy of the row in which it alone is the mask token (Salazar et al. 2020, eq. 1), so a row
    costs as many forward passes as it has tokens to tell, `batch_size` of one length at a time.
    LabError: a causal model, a model without a head, NaN logits.
    """
    check_batch_size(batch_size)
    _refuse_causal(model)
    places = [(i, at) for i, row in enumerate(rows) for at in range(row.start, row.stop)]
    places.sort(key=lambda place: -len(rows[place[0]].ids))
    wide = torch.promote_types(model.dtype, torch.float32)
    losses = [torch.empty(row.stop - row.start, dtype=wide) for row in rows]
    hits = [torch.empty(row.stop - row.start, dtype=torch.bool) for row in rows]
    bar: Progress[int] = progress(total=len(places), label="pseudo-perplexity", unit="tokens")
    with evaluating(model), torch.inference_mode(), bar:
        for _, group in itertools.groupby(places, key=lambda place: len(rows[place[0]].ids)):
            while batch := list(itertools.islice(group, batch_size)):
                found = _hidden_losses(model, [(rows[i].ids, at) for i, at in batch], mask)
                for (i, at), loss, hit in zip(batch, *found, strict=True):
                    losses[i][at - rows[i].start], hits[i][at - rows[i].start] = loss, hit
                bar.advance(len(batch))
    return [RowScore(loss, hit) for loss, hit in zip(losses, hits, strict=True)]


def _refuse_causal(model: Transformer) -> None:
    if model.config.causal:
        raise LabError(
            f"pseudo-perplexity hides a token from all others, and this {model.config.family} is causal, so it never "
            "sees what comes after; measure perplexity instead"
        )


def _hidden_losses(
    model: Transformer, batch: Sequence[tuple[list[int], int]], mask: int
) -> tuple[Tensor, Tensor]:
    """Loss and hit of the token at one place of each row, [rows] each, on the CPU; rows of one length."""
    tokens = torch.tensor([ids for ids, _ in batch], device=model.device)
    rows = torch.arange(len(batch), device=model.device)
    places = torch.tensor([at for _, at in batch], device=model.device)
    target = tokens[rows, places]
    tokens[rows, places] = mask
    logits = model.unembed(model.hidden(tokens)[rows, places])  # [rows, vocab]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.isnan().any():
        raise LabError("the model's logits are NaN; look at its weights, or load it in float32")
    losses = logits.logsumexp(-1) - logits.gather(-1, target[:, None])[:, 0]
    return losses.cpu(), (logits.argmax(-1) == target).cpu()


@dataclass(frozen=True, kw_only=True)
class PseudoPerplexity:
    """Pseudo-perplexity of a bidirectional model on text."""

    data: tuple[str, ...] = ("docstrings",)
    """Text to score: files, folders, hub:ID or names of built-in sources."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    window: int | None = None
    """Tokens the model reads at once, [CLS] and [SEP] included; none means its positions, at most 512."""
    batch_size: int = 16
    """Masked tokens in one forward pass; changes speed and memory, not the numbers."""
    limit: int | None = 2000
    """Score at most this many tokens, each of which is a forward pass; none means all."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure; LabError for a causal model, a tokenizer without a mask token, text that is too short."""
        _refuse_causal(lm.model)
        tokenizer = corpus.need_tokenizer(lm, "pseudo-perplexity")
        longest = lm.config.max_positions
        window = min(longest, _LONGEST_DEFAULT) if self.window is None else self.window
        if not 1 <= window <= longest:
            raise LabError(f"window {window}: must lie between 1 and the model's {longest} positions")
        if self.limit is not None and self.limit < 1:
            raise LabError(f"limit must be at least 1 token, got {self.limit}")
        if tokenizer.mask is None:
            raise LabError("pseudo-perplexity needs a tokenizer with a mask token, and this one has none")
        documents = list(_framed(corpus.read_texts(self.data, self.field), tokenizer, window, self.limit))
        rows = [row for document in documents for row in document]
        if not rows:
            raise LabError(f"{', '.join(self.data)}: there is no text to score")
        scores = score_hidden(lm.model, rows, mask=tokenizer.mask, batch_size=self.batch_size)
        return self._report([len(document) for document in documents], scores, window)

    def _report(self, pieces: list[int], scores: list[RowScore], window: int) -> Measurement:
        losses = torch.cat([score.losses for score in scores]).double()
        hits = torch.cat([score.hits for score in scores])
        loss = float(losses.mean())
        parts = iter(scores)
        table: Table = []
        for i, count in enumerate(pieces):
            own = torch.cat([score.losses for score in itertools.islice(parts, count)]).double()
            table.append({"document": i, "tokens": len(own), "loss": float(own.mean())})
        return Measurement(
            name="pseudo-perplexity",
            numbers={
                "pseudo_perplexity": exponential(loss),
                "loss": loss,
                "accuracy": float(hits.double().mean()),
            },
            units={"loss": "nats/token", "accuracy": "share of tokens"},
            tables={"documents": table[:_LISTED]},
            about={
                "data": list(self.data),
                "documents": len(pieces),
                "tokens": len(losses),
                "window": window,
            },
        )


def _framed(
    texts: Iterator[str], tokenizer: Tokenizer, window: int, limit: int | None
) -> Iterator[list[Framed]]:
    """Yield each text as windows between the tokens that the tokenizer puts around a text, `limit` tokens in all."""
    left = limit
    for text in texts:
        ids = tokenizer.encode(text)
        if not ids:
            continue
        before, after = frame(tokenizer, text)
        room = window - len(before) - len(after)
        if room < 1:
            raise LabError(f"window {window}: has no room beside {len(before) + len(after)} special tokens")
        ids = ids[:left]
        cuts = [ids[start : start + room] for start in range(0, len(ids), room)]
        yield [Framed([*before, *cut, *after], len(before), len(before) + len(cut)) for cut in cuts]
        left = None if left is None else left - len(ids)
        if left == 0:
            return
