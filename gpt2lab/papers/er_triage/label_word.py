"""The other read-out: the model writes the class, as one word behind the note and a separator.

The probability of class 1 is the softmax over the logits of the two words alone. Training predicts the word like any other
token, -log p(word) over the whole vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.scoring import check_batch_size
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.finite import all_finite
from gpt2lab.model.loss import IGNORE
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.encoding import padded
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.training.micro_batches import Batch
from gpt2lab.training.objectives import LossFunction


@dataclass(frozen=True, kw_only=True)
class LabelWord:
    """How the class is written."""

    words: tuple[str, str] = (" no", " yes")
    """What stands for class 0 and for class 1; each one token, and not the same."""
    separator: str = " ?"
    """Text between note and class."""

    def ids(self, tokenizer: Tokenizer) -> tuple[int, int]:
        """Return the tokens of the two words. LabError for a word that is not one token, is unknown, or both alike."""
        found = []
        for word in self.words:
            ids = tokenizer.encode(word)
            if len(ids) != 1 or ids[0] == tokenizer.unk:
                raise LabError(
                    f"label word {word!r} is {len(ids)} tokens or unknown; give words of which each is one token"
                )
            found.append(ids[0])
        if found[0] == found[1]:
            raise LabError("both classes have the same label word")
        return found[0], found[1]

    def rows(self, texts: Sequence[str], tokenizer: Tokenizer, context: int) -> tuple[list[list[int]], int]:
        """Return each text's tokens with the separator behind them, and how many texts were cut on the right.

        LabError where `context` leaves no room for a text beside separator and class.
        """
        start = [tokenizer.bos] if tokenizer.bos is not None else []
        end = tokenizer.encode(self.separator)
        room = context - len(start) - len(end) - 1
        if room < 1:
            raise LabError(f"a context of {context} tokens leaves no room for a note beside the separator")
        encoded = tokenizer.encode_batch(list(texts))
        cut = sum(len(ids) > room for ids in encoded)
        return [[*start, *ids[:room], *end] for ids in encoded], cut


def label_word_loss(language: float = 0.0) -> LossFunction:
    """Return the objective -log p(label word) + language · L_LM, where L_LM is the mean over the tokens of the note.

    Its batches are those of `label_word_batches`.
    """
    if not language >= 0:
        raise LabError(f"language must not be negative, got {language}")

    def loss(model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        targets = batch["targets"]
        hidden = model.hidden_of(batch)
        places = torch.arange(targets.shape[1], device=targets.device)
        last = places.where(targets != IGNORE, -1).amax(1, keepdim=True)
        words = targets.where(places == last, torch.full_like(targets, IGNORE))
        total = model.cross_entropy(hidden, words)  # -log p(label word)
        if language:
            notes = targets.where(places != last, torch.full_like(targets, IGNORE))
            total = total + language * model.cross_entropy(hidden, notes)
        return total, {}

    return loss


def label_word_batches(
    texts: Sequence[str],
    labels: Sequence[int],
    tokenizer: Tokenizer,
    how: LabelWord,
    *,
    context: int,
    batch_size: int,
    seed: int,
) -> SequenceBatches:
    """Return batches of notes that end with their class."""
    words = how.ids(tokenizer)
    rows, _ = how.rows(texts, tokenizer, context)
    return SequenceBatches(
        [[*row, words[label]] for row, label in zip(rows, labels, strict=True)],
        batch_size=batch_size,
        seed=seed,
    )


@torch.no_grad()
def label_word_scores(
    model: Transformer,
    texts: Sequence[str],
    tokenizer: Tokenizer,
    how: LabelWord,
    *,
    context: int,
    batch_size: int = 32,
) -> Tensor:
    """Return the probability of class 1 for each text, softmax over the two words' logits, float64 [texts]."""
    check_batch_size(batch_size)
    model.config.require_causal("reading a class off a written word")
    words = torch.tensor(how.ids(tokenizer))
    rows, _ = how.rows(texts, tokenizer, context)
    found = []
    with evaluating(model):
        for start in range(0, len(rows), batch_size):
            own = rows[start : start + batch_size]
            tokens, mask = (one.to(model.device) for one in padded(own, 0))
            hidden = model.hidden(tokens, attention_mask=mask)
            ends = torch.tensor([len(row) - 1 for row in own], device=model.device)
            states = hidden[torch.arange(len(own), device=model.device), ends]
            logits = model.unembed(states[:, None])[:, 0, words.to(model.device)].double()
            found.append(logits.softmax(-1)[:, 1].cpu())  # softmax over the label words
    scores = torch.cat(found) if found else torch.empty(0, dtype=torch.float64)
    if not all_finite(scores):
        raise LabError("the model's logits are NaN or infinite; look at its weights")
    return scores
