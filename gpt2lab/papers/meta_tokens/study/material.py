"""Tokenizer and pre-training rows, the same for all arms: generated lists, or a text."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.papers.meta_tokens.levels import Curriculum, example
from gpt2lab.papers.meta_tokens.study.settings import Settings
from gpt2lab.papers.meta_tokens.task_data import TaskEncoder, task_tokenizer
from gpt2lab.papers.meta_tokens.tasks import PAUSE, vocabulary
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.text.batches import ArrayTokens, PackedBatches
from gpt2lab.text.sources import documents
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer
from gpt2lab.training.loop import Batches

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run

UNIT = "text"
"""The unit that prepares them."""
_FOR_TOKENIZER = 20_000
"""Documents that the tokenizer is made of."""


@dataclass(frozen=True)
class Material:
    """What all arms read."""

    encoder: TaskEncoder
    tokenizer: Tokenizer
    text: ArrayTokens | None
    """Tokens of the text; None where lists are generated."""

    def pretraining(self, settings: Settings, seed: int) -> Batches:
        """Return the batches of pre-training for a seed."""
        if self.text is not None:
            return PackedBatches(
                self.text, batch_size=settings.batch_size, context=settings.context, seed=seed
            )
        return ListBatches(settings, self.encoder, seed)


def prepare(settings: Settings, run: "Run") -> None:
    """Make the tokenizer, and the tokens of a text, and keep them for the other units."""
    if not settings.data:
        tokenizer = task_tokenizer(settings.words)
    else:
        # The tasks' words are read often enough to become tokens.
        some = [text for _, text in zip(range(_FOR_TOKENIZER), documents(settings.data), strict=False)]
        words = " ".join(vocabulary(settings.words))
        tokenizer = train_bpe([*some, *[f" {words}"] * 50], settings.vocab_size, special=(PAUSE,))
        ids: list[int] = []
        assert tokenizer.eos is not None
        for text in documents(settings.data):
            ids += [*tokenizer.encode(text), tokenizer.eos]
            if len(ids) >= settings.text_tokens:
                break
        if len(ids) <= settings.context + 1:
            raise LabError(f"data {settings.data}: {len(ids)} tokens do not fill a row of {settings.context}")
        run.array("training", torch.tensor(ids, dtype=torch.int32).numpy(), "Tokens of the text")
    save_tokenizer(tokenizer, run.folder / "tokenizer")
    run.result("vocabulary", tokenizer.vocab_size)


def prepared(record: RunRecord) -> Material:
    """Return what the unit has kept."""
    tokenizer = load_tokenizer(record.folder / "tokenizer")
    text = record.arrays.get("training")
    return Material(TaskEncoder(tokenizer), tokenizer, None if text is None else ArrayTokens(text))


class ListBatches:
    """Rows of the tasks' prompts without pauses and questions, one behind the other; batch i is a function of i and seed."""

    def __init__(self, settings: Settings, encoder: TaskEncoder, seed: int) -> None:
        self.settings, self.encoder, self.seed = settings, encoder, seed
        self.ranges = Curriculum(ranges=settings.ranges, steps=1).known(1)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        size, rows = self.settings.batch_size, list[list[int]]()
        for number in range(index * size, (index + 1) * size):
            row: list[int] = []
            part = 0
            while len(row) <= self.settings.context:
                row += self._one(number * 1000 + part)
                part += 1
            rows.append(row[: self.settings.context + 1])
        ids = torch.tensor(rows)
        return {"tokens": ids[:, :-1], "targets": ids[:, 1:]}

    def _one(self, number: int) -> list[int]:
        tasks = self.settings.tasks
        made = example(
            tasks[number % len(tasks)], number, self.ranges, seed=self.seed + 1, words=self.settings.words
        ).without_pauses()
        before = made.prompt[: len(made.prompt) - made.prompt[::-1].index("Q:") - 1]
        return [*self.encoder.ids(before), self.encoder.eos]
