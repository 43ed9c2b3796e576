"""What `train` learns from and is measured on: rows, tokenizer, tokens, and the loss on validation text."""

import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gpt2lab.actions.models import find_model
from gpt2lab.actions.train_settings import TaskSettings, TrainingSettings
from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_folder, check_sums, restore, sweep, write_sums
from gpt2lab.measures.held_out import windows_loss
from gpt2lab.model import Transformer
from gpt2lab.model.loss import IGNORE
from gpt2lab.runs.run import Run
from gpt2lab.text import shards as token_shards
from gpt2lab.text import sources
from gpt2lab.text.batches import MaskedBatches, PackedBatches
from gpt2lab.text.codon_tokenizer import codon_level
from gpt2lab.text.labelled import Example, read_examples
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.shards import Shards
from gpt2lab.text.tokenizer import MASK, PAD, Tokenizer, byte_level, for_masking, train_bpe, word_level
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer
from gpt2lab.training import TrainResult

_KEY = re.compile("[0-9a-f]{64}( [0-9a-f]{64})?")


def kept_tokenizer(run: Run, make: Callable[[], Tokenizer], *, again: bool) -> Tokenizer:
    """Return the tokenizer from the run's folder; `make` it first in a new run, or if it is missing or damaged there."""
    folder = run.folder / "tokenizer"
    restore(folder)
    if not (again and _is_whole(folder)):
        with atomic_folder(folder) as temporary:
            save_tokenizer(make(), temporary)
            write_sums(temporary)
    return load_tokenizer(folder)


def _is_whole(folder: Path) -> bool:
    """Tell whether a tokenizer is there and as it was written; a damaged one is named."""
    if not folder.exists():
        return False
    try:
        check_sums(folder)
    except LabError as error:
        warnings.warn(f"{error}; the tokenizer is made again", stacklevel=2)
        return False
    return True


def note_data(run: Run, key: str) -> None:
    """Note what the run's data and tokenizer are; LabError if they have changed since it began."""
    noted = run.folder / "data.txt"
    before = noted.read_bytes().decode("ascii", "replace") if noted.exists() else key
    if not _KEY.fullmatch(before):
        raise LabError(f"{noted}: damaged; if the data are as they were, delete this file and resume again")
    if before != key:
        raise LabError(
            f"{run.id}: the data have changed since this run began; train anew with: {run.row.command}"
        )
    run.write_file("data.txt", key)


def read_rows(task: TaskSettings, data: Sequence[str], field: str) -> list[Example]:
    """Read labelled rows as examples; `field` holds the text (tokens: the words)."""
    return read_examples(
        data,
        field=field,
        targets=task.targets,
        pair=task.pair,
        negatives=task.negatives,
        group=task.group,
    )


def new_tokenizer(settings: TrainingSettings, *, fills_in: bool) -> Tokenizer:
    """Make the tokenizer that the settings ask for, from the data if they say so; one that fills in has a mask token."""
    documents: Iterable[str] = sources.documents(settings.data, field=settings.field)
    size = sources.text_bytes(settings.data)
    if settings.task.kind == "tokens":
        documents = [example.text for example in read_rows(settings.task, settings.data, settings.field)]
        size = None  # the list tells it
    special = (PAD, MASK) if fills_in else ()
    match settings.tokenizer:
        case "auto" | "unsplit" as kind:
            tokenizer = train_bpe(
                documents,
                settings.vocab_size,
                special=special,
                split_words=kind == "auto",
                text_bytes=size,
            )
        case "words":
            tokenizer = word_level(
                documents, vocab_size=settings.vocab_size, special=special, text_bytes=size
            )
        case "bytes":
            tokenizer = byte_level()
        case "codons":
            tokenizer = codon_level()
        case given:
            tokenizer = load_tokenizer(find_model(given))
    return for_masking(tokenizer) if fills_in else tokenizer


def tokens(run: Run, settings: TrainingSettings, lm: LanguageModel) -> Shards:
    """Return the data as tokens, encoded once for all runs on the same data; refuse data that have changed."""
    assert lm.tokenizer is not None
    key = token_shards.key(
        settings.data, lm.tokenizer, valid_fraction=settings.valid_fraction, field=settings.field
    )
    note_data(run, key)
    folder = run.store.home / "tokens"
    sweep(folder)
    return token_shards.build(
        settings.data,
        lm.tokenizer,
        folder / key[:16],
        valid_fraction=settings.valid_fraction,
        field=settings.field,
    )


class Validation:
    """Mean loss over the same validation windows at every call."""

    def __init__(self, model: Transformer, shards: Shards, *, context: int, tokens: int, rows: int) -> None:
        self.model = model
        batches = PackedBatches(shards, "valid", batch_size=rows, context=context, shuffle=False)
        self.windows = min(batches.windows, math.ceil(tokens / context))
        self.batches = batches
        entry = shards.manifest.splits["valid"]
        self.bytes_per_token = sum(shard.bytes for shard in entry) / sum(shard.tokens for shard in entry)

    def __call__(self) -> dict[str, float]:
        """Return the loss in nats per token and in bits per byte of text."""
        loss = windows_loss(self.model, self.batches, most=self.windows).loss
        return {"validation_loss": loss, "bits_per_byte": loss / math.log(2) / self.bytes_per_token}

    def beginnings(self, count: int, tokens: int) -> list[list[int]]:
        """Return the first tokens of `count` validation windows, spread over those there are."""
        every = max(1, self.batches.windows // max(count, 1))
        places = [i * every * self.batches.context for i in range(min(count, self.batches.windows))]
        return [self.batches.stream.read(place, place + tokens).tolist() for place in places]


def report_validation(run: Run, done: TrainResult) -> None:
    """Report what validation measured before the first update and for the weights that are kept, and why the run ended."""
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
    if done.kept is not None:
        run.result("kept_step", done.kept)
        run.note(f"the weights are those of update {done.kept}, the best of the evaluations")
    if done.stopped:
        run.result("steps", done.steps)
        run.note(done.stopped)


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
            chosen = targets != IGNORE
            states, hidden = model.hidden(tokens)[chosen], targets[chosen]
            total += float(model.cross_entropy(states, hidden, reduction="sum"))
            hits += int((model.unembed(states).argmax(-1) == hidden).sum())
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
        filled_in = []
        for i in range(min(count, self.windows)):
            tokens, targets = self._read(range(i * every, i * every + 1))
            filled = torch.where(targets != IGNORE, self.lm.model(tokens).argmax(-1), tokens)
            texts = (tokenizer.decode(ids[0].tolist(), skip_special=False) for ids in (tokens, filled))
            filled_in.append(" ⟶ ".join(texts))
        return filled_in


def validation_of(
    lm: LanguageModel, shards: Shards, settings: TrainingSettings
) -> Validation | MaskedValidation:
    """Return what measures the model while it trains."""
    sizes = {"context": settings.context, "tokens": settings.evaluation_tokens, "rows": settings.batch_size}
    return (
        Validation(lm.model, shards, **sizes) if lm.config.causal else MaskedValidation(lm, shards, **sizes)
    )
