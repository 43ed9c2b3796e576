"""Objectives whose data are rows with fields of their own, such as pairs of answers, instead of running text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from gpt2lab.text.language_model import LanguageModel
from gpt2lab.training.loop import Batches
from gpt2lab.training.micro_batches import Batch, added, target_shares
from gpt2lab.training.objectives import Divisible, Objective, part


@dataclass(frozen=True, kw_only=True)
class RowData:
    """What an objective of rows is trained and validated on."""

    batches: Batches
    """Training batches by number, without end."""
    validation: Sequence[Batch]
    """Validation rows in batches, each row once; they stay on the CPU until they are read."""
    examples: int
    """Training rows."""
    validation_examples: int
    """Validation rows."""
    dropped: int = 0
    """Rows that the model's positions cannot hold."""


@runtime_checkable
class ReadsRows(Protocol):
    """An objective that reads the data itself; `gpt2lab train --objective` hands it the names of the files."""

    def read_rows(
        self,
        data: Sequence[str],
        lm: LanguageModel,
        *,
        batch_size: int,
        context: int,
        valid_fraction: float,
        seed: int,
    ) -> RowData:
        """Return batches of the rows of `data` (files, folders, globs, `hub:ID`), some of them kept for validation.

        context: most tokens of a row. LabError, with file and line, for a row that does not fit the objective.
        """
        ...


@torch.no_grad()
def validation_numbers(objective: Objective, lm: LanguageModel, batches: Sequence[Batch]) -> dict[str, float]:
    """Return the objective's loss over all validation batches as one, `validation_loss`, and its numbers, `validation_…`.

    However the rows are cut into batches, the means are those of all of them together.
    """
    device = lm.model.device
    here = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in batches]
    whole = None
    if isinstance(objective, Divisible):
        whole = added([objective.totals(lm.model, batch) for batch in here])
    sums: dict[str, float] = {}
    for batch, share in zip(here, target_shares(here), strict=True):
        loss, numbers = part(objective, lm.model, batch, share, whole)
        for name, value in {"loss": float(loss), **numbers}.items():
            sums[f"validation_{name}"] = sums.get(f"validation_{name}", 0.0) + value
    return sums
