"""Multiple choice by likelihood: the model chooses the answer it finds most probable."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, Literal

from gpt2lab.base.errors import LabError, shown
from gpt2lab.measures.lab_backend import back_end_row, text_backend
from gpt2lab.measures.measurement import Measurement
from gpt2lab.measures.scoring import check_batch_size
from gpt2lab.measures.statistics import wilson_interval
from gpt2lab.measures.text_measure import TextMeasure
from gpt2lab.text.bounded import absent, json_rows, missing_field

if TYPE_CHECKING:
    from gpt2lab.decode.backend import TextBackend
    from gpt2lab.text.language_model import LanguageModel

Rule = Literal["sum", "token", "byte"]
RULES: tuple[Rule, ...] = ("sum", "token", "byte")


@dataclass(frozen=True)
class Question:
    """A prompt, texts that may continue it, and which of them is right."""

    prompt: str
    choices: tuple[str, ...]
    """Continuations as they stand after the prompt, blanks included."""
    answer: int
    """Place of the right one among the choices, from 0."""

    def __post_init__(self) -> None:
        if len(self.choices) < 2 or not all(choice.strip() for choice in self.choices):
            raise LabError(
                f"a question needs two choices that are not empty, got {shown(list(self.choices))}"
            )
        if not 0 <= self.answer < len(self.choices):
            raise LabError(
                f"the answer is choice {self.answer}, and the choices are 0 to {len(self.choices) - 1}"
            )


@dataclass(frozen=True)
class Choice:
    """What the model makes of one question; each list has an entry per choice."""

    losses: list[float]
    """-log p of each choice given the prompt, in nats, summed over its tokens."""
    n_tokens: list[int]
    n_bytes: list[int]
    """UTF-8 bytes of each choice without the blanks around it."""
    answer: int

    def chosen(self, rule: Rule) -> int:
        """Return the most probable choice: by sum, per token, or per byte; the first among equals."""
        sizes: Mapping[Rule, Sequence[int]] = {
            "sum": [1] * len(self.losses),
            "token": self.n_tokens,
            "byte": self.n_bytes,
        }
        mean = [loss / max(size, 1) for loss, size in zip(self.losses, sizes[rule], strict=True)]
        return min(range(len(mean)), key=mean.__getitem__)

    def share(self) -> float:
        """Return the probability of the answer among the choices, softmax over the summed log-probabilities."""
        least = min(self.losses)
        weights = [math.exp(least - loss) for loss in self.losses]
        return weights[self.answer] / sum(weights)


def choose(
    lm: "LanguageModel | TextBackend",
    questions: Sequence[Question],
    *,
    batch_size: int = 16,
    bos: bool = False,
) -> list[Choice]:
    """Score every choice of every question. LabError if there is no question, or no tokenizer."""
    backend = text_backend(lm, batch_size=batch_size, bos=bos, label="multiple choice")
    if not questions:
        raise LabError("multiple choice needs at least one question, got none")
    scores = backend.score(
        [question.prompt for question in questions], [question.choices for question in questions]
    )
    return [
        Choice(
            losses=[-score.logprob for score in own],
            n_tokens=[score.tokens for score in own],
            n_bytes=[len(choice.strip().encode("utf-8")) for choice in question.choices],
            answer=question.answer,
        )
        for question, own in zip(questions, scores, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(TextMeasure):
    """Accuracy at multiple choice, by the likelihood of the choices."""

    data: Path
    """A jsonl file: a question, a list of choices and the answer (its place from 0, or its text) in each line."""
    question: str = "question"
    """Field of the question."""
    choices: str = "choices"
    """Field of the choices."""
    answer: str = "answer"
    """Field of the answer."""
    prompt: str = "{question}"
    """Prompt; {question} and the row's other fields are filled in."""
    separator: str = " "
    """Text between the prompt and a choice."""
    batch_size: int = 16
    """Choices in one forward pass; changes speed and memory, not the numbers."""
    bos: bool = False
    """Put a start token before each prompt."""
    limit: int | None = None
    """Use only the first N questions."""

    def __call__(self, lm: "LanguageModel | TextBackend") -> Measurement:
        """Measure; LabError for a file that is not as described, with its line."""
        check_batch_size(self.batch_size)
        if self.limit is not None and self.limit < 1:
            raise LabError(f"limit must be at least 1 question, got {self.limit}")
        backend = text_backend(lm, batch_size=self.batch_size, bos=self.bos, label="multiple choice")
        questions = self.read()
        found = choose(backend, questions)
        n = len(found)
        right = {rule: sum(item.chosen(rule) == item.answer for item in found) for rule in RULES}
        interval = wilson_interval(right["sum"], n)
        numbers = {
            "accuracy": interval.mean,
            "accuracy_low": interval.low,
            "accuracy_high": interval.high,
            "accuracy_per_token": right["token"] / n,
            "accuracy_per_byte": right["byte"] / n,
            "probability": sum(item.share() for item in found) / n,
            "chance": sum(1 / len(item.losses) for item in found) / n,
        }
        units = {
            "accuracy": "by summed log p",
            "accuracy_low": "95 % (Wilson)",
            "accuracy_high": "95 % (Wilson)",
            "accuracy_per_token": "by log p per token",
            "accuracy_per_byte": "by log p per byte",
            "probability": "of the answer among the choices",
            "chance": "accuracy of guessing",
        }
        rows = [
            _row(i, question, item) for i, (question, item) in enumerate(zip(questions, found, strict=True))
        ]
        about = {"data": str(self.data), "questions": n, "prompt": self.prompt, "separator": self.separator}
        about |= back_end_row(lm)
        return Measurement(
            name="multiple-choice", numbers=numbers, units=units, tables={"questions": rows}, about=about
        )

    def read(self) -> list[Question]:
        """Read the questions. LabError, with file and line, for a row that is not a question."""
        path = Path(self.data)
        if not path.is_file():
            raise LabError(f"{path}: no such file; multiple choice reads a jsonl file of questions")
        questions: list[Question] = []
        for where, row in json_rows(path):
            if self.limit is not None and len(questions) == self.limit:
                break
            questions.append(self._question(row, where))
        if not questions:
            raise LabError(f"{path}: no questions there")
        return questions

    def _question(self, row: Any, where: str) -> Question:
        if not isinstance(row, dict):
            raise LabError(f"{where}: a question is an object with fields, found {type(row).__name__}")
        for name in (self.question, self.choices, self.answer):
            if name not in row:
                raise missing_field(where, name, list(row))
        choices = row[self.choices]
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise LabError(f"{where}: field {self.choices!r} should hold a list of texts")
        self._need_values(row, where)
        try:
            prompt = self.prompt.format(**{**row, "question": row[self.question]})
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise LabError(
                f"{where}: the prompt {self.prompt!r} asks for {error}, which is no field"
            ) from error
        answer = _place(row[self.answer], choices, where)
        try:
            return Question(prompt, tuple(self.separator + choice for choice in choices), answer)
        except LabError as error:
            raise LabError(f"{where}: {error}") from error

    def _need_values(self, row: Mapping[str, Any], where: str) -> None:
        """LabError for a field that is read and null, which would be written as "None"."""
        asked = [name for _, name, _, _ in Formatter().parse(self.prompt) if name]
        for name in (self.question, *(re.split(r"[.\[]", name)[0] for name in asked)):
            if not isinstance(row.get(name, ""), str) and absent(row[name]):
                raise LabError(
                    f"{where}: field {name!r} is empty, and the prompt reads it; leave the row out"
                )


def _place(answer: object, choices: list[str], where: str) -> int:
    """Return which choice an answer means: a place from 0, or the text of one."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    raise LabError(f"{where}: the answer {shown(answer)} is neither a place (from 0) nor one of the choices")


def _row(index: int, question: Question, item: Choice) -> dict[str, Any]:
    chosen = item.chosen("sum")
    return {
        "question": index,
        "answer": question.choices[item.answer].strip(),
        "chosen": question.choices[chosen].strip(),
        "correct": chosen == item.answer,
        "probability": item.share(),
    }
