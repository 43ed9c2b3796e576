"""TF-IDF baselines against their formulas, and beside a head and an embedding model."""

import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.labelled import Classification
from gpt2lab.measures.retrieval import Retrieval
from gpt2lab.measures.tfidf import TfidfOptions, class_probabilities, label_probabilities, rank
from gpt2lab.model.architecture import attach
from gpt2lab.model.task_heads import Head
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import byte_level
from tests.tiny import tiny

TEXTS = ["a red fox", "the red, RED fox!", "one blue bird", "a blue sky", "naïve 3 words", "blue 3 3 3"]
LABELS = np.array([0, 0, 2, 2, 3, 3])
ASKED = ["red fox", "the bird", "nothing known", "3 words blue"]


def slow_vectors(texts: list[str], asked: list[str], ngrams: int) -> tuple[np.ndarray, np.ndarray]:
    def grams(text: str) -> Counter[str]:
        words = re.findall(r"\w+", text.lower())
        return Counter(
            " ".join(words[i : i + n]) for n in range(1, ngrams + 1) for i in range(len(words) - n + 1)
        )

    counts = [grams(text) for text in texts]
    words = sorted(set().union(*counts))
    df = {word: sum(word in count for count in counts) for word in words}

    def rows(side: list[str]) -> np.ndarray:
        made = np.zeros((len(side), len(words)))
        for row, text in enumerate(side):
            for word, tf in grams(text).items():
                if word in df:
                    made[row, words.index(word)] = (1 + math.log(tf)) * (
                        1 + math.log((1 + len(texts)) / (1 + df[word]))
                    )
        lengths = np.linalg.norm(made, axis=1, keepdims=True)
        return made / np.where(lengths == 0, 1, lengths)

    return rows(texts), rows(asked)


def test_documents_are_ranked_by_the_cosine_of_the_formula() -> None:
    documents = {f"d{i}": text for i, text in enumerate(TEXTS)}
    for ngrams in (1, 2):
        known, asked = slow_vectors(TEXTS, ASKED, ngrams)
        order = [
            [f"d{i}" for i in sorted(range(6), key=lambda i, row=row: (-(known[i] @ row), i))]
            for row in asked
        ]
        assert rank(documents, ASKED, depth=6, options=TfidfOptions(ngrams=ngrams)) == order
    assert rank(documents, ["fox"], depth=2) == [["d0", "d1"]]


def test_class_probabilities_are_those_at_which_the_penalised_loss_is_least() -> None:
    known, asked = slow_vectors(TEXTS, ASKED, 2)
    weights = torch.zeros(3, known.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [weights, bias], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )
    targets = torch.tensor([0, 0, 1, 1, 2, 2])

    def loss() -> torch.Tensor:
        search.zero_grad()
        logits = torch.from_numpy(known) @ weights.T + bias
        value = (
            torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
            + 0.5 * 0.3 * weights.square().sum()
        )
        value.backward()
        return value

    search.step(loss)
    slow = (torch.from_numpy(asked) @ weights.T + bias).softmax(-1).detach().numpy()
    found = class_probabilities(TEXTS, LABELS, ASKED, 5, TfidfOptions(regularization=0.3))
    np.testing.assert_allclose(found[:, [0, 2, 3]], slow, atol=2e-3)
    assert not found[:, [1, 4]].any(), "a class without a training text"
    labels = np.stack([LABELS == 0, LABELS >= 0, np.array([1, 0, np.nan, np.nan, 1, 0])], 1).astype(float)
    several = label_probabilities(TEXTS, labels, ASKED)
    np.testing.assert_allclose(
        several[:, 0], class_probabilities(TEXTS, (LABELS == 0).astype(int), ASKED, 2)[:, 1], atol=1e-9
    )
    assert (several[:, 1] == 1).all(), "a label that all rows have"
    assert 0.05 < several[0, 2] < several[3, 2] < 0.95, "rows that do not say are left out"


def test_what_cannot_be_learnt_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="1 class; it takes two"):
        class_probabilities(TEXTS, np.zeros(6, int), ASKED, 2)
    with pytest.raises(LabError, match="the texts have no word"):
        rank({"a": "!?", "b": ""}, ["x"], depth=1)
    with pytest.raises(LabError, match="ngrams must be at least 1"):
        TfidfOptions(ngrams=0)
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(LabError, match=r"need scikit-learn: .*\[baselines\]"):
        rank({"a": "x"}, ["x"], depth=1)


def _lm(*heads: Head) -> LanguageModel:
    tokenizer = byte_level()
    made = tiny("gpt2", vocab_size=tokenizer.vocab_size)
    for head in heads:
        attach(made, head, generator=torch.Generator().manual_seed(0))
    return LanguageModel(made, tokenizer)


def test_the_measure_classification_puts_the_baseline_beside_the_head(tmp_path: Path) -> None:
    names = ("blue", "red")
    rows = [
        {"text": f"{word} {i}", "label": name}
        for i in range(12)
        for word, name in (("sky", "blue"), ("fox", "red"))
    ]
    for name, part in (("train", rows[:16]), ("test", rows[16:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    lm = _lm(Head(outputs=2, labels=names))
    options = {"data": (str(tmp_path / "test.jsonl"),), "resamples": 100}
    alone = Classification(**options)(lm)
    found = Classification(**options, baseline=(str(tmp_path / "train.jsonl"),))(lm)
    assert found.numbers["baseline_accuracy"] == 1.0 and found.numbers["baseline_auroc"] == 1.0
    assert {name: found.numbers[name] for name in alone.numbers} == alone.numbers
    table = {row["metric"]: row for row in found.tables["baseline"]}
    assert table["accuracy"] == {"metric": "accuracy", "model": found.numbers["accuracy"], "tf-idf": 1.0}


def test_the_measure_retrieval_puts_the_baseline_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    texts = {
        "corpus": {"d1": "red fox", "d2": "blue sky", "d3": "green tree"},
        "queries": {"q1": "a fox", "q2": "the tree"},
    }
    for name, part in texts.items():
        lines = [json.dumps({"_id": key, "text": text}) for key, text in part.items()]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td3\t1\n")
    options = {"data": (str(tmp_path),), "pooling": "mean", "resamples": 100}
    found, alone = Retrieval(**options, baseline=True)(_lm()), Retrieval(**options)(_lm())
    assert found.numbers["baseline_recall@1"] == 1.0 and found.numbers["baseline_ndcg@10"] == 1.0
    assert {
        name: found.numbers[name] for name in alone.numbers
    } == alone.numbers and "baseline" not in alone.tables


def test_sequences_of_characters_are_counted_as_the_formula_says() -> None:
    def grams(text: str) -> Counter[str]:
        text = re.sub(r"\s\s+", " ", text.lower())
        return Counter(text[i : i + n] for n in (2, 3) for i in range(len(text) - n + 1))

    counts = [grams(text) for text in TEXTS]
    df = {gram: sum(gram in one for one in counts) for gram in set().union(*counts)}

    def vector(text: str) -> dict[str, float]:
        made = {
            gram: (1 + math.log(tf)) * (1 + math.log((1 + len(TEXTS)) / (1 + df[gram])))
            for gram, tf in grams(text).items()
            if gram in df
        }
        length = math.sqrt(sum(value * value for value in made.values())) or 1.0
        return {gram: value / length for gram, value in made.items()}

    known, asked = [vector(text) for text in TEXTS], [vector(text) for text in ASKED]
    cosines = [
        [sum(value * row.get(gram, 0.0) for gram, value in one.items()) for row in known] for one in asked
    ]
    documents = {f"d{i}": text for i, text in enumerate(TEXTS)}
    order = [[f"d{i}" for i in sorted(range(6), key=lambda i, row=row: (-row[i], i))] for row in cosines]
    options = TfidfOptions(unit="characters", shortest=2, ngrams=3)
    assert rank(documents, ASKED, depth=6, options=options) == order
    with pytest.raises(LabError, match="no such sequence of characters"):
        rank({"d": "a"}, ["b"], depth=1, options=options)
    for wrong in ({"shortest": 3}, {"shortest": 0}, {"unit": "letters"}):
        with pytest.raises(LabError, match=r"tfidf: ngrams|unit of TF-IDF"):
            TfidfOptions(**wrong)  # type: ignore[arg-type]  # wrong on purpose
