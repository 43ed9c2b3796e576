"""The measure against slow statistics, and the transform: what it learns, chooses, refuses, and that it resumes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.measures.statistics import binomial_test
from gpt2lab.model import Transformer, attach
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.model.task_heads import Head
from gpt2lab.papers.central_dogma.measure import Judged, TranslationPairs, by_type, judge, measurement
from gpt2lab.papers.central_dogma.pairs import read_pairs
from gpt2lab.papers.central_dogma.transform import HEAD, PairJudge
from gpt2lab.text.codon_tokenizer import codon_level
from gpt2lab.text.generators.sequence_pairs import Pair
from gpt2lab.text.language_model import LanguageModel
from tests.papers.central_dogma import reference


def small(context: int = 40) -> LanguageModel:
    tokenizer = codon_level()
    config = gpt2_config(
        vocab_size=tokenizer.vocab_size,
        d_model=24,
        n_layers=2,
        n_heads=2,
        max_positions=context,
        eos=tokenizer.eos,
    )
    return LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(0)), tokenizer)


def judged(n: int = 120) -> tuple[Judged, list[Pair]]:
    generator = np.random.default_rng(5)
    pairs = read_pairs((f"dna-protein-typed:{n}:4",))
    labels = np.array([pair.label for pair in pairs])
    scores = generator.random(n) * 0.6 + 0.4 * labels
    return Judged(labels, (scores > 0.6).astype(np.int64), scores), pairs


def test_numbers_are_those_of_slow_statistics() -> None:
    one, pairs = judged()
    numbers, n = one.numbers(), len(pairs)
    right = sum(int(a == b) for a, b in zip(one.labels, one.said, strict=True))
    assert numbers["accuracy"] == right / n and numbers["flipped_accuracy"] == pytest.approx(1 - right / n)
    assert (numbers["accuracy_low"], numbers["accuracy_high"]) == pytest.approx(reference.wilson(right, n))
    assert numbers["p_value"] == pytest.approx(reference.two_sided_p(right, n), rel=1e-9)
    matches, others = one.scores[one.labels == 1], one.scores[one.labels == 0]
    assert numbers["auroc"] == pytest.approx(np.mean([a > b for a in matches for b in others]))
    for row in by_type(one, [pair.type for pair in pairs]):
        here = [i for i, pair in enumerate(pairs) if pair.type == row["type"]]
        own = sum(int(one.labels[i] == one.said[i]) for i in here)
        assert row["pairs"] == len(here) and row["accuracy"] == own / len(here)
        assert (row["low"], row["high"]) == pytest.approx(reference.wilson(own, len(here)))
        if not row["label"]:
            hits = np.mean(one.said[one.labels == 1] == 1)
            assert row["against matches"] == pytest.approx((hits + own / len(here)) / 2)


def test_exchanged_labels_are_reported_and_never_taken_for_signal() -> None:
    one, _ = judged()
    reversed_ = Judged(one.labels, 1 - one.said, 1 - one.scores)
    assert one.polarity() == "as labelled" and reversed_.polarity().startswith("reversed")
    assert reversed_.numbers()["accuracy"] == pytest.approx(one.numbers()["flipped_accuracy"])
    assert reversed_.numbers()["p_value"] == pytest.approx(one.numbers()["p_value"])
    assert reversed_.numbers()["auroc"] == pytest.approx(1 - one.numbers()["auroc"])
    labels = np.array([0, 1] * 50)
    constant = Judged(labels, np.ones(100, dtype=np.int64), np.full(100, 0.7))
    assert constant.polarity().startswith("neither") and constant.numbers()["auroc"] == 0.5
    assert binomial_test(50, 100) == pytest.approx(1.0)


def test_the_measurement_puts_rules_and_shortcuts_beside_the_judge() -> None:
    one, pairs = judged(160)
    found = measurement(one, pairs)
    assert found["rule.frame0"] == 1.0 and found["rule.any_frame"] < 1.0
    assert {f"shortcut.{name}" for name in ("length", "gc", "composition", "kmers")} <= set(found.numbers)
    assert found.tables["types"][0]["type"] == "match"
    assert len(found.tables["types"]) == 9 and found.tables["confusion"][0]["true"] == "other"
    assert {row["matches"] for row in found.tables["audit"]} == {1.0}
    for name in found.figures:
        assert found.figure_svg(name).startswith(b"<?xml") or b"<svg" in found.figure_svg(name)
    plain = measurement(one, pairs, kind="texts", baselines=False)
    assert "rule.frame0" not in plain.numbers and "audit" not in plain.tables


@pytest.mark.parametrize(
    ("head", "options", "said"),
    [
        (Head(outputs=3), {}, "has 3 classes; a judge of pairs has two"),
        (Head(outputs=2, labels=("no", "yes")), {}, "knows the classes no, yes"),
        (
            Head(outputs=2),
            {"data": ("dna-protein:5:0:130",)},
            r"pair 1: the first text has 130 tokens of the 40",
        ),
        (Head(outputs=2), {"data": ("paraphrases:5",)}, r"pair 1, DNA: 'h' at base 2"),
        (Head(outputs=2), {"trained_on": ("dna-protein-typed:3:1",)}, "3 of 960 pairs were fine-tuned on"),
    ],
)
def test_what_cannot_be_judged_is_refused(head: Head, options: dict[str, Any], said: str) -> None:
    lm = small()
    attach(lm.model, head)
    with pytest.raises(LabError, match=said):
        TranslationPairs(**options)(lm)


def test_a_judge_learns_pairs_of_its_own_and_keeps_the_weights_of_the_lowest_validation_loss(
    tmp_path: Path,
) -> None:
    rows = [
        {"a": "ATG" if i % 2 else "CCC", "b": f"{'AAA' if (i // 2) % 2 else 'TTT'}{'GGG' * (i % 3)}"}
        for i in range(80)
    ]
    lines = [json.dumps({**row, "y": int(row["a"] == "ATG")}) + "\n" for row in rows]
    (tmp_path / "pairs.jsonl").write_text("".join(lines))
    options = {
        "data": (str(tmp_path / "pairs.jsonl"),),
        "first": "a",
        "second": "b",
        "label": "y",
        "valid_fraction": 0.2,
    }
    lm = small()
    new = gpt2lab.apply("pair-judge", lm, steps=30, learning_rate=5e-3, evaluations=5, keep=False, **options)
    said = gpt2lab.predict(new, ["ATG", "CCC"], pairs=["TTT", "AAA"], head=HEAD)
    assert [one.label for one in said] == ["1", "0"]
    assert not lm.model.heads and new.model.config.vocab_size == lm.config.vocab_size


def test_a_stopped_training_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    class Notes:
        def __init__(self, folder: Path, stop: int = 0) -> None:
            self.checkpoints, self.stop, self.results = folder, stop, {}

        def log(self, step: int, **numbers: Any) -> None:
            if step == self.stop:
                raise KeyboardInterrupt

        def result(self, name: str, value: Any) -> None:
            self.results[name] = value

        def table(self, *given: Any, **more: Any) -> None: ...

        def note(self, sentence: str) -> None: ...

    transform = PairJudge(
        data=("dna-protein:60:1",), steps=8, evaluations=4, learning_rate=1e-3, separator="|"
    )
    whole = transform.train(small(), Notes(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        transform.train(small(), Notes(tmp_path / "cut", stop=6))
    again = Notes(tmp_path / "cut")
    resumed = transform.train(small(), again)
    ours, theirs = resumed.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.results["pairs"] < 60 and {"validation_loss", "accuracy"} <= set(again.results)
    other = PairJudge(data=("dna-protein:60:2",), steps=8, separator="|")
    with pytest.raises(LabError, match="the data has changed"):
        other.train(small(), Notes(tmp_path / "cut"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 0}, "epochs must be above 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"warmup": 1.0}, "warmup"),
        ({"valid_fraction": 0.0}, "valid_fraction"),
        ({"data": ("books:100000",)}, "sentence1"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(LabError, match=said):
        PairJudge(**options)(small())


def test_the_judge_reads_what_it_was_trained_on() -> None:
    lm = PairJudge(data=("dna-protein:60:1",), steps=2, separator="|")(small())
    pairs = read_pairs(("dna-protein:40:9",))
    one, cut = judge(lm, pairs, separator="|")
    assert cut == 0 and one.scores.shape == (40,)
    other, cut = judge(lm, pairs, separator="|" * 30)
    assert cut == 40 and not np.allclose(one.scores, other.scores)


def test_a_model_of_dna_loses_its_layer_norms_and_then_judges_pairs() -> None:
    lm = small()
    bare = gpt2lab.apply(
        "remove-layernorm", lm, data="genes:300:1", steps=24, batch_size=4, context=32, keep=False
    )
    assert bare.config.norm == "none"
    judge_of = gpt2lab.apply("pair-judge", bare, data="dna-protein:60:1", separator="|", steps=4, keep=False)
    found = gpt2lab.measure(
        "translation-pairs", judge_of, data="dna-protein-typed:48:9", separator="|", keep=False
    )
    assert found["rule.frame0"] == 1.0 and 0 <= found["accuracy"] <= 1
