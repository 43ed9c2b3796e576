"""Ranking metrics and search against slow references; an index on disk; BEIR's files."""

import json
import math
from pathlib import Path

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures import index as index_module
from gpt2lab.measures.index import Index, build_index, model_fingerprint
from gpt2lab.measures.prediction import embed
from gpt2lab.measures.retrieval import Retrieval, ranking_metrics, read_collection
from gpt2lab.model.architecture import attach
from gpt2lab.model.task_heads import Head
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import word_level
from tests.tiny import tiny

TEXTS = ["red apple pie", "green apple", "blue sky at night", "night train", "apple night", "the end"]


@pytest.fixture
def lm() -> LanguageModel:
    tokenizer = word_level(TEXTS)
    model = tiny("gpt2", vocab_size=tokenizer.vocab_size)
    attach(model, Head(kind="embedding", outputs=0, pooling="mean"))
    return LanguageModel(model, tokenizer)


def test_ranking_metrics_by_hand() -> None:
    found = ranking_metrics(["x", "a", "y", "b"], {"a": 1, "b": 2, "c": 1, "x": 0}, (1, 2, 3))
    best = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert found == pytest.approx(
        {
            "recall@1": 0.0, "recall@2": 1 / 3, "recall@3": 1 / 3, "mrr@10": 0.5,
            "ndcg@10": (1 / math.log2(3) + 2 / math.log2(5)) / best, "map": (1 / 2 + 2 / 4) / 3,
        }
    )  # fmt: skip
    late = ranking_metrics([str(i) for i in range(12)], {"11": 1}, (10,))
    assert late == pytest.approx({"recall@10": 0.0, "mrr@10": 0.0, "ndcg@10": 0.0, "map": 1 / 12})
    with pytest.raises(LabError, match="without a relevant document"):
        ranking_metrics(["a"], {"a": 0})


def slow_search(vectors: torch.Tensor, query: torch.Tensor, k: int) -> list[int]:
    scores = [float(row @ query) for row in vectors]
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]


@pytest.mark.parametrize("chunk", [1 << 24, 7])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_exact_search_equals_a_loop_whatever_the_memory(
    chunk: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randint(-2, 3, (40, 3), generator=generator).float()  # many ties
    queries = torch.randint(-2, 3, (6, 3), generator=generator).float()
    hits = Index([str(i) for i in range(40)], vectors).search(queries, k)
    for query, ids, scores in zip(queries, hits.ids, hits.scores, strict=True):
        assert ids == [str(i) for i in slow_search(vectors, query, k)]
        assert scores == [float(vectors[int(i)] @ query) for i in ids]


@pytest.mark.parametrize(("method", "least"), [("flat", 1.0), ("ivf", 0.5), ("hnsw", 0.9)])
def test_faiss_finds_what_exact_search_finds(method: str, least: float) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(300, 16, generator=generator), dim=1)
    queries = torch.nn.functional.normalize(torch.randn(20, 16, generator=generator), dim=1)
    index = Index([str(i) for i in range(300)], vectors)
    exact, near = index.search(queries, 10), index.search(queries, 10, method=method)
    overlap = [len(set(a) & set(b)) / 10 for a, b in zip(exact.ids, near.ids, strict=True)]
    assert sum(overlap) / 20 >= least
    assert index.search(queries, 10, method=method) == near


def test_embedding_restores_the_order_and_does_not_depend_on_the_batch(lm: LanguageModel) -> None:
    one = embed(lm, TEXTS, batch_size=1)
    torch.testing.assert_close(embed(lm, TEXTS, batch_size=4), one)
    torch.testing.assert_close(embed(lm, TEXTS[::-1], batch_size=3), one.flip(0))
    torch.testing.assert_close(embed(lm, TEXTS, pooling="mean"), one)
    assert embed(lm, []).shape == (0, 24)
    assert not torch.allclose(embed(lm, TEXTS, prefix="the "), one)
    assert embed(lm, [""]).norm() == pytest.approx(1.0)


def test_an_index_is_saved_whole_and_another_models_is_refused(lm: LanguageModel, tmp_path: Path) -> None:
    made = build_index(lm, [f"d{i}" for i in range(6)], TEXTS)
    made.save(tmp_path / "index")
    mark = model_fingerprint(lm, None, None, "")
    again = Index.load(tmp_path / "index", fingerprint=mark)
    assert again.ids == made.ids and torch.equal(again.vectors, made.vectors)
    with torch.no_grad():
        lm.model.embedding.weight[0, 0] += 1
    with pytest.raises(LabError, match="made with another model"):
        Index.load(tmp_path / "index", fingerprint=model_fingerprint(lm, None, None, ""))
    assert model_fingerprint(lm, None, None, "") != model_fingerprint(lm, None, None, "query: ")
    path = tmp_path / "index" / "vectors.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(LabError, match="damaged, the checksum"):
        Index.load(tmp_path / "index")
    with pytest.raises(LabError, match="no whole index"):
        Index.load(tmp_path / "nothing")


def test_what_is_no_index_or_no_search_is_refused() -> None:
    vectors = torch.eye(3)
    with pytest.raises(LabError, match="'a' stands there twice"):
        Index(["a", "b", "a"], vectors)
    with pytest.raises(LabError, match="a vector for each name"):
        Index(["a"], vectors)
    with pytest.raises(LabError, match="finite vectors"):
        Index(["a", "b", "c"], vectors * float("nan"))
    with pytest.raises(LabError, match="k must lie between 1 and the 3 documents"):
        Index(["a", "b", "c"], vectors).search(vectors, 4)
    with pytest.raises(LabError, match="vectors have 3 numbers"):
        Index(["a", "b", "c"], vectors).search(torch.eye(2), 1)


def write(folder: Path, judged: str = "q1\td1\t1\nq2\td3\t2\nq2\td4\t0\n") -> Path:
    folder.mkdir(exist_ok=True)
    corpus = [
        {"_id": f"d{i}", "text": text, "title": "note" if i == 5 else ""} for i, text in enumerate(TEXTS)
    ]
    queries = [
        {"_id": "q1", "text": "green apple"},
        {"_id": "q2", "text": "night train"},
        {"_id": "q3", "text": "x"},
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


def test_beirs_files_are_read_and_measured(lm: LanguageModel, tmp_path: Path) -> None:
    task = read_collection(write(tmp_path / "task"))
    assert task.documents["d5"] == "note the end" and list(task.queries) == ["q1", "q2"]
    assert task.grades == {"q1": {"d1": 1}, "q2": {"d3": 2, "d4": 0}}
    result = Retrieval(data=(str(tmp_path / "task"),), resamples=100)(lm)
    assert result["recall@1"] == result["mrr@10"] == result["ndcg@10"] == 1.0, "each query is its document"
    assert result.about["documents"] == 6 and "recall@10" not in result.numbers


@pytest.mark.parametrize(
    ("judged", "words"),
    [
        ("q1\td9\t1\n", "judges document 'd9', which is not there"),
        ("q9\td1\t1\n", "judges query 'q9', which is not there"),
        ("q1\td1\tyes\n", "a score is a whole number, found 'yes'"),
        ("q1\td1\t0\n", "no query has a relevant document"),
    ],
)
def test_judgements_that_fit_nothing_are_refused(judged: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=words):
        read_collection(write(tmp_path / "task", judged))


def test_missing_files_and_heads_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"no such file; a collection has corpus\.jsonl"):
        read_collection(tmp_path)
    tokenizer = word_level(TEXTS)
    bare = LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size), tokenizer)
    with pytest.raises(LabError, match="no head for embedding; train one"):
        embed(bare, TEXTS)
