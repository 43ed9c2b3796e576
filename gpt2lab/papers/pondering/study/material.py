"""The text of the study as tokens, prepared once for all units and seeds: training, tuning and validation parts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.papers.pondering.study.settings import Settings
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.text.batches import ArrayTokens
from gpt2lab.text.built_in import built_in_rows
from gpt2lab.text.sources import documents
from gpt2lab.text.splits import TRAIN, PositionRule, by_position
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run

UNIT = "text"
"""The unit that prepares it."""
VALIDATION, TUNING = "validation windows", "tuning windows"
"""What reports call the two held-out parts."""
_BLOCK = 2000
"""Tokens; of a text without books, every twentieth block is held out, of fewer blocks the last."""
_EVERY = 20


@dataclass(frozen=True)
class Material:
    """The text as tokens."""

    tokenizer: Tokenizer
    training: ArrayTokens
    validation: Tensor
    """Fixed windows, [windows, context + 1]."""
    tuning: Tensor
    """Windows of a text of their own, at most as many, on which settings are chosen."""
    unigram_loss: float
    """Of the validation windows under the frequencies of the training tokens, in nats: what a model knows that has learnt
    these alone."""


def prepare(settings: Settings, run: "Run") -> None:
    """Make the tokenizer and the tokens, and keep them for the other units."""
    made = material(settings)
    save_tokenizer(made.tokenizer, run.folder / "tokenizer")
    run.array("training", made.training.ids.astype("uint32"), "Training tokens, one text after the other")
    run.array("validation", made.validation.numpy(), "Windows that are judged")
    run.array("tuning", made.tuning.numpy(), "Windows on which settings are chosen")
    run.result("unigram_loss", made.unigram_loss)
    run.result("training_tokens", len(made.training))


def prepared(record: RunRecord) -> Material:
    """Return what the unit has kept."""
    windows = {
        name: torch.from_numpy(record.arrays[name].astype("int64")) for name in ("validation", "tuning")
    }
    return Material(
        load_tokenizer(record.folder / "tokenizer"),
        ArrayTokens(record.arrays["training"]),
        windows["validation"],
        windows["tuning"],
        record.results["unigram_loss"],
    )


def material(settings: Settings) -> Material:
    """Read the text, hold out a part for validation and one for tuning, and make the tokenizer of the rest.

    A source of books gives the two that the settings name; of any other text the held-out blocks give both. LabError for
    too little text: `windows` for validation, and at least one more for tuning.
    """
    rows = built_in_rows(settings.data)
    if rows is None:
        return _by_position(settings)
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(row["book"], []).append(row["text"])
    for title in (settings.validation_book, settings.tuning_book):
        if title not in texts:
            raise unknown(f"book of {settings.data}", title, list(texts))
    held_out = [texts.pop(title) for title in (settings.validation_book, settings.tuning_book)]
    if not texts:
        raise LabError(f"data {settings.data}: no book is left for training; give more text")
    training = [text for chapters in texts.values() for text in chapters]
    tokenizer = train_bpe(training, settings.vocab_size)
    validation, tuning = (_windows(_tokens(tokenizer, chapters), settings.context) for chapters in held_out)
    if len(validation) < settings.windows or not len(tuning):
        raise _too_little(settings, len(validation))
    return _made(
        tokenizer, _tokens(tokenizer, training), _spread(validation, settings.windows), tuning, settings
    )


def _by_position(settings: Settings) -> Material:
    texts = list(documents(settings.data))
    tokenizer = train_bpe(texts, settings.vocab_size)
    ids = _tokens(tokenizer, texts)
    blocks = list(ids.split(min(_BLOCK, max(len(ids) // 40, settings.context + 1))))
    every = min(_EVERY, len(blocks))
    parts = by_position(blocks, PositionRule(every, every - 1))
    known = torch.cat([_windows(block, settings.context) for block in parts["valid"]])
    if len(known) <= settings.windows:
        raise _too_little(settings, len(known))
    places = _places(len(known), settings.windows)
    rest = torch.ones(len(known), dtype=torch.bool).index_fill(0, places, False)
    return _made(tokenizer, torch.cat(parts[TRAIN]), known[places], known[rest], settings)


def _made(
    tokenizer: Tokenizer, training: Tensor, validation: Tensor, tuning: Tensor, settings: Settings
) -> Material:
    counts = torch.bincount(training, minlength=tokenizer.vocab_size).double() + 1  # none is impossible
    unigram = -(counts / counts.sum()).log()[validation[:, 1:]].mean()
    few = _spread(tuning, min(settings.windows, len(tuning)))
    return Material(tokenizer, ArrayTokens(training.numpy()), validation, few, float(unigram))


def _too_little(settings: Settings, windows: int) -> LabError:
    return LabError(
        f"data {settings.data}: {windows} validation windows; {settings.windows} are asked for, and at least one more for "
        "tuning; give more text"
    )


def _tokens(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Return the tokens of texts, each followed by the end token."""
    assert tokenizer.eos is not None
    return torch.tensor([token for text in tokenizer.encode_batch(texts) for token in (*text, tokenizer.eos)])


def _windows(ids: Tensor, context: int) -> Tensor:
    """Return the whole windows of a text, [windows, context + 1]."""
    return ids[: len(ids) // (context + 1) * (context + 1)].view(-1, context + 1)


def _spread(windows: Tensor, wanted: int) -> Tensor:
    """Return `wanted` windows, evenly apart."""
    return windows[_places(len(windows), wanted)]


def _places(n: int, wanted: int) -> Tensor:
    return torch.linspace(0, n - 1, wanted).long()
