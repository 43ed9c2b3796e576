"""Objectives of heads against slow references in float64, written from their equations."""

import math

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model.task_heads import Head, read_out
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.contrastive import Contrastive, SimCSE, info_nce
from gpt2lab.training.micro_batches import added
from gpt2lab.training.supervised import (
    HeadLoss,
    Supervised,
    balanced_weights,
    class_loss,
    multilabel_loss,
    regression_loss,
)
from tests.tiny import tiny, tokens


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_cross_entropy(
    logits: torch.Tensor, labels: list[int], weights: list[float], smoothing: float
) -> float:
    total = norm = 0.0
    for row, label in zip(logits.tolist(), labels, strict=True):
        if label == -100:
            continue
        z = math.log(sum(math.exp(x) for x in row))
        classes = len(row)
        for c, x in enumerate(row):
            share = smoothing / classes + (1 - smoothing if c == label else 0.0)
            total += -share * weights[c] * (x - z)
        norm += weights[label]
    return total / norm


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.5, 2.0, 3.0]])
def test_cross_entropy_with_weights_smoothing_and_missing_labels(
    weights: list[float], smoothing: float
) -> None:
    logits, labels = drawn(5, 3), [0, 2, -100, 1, 2]
    found = class_loss(logits, torch.tensor(labels), weights=torch.tensor(weights), smoothing=smoothing)
    assert float(found) == pytest.approx(slow_cross_entropy(logits, labels, weights, smoothing), rel=1e-6)


def test_binary_cross_entropy_over_the_labels_that_are_there() -> None:
    logits = drawn(3, 2)
    labels = torch.tensor([[1.0, 0.0], [math.nan, 1.0], [0.0, math.nan]])
    weights, smoothing = [2.0, 0.5], 0.1
    terms = []
    for row, truth in zip(logits.tolist(), labels.tolist(), strict=True):
        for c, (x, y) in enumerate(zip(row, truth, strict=True)):
            if not math.isnan(y):
                soft, p = y * (1 - smoothing) + smoothing / 2, 1 / (1 + math.exp(-x))
                terms.append(-weights[c] * soft * math.log(p) - (1 - soft) * math.log(1 - p))
    found = multilabel_loss(logits, labels, weights=torch.tensor(weights), smoothing=smoothing)
    assert float(found) == pytest.approx(sum(terms) / len(terms), rel=1e-6)


def test_squared_error_leaves_out_nan_and_its_gradient_is_finite() -> None:
    said = drawn(3, 2).requires_grad_()
    labels = torch.tensor([[1.0, math.nan], [math.nan, math.nan], [0.5, -1.0]])
    expected = ((said[0, 0] - 1) ** 2 + (said[2, 0] - 0.5) ** 2 + (said[2, 1] + 1) ** 2) / 3
    loss = regression_loss(said, labels)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()))
    loss.backward()
    assert bool(said.grad.isfinite().all()) and float(said.grad[1].abs().sum()) == 0.0


def test_no_label_at_all_is_a_loss_of_zero_with_a_gradient() -> None:
    logits = drawn(2, 3).requires_grad_()
    loss = class_loss(logits, torch.tensor([-100, -100])) + multilabel_loss(
        logits, torch.full((2, 3), math.nan)
    )
    loss.backward()
    assert float(loss.detach()) == 0.0 and float(logits.grad.abs().sum()) == 0.0


def slow_info_nce(q, p, n, there, group, tau: float) -> float:
    losses = []
    for i in range(len(q)):
        own = math.exp(float(q[i] @ p[i]) / tau)
        rest = [math.exp(float(q[i] @ p[j]) / tau) for j in range(len(p)) if j != i and group[i] != group[j]]
        hard = [
            math.exp(float(q[i] @ n[j, k]) / tau)
            for j in range(len(n))
            for k in range(n.shape[1])
            if there[j][k]
        ]
        losses.append(-math.log(own / (own + sum(rest) + sum(hard))))
    return sum(losses) / len(losses)


def test_info_nce_with_hard_negatives_and_groups() -> None:
    q, p, n = drawn(4, 3), drawn(4, 3, seed=1), drawn(4, 2, 3, seed=2)
    there, group = [[True, True], [True, False], [False, False], [True, True]], [0, 1, 0, 2]
    loss, accuracy = info_nce(
        q, p, negatives=n, negative_there=torch.tensor(there), group=torch.tensor(group), temperature=0.7
    )
    assert float(loss) == pytest.approx(slow_info_nce(q, p, n, there, group, 0.7), rel=1e-9)
    assert 0.0 <= accuracy <= 1.0


def test_symmetric_info_nce_is_the_mean_of_both_directions() -> None:
    q, p = drawn(4, 3), drawn(4, 3, seed=1)
    none, apart = drawn(4, 0, 3), [0, 1, 2, 3]
    both = (
        slow_info_nce(q, p, none, [[]] * 4, apart, 0.5) + slow_info_nce(p, q, none, [[]] * 4, apart, 0.5)
    ) / 2
    assert float(info_nce(q, p, temperature=0.5, symmetric=True)[0]) == pytest.approx(both, rel=1e-9)


def test_one_pair_alone_has_nothing_to_tell_apart() -> None:
    assert float(info_nce(drawn(1, 3), drawn(1, 3, seed=1))[0]) == pytest.approx(0.0, abs=1e-12)


def batch_of(heads: list[Head], time: int = 6) -> dict[str, torch.Tensor]:
    ids = tokens(4, time)
    mask = torch.arange(time) < torch.tensor([time, 2, 4, 1])[:, None]
    made = {"tokens": ids, "attention_mask": mask}
    for head in heads:
        if head.kind == "classification":
            made[f"labels.{head.name}"] = torch.tensor([0, 1, -100, 2])
        elif head.kind == "regression":
            made[f"labels.{head.name}"] = torch.tensor([[0.5], [math.nan], [1.0], [-2.0]])
        else:
            made[f"labels.{head.name}"] = torch.where(mask, ids % 3, -100)
    return made


def test_several_heads_are_a_weighted_sum_with_the_language_loss_on_top() -> None:
    specs = [Head(name="a", outputs=3), Head(name="b", kind="regression", outputs=1, pooling="mean")]
    model = tiny("gpt2")
    for spec in specs:
        spec.attach(model)
    batch = batch_of(specs)
    objective = Supervised({"a": HeadLoss(weight=2.0), "b": HeadLoss(weight=0.5)}, language=0.25)
    loss, metrics = objective(model, batch)
    said = read_out(model, ("a", "b"), batch["tokens"], attention_mask=batch["attention_mask"])
    logits = model(batch["tokens"], attention_mask=batch["attention_mask"]).detach().double().log_softmax(-1)
    words = [
        -float(logits[i, t, batch["tokens"][i, t + 1]])
        for i in range(4)
        for t in range(5)
        if batch["attention_mask"][i, t + 1]
    ]
    parts = {
        "loss_a": 2 * slow_cross_entropy(said["a"].double(), [0, 1, -100, 2], [1.0] * 3, 0.0),
        "loss_b": 0.5 * float(regression_loss(said["b"].detach().double(), batch["labels.b"])),
        "loss_language": 0.25 * sum(words) / len(words),
    }
    assert metrics == pytest.approx(parts, rel=1e-4)
    assert float(loss.detach()) == pytest.approx(sum(parts.values()), rel=1e-5)


def test_token_labels_are_scored_where_they_are() -> None:
    spec = Head(name="tag", kind="tokens", outputs=3)
    model = tiny("llama")
    spec.attach(model)
    batch = batch_of([spec])
    said = read_out(model, ("tag",), batch["tokens"], attention_mask=batch["attention_mask"])["tag"].double()
    expected = slow_cross_entropy(said.flatten(0, 1), batch["labels.tag"].flatten().tolist(), [1.0] * 3, 0.0)
    assert float(Supervised({"tag": HeadLoss()})(model, batch)[0].detach()) == pytest.approx(
        expected, rel=1e-5
    )


def test_contrastive_reads_pairs_and_their_padding() -> None:
    model = tiny("gpt2")
    Head(name="v", kind="embedding", outputs=0, pooling="mean").attach(model)
    ids, mask = tokens(3, 5), torch.arange(5) < torch.tensor([5, 3, 1])[:, None]
    hard = tokens(6, 4, seed=3).unflatten(0, (3, 2))
    batch = {
        "tokens": ids, "attention_mask": mask, "positive_tokens": tokens(3, 4, seed=2),
        "positive_mask": torch.ones(3, 4, dtype=torch.bool), "negative_tokens": hard,
        "negative_mask": torch.ones(3, 2, 4, dtype=torch.bool), "negative_there": torch.ones(3, 2, dtype=torch.bool),
        "group": torch.tensor([0, 0, 1]),
    }  # fmt: skip

    def vector(row: torch.Tensor) -> torch.Tensor:
        state = model.hidden(row[None]).double().mean(1)[0]
        return state / state.norm()

    q = torch.stack([vector(ids[i][mask[i]]) for i in range(3)])
    p = torch.stack([vector(row) for row in batch["positive_tokens"]])
    n = torch.stack([torch.stack([vector(row) for row in own]) for own in hard])
    expected = slow_info_nce(q, p, n, [[True, True]] * 3, [0, 0, 1], 0.3)
    assert float(Contrastive(temperature=0.3)(model, batch)[0].detach()) == pytest.approx(expected, rel=1e-4)


def test_simcse_needs_dropout_and_sees_two_views() -> None:
    batch = {"tokens": tokens(4, 5), "attention_mask": torch.ones(4, 5, dtype=torch.bool)}
    still = tiny("gpt2")
    Head(name="v", kind="embedding", outputs=0).attach(still)
    with pytest.raises(LabError, match="has no dropout"):
        SimCSE()(still.train(), batch)
    lively = tiny("gpt2", residual_dropout=0.2)
    Head(name="v", kind="embedding", outputs=0).attach(lively)
    loss, _ = SimCSE(temperature=0.5)(lively.train(), batch)
    same, _ = SimCSE(temperature=0.5)(lively.eval(), batch)
    assert float(loss.detach()) > 0 and float(loss.detach()) != float(same.detach())


def test_balanced_weights_make_every_class_count_alike() -> None:
    assert balanced_weights([1, 3]) == pytest.approx((2.0, 2 / 3))
    with pytest.raises(LabError, match="of every class"):
        balanced_weights([2, 0])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_training_learns_labels_and_accumulation_changes_nothing(family: str) -> None:
    """The class is whether the last id is small; micro-batches differ in how many labels they hold."""

    class Data:
        def __init__(self, size: int) -> None:
            self.size = size

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            ids = torch.cat(
                [tokens(8, 4, seed=(index * self.size // 8 + k) % 4) for k in range(self.size // 8)]
            )
            labels = (ids[:, -1] < 30).long()
            labels[ids[:, 1] > 40] = -100
            return {"tokens": ids, "labels.label": labels, "targets": torch.where(labels < 0, -100, 0)}

    weights = []
    for accumulation in (1, 2):
        model = tiny(family)
        Head(bias=True).attach(model)
        settings = TrainSettings(steps=40, learning_rate=5e-3, accumulation=accumulation, log_every=100)
        done = train(
            model, Data(16 // accumulation), settings=settings, objective=Supervised({"label": HeadLoss()})
        )
        weights.append(model.heads["label"].output.weight.detach())
    assert sum(done.losses[-5:]) < 0.6 * sum(done.losses[:5])
    assert done.tokens > 0
    torch.testing.assert_close(*weights, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_of_labels_without_a_weight_keep_their_smoothing(parts: int) -> None:
    """A class of weight 0 has no part in the denominator, and with smoothing a part in the numerator."""
    labels = torch.tensor([0, 0, 0, 2, -100, 2, 0, 1])
    batch = {"tokens": tokens(8, 4), "labels.a": labels}
    micro = [
        {name: tensor[i::parts] for name, tensor in batch.items()} for i in range(parts)
    ]  # only the last one holds class 1
    objective = Supervised({"a": HeadLoss(class_weights=(0.0, 2.0, 0.0), smoothing=0.1)})
    model = tiny("gpt2").double()
    Head(name="a", outputs=3).attach(model)
    model.double().eval()
    whole = added([objective.totals(model, part) for part in micro])
    pieces = sum(objective(model, part, whole)[0] for part in micro)
    assert float(pieces) == pytest.approx(float(objective(model, batch)[0]), rel=1e-12)


def test_class_weights_that_do_not_fit_are_refused() -> None:
    model = tiny("gpt2")
    Head(name="a", outputs=3).attach(model)
    with pytest.raises(LabError, match="2 class_weights for 3 outputs"):
        Supervised({"a": HeadLoss(class_weights=(1.0, 2.0))})(model, batch_of([Head(name="a", outputs=3)]))
    with pytest.raises(LabError, match="did you mean a"):
        Supervised({"aa": HeadLoss()})(model, batch_of([Head(name="a", outputs=3)]))
