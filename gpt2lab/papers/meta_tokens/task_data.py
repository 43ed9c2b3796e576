"""The tasks as batches for training, and the answers of a model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.loss import IGNORE
from gpt2lab.papers.meta_tokens.levels import Curriculum, example
from gpt2lab.papers.meta_tokens.objective import refuse_beyond
from gpt2lab.papers.meta_tokens.tasks import PAUSE, WORDS, Example, vocabulary
from gpt2lab.papers.meta_tokens.token import meta_id
from gpt2lab.text.tokenizer import Tokenizer, word_level


def task_tokenizer(words: int = len(WORDS)) -> Tokenizer:
    """Return a word-level tokenizer of the tasks, with the pause as a special token."""
    return word_level([" ".join(vocabulary(words))], punctuation=False, unk=None, special=(PAUSE,))


class TaskEncoder:
    """Words of the tasks to ids: one each where the vocabulary has them, else as the tokenizer cuts them up.

    LabError for a tokenizer without the pause or an end.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._ids = tokenizer, tokenizer.vocabulary
        self.pause = meta_id(tokenizer, PAUSE)
        if tokenizer.eos is None:
            raise LabError("the tasks' answers end with an end token, and this tokenizer has none")
        self.eos = tokenizer.eos

    def ids(self, words: Sequence[str]) -> list[int]:
        """Return the ids of words. LabError for a word outside a vocabulary that has no unknown token."""
        if all(word in self._ids for word in words):
            return [self._ids[word] for word in words]
        return self._tokenizer.encode(" " + " ".join(words))

    def row(self, one: Example) -> tuple[list[int], list[int]]:
        """Return tokens and targets; the answer and the end alone have a loss."""
        prompt, answer = self.ids(one.prompt), [*self.ids(one.answer), self.eos]
        return [*prompt, *answer[:-1]], [IGNORE] * (len(prompt) - 1) + answer

    def batch(self, rows: Sequence[Example]) -> dict[str, Tensor]:
        """Return rows padded at the right: tokens, targets, attention_mask, meta_positions [batch, time]."""
        made = [self.row(one) for one in rows]
        time = max(len(tokens) for tokens, _ in made)
        tokens = torch.full((len(made), time), self.eos)
        targets = torch.full((len(made), time), IGNORE)
        mask = torch.zeros(len(made), time, dtype=torch.long)
        for place, (ids, labels) in enumerate(made):
            tokens[place, : len(ids)] = torch.tensor(ids)
            targets[place, : len(labels)] = torch.tensor(labels)
            mask[place, : len(ids)] = 1
        return {
            "tokens": tokens,
            "targets": targets,
            "attention_mask": mask,
            "meta_positions": (tokens == self.pause) & mask.bool(),
        }


@dataclass(frozen=True, kw_only=True)
class TaskBatches:
    """Batches of training examples by number, each a pure function of number and seed; the tasks take turns."""

    encoder: TaskEncoder
    tasks: tuple[str, ...]
    curriculum: Curriculum
    batch_size: int
    words: int = len(WORDS)
    """Words of the list that occur."""
    pauses: bool = True
    """Whether prompts keep their pauses."""
    seed: int = 0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ranges, rows = self.curriculum.known(index), list[Example]()
        for number in range(index * self.batch_size, (index + 1) * self.batch_size):
            task = self.tasks[number % len(self.tasks)]
            made = example(task, number, ranges, seed=self.seed, words=self.words)
            rows.append(made if self.pauses else made.without_pauses())
        return self.encoder.batch(rows)


@dataclass(frozen=True)
class Score:
    """How a model answers."""

    exact: list[bool]
    """By example: whether every token of the answer and the end are the most probable."""
    tokens: float
    """Share of answer tokens that are."""

    @property
    def share(self) -> float:
        """Share of examples answered exactly."""
        return sum(self.exact) / len(self.exact)


def score(
    model: Transformer,
    encoder: TaskEncoder,
    rows: Sequence[Example],
    *,
    pauses: bool = True,
    batch_size: int = 64,
) -> Score:
    """Return how a model answers examples by greedy decoding, which one pass over the right answers tells.

    LabError without examples, and for prompts beyond the model's positions.
    """
    if not rows:
        raise LabError("there are no examples to score")
    kept = [one if pauses else one.without_pauses() for one in rows]
    exact, right, total = [False] * len(kept), 0, 0
    order = sorted(range(len(kept)), key=lambda place: len(kept[place].prompt))  # little padding
    with evaluating(model), torch.no_grad():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = {name: x.to(model.device) for name, x in encoder.batch([kept[i] for i in chosen]).items()}
            refuse_beyond(model, batch["tokens"].shape[1])
            labelled = batch["targets"] != IGNORE
            guesses = torch.full_like(batch["targets"], IGNORE)
            guesses[labelled] = model.unembed(model.hidden_of(batch)[labelled]).argmax(-1)
            same = (guesses == batch["targets"]) & labelled
            right, total = right + int(same.sum()), total + int(labelled.sum())
            for place, good in zip(chosen, (same == labelled).all(1).tolist(), strict=True):
                exact[place] = good
    return Score(exact, right / total)
