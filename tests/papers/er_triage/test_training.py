"""Losses, read-outs and fine-tuning against slow float64 references, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from sklearn import metrics

from gpt2lab.base.errors import LabError
from gpt2lab.model import attach
from gpt2lab.model.task_heads import Head, read_out
from gpt2lab.papers.er_triage.baselines import BASELINES, baseline_scores
from gpt2lab.papers.er_triage.label_word import (
    LabelWord,
    label_word_batches,
    label_word_loss,
    label_word_scores,
)
from gpt2lab.papers.er_triage.notes import HEAD, examples_of
from gpt2lab.papers.er_triage.training import (
    FineTuning,
    context_of,
    fine_tune,
    note_rows,
    pretrain,
    redrawn,
    rung_numbers,
    scores_of,
)
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.encoding import Encoder
from gpt2lab.text.labelled_batches import LabelledBatches
from gpt2lab.text.labelled_documents import Document
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import word_level
from gpt2lab.training import TrainSettings
from gpt2lab.training.objectives import next_token
from gpt2lab.training.supervised import HeadLoss, Supervised
from tests.papers.er_triage.reference import cross_entropy, next_token_loss
from tests.tiny import tiny

NOTES = [
    Document(str(i), text, str(i % 2))
    for i, text in enumerate(
        [
            "toux et fievre",
            "chute",
            "fievre toux malaise et toux",
            "chute de velo plaie",
            "malaise",
            "plaie et chute",
        ]
    )
]
TEXTS = [one.text for one in NOTES]
WORD = LabelWord(words=("non", "oui"), separator="?")
QUICK = FineTuning(least_steps=3, most_steps=3)


def model(family: str = "gpt2", **changes: object) -> LanguageModel:
    tokenizer = word_level(TEXTS, special=["non", "oui", "?"])
    shape = {"vocab_size": tokenizer.vocab_size, "max_positions": 12, **changes}
    return LanguageModel(tiny(family, **shape).double(), tokenizer)


def alone(lm: LanguageModel, ids: list[int]) -> torch.Tensor:
    return lm.model(torch.tensor([ids]))[0]


def test_pre_training_is_the_mean_over_real_next_tokens() -> None:
    lm = model()
    rows, cut = note_rows(lm, TEXTS, 12)
    assert cut == 0 and all(row[-1] == lm.tokenizer.eos for row in rows)  # type: ignore[union-attr]  # it has one
    (batch,) = SequenceBatches(rows, batch_size=len(rows), shuffle=False)
    loss, _ = next_token(lm.model, batch)
    parameters = list(lm.model.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    wanted = next_token_loss([alone(lm, row) for row in rows], rows)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-6)
    for one, other in zip(gradients, torch.autograd.grad(wanted, parameters), strict=True):
        assert torch.allclose(one, other.to(one.dtype), rtol=1e-4, atol=1e-6)
    assert note_rows(lm, ["toux " * 20], 12) == ([rows[0][:1] * 12 + [lm.tokenizer.eos]], 1)  # type: ignore[union-attr]


@pytest.mark.parametrize("language", [0.0, 0.5])
def test_fine_tuning_is_cross_entropy_of_the_last_real_token_plus_the_language_loss(language: float) -> None:
    lm = model()
    head = Head(name=HEAD, outputs=2, labels=("0", "1"), language_head=True)
    attach(lm.model, head, generator=torch.Generator().manual_seed(1))
    lm.model.double()
    encoder = Encoder(lm.tokenizer, 12)  # type: ignore[arg-type]  # it has one
    (batch,) = LabelledBatches(examples_of(NOTES), [head], encoder, batch_size=6, shuffle=False)
    parameters = list(lm.model.parameters())
    loss, _ = Supervised({HEAD: HeadLoss()}, language=language)(lm.model, batch)
    gradients = torch.autograd.grad(loss, parameters)
    rows = [encoder.text(text).ids for text in TEXTS]
    weight = lm.model.heads[HEAD].output.weight  # type: ignore[union-attr]  # a linear map
    said = torch.stack([weight @ lm.model.hidden(torch.tensor([row]))[0, -1] for row in rows])  # type: ignore[operator]
    wanted = cross_entropy(said, [0, 1] * 3)
    if language:
        kept = [row for row in rows if len(row) > 1]
        wanted = wanted + language * next_token_loss([alone(lm, row) for row in kept], kept)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-6)
    for one, other in zip(
        gradients, torch.autograd.grad(wanted, parameters, materialize_grads=True), strict=True
    ):
        assert torch.allclose(one, other.to(one.dtype), rtol=1e-4, atol=1e-6)
    logits = read_out(lm.model, (HEAD,), batch["tokens"], attention_mask=batch["attention_mask"])[HEAD]
    assert torch.allclose(logits, said, atol=1e-9)


@pytest.mark.parametrize("language", [0.0, 0.5])
def test_a_written_class_is_the_softmax_over_two_words_and_learnt_like_any_token(language: float) -> None:
    lm = model()
    tokenizer = lm.tokenizer
    assert tokenizer is not None
    no, yes = WORD.ids(tokenizer)
    rows = [[tokenizer.bos, *tokenizer.encode(text), *tokenizer.encode("?")] for text in TEXTS]
    last = [alone(lm, row)[-1].double() for row in rows]  # type: ignore[arg-type]  # ids
    found = label_word_scores(lm.model, TEXTS, tokenizer, WORD, context=12, batch_size=4)
    wanted = [float(row[yes].exp() / (row[no].exp() + row[yes].exp())) for row in last]
    assert found.tolist() == pytest.approx(wanted)
    batches = label_word_batches(TEXTS, [0, 1] * 3, tokenizer, WORD, context=12, batch_size=6, seed=0)
    loss, _ = label_word_loss(language)(lm.model, batches[0])
    ends = cross_entropy(torch.stack(last), [no, yes] * 3)
    notes = next_token_loss([alone(lm, row) for row in rows], rows)  # type: ignore[arg-type]  # ids
    assert float(loss.detach()) == pytest.approx(float((ends + language * notes).detach()), rel=1e-6)
    cut, count = WORD.rows(["toux " * 20, "toux"], tokenizer, 8)
    assert (len(cut[0]), len(cut[1]), count) == (7, 3, 1)


def test_label_words_that_cannot_be_told_apart_are_refused() -> None:
    lm = model()
    assert lm.tokenizer is not None
    for words, message in (
        (("non", "toux et"), "is 2 tokens"),
        (("non", "peut"), "or unknown"),
        (("non", "non"), "the same label word"),
    ):
        with pytest.raises(LabError, match=message):
            LabelWord(words=words).ids(lm.tokenizer)
    with pytest.raises(LabError, match="leaves no room"):
        WORD.rows(["toux"], lm.tokenizer, 3)
    with pytest.raises(LabError, match="must not be negative"):
        label_word_loss(-1.0)
    with pytest.raises(LabError, match="causal"):
        label_word_scores(model("bert").model, ["toux"], lm.tokenizer, WORD, context=12)


def test_updates_follow_the_labels_within_their_bounds() -> None:
    how = FineTuning(least_steps=100, most_steps=500)
    assert [how.steps(n) for n in (15, 800, 1000, 2000, 9000)] == [100, 100, 125, 250, 500]


@pytest.mark.parametrize("read_out_by", ["head", "label-word"])
def test_a_model_learns_on_a_copy_and_the_same_twice(read_out_by: str) -> None:
    lm = model()
    before = copy.deepcopy(lm.model.state_dict())
    how = FineTuning(least_steps=60, most_steps=60, read_out=read_out_by, label_word=WORD)  # type: ignore[arg-type]
    one, other = (fine_tune(lm, NOTES, how, learning_rate=1e-2, seed=3) for _ in range(2))
    assert all(torch.equal(before[name], value) for name, value in lm.model.state_dict().items())
    first, cut = scores_of(one, TEXTS, how)
    assert first.tolist() == scores_of(other, TEXTS, how)[0].tolist() and cut == 0
    assert first.tolist() == pytest.approx(scores_of(one, TEXTS, how, batch_size=1)[0].tolist(), abs=1e-6)
    assert ((first > 0.5) == [0, 1, 0, 1, 0, 1]).all()


def test_an_encoder_learns_a_class_too() -> None:
    how = FineTuning(least_steps=40, most_steps=40)
    tuned = fine_tune(model("bert"), NOTES, how, learning_rate=1e-2, seed=0)
    assert ((scores_of(tuned, TEXTS, how)[0] > 0.5) == [0, 1, 0, 1, 0, 1]).all()
    with pytest.raises(LabError, match="causal"):
        pretrain(model("bert"), TEXTS, TrainSettings(steps=1), batch_size=2, context=12, seed=0)


def test_fresh_weights_are_of_the_seed_and_all_trained() -> None:
    lm = model()
    lm.model.requires_grad_(False)
    one, same, other = (redrawn(lm, seed).model.state_dict() for seed in (1, 1, 2))
    matrices = [name for name, value in one.items() if value.dim() > 1]
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(
        torch.equal(one[name], other[name]) or torch.equal(one[name], lm.model.state_dict()[name].float())
        for name in matrices
    )
    assert all(parameter.requires_grad for parameter in redrawn(lm, 1).model.parameters())


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(LabError, match="a labelled subset needs notes of both classes"):
        fine_tune(model(), NOTES[:1], QUICK, learning_rate=1e-3, seed=0)
    with pytest.raises(LabError, match="this model reads 6 tokens; notes need 8 or more"):
        context_of(model(max_positions=6), QUICK)
    for wrong, words in (
        ({"context": 7}, "at least 8 tokens"),
        ({"read_out": "hed"}, "did you mean head"),
        ({"least_steps": 9, "most_steps": 8}, "least_steps between 1"),
        ({"epochs": 0.0}, "must be positive"),
        ({"warmup": 1.0}, "warmup must lie"),
        ({"language": -0.1}, "not be negative"),
    ):
        with pytest.raises(LabError, match=words):
            FineTuning(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_the_numbers_of_a_rung_are_scikit_learn_s() -> None:
    draw = np.random.default_rng(2)
    truth = (draw.random(200) < 0.3).astype(np.int64)
    scores = np.clip(0.4 * truth + 0.6 * draw.random(200), 0, 1).round(2)  # with ties
    found = rung_numbers(truth, scores, resamples=200)
    precision, recall, _ = metrics.precision_recall_curve(truth, scores)
    wanted = {
        "auc": metrics.roc_auc_score(truth, scores),
        "f1": metrics.f1_score(truth, scores >= 0.5),
        "f1_best": float(np.nanmax(2 * precision * recall / np.maximum(precision + recall, 1e-9))),
        "ap": metrics.average_precision_score(truth, scores),
        "brier": metrics.brier_score_loss(truth, scores),
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert found["auc_low"] < found["auc"] < found["auc_high"] and found["f1_low"] < found["f1_high"]


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_give_a_probability_of_class_1_to_every_text(name: str) -> None:
    scores = baseline_scores(name, NOTES, ["chute", "toux", "mot inconnu"])
    assert scores.shape == (3,) and ((scores > 0) & (scores < 1)).all()
    if name == "majority":
        assert scores.tolist() == [0.5] * 3
    else:
        assert scores[0] > 0.5 > scores[1]
    with pytest.raises(LabError, match="did you mean tfidf"):
        baseline_scores("tfdf", NOTES, [])
