"""Injection of meta-tokens at random places of the text, and the targets that remain.

Of a row of n tokens M = ⌊k n⌋ become metas, at a uniform M-subset of its places. Every pair whose target is a meta is
dropped; a meta itself predicts the next real token.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.loss import IGNORE

Rows = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Injector:
    """How metas are put into rows of text; a pure function of the row, the seed and the moment.

    LabError for a fraction outside [0, 1), or negative places.
    """

    token: int
    """Id of the meta-token."""
    fraction: float = 0.1
    """k, share of a row's places that are metas."""
    append: bool = False
    """The row grows by M; otherwise it keeps its length, and its last M tokens are left out."""
    exclude_first: int = 0
    """First places of a row that are never metas."""
    exclude_last: int = 0
    """Last places of a row that are never metas."""
    bridge_targets: bool = False
    """A token before a meta predicts the next real token; otherwise its pair is dropped, as in the paper."""
    seed: int = 0
    """Decides, with the row and the moment, where metas stand."""

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1:
            raise LabError(
                f"meta-tokens: fraction must lie in [0, 1), got {self.fraction}; the paper's is 0.1"
            )
        if self.exclude_first < 0 or self.exclude_last < 0:
            raise LabError("meta-tokens: exclude_first and exclude_last are numbers of places, at least 0")

    def count(self, length: int) -> int:
        """Return M for a row of `length` tokens. LabError for a row without room."""
        metas = int(self.fraction * length + 1e-9)  # eq. M: 0.1 · 30 is 3, not 2.9999
        places = length + (metas if self.append else 0) - self.exclude_first - self.exclude_last
        if metas and (places < metas or (not self.append and length <= metas)):
            raise LabError(
                f"meta-tokens: a row of {length} tokens has no room for {metas} metas besides the first "
                f"{self.exclude_first} and the last {self.exclude_last} places"
            )
        return metas

    def places(self, length: int, metas: int, tokens: np.ndarray, moment: int) -> np.ndarray:
        """Return the places of metas, ascending, in a row of `length` tokens, metas included."""
        digest = hashlib.blake2b(
            f"{self.seed} {moment} ".encode() + tokens.astype("<i8").tobytes(), digest_size=8
        )
        generator = np.random.default_rng(int.from_bytes(digest.digest(), "little"))
        room = length - self.exclude_first - self.exclude_last
        return self.exclude_first + np.sort(generator.choice(room, size=metas, replace=False))  # eq. places

    def __call__(self, batch: Mapping[str, Tensor], *, moment: int = 0) -> Rows:
        """Return a batch with metas: tokens, targets, meta_positions, and attention_mask if there was one.

        batch: tokens and targets [batch, time], targets shifted already, -100 where there is none; optionally attention_mask
        [batch, time]. moment: the update or epoch, so that places are drawn anew each time. LabError where the meta-token
        stands in the text or among the targets, and for a row without room.
        """
        tokens, targets = batch["tokens"], batch["targets"]
        self._refuse_metas(tokens, targets, batch.get("attention_mask"))
        mask = batch.get("attention_mask")
        real = np.ones(tokens.shape, dtype=bool) if mask is None else mask.bool().cpu().numpy()
        ids, labels = tokens.cpu().numpy(), targets.cpu().numpy()
        rows = [self._row(ids[i][real[i]], labels[i][real[i]], moment) for i in range(len(ids))]
        grown = [int(marks.sum()) if self.append else 0 for _, _, marks in rows]
        time = ids.shape[1] + max(grown, default=0)
        made = {
            "tokens": np.zeros((len(ids), time), np.int64),
            "targets": np.full((len(ids), time), IGNORE, np.int64),
            "meta_positions": np.zeros((len(ids), time), bool),
            "attention_mask": np.zeros((len(ids), time), np.int64),
        }
        for i, row in enumerate(rows):
            where = np.flatnonzero(real[i])
            where = np.concatenate([where, np.arange(grown[i]) + (where[-1] + 1 if len(where) else 0)])
            made["tokens"][i, : ids.shape[1]] = np.where(real[i], 0, ids[i])  # padding keeps its token
            for name, values in zip(("tokens", "targets", "meta_positions"), row, strict=True):
                made[name][i, where] = values
            made["attention_mask"][i, where] = 1
        found = {name: torch.from_numpy(values).to(tokens.device) for name, values in made.items()}
        if mask is None:  # then all rows have as many metas
            del found["attention_mask"]
        kept = {name: x for name, x in batch.items() if name not in found and name != "attention_mask"}
        return {**kept, **found}

    def _row(
        self, tokens: np.ndarray, targets: np.ndarray, moment: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One row's real tokens with metas among them: tokens, targets, which are metas."""
        metas = self.count(len(tokens))
        length = len(tokens) + (metas if self.append else 0)
        marks = np.zeros(length, bool)
        marks[self.places(length, metas, tokens, moment)] = True
        new = np.full(length, self.token, np.int64)
        new[~marks] = tokens[: length - metas]
        # The next real token of every place: that after the last text token at or before it.
        last = np.cumsum(~marks) - 1
        following = np.where(last >= 0, targets[np.maximum(last, 0)], IGNORE) if len(targets) else targets
        if len(targets) and targets[0] != IGNORE:
            following[last < 0] = tokens[0]
        before_meta = np.zeros(length, bool)
        before_meta[:-1] = marks[1:]
        if not self.bridge_targets:
            following = np.where(before_meta, IGNORE, following)  # eq. loss mask: the target is a meta
        return new, following, marks

    def _refuse_metas(self, tokens: Tensor, targets: Tensor, mask: Tensor | None) -> None:
        if bool((targets == self.token).any()):
            raise LabError(
                f"meta-tokens: token {self.token} is among the targets, and no loss is paid for metas; "
                "mask those targets, or name the right token"
            )
        there = tokens == self.token
        if bool((there if mask is None else there & mask.bool()).any()):
            raise LabError(
                f"meta-tokens: token {self.token} stands in the text before any is injected; "
                "name a token of its own, which `gpt2lab apply add-meta-token` adds"
            )


def mask_metas(tokens: Tensor, targets: Tensor, token: int, *, bridge_targets: bool = False) -> Tensor:
    """Return targets [batch, time] without those that are metas, for text in which metas stand already.

    bridge_targets: such a pair gets the next real token instead, as far as the row has one.
    """
    found = targets.clone()
    metas = targets == token
    if not bridge_targets:
        return found.masked_fill(metas, IGNORE)
    for step in range(tokens.shape[1] - 2, -1, -1):
        found[:, step] = torch.where(metas[:, step], found[:, step + 1], found[:, step])
    return found.masked_fill(found == token, IGNORE)
