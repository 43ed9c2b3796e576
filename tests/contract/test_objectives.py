"""What every objective must do: ours, a paper's, a plug-in's. Above all, k micro-batches are one large batch."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import Part
from gpt2lab.model import Transformer, attach
from gpt2lab.model.task_heads import Head
from gpt2lab.papers.layernorm_removal.objective import EvenLogScales, EvenScales
from gpt2lab.papers.pondering.architecture import Pondering
from gpt2lab.papers.sophia.optimizer import SophiaH
from gpt2lab.reinforce.rollouts import continuations
from gpt2lab.text.encoding import Encoder
from gpt2lab.text.labelled import Example
from gpt2lab.text.labelled_batches import LabelledBatches
from gpt2lab.text.tokenizer import byte_level
from gpt2lab.training import TrainSettings, masked_tokens, next_token, train
from gpt2lab.training.contrastive import Contrastive, SimCSE
from gpt2lab.training.gradients import GradientStrategy, PrivateGradient, SummedGradient
from gpt2lab.training.micro_batches import Batch
from gpt2lab.training.objectives import LossFunction, Objective, as_objective
from gpt2lab.training.supervised import HeadLoss, Supervised
from tests.contract.parts import built, refuses_unknown_options
from tests.tiny import BIDIRECTIONAL, CAUSAL, tiny, tokens

CUTS = ((3, 4, 1), (4, 4), (1,) * 8)
"""Rows of the micro-batches; the large batch has their sum."""
EXPERTS = {"n_experts": 4, "balance_weight": 0.3, "router_z_weight": 0.2}

NAN = math.nan


@dataclass(frozen=True)
class Case:
    """An objective, a model that it trains, and a batch of eight rows."""

    model: Callable[[], Transformer]
    objective: Objective | LossFunction
    batch: Callable[[], dict[str, Tensor]]


def padded() -> dict[str, Tensor]:
    """Rows of very different lengths; one has no target at all."""
    ids, lengths = tokens(8, 10, seed=3), torch.tensor([[10], [2], [7], [1], [9], [3], [3], [8]])
    real = torch.arange(10) < lengths
    targets = tokens(8, 10, seed=4).masked_fill(~real, -100)
    targets[3] = -100
    return {"tokens": ids, "targets": targets, "attention_mask": real}


def hidden() -> dict[str, Tensor]:
    """The same with few targets, unevenly spread."""
    batch = padded()
    keep = torch.zeros(8, 10, dtype=torch.bool)
    for row, place in ((0, 1), (0, 4), (0, 9), (2, 6), (4, 0), (7, 1), (7, 2)):
        keep[row, place] = True
    return {**batch, "targets": batch["tokens"].masked_fill(~keep, -100)}


def answers() -> dict[str, Tensor]:
    """Pairs of answers of unequal lengths to prompts of unequal lengths."""
    batch: dict[str, Tensor] = {}
    lengths = (5, 1, 3, 2, 4, 1, 2, 3)
    for seed, name in enumerate(("chosen", "rejected")):
        ids = tokens(8, 10, seed=seed).tolist()
        laid = continuations(
            [row[: 1 + place % 4] for place, row in enumerate(ids)],
            [row[10 - length :] for row, length in zip(ids, lengths[:: 1 - 2 * seed], strict=True)],
        )
        batch |= {
            f"{name}_tokens": laid.tokens,
            f"{name}_mask": laid.attention_mask,
            f"{name}_answer": laid.mask,
        }
    return batch


def without_last_token() -> dict[str, Tensor]:
    """The same without the last token of the vocabulary, which is to be injected."""
    batch = padded()
    return {**batch, **{name: batch[name].clamp_max(59) for name in ("tokens", "targets")}}


OWN_ROWS = {"dpo": answers, "meta-injection": without_last_token}
"""Batches of objectives that read rows of their own."""


def labelled(**labels: Tensor) -> Callable[[], dict[str, Tensor]]:
    """The same tokens with labels for heads."""

    def made() -> dict[str, Tensor]:
        batch = padded()
        del batch["targets"]
        return {**batch, **{f"labels.{name}": value.clone() for name, value in labels.items()}}

    return made


def model(
    family: str, *heads: Head, changes: Mapping[str, object] | None = None
) -> Callable[[], Transformer]:
    """A model in float64 with these heads."""

    def made() -> Transformer:
        found = tiny(family, **(changes or {}))
        for head in heads:
            attach(found, head, generator=torch.Generator().manual_seed(5))
        return found.double()

    return made


def with_pondering() -> Transformer:
    found = tiny("gpt2")
    attach(found, Pondering(steps=2), generator=torch.Generator().manual_seed(1))
    return found.double()


CLASS = Head(name="topic", outputs=3, language_head=True)
OTHER = Head(name="tone", outputs=2, language_head=True)
MANY = Head(name="many", kind="multilabel", outputs=2, language_head=True)
NUMBERS = Head(name="numbers", kind="regression", outputs=2, language_head=True)
TAGS = Head(name="tags", kind="tokens", outputs=3, language_head=True)

TOPIC = torch.tensor([0, 2, -100, 1, 0, 0, -100, 2])
TONE = torch.tensor([-100, -100, -100, 1, -100, -100, 0, 1])
MANY_LABELS = torch.tensor([[1, 0], [NAN, 1], [NAN, NAN], [0, 0], [1, NAN], [NAN, NAN], [1, 1], [0, NAN]])
VALUES = torch.tensor([[0.5, NAN], [2, 1], [NAN, NAN], [-1, 0], [3, NAN], [NAN, 1], [NAN, NAN], [0, 4]])
WORDS = (tokens(8, 10, vocab=3, seed=6)).masked_fill(tokens(8, 10, vocab=2, seed=7) == 0, -100)
RARE = HeadLoss(class_weights=(0.1, 5.0, 2.0), smoothing=0.2, weight=0.5)

CASES: dict[str, Case] = {
    **{f"next token, {family}": Case(model(family), next_token, padded) for family in CAUSAL},
    **{f"masked tokens, {family}": Case(model(family), masked_tokens, hidden) for family in BIDIRECTIONAL},
    "next token, experts": Case(model("llama", changes=EXPERTS), next_token, padded),
    "next token, pondering": Case(with_pondering, next_token, padded),
    "even scales": Case(model("gpt2", changes={"eos": 7}), EvenScales(penalty=0.7), padded),
    "even log scales": Case(model("llama", changes={"eos": 7}), EvenLogScales(penalty=0.7), padded),
    "one head": Case(model("gpt2", CLASS), Supervised({"topic": HeadLoss()}), labelled(topic=TOPIC)),
    "class weights and smoothing": Case(
        model("bert", CLASS), Supervised({"topic": RARE}), labelled(topic=TOPIC)
    ),
    "two heads, one rarely labelled": Case(
        model("gpt2", CLASS, OTHER),
        Supervised({"topic": RARE, "tone": HeadLoss()}),
        labelled(topic=TOPIC, tone=TONE),
    ),
    "many labels": Case(
        model("gpt2", MANY),
        Supervised({"many": HeadLoss(class_weights=(3.0, 0.5), smoothing=0.1)}),
        labelled(many=MANY_LABELS),
    ),
    "numbers": Case(model("llama", NUMBERS), Supervised({"numbers": HeadLoss()}), labelled(numbers=VALUES)),
    "tags": Case(
        model("bert", TAGS), Supervised({"tags": HeadLoss(class_weights=(1.0, 0.2, 4.0))}), labelled(tags=WORDS)
    ),
    "heads of three kinds, language, experts": Case(
        model("llama", CLASS, NUMBERS, MANY, changes=EXPERTS),
        Supervised({"topic": RARE, "numbers": HeadLoss(weight=2.0), "many": HeadLoss()}, language=0.5),
        labelled(topic=TOPIC, numbers=VALUES, many=MANY_LABELS),
    ),
}  # fmt: skip


@dataclass
class Sliced:
    """The micro-batches of one update: consecutive rows of one batch."""

    batch: dict[str, Tensor]
    sizes: Sequence[int]
    starts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.starts = [sum(self.sizes[:k]) for k in range(len(self.sizes) + 1)]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rows = slice(self.starts[index], self.starts[index + 1])
        return {name: tensor[rows] for name, tensor in self.batch.items()}


def update(
    case: Case, sizes: Sequence[int], *, clip: float = 0.0, gradients: GradientStrategy | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Make one update; return by how much each weight moved, and what was logged."""
    trained, rows = case.model(), list[dict[str, float]]()
    before = [parameter.detach().clone() for parameter in trained.parameters()]
    train(
        trained,
        Sliced(case.batch(), sizes),
        settings=TrainSettings(
            steps=1, accumulation=len(sizes), schedule="constant", clip=clip, precision="float32"
        ),
        objective=case.objective,
        optimizer=torch.optim.SGD(trained.parameters(), lr=1.0),
        gradients=gradients,
        log=lambda step, **numbers: rows.append(numbers),
    )
    pairs = zip(before, trained.parameters(), strict=True)
    moved = torch.cat([(old - new.detach()).flatten() for old, new in pairs])
    return moved, {name: value for name, value in rows[0].items() if name not in ("tokens_per_second", "mfu")}


def same_update(
    case: Case,
    sizes: Sequence[int],
    *,
    clip: float = 0.0,
    exact: float = 1e-9,
    gradients: GradientStrategy | None = None,
) -> None:
    one, logged = update(case, [sum(sizes)], clip=clip, gradients=gradients)
    many, logged_of_many = update(case, sizes, clip=clip, gradients=gradients)
    assert float(one.norm()) > 1e-3
    assert float((one - many).norm() / one.norm()) < exact
    assert logged_of_many == pytest.approx(logged, rel=max(exact, 1e-6), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("sizes", CUTS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_micro_batches_move_the_weights_as_one_large_batch(name: str, sizes: Sequence[int]) -> None:
    same_update(CASES[name], sizes)


STRATEGIES: dict[str, type[GradientStrategy]] = {"summed": SummedGradient, "private": PrivateGradient}


def of_strategy(case: Case, strategy: str, exact: float = 1e-9) -> None:
    """Under every strategy k micro-batches are one large batch, or the objective says why it has no loss for each row."""
    gradients = STRATEGIES[strategy]()
    reason = as_objective(case.objective).no_example_loss(case.model().train())
    if strategy == "private" and reason:
        with pytest.raises(LabError, match=re.escape(reason)):
            update(case, [8], gradients=gradients)
        return
    same_update(case, (3, 4, 1), exact=exact, gradients=gradients)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", CASES)
def test_every_strategy_takes_every_objective_or_says_why_not(name: str, strategy: str) -> None:
    of_strategy(CASES[name], strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("part", built("objective"))
def test_every_strategy_takes_a_registered_objective_or_says_why_not(part: Part, strategy: str) -> None:
    objective, batch = as_objective(part.load()()), OWN_ROWS.get(part.name, padded)
    objective.prepare(tiny("gpt2", seed=9).double())
    of_strategy(Case(model("gpt2"), objective, batch), strategy, exact=1e-5)


@pytest.mark.parametrize("part", built("objective"))
def test_a_registered_objective_is_a_declared_one_and_names_the_same_modules_twice(part: Part) -> None:
    objective, trained = as_objective(part.load()()), model("gpt2")()
    rows = OWN_ROWS.get(part.name, padded)
    objective.prepare(trained)
    first, second = objective.modules(), objective.modules()
    assert [(name, id(one.module)) for name, one in first.items()] == [
        (name, id(one.module)) for name, one in second.items()
    ]
    if objective.samples_labels:
        loss = objective.sampled_loss(trained, rows(), generator=torch.Generator().manual_seed(0))
        assert loss.isfinite() and loss.requires_grad and objective.sampled_terms(rows()) > 0
    else:
        with pytest.raises(LabError, match="has no distribution of labels to draw from"):
            objective.sampled_loss(trained, rows())


@pytest.mark.parametrize("name", ["next token, experts", "two heads, one rarely labelled"])
def test_the_gradient_that_is_clipped_is_that_of_the_large_batch(name: str) -> None:
    same_update(CASES[name], (3, 4, 1), clip=0.01)


@pytest.mark.parametrize("part", built("objective"))
@pytest.mark.parametrize("sizes", CUTS, ids=str)
def test_a_registered_objective_does_so_too_or_says_that_it_cannot(part: Part, sizes: Sequence[int]) -> None:
    made = part.load()()
    if isinstance(made, Objective):
        made.prepare(tiny("gpt2", seed=9).double())  # another model's reference, or a loss may be flat
    case = Case(model("gpt2"), made, OWN_ROWS.get(part.name, padded))
    if as_objective(case.objective).indivisible:
        with pytest.raises(LabError, match=rf"^accumulation {len(sizes)}: .*raise batch_size instead"):
            update(case, sizes)
        return
    same_update(case, sizes, exact=1e-5)


@pytest.mark.parametrize("part", built("objective"))
def test_a_registered_objective_refuses_misspelt_options(part: Part) -> None:
    refuses_unknown_options(part)


@pytest.mark.parametrize("objective", [Contrastive(), SimCSE()], ids=["contrastive", "simcse"])
def test_objectives_with_negatives_in_the_batch_refuse_accumulation(objective: Objective) -> None:
    with pytest.raises(
        LabError, match=r"^accumulation 2: the texts of a batch are each other's negatives, so"
    ):
        train(tiny("gpt2"), [], settings=TrainSettings(steps=1, accumulation=2), objective=objective)


def test_two_heads_of_which_one_lacks_labels_move_the_weights_alike() -> None:
    heads = [Head(name="a", language_head=True), Head(name="b", outputs=3, language_head=True)]
    rows = [
        Example(text=f"text {i}", values={"a": str(i % 2), "b": str(i % 3) if i < 4 or i == 6 else None})
        for i in range(8)
    ]
    encoder = Encoder(byte_level(), 32)
    batch = LabelledBatches(rows, heads, encoder, batch_size=8, shuffle=False)[0]
    vocabulary = {"vocab_size": encoder.tokenizer.vocab_size}
    objective = Supervised({"a": HeadLoss(), "b": HeadLoss()})
    same_update(Case(model("gpt2", *heads, changes=vocabulary), objective, lambda: batch), (4, 4))


@pytest.mark.parametrize(
    "name", ["next token, experts", "masked tokens, bert", "two heads, one rarely labelled"]
)
def test_curvature_is_that_of_one_large_batch(name: str) -> None:
    case, found = CASES[name], []
    for sizes in ([8], [3, 4, 1]):
        trained = case.model().train()
        optimizer = SophiaH(trained.parameters(), curvature_rows=None)
        batches = [Sliced(case.batch(), sizes)[k] for k in range(len(sizes))]
        optimizer.refresh(trained, batches, case.objective, torch.Generator().manual_seed(0))
        found.append(torch.cat([s["curvature"].flatten() for s in optimizer.state.values()]))
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-9


def test_a_class_without_weight_is_no_label() -> None:
    """A micro-batch of such labels alone has a mean over nothing, which must not be 0 / 0."""
    case = Case(
        model("gpt2", CLASS),
        Supervised({"topic": HeadLoss(class_weights=(0.0, 1.0, 1.0))}),
        labelled(topic=torch.tensor([0, 0, 0, 1, 2, 0, 0, 0])),
    )
    same_update(case, (3, 4, 1))


def test_a_plain_objective_is_not_asked_for_a_mean_over_nothing() -> None:
    """A plug-in's function knows no totals: 0 / 0 of a micro-batch without targets would spread."""

    def plain(model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        logits = model(batch["tokens"], attention_mask=batch["attention_mask"])
        loss = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=-100)
        return loss, {"twice": 2 * float(loss.detach())}

    same_update(Case(model("gpt2"), plain, padded), (3, 1, 4))


def test_class_weights_below_zero_are_refused() -> None:
    with pytest.raises(LabError, match="class_weights must be finite and not negative"):
        HeadLoss(class_weights=(1.0, -1.0))
