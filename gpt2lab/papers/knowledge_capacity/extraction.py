"""The measure of extraction: whether facts that a model has read as text can be asked for after a short adaptation.

Half of the people are asked about in training, of low-rank adapters only; the others tell how many facts are stored so
that a question brings them out (Allen-Zhu and Li 2024, on knowledge extraction).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.scoring import Row, check_batch_size, score_rows
from gpt2lab.measures.statistics import t_interval
from gpt2lab.model import Transformer, attach
from gpt2lab.model.adapters import Lora
from gpt2lab.model.loss import IGNORE
from gpt2lab.papers.knowledge_capacity.alignment import aligned
from gpt2lab.papers.knowledge_capacity.evaluation import start_id
from gpt2lab.papers.knowledge_capacity.facts import fact_source
from gpt2lab.text.generators.biographies import EMPLOYER
from gpt2lab.text.generators.fact_text import NAME, FactSource, FactText
from gpt2lab.text.generators.random_facts import RandomFacts
from gpt2lab.text.spans import Span
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.training import TrainSettings, train

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

QUESTIONS = {
    "birth date": "What is the birth date of {}? Answer:",
    "birth city": "What is the birth city of {}? Answer:",
    "university": "Which university did {} study at? Answer:",
    "major": "What major did {} study? Answer:",
    EMPLOYER: "Which company did {} work for? Answer:",
}
"""What is asked of biographies; the answer is the value."""


def question(source: FactSource, person: int, attribute: str) -> FactText:
    """Return a question with its answer; of symbols, whose tokenizer has no other words, `id2 NAME VALUE`."""
    values = source.values(person)
    if not isinstance(source, RandomFacts):
        asked = QUESTIONS[attribute].format(values[NAME])
    elif source.style == "sentences":
        asked = f"What is {attribute.upper()} of {values[NAME]}? Answer:"
    else:
        asked = f"{attribute.replace(' ', '')} {values[NAME]}"
    start = len(asked) + 2
    return FactText(
        f" {asked} {values[attribute]}", (Span(start, start + len(values[attribute]), attribute),)
    )


_RANK, _EMBEDDING_RANK = 8, 64
PAIRS = tuple((embedding, rank) for rank in (2, 8, 16) for embedding in (8, 32, 128))
"""Ranks that are tried, of the embedding and of queries and values: the paper's ranges; its nine pairs are not known."""


@dataclass(frozen=True)
class _Trial:
    """Adapters of one pair of ranks."""

    embedding_rank: int
    rank: int
    model: Transformer
    loss: float
    """Of the last tenth of the updates."""
    chosen_by: float
    """Share of the answers of the people who choose that are right; 0 without a search."""


@dataclass(frozen=True, kw_only=True)
class KnowledgeExtraction:
    """Share of the facts that questions bring out, after low-rank adapters were trained on questions about other people."""

    facts: str = "bios:1000"
    """What the model was trained on: bios, bios-simple, bior, biod or biod-symbols with :PEOPLE:SEED, as given to --data."""
    rank: int = _RANK
    """Rank of the adapters of queries and values."""
    embedding_rank: int = _EMBEDDING_RANK
    """Rank of the adapter of the embedding."""
    search: bool = False
    """Try nine pairs of ranks and report the best, chosen by a quarter of the other people, who are then not judged."""
    steps: int = 1000
    """Updates of the adapters; 75,000 in the paper."""
    rows: int = 96
    """Questions in an update."""
    learning_rate: float = 1e-3
    """Falls linearly to 0."""
    weight_decay: float = 0.1
    """Of the adapters."""
    limit: int | None = None
    """Ask about at most this many people in training, and as many afterwards; none is half of all."""
    seed: int = 0
    """Of the adapters and the order of the questions."""
    batch_size: int = 32
    """Questions in one forward pass afterwards; changes speed and memory, not the numbers."""
    attributes: tuple[str, ...] = ()
    """Attributes that are asked for; none is all that the paper asks for, of random facts all."""

    def __post_init__(self) -> None:
        for name in ("rank", "embedding_rank", "steps", "rows"):
            if getattr(self, name) < 1:
                raise LabError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.limit is not None and self.limit < 2:
            raise LabError(f"limit must be at least 2 people, got {self.limit}")
        if self.search and (self.rank, self.embedding_rank) != (_RANK, _EMBEDDING_RANK):
            raise LabError("search tries nine pairs of ranks; leave rank and embedding_rank out, or search")

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure; the model stays as it is. LabError for fewer than four people, and as `field_losses`."""
        check_batch_size(self.batch_size)
        tokenizer, source = need_tokenizer(lm, "knowledge-extraction"), fact_source(self.facts)
        if source.people < 4:
            raise LabError(
                f"facts {self.facts}: half of the people are asked about in training; give at least 4"
            )
        half = min(source.people // 2, self.limit or source.people)
        asked, others = range(half), range(source.people - half, source.people)
        choosing = others[: max(1, len(others) // 4)] if self.search else others[:0]
        kept_back = others[len(choosing) :]
        if len(kept_back) < 2:
            raise LabError(f"search: of {len(others)} people a quarter chooses; give more of them")
        names = self._attributes(source)
        before = self._exact(lm.model, tokenizer, source, kept_back, names)
        best, tried = self._best(lm.model, tokenizer, source, asked, choosing, names)
        after = self._exact(best.model, tokenizer, source, kept_back, names)
        trained = self._exact(best.model, tokenizer, source, asked, names)
        interval = t_interval(after.mean(axis=1))
        numbers = {
            "extractable": interval.mean,
            "extractable_low": interval.low,
            "extractable_high": interval.high,
            "extractable_people": source.people * interval.mean,
            "before": float(before.mean()),
            "trained_people": float(trained.mean()),
            "loss": best.loss,
            "rank": best.rank,
            "embedding_rank": best.embedding_rank,
        }
        units = {
            "extractable": "answers that are exactly the likeliest, people not asked about in training",
            "extractable_low": "95 % over people (t)",
            "extractable_high": "95 % over people (t)",
            "extractable_people": "people, of all",
            "before": "the same without adapters",
            "trained_people": "the same, people asked about in training",
            "loss": "nats a token of answers, last tenth of the updates",
            "rank": "of the adapters of queries and values",
            "embedding_rank": "of the adapter of the embedding",
        }
        rows = [
            {"attribute": name, "before": float(before[:, i].mean()), "after": float(after[:, i].mean())}
            for i, name in enumerate(names)
        ]
        tables: dict[str, Table] = {"attributes": rows}
        if self.search:
            tables["pairs"] = tried
        about = {
            "facts": self.facts,
            "people": source.people,
            "people_asked": half,
            "people_judged": len(kept_back),
            "steps": self.steps,
        }
        return Measurement(
            name="knowledge-extraction",
            numbers=numbers,
            units=units,
            tables=tables,
            about=about,
        )

    def _pairs(self, width: int) -> list[tuple[int, int]]:
        """Return the ranks that are tried, of the embedding and of queries and values; none above the width of the model."""
        if not self.search:
            return [(self.embedding_rank, self.rank)]
        return list(dict.fromkeys((min(embedding, width), min(rank, width)) for embedding, rank in PAIRS))

    def _best(
        self,
        plain: Transformer,
        tokenizer: Tokenizer,
        source: FactSource,
        asked: Sequence[int],
        choosing: Sequence[int],
        names: Sequence[str],
    ) -> tuple[_Trial, Table]:
        """Train every pair of ranks; return the one that `choosing` likes best, the first of equals, and a row for each."""
        best: _Trial | None = None
        rows: Table = []
        for embedding_rank, rank in self._pairs(plain.config.d_model):
            one = self._trial(plain, tokenizer, source, asked, choosing, names, embedding_rank, rank)
            rows.append(
                {"embedding rank": embedding_rank, "rank": rank, "loss": one.loss, "chosen by": one.chosen_by}
            )
            if best is None or one.chosen_by > best.chosen_by:  # the model of the others is let go
                best = one
        assert best is not None, "there is at least one pair"
        return best, rows

    def _trial(
        self,
        plain: Transformer,
        tokenizer: Tokenizer,
        source: FactSource,
        asked: Sequence[int],
        choosing: Sequence[int],
        names: Sequence[str],
        embedding_rank: int,
        rank: int,
    ) -> _Trial:
        """Train adapters of these ranks on questions about `asked`."""
        model = copy.deepcopy(plain)
        lora = Lora(
            name="extraction",
            rank=rank,
            targets=("q", "v", "embedding"),
            rank_pattern={"embedding": embedding_rank},
        )
        attach(model, lora, generator=torch.Generator().manual_seed(self.seed))
        done = train(
            model,
            _Questions(source, tokenizer, asked, names, self.rows, self.seed),
            settings=TrainSettings(
                steps=self.steps,
                learning_rate=self.learning_rate,
                schedule="linear",
                final_fraction=0.0,
                weight_decay=self.weight_decay,
                betas=(0.9, 0.999),
                precision="float32",
            ),
            seed=self.seed,
            label=f"knowledge-extraction, ranks {embedding_rank} and {rank}",
        )
        model.eval()
        said = float(self._exact(model, tokenizer, source, choosing, names).mean()) if choosing else 0.0
        return _Trial(embedding_rank, rank, model, done.loss, said)

    def _attributes(self, source: FactSource) -> list[str]:
        known = [
            name for name in source.information.values if isinstance(source, RandomFacts) or name in QUESTIONS
        ]
        if wrong := [name for name in self.attributes if name not in known]:
            raise LabError(f"attributes: {wrong[0]} is not asked for; {self.facts} has {', '.join(known)}")
        return list(self.attributes) or known

    def _exact(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        source: FactSource,
        people: Sequence[int],
        names: Sequence[str],
    ) -> npt.NDArray[np.float64]:
        """Whether every token of an answer is the likeliest, given all before it, [people, names]."""
        rows = []
        for person in people:
            for name in names:
                ids, first = _encoded(tokenizer, question(source, person, name), name)
                rows.append(Row(torch.tensor(ids[:-1]), len(ids) - 1 - first))
        scores = score_rows(model, rows, batch_size=self.batch_size, label="knowledge-extraction")
        return np.array([float(score.hits.all()) for score in scores]).reshape(len(people), len(names))


def _encoded(tokenizer: Tokenizer, asked: FactText, name: str) -> tuple[list[int], int]:
    """[end, question, answer, end] and where the answer begins; the answer ends the text."""
    found, end = aligned(tokenizer, asked), start_id(tokenizer)
    return [end, *found.ids, end], 1 + found.ranges[name][0]


class _Questions:
    """Batches of questions drawn at random, with a loss on the answer and the end token alone."""

    def __init__(
        self,
        source: FactSource,
        tokenizer: Tokenizer,
        people: Sequence[int],
        names: Sequence[str],
        rows: int,
        seed: int,
    ) -> None:
        self.source, self.tokenizer, self.end = source, tokenizer, start_id(tokenizer)
        self.pairs = [(person, name) for person in people for name in names]
        self.rows, self.seed = rows, seed

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        drawn = np.random.default_rng([self.seed, index]).integers(len(self.pairs), size=self.rows)
        rows = [self._row(*self.pairs[place]) for place in drawn.tolist()]
        time = max(len(ids) for ids, _ in rows) - 1
        tokens = torch.full((self.rows, time), self.end)
        targets = torch.full((self.rows, time), IGNORE)
        for i, (ids, first) in enumerate(rows):
            tokens[i, : len(ids) - 1] = torch.tensor(ids[:-1])
            targets[i, first - 1 : len(ids) - 1] = torch.tensor(ids[first:])
        return {"tokens": tokens, "targets": targets}

    def _row(self, person: int, name: str) -> tuple[list[int], int]:
        return _encoded(self.tokenizer, question(self.source, person, name), name)
