"""The loss on held-out text: per token, per byte, per document, with how much of it is chance."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.scoring import RowScore
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.loss import IGNORE
from gpt2lab.text.batches import PackedBatches

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeldOutLoss:
    """What a model loses on rows of held-out text, which are documents or windows."""

    nats: float
    """-log p of all targets together."""
    row_nats: _Numbers
    """The same by row, [rows]."""
    row_tokens: _Numbers
    """How many targets each row has, [rows]; none has 0."""
    n_bytes: float | None = None
    """UTF-8 bytes of the text that the targets spell, where they are known."""

    @property
    def tokens(self) -> int:
        """Targets of all rows."""
        return int(self.row_tokens.sum())

    @property
    def loss(self) -> float:
        """Mean over tokens, in nats."""
        return self.nats / self.tokens

    @property
    def row_loss(self) -> float:
        """Mean over rows of their mean losses, in nats per token: every document counts the same."""
        return float((self.row_nats / self.row_tokens).mean())

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte; NaN where the bytes are not known."""
        return self.nats / math.log(2) / self.n_bytes if self.n_bytes else math.nan

    @property
    def standard_error(self) -> float:
        """Standard error of `loss`, in nats per token; NaN of fewer than two rows.

        Tokens of a row err together, so that the rows are what is drawn: the linearised variance of a ratio of two sums
        (Cochran 1977, eq. 6.13). Neighbouring windows of one text are taken as independent.
        """
        n = len(self.row_nats)
        if n < 2:
            return math.nan
        apart = self.row_nats - self.loss * self.row_tokens
        return math.sqrt(n / (n - 1) * float((apart**2).sum())) / self.tokens


@torch.no_grad()
def held_out_loss(
    model: Transformer,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    rows: int | None = None,
    n_bytes: float | None = None,
) -> HeldOutLoss:
    """Return the loss over batches of "tokens" and "targets" [batch, time], and "attention_mask" where they have one.

    A target is the next token, -100 where there is none; a row without targets is passed over. rows: how many count, so that
    a last batch may go on into rows seen before. Dropout is off; losses that are not finite are reported as they are.
    LabError if there is nothing to predict.
    """
    total, sums, counts = 0.0, list[Tensor](), list[Tensor]()
    left = math.inf if rows is None else rows
    with evaluating(model):
        for batch in batches:
            take = int(min(len(batch["tokens"]), left))
            if take < 1:
                break
            left -= take
            here = {name: tensor[:take].to(model.device) for name, tensor in batch.items()}
            losses = model.next_token_loss(
                here["tokens"], here["targets"], attention_mask=here.get("attention_mask"), reduction="none"
            )
            total += float(losses.sum())
            sums.append(losses.double().sum(-1).cpu())
            counts.append((here["targets"] != IGNORE).sum(-1).cpu())
    return _made(total, sums, counts, n_bytes)


def windows_loss(
    model: Transformer, windows: PackedBatches, *, most: int | None = None, n_bytes: float | None = None
) -> HeldOutLoss:
    """Return the loss over the windows of a text, each once, at most the first `most`."""
    count = windows.windows if most is None else min(most, windows.windows)
    return held_out_loss(model, windows, rows=count, n_bytes=n_bytes)


def scores_loss(scores: Sequence[RowScore], *, n_bytes: float | None = None) -> HeldOutLoss:
    """Return the loss of rows that `score_rows` or `score_sequences` has scored. LabError for no rows."""
    losses = [score.losses.double() for score in scores]
    sums = [loss.sum()[None] for loss in losses]
    return _made(math.fsum(map(float, sums)), sums, [torch.tensor([len(loss)]) for loss in losses], n_bytes)


def _made(
    total: float, sums: Sequence[Tensor], counts: Sequence[Tensor], n_bytes: float | None
) -> HeldOutLoss:
    tokens = torch.cat(list(counts)).double().numpy() if counts else np.zeros(0)
    there = tokens > 0
    if not there.any():
        raise LabError("the held-out text has no token to predict; give more text")
    return HeldOutLoss(total, torch.cat(list(sums)).numpy()[there], tokens[there], n_bytes)
