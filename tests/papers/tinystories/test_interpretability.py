"""Heads and neurons against slow references."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.papers.tinystories import interpretability as circuits
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.tokenizer_files import load_tokenizer
from tests.papers.tinystories.conftest import make_lm

TEXTS = [*documents(4, 3), "Anna ran .", documents(8, 1)[0].split(" . ")[0] + " ."]


@pytest.fixture(scope="module")
def encoded():
    lm = make_lm(16, 2, seed=2)
    lm.tokenizer.encode("Anna was lost .")
    return lm, *circuits.encode_stories(lm.tokenizer, [t for t in TEXTS if "ran" not in t], 96)


def slow_head(patterns: list[np.ndarray], classes: list[list[str]]) -> tuple[float, float, dict[str, float]]:
    """R² of a least-squares fit on one-hot distances, mean distance, attention per class against uniform."""
    weights, distances = [], []
    on: dict[str, float] = {}
    uniform: dict[str, float] = {}
    for pattern, names in zip(patterns, classes, strict=True):
        for i in range(1, len(names)):
            for j in range(i + 1):
                weights.append(pattern[i, j])
                distances.append(i - j)
                on[names[j]] = on.get(names[j], 0.0) + pattern[i, j]
                uniform[names[j]] = uniform.get(names[j], 0.0) + 1 / (i + 1)
    design = np.eye(max(distances) + 1)[distances]
    y = np.array(weights)
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    r_squared = 1 - ((y - fitted) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    return r_squared, (y * distances).sum() / y.sum(), {name: on[name] / uniform[name] for name in on}


def test_heads_are_described_as_by_a_least_squares_fit(encoded):
    lm, ids, words = encoded
    reports = circuits.head_reports(lm.model, ids, words)
    assert len(reports) == 2 * 4
    classes = [[circuits.word_class(word) for word in row] for row in words]
    for layer in range(2):
        patterns = []
        for row in ids:
            with lm.model.tap(read=[f"blocks.{layer}.attn.hook_pattern"]) as tap:
                lm.model(torch.tensor([row]))
            patterns.append(tap[f"blocks.{layer}.attn.hook_pattern"][0].double().numpy())
        for head in range(4):
            report = reports[layer * 4 + head]
            r_squared, distance, by_class = slow_head([p[head] for p in patterns], classes)
            assert (report.layer, report.head) == (layer, head)
            assert report.r_squared == pytest.approx(r_squared, abs=1e-6)
            assert report.mean_distance == pytest.approx(distance)
            assert report.by_class == pytest.approx(by_class)


def test_a_head_that_looks_one_token_back_is_a_distance_head():
    sums = circuits._AttentionSums(1, 2, 6)
    for time in (4, 6):
        back = torch.zeros(time, time, dtype=torch.float64)
        back[range(1, time), range(time - 1)] = 1.0
        names = torch.zeros(time, time, dtype=torch.float64)
        names[:, 1] = 1.0  # always the second word, whatever the distance
        sums.add(torch.stack([back, names])[None], ["other", "name", *["other"] * (time - 2)])
    by_distance, by_name = sums.reports()
    assert (
        by_distance.kind == "distance" and by_distance.r_squared == 1.0 and by_distance.mean_distance == 1.0
    )
    assert by_name.kind == "name" and by_name.r_squared < 0.8
    assert by_distance.by_distance[:3] == (0.0, 1.0, 0.0)


def test_neurons_are_ranked_by_influence_and_their_purity_counted(encoded):
    lm, ids, words = encoded
    reports = circuits.neuron_reports(lm.model, ids, words, neurons=5)
    assert [r.influence for r in reports] == sorted((r.influence for r in reports), reverse=True)
    texts = [word for row in words for word in row]
    for report in reports[:4]:
        name = f"blocks.{report.layer}.mlp.hook_post"
        values = []
        for row in ids:
            with lm.model.tap(read=[name]) as tap:
                lm.model(torch.tensor([row]))
            values.append(tap[name][0, :, report.neuron])
        activation = torch.cat(values)
        weight = lm.model.blocks[report.layer].mlp.down.weight[:, report.neuron]
        assert report.influence == pytest.approx(float(activation.abs().mean() * weight.norm()), rel=1e-5)
        best = sorted(range(len(texts)), key=lambda i: -float(activation[i]))[:20]
        found = [circuits.word_class(texts[i]) for i in best]
        assert report.purity == pytest.approx(max(found.count(name) for name in found) / 20)
    assert 0.1 < reports[0].baseline < 0.6


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Anna", "name"),
        (" Lily", "name"),
        (" The", "article"),
        ("kite", "object"),
        ("red", "colour"),
        ("lake", "place"),
        ("she", "pronoun"),
        (".", "punctuation"),
        ('"', "punctuation"),
        ("said", "verb"),
        ("very", "other"),
        ("", "other"),
    ],
)
def test_word_classes(word, name):
    assert circuits.word_class(word) == name


def test_the_measure_reports_every_head_and_the_paper_s_twenty_stories(story_lm):
    found = circuits.StoryCircuits(neurons=3)(story_lm)
    assert len(found.tables["heads"]) == 8 and len(found.tables["neurons"]) == 6
    assert found.about["stories"] == 20
    assert 0.0 <= found["distance_heads"] <= 1.0
    with pytest.raises(LabError, match="20"):
        circuits.neuron_reports(story_lm.model, [[0, 1]], [["", "a"]])
    with pytest.raises(LabError, match="two tokens"):
        circuits.head_reports(story_lm.model, [[0]], [[""]])


def test_a_word_keeps_the_blank_that_sentencepieces_decoder_takes_off(shared_data: Path) -> None:
    tokenizer = load_tokenizer(shared_data / "models" / "stories260k-llama")
    ids, words = circuits.encode_stories(tokenizer, ["There was a girl named Lily. She ran.", "A <unk>"], 12)
    assert [row[0] for row in ids] == [tokenizer.bos] * 2, "stories begin as the model has learnt them"
    assert len(ids[0]) == len(words[0]) == 12
    assert "".join(words[0]) == tokenizer.decode(ids[0])
    assert dict(zip(words[0], map(circuits.word_class, words[0]), strict=True))[" Lily"] == "name"
    assert words[1][0] == words[1][-1] == "", "special tokens have no text"
