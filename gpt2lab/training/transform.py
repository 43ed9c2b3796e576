"""Transforms that train: what such a part reports to, so that it is a run with a log and checkpoints, and resumes."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write
from gpt2lab.text.language_model import LanguageModel


class Journal(Protocol):
    """Where training reports; `gpt2lab.runs.run.Run` is one."""

    @property
    def checkpoints(self) -> Path:
        """The folder for training state. What is in it is continued."""
        ...

    def log(self, step: int, **numbers: Any) -> None:
        """Keep the numbers of one update."""
        ...

    def result(self, name: str, value: Any) -> None:
        """Keep one number of the whole training."""
        ...

    def table(self, name: str, rows: Iterable[Mapping[str, object]], caption: str = "") -> None:
        """Keep rows whose keys are the columns."""
        ...

    def note(self, sentence: str) -> None:
        """Keep a sentence with the time."""
        ...


class TrainingTransform(ABC):
    """A transform that trains. `gpt2lab apply` gives it the run, and `gpt2lab resume` continues one that was stopped."""

    @abstractmethod
    def train(self, lm: LanguageModel, journal: Journal | None) -> LanguageModel:
        """Return the new model; `lm` is not changed.

        With a journal, training writes its checkpoints there, and continues from the newest: the model is the same, bit
        for bit, as that of a training which was never stopped. `refuse_other_work` compares what that rests on.
        """

    def __call__(self, lm: LanguageModel) -> LanguageModel:
        """Return the new model, without a log and checkpoints."""
        return self.train(lm, None)


def refuse_other_work(journal: Journal, **facts: str) -> None:
    """LabError if checkpoints of this journal belong to other work: `facts`, such as hashes of model and data, differ."""
    noted = journal.checkpoints / "work.json"
    if not noted.exists():
        noted.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(noted, json.dumps(facts, indent=1))
        return
    try:
        there = dict(json.loads(noted.read_text(encoding="utf-8")))
        other = [name for name, value in facts.items() if there[name] != value]
    except (ValueError, KeyError, TypeError):
        raise LabError(
            f"{noted}: damaged; if nothing else has changed, delete this file and resume again"
        ) from None
    if other:
        raise LabError(f"the {other[0]} has changed since this run began; apply the transform again")
