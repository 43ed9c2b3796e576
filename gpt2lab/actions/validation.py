"""How `train` measures a model while it trains: the loss on validation text, of the next token or of hidden ones."""

import math

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.loss import linear_cross_entropy
from gpt2lab.runs.run import Run
from gpt2lab.text.batches import MaskedBatches, PackedBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.shards import Shards
from gpt2lab.training import TrainResult


class Validation:
    """Mean loss over the same validation windows at every call."""

    def __init__(self, model: Transformer, shards: Shards, *, context: int, tokens: int, rows: int) -> None:
        self.model = model
        batches = PackedBatches(shards, "valid", batch_size=rows, context=context, shuffle=False)
        self.windows = min(batches.windows, math.ceil(tokens / context))
        self.batches, self.rows = batches, rows
        entry = shards.manifest.splits["valid"]
        self.bytes_per_token = sum(shard.bytes for shard in entry) / sum(shard.tokens for shard in entry)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Return the loss in nats per token and in bits per byte of text."""
        total, device = 0.0, self.model.device
        for start in range(0, self.windows, self.rows):
            batch = self.batches[start // self.rows]
            rows = min(self.rows, self.windows - start)  # the last batch goes on into windows seen before
            hidden = self.model.hidden(batch["tokens"][:rows].to(device))
            targets = batch["targets"][:rows].to(device)
            head = self.model.head
            total += float(
                linear_cross_entropy(
                    hidden.flatten(0, 1), head.weight, targets.flatten(), bias=head.bias, reduction="sum"
                )
            )
        loss = total / (self.windows * self.batches.context)
        return {"validation_loss": loss, "bits_per_byte": loss / math.log(2) / self.bytes_per_token}

    def beginnings(self, count: int, tokens: int) -> list[list[int]]:
        """Return the first tokens of `count` validation windows, spread over those there are."""
        every = max(1, self.batches.windows // max(count, 1))
        places = [i * every * self.batches.context for i in range(min(count, self.batches.windows))]
        return [self.batches.stream.read(place, place + tokens).tolist() for place in places]


def report_validation(run: Run, done: TrainResult) -> None:
    """Report what validation measured before the first update and after the last, and say so if the loss has risen."""
    before = next((row for row in run.record.metrics if row["step"] == 0), {})
    for prefix, numbers in (("before.", before), ("", done.validation)):
        for name, value in numbers.items():
            if (
                name not in ("step", "seconds") and value == value
            ):  # what the rows do not determine is left out
                run.result(prefix + name, value)
    was, now = before.get("validation_loss", math.inf), done.validation.get("validation_loss", -math.inf)
    if now > was:
        run.note(risen(was, now))


def risen(before: float, after: float) -> str:
    """Return the sentence on a training after which unseen text is predicted worse."""
    return (
        f"the validation loss rose from {before:.3f} to {after:.3f}: unseen text is predicted worse than before "
        "training; a lower learning rate or fewer steps may help"
    )


def masked(batches: PackedBatches, lm: LanguageModel, seed: int) -> MaskedBatches:
    """Hide tokens in batches for a bidirectional model. LabError if it has no head, or its tokenizer no mask token."""
    tokenizer = lm.tokenizer
    if lm.config.head == "none":
        raise LabError(
            f"this {lm.config.family} has no language-model head to train, because its files hold none; "
            "take a checkpoint of the masked language model"
        )
    if tokenizer is None or tokenizer.mask is None:
        raise LabError("the model's tokenizer has no mask token, and masked language modelling needs one")
    special = set(tokenizer.special_ids)
    return MaskedBatches(
        batches, mask=tokenizer.mask, vocab_size=tokenizer.vocab_size, special=special, seed=seed
    )


class MaskedValidation:
    """Mean loss over the same hidden tokens of the same validation windows at every call, whatever the batch size."""

    def __init__(self, lm: LanguageModel, shards: Shards, *, context: int, tokens: int, rows: int) -> None:
        self.lm, self.rows = lm, rows
        windows = PackedBatches(shards, "valid", batch_size=1, context=context, shuffle=False)
        self.windows = min(windows.windows, math.ceil(tokens / context))
        self.batches = masked(windows, lm, seed=0)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Return the loss in nats per hidden token, and which share of them the model finds."""
        model, total, hits, count = self.lm.model, 0.0, 0, 0
        for start in range(0, self.windows, self.rows):
            tokens, targets = self._read(range(start, min(start + self.rows, self.windows)))
            chosen = targets != -100
            states, hidden = model.head_input(model.hidden(tokens)[chosen]), targets[chosen]
            head = model.head
            total += float(linear_cross_entropy(states, head.weight, hidden, bias=head.bias, reduction="sum"))
            hits += int((head(states).argmax(-1) == hidden).sum())
            count += len(hidden)
        if not count:
            raise LabError(
                "the validation windows hold special tokens only: there is nothing to hide; give more text"
            )
        return {"validation_loss": total / count, "masked_accuracy": hits / count}

    def _read(self, numbers: range) -> tuple[Tensor, Tensor]:
        windows = [self.batches[i] for i in numbers]
        device = self.lm.model.device
        tokens, targets = (torch.cat([window[name] for window in windows]) for name in ("tokens", "targets"))
        return tokens.to(device), targets.to(device)

    @torch.no_grad()
    def samples(self, count: int) -> list[str]:
        """Return windows with hidden tokens, and each once more with the likeliest tokens in their place, after ⟶."""
        tokenizer, every = self.lm.tokenizer, max(1, self.windows // max(count, 1))
        assert tokenizer is not None
        told = []
        for i in range(min(count, self.windows)):
            tokens, targets = self._read(range(i * every, i * every + 1))
            filled = torch.where(targets != -100, self.lm.model(tokens).argmax(-1), tokens)
            texts = (tokenizer.decode(ids[0].tolist(), skip_special=False) for ids in (tokens, filled))
            told.append(" ⟶ ".join(texts))
        return told
