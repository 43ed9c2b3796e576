"""The measure `retrieval`: how high an embedding model ranks the right documents."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError
from gpt2lab.measures.classification_metrics import resampled
from gpt2lab.measures.index import Method, build_index
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.prediction import embed
from gpt2lab.measures.tfidf import rank
from gpt2lab.model.task_heads import Pooling
from gpt2lab.text import rows
from gpt2lab.text.bounded import string
from gpt2lab.text.records import records

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

Grades = dict[str, dict[str, int]]
"""query → document → grade; above 0 is relevant."""


def ranking_metrics(
    ranking: Sequence[str], grades: Mapping[str, int], cuts: Sequence[int] = (1, 3, 5, 10, 100)
) -> dict[str, float]:
    """Return recall@k for each cut, mrr@10, ndcg@10 and map of one query.

    ranking: documents, the best first; grades: those with a judgement. recall@k = relevant in the first k / relevant.
    mrr@10 = 1 / place of the first relevant one among ten, else 0. ndcg@10 = Σ grade_i / log2(i + 1) over that of the
    best order (as trec_eval, gains linear in the grade). map = mean over relevant documents of the precision at their
    places, 0 for those not ranked. LabError for a query without a relevant document.
    """
    relevant = {document for document, grade in grades.items() if grade > 0}
    if not relevant:
        raise LabError("a query without a relevant document has no recall")
    hits = np.array([document in relevant for document in ranking], dtype=np.float64)
    found = {f"recall@{k}": float(hits[:k].sum()) / len(relevant) for k in cuts}
    first = next((place for place, hit in enumerate(hits[:10], start=1) if hit), None)
    found["mrr@10"] = 1 / first if first else 0.0
    gains = [max(grades.get(document, 0), 0) for document in ranking[:10]]
    best = sorted((max(grade, 0) for grade in grades.values()), reverse=True)[:10]
    found["ndcg@10"] = _discounted(gains) / _discounted(best)
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    found["map"] = float((precision * hits).sum()) / len(relevant)
    return found


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))


@dataclass(frozen=True)
class Collection:
    """A retrieval task: what is searched, what is asked, and which documents answer it."""

    documents: dict[str, str]
    """Name → text."""
    queries: dict[str, str]
    """Name → text; those with a relevant document."""
    grades: Grades
    """Which documents answer a query, and how well."""


def read_collection(folder: Path | str, split: str = "test") -> Collection:
    """Read a folder as BEIR has it (Thakur et al. 2021).

    corpus.jsonl ("_id", "text", perhaps "title", which stands before the text), queries.jsonl ("_id", "text"), and
    qrels/SPLIT.tsv or qrels.tsv with the columns query-id, corpus-id, score. LabError for a missing file or field, an
    id that stands there twice, and a judgement of a query or document that does not exist.
    """
    folder = Path(folder)
    documents = _texts(folder / "corpus.jsonl")
    queries = _texts(folder / "queries.jsonl")
    path = folder / "qrels" / f"{split}.tsv"
    path = path if path.is_file() else folder / "qrels.tsv"
    grades: Grades = {}
    for where, row in records(_there(path), "query-id", "corpus-id", "score"):
        query, document = (rows.named(row[field], where, field) for field in ("query-id", "corpus-id"))
        if query not in queries or document not in documents:
            wrong = f"query {query!r}" if query not in queries else f"document {document!r}"
            raise LabError(f"{where}: judges {wrong}, which is not there")
        if document in grades.setdefault(query, {}):
            raise LabError(f"{where}: document {document!r} is judged twice for query {query!r}")
        try:
            grades[query][document] = int(row["score"])
        except ValueError:
            raise LabError(f"{where}: a score is a whole number, found {row['score']!r}") from None
    asked = {
        name: text for name, text in queries.items() if any(g > 0 for g in grades.get(name, {}).values())
    }
    if not asked:
        raise LabError(f"{path}: no query has a relevant document")
    return Collection(documents, asked, grades)


def _there(path: Path) -> Path:
    if not path.is_file():
        raise LabError(
            f"{path}: no such file; a collection has corpus.jsonl, queries.jsonl and qrels/test.tsv"
        )
    return path


def _texts(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for where, row in records(_there(path), "_id", "text"):
        name = rows.named(row["_id"], where, "_id")
        if name in found:
            raise LabError(f"{where}: the id {name!r} stands there twice")
        title = rows.known(row, "title", where)
        text = string(row["text"], where, "text")
        found[name] = text if title is None else f"{title} {text}"
    return found


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How high a model ranks the documents that answer a query."""

    data: tuple[str, ...] = ()
    """A folder with corpus.jsonl, queries.jsonl and qrels/test.tsv (BEIR's format)."""
    split: str = "test"
    """Relevance judgements: qrels/SPLIT.tsv, else qrels.tsv."""
    head: str | None = None
    """Name of the embedding head, if the model has several."""
    pooling: Pooling | None = None
    """Rank by pooled states of any model instead of an embedding head: a baseline."""
    query_prefix: str = ""
    """Prefix of every query (e5: "query: ")."""
    passage_prefix: str = ""
    """Prefix of every document (e5: "passage: ")."""
    method: Method = "exact"
    """exact, or an index of faiss (extra `retrieval`): flat, ivf, hnsw."""
    depth: int = 100
    """Documents ranked for each query; map counts later ones as missed."""
    batch_size: int = 32
    """Texts in one forward pass; changes speed and memory, not the numbers."""
    resamples: int = 1000
    """Bootstrap resamples of the queries for the 95 % intervals."""
    seed: int = 0
    """Seed of the cells of ivf."""
    baseline: bool = False
    """Also rank by the cosines of TF-IDF vectors, which need no model (extra `baselines`)."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure; LabError for files that are not whole, or a model without an embedding head and no pooling."""
        if len(self.data) != 1:
            raise LabError(
                "measure retrieval: give one folder with corpus.jsonl, queries.jsonl and qrels/test.tsv"
            )
        task = read_collection(self.data[0], self.split)
        index = build_index(
            lm,
            list(task.documents),
            list(task.documents.values()),
            head=self.head,
            pooling=self.pooling,
            prefix=self.passage_prefix,
            batch_size=self.batch_size,
        )
        asked = embed(
            lm,
            list(task.queries.values()),
            head=self.head,
            pooling=self.pooling,
            prefix=self.query_prefix,
            batch_size=self.batch_size,
        )
        depth = min(self.depth, len(index))
        hits = index.search(asked, depth, method=self.method, seed=self.seed)
        names, table = _table(task, hits.ids, depth)
        intervals = resampled(
            len(table),
            lambda items: dict(zip(names, table[items].mean(0).tolist(), strict=True)),
            resamples=self.resamples,
        )
        rows: Table = [
            {"metric": name, "value": i.mean, "low": i.low, "high": i.high} for name, i in intervals.items()
        ]
        numbers = dict(zip(names, table.mean(0).tolist(), strict=True))
        tables = {"intervals": rows}
        if self.baseline:
            ranked = rank(task.documents, list(task.queries.values()), depth=depth)
            plain = dict(zip(names, _table(task, ranked, depth)[1].mean(0).tolist(), strict=True))
            tables["baseline"] = [
                {"metric": name, "model": numbers[name], "tf-idf": value} for name, value in plain.items()
            ]
            numbers |= {f"baseline_{name}": value for name, value in plain.items()}
        return Measurement(
            name="retrieval",
            numbers=numbers,
            tables=tables,
            about={
                "data": self.data[0],
                "documents": len(index),
                "queries": len(table),
                "method": self.method,
                "depth": depth,
            },
        )


def _table(
    task: Collection, rankings: Sequence[Sequence[str]], depth: int
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Return the names of the metrics, and their values for each query, [queries, metrics]."""
    cuts = [k for k in (1, 3, 5, 10, 100) if k <= depth]
    each = [
        ranking_metrics(ranking, task.grades[query], cuts)
        for query, ranking in zip(task.queries, rankings, strict=True)
    ]
    names = list(each[0])
    return names, np.array([[row[name] for name in names] for row in each])
