"""Batches of chats in which the assistant's tokens alone are targets."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.loss import IGNORE
from gpt2lab.text.batches import EpochBatches, Epochs
from gpt2lab.text.chats import ChatTokens
from gpt2lab.text.encoding import pad_id, padded
from gpt2lab.text.tokenizer import Tokenizer


class ChatBatches(EpochBatches):
    """Chats by number: batch i is a pure function of the chats, the seed and i.

    batches[i] is {"tokens", "targets" int64, "attention_mask" bool} [rows, time], padded on the right. A target is the next
    token where the assistant wrote it, -100 elsewhere. A chat longer than `context` + 1 ids is cut at its end; one without a
    target, in whole or after the cut, is left out: `dropped` counts them, `truncated` the others that were cut.
    LabError if none is left.
    """

    def __init__(
        self,
        chats: Sequence[ChatTokens],
        tokenizer: Tokenizer,
        *,
        batch_size: int,
        context: int,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        cut = [(chat.ids[: context + 1], chat.answers[: context + 1]) for chat in chats]
        kept = [any(answers[1:]) for _, answers in cut]
        self.rows = [row for row, keep in zip(cut, kept, strict=True) if keep]
        self.dropped = len(chats) - len(self.rows)
        longer = (len(chat.ids) > context + 1 for chat in chats)
        self.truncated = sum(long and keep for long, keep in zip(longer, kept, strict=True))
        if not self.rows:
            raise LabError(
                f"none of {len(chats)} chats has an answer within {context} tokens; give chats with messages of the "
                "assistant, or a longer context"
            )
        self.pad = pad_id(tokenizer)
        self._epochs = Epochs(len(self.rows), batch_size, seed, shuffle, 0, 1)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.gather([item for _, item in self._epochs.rows(index)])

    def gather(self, items: Sequence[int]) -> dict[str, Tensor]:
        """Return the batch of these chats, in this order."""
        rows = [self.rows[item] for item in items]
        tokens, real = padded([ids[:-1] for ids, _ in rows], self.pad)
        following, _ = padded([ids[1:] for ids, _ in rows], self.pad)
        learnt, _ = padded([answers[1:] for _, answers in rows], 0)
        targets = torch.where(learnt.bool() & real, following, IGNORE)
        return {"tokens": tokens, "targets": targets, "attention_mask": real}
