"""Sophia-G's estimate for objectives other than tokens, against the Gauss-Newton diagonal worked out in float64.

The exact diagonal is diag(Jᵀ H J): J the Jacobian of what the loss reads (a head's outputs, logits, cosines) by the
parameters, H the Hessian of the loss by these, from autograd and the loss's own formula.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, attach
from gpt2lab.model.task_heads import Head, read_out
from gpt2lab.papers.contrastive_search.objective import SimCTG
from gpt2lab.papers.sophia import SophiaG
from gpt2lab.training import Objective, TrainSettings, next_token, train
from gpt2lab.training.contrastive import Contrastive
from gpt2lab.training.sampled_labels import drawn_labels
from gpt2lab.training.supervised import HeadLoss, Supervised, head_loss
from tests.tiny import tiny, tokens
from tests.training.data import Counting

DRAWS = 120
NAN = float("nan")
TOPIC = torch.tensor([0, 2, -100])
WORDS = torch.tensor([[0, 1, -100, 2], [-100, 2, 1, -100], [0, -100, -100, -100]])
MANY = torch.tensor([[1, 0], [NAN, 1], [NAN, NAN]], dtype=torch.float64)
VALUES = torch.tensor([[0.5, NAN], [2, 1], [NAN, NAN]], dtype=torch.float64)
HEADS = {
    "topic": (Head(name="topic", outputs=3, language_head=True), TOPIC),
    "tags": (Head(name="tags", kind="tokens", outputs=3, language_head=True), WORDS),
    "many": (Head(name="many", kind="multilabel", outputs=2, language_head=True), MANY),
    "numbers": (Head(name="numbers", kind="regression", outputs=2, language_head=True), VALUES),
}
WEIGHTED = {
    "topic": HeadLoss(class_weights=(0.2, 1.0, 3.0), smoothing=0.3, weight=0.5),
    "tags": HeadLoss(class_weights=(0.5, 2.0, 1.0)),
    "many": HeadLoss(class_weights=(4.0, 0.5), smoothing=0.2),
    "numbers": HeadLoss(weight=2.0),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labelled(*names: str) -> tuple[Transformer, dict[str, Tensor]]:
    """A model in float64 with these heads, and three rows, the last of which has few labels."""
    model = tiny("gpt2")
    batch = {"tokens": tokens(3, 4, seed=3), "attention_mask": torch.ones(3, 4, dtype=torch.bool)}
    for name in names:
        head, labels = HEADS[name]
        attach(model, head, generator=seeded(5))
        batch[f"labels.{name}"] = labels.clone()
    return model.double().eval(), batch


def watched(model: Transformer, names: tuple[str, ...]) -> list[Tensor]:
    """A few parameters of every kind, so that the Jacobian stays small."""
    known = dict(model.named_parameters())
    chosen = [name for name in known if name.startswith(tuple(f"heads.{one}." for one in names))]
    return [known[name] for name in [*chosen, "final_norm.weight", "blocks.0.mlp.down.bias"]]


def exact(outputs: Tensor, loss: Callable[[Tensor], Tensor], parameters: list[Tensor]) -> list[Tensor]:
    """diag(Jᵀ H J), one tensor a parameter; outputs [n] depend on the parameters, loss is a function of them."""
    hessian = torch.autograd.functional.hessian(loss, outputs.detach())
    rows = [torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True) for one in outputs]
    found = []
    for k, parameter in enumerate(parameters):
        jacobian = torch.stack(
            [torch.zeros_like(parameter) if row[k] is None else row[k] for row in rows]
        ).flatten(1)
        found.append((jacobian * (hessian @ jacobian)).sum(0).view_as(parameter))
    return found


def estimates(
    objective: Objective, model: Transformer, batch: dict[str, Tensor], parameters: list[Tensor], draws: int
) -> list[Tensor]:
    """B ĝ ∘ ĝ of so many independent draws, [draws, ...] a parameter."""
    generator, terms = seeded(1), objective.sampled_terms(batch)
    every = []
    for _ in range(draws):
        loss = objective.sampled_loss(model, batch, generator=generator)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        every.append(
            [
                torch.zeros_like(p) if g is None else terms * g**2
                for p, g in zip(parameters, found, strict=True)
            ]
        )
    return [torch.stack(column) for column in zip(*every, strict=True)]


def agree(drawn: list[Tensor], wanted: list[Tensor]) -> None:
    """The traces of all parameters lie within four standard errors of the exact ones, and these are small."""
    for sample, expected in zip(drawn, wanted, strict=True):
        traces = sample.flatten(1).sum(1)
        error = float(traces.std() / len(traces) ** 0.5)
        assert error < 0.2 * float(expected.sum())
        assert abs(float(traces.mean() - expected.sum())) < 4 * error


@pytest.mark.parametrize(
    ("names", "weighted"),
    [
        (("topic",), True),
        (("tags",), True),
        (("many",), True),
        (("numbers",), True),
        (("topic", "numbers"), False),
    ],
    ids=str,
)
def test_of_heads_it_is_the_gauss_newton_diagonal_on_average(names: tuple[str, ...], weighted: bool) -> None:
    model, batch = labelled(*names)
    how = {name: WEIGHTED[name] if weighted else HeadLoss() for name in names}
    parameters = watched(model, names)
    said = read_out(model, names, batch["tokens"], attention_mask=batch["attention_mask"])
    sizes = [said[name].numel() for name in names]

    def loss(outputs: Tensor) -> Tensor:
        parts = dict(zip(names, outputs.split(sizes), strict=True))
        return torch.stack(
            [
                how[n].weight
                * head_loss(HEADS[n][0], parts[n].view_as(said[n]), batch[f"labels.{n}"], how[n])
                for n in names
            ]
        ).sum()

    wanted = exact(torch.cat([said[name].flatten() for name in names]), loss, parameters)
    agree(estimates(Supervised(how), model, batch, parameters, DRAWS), wanted)


def test_of_a_head_and_the_language_loss_it_is_that_of_their_weighted_sum() -> None:
    model, batch = labelled("topic")
    parameters = watched(model, ("topic",))
    said = read_out(model, ("topic",), batch["tokens"], attention_mask=batch["attention_mask"])["topic"]
    logits = model(batch["tokens"])[:, :-1]
    targets = batch["tokens"][:, 1:].flatten()

    def loss(outputs: Tensor) -> Tensor:
        head, language = outputs.split([said.numel(), logits.numel()])
        own = head_loss(HEADS["topic"][0], head.view_as(said), TOPIC)
        return own + 0.5 * F.cross_entropy(language.view(-1, logits.shape[-1]), targets)

    wanted = exact(torch.cat([said.flatten(), logits.flatten()]), loss, parameters)
    objective = Supervised({"topic": HeadLoss()}, language=0.5)
    agree(estimates(objective, model, batch, parameters, DRAWS), wanted)


def test_of_simctg_it_is_that_of_logits_and_cosines() -> None:
    model = tiny("gpt2").double().eval()
    batch = {"tokens": tokens(2, 4, seed=3), "targets": tokens(2, 4, seed=4)}
    parameters = watched(model, ())
    hidden = model.hidden(batch["tokens"])
    unit = hidden / hidden.norm(dim=-1, keepdim=True)
    cosines, logits = unit @ unit.transpose(1, 2), model(batch["tokens"])
    apart = ~torch.eye(4, dtype=torch.bool).expand(2, 4, 4)

    def loss(outputs: Tensor) -> Tensor:
        scores, pairs = outputs.split([logits.numel(), cosines.numel()])
        likelihood = F.cross_entropy(scores.view(-1, logits.shape[-1]), batch["targets"].flatten())
        return likelihood + (0.5 - 1 + pairs.view_as(cosines)[apart]).clamp_min(0).mean()

    outputs = torch.cat([logits.flatten(), cosines.flatten()])
    assert float(SimCTG()(model, batch)[0].detach()) == pytest.approx(float(loss(outputs).detach()), rel=1e-9)
    agree(estimates(SimCTG(), model, batch, parameters, DRAWS), exact(outputs, loss, parameters))


@pytest.mark.parametrize("objective", [next_token, SimCTG(margin=0.5)], ids=["next token", "simctg"])
def test_in_the_optimizer_simctg_has_the_curvature_of_its_likelihood(objective: Objective) -> None:
    model = tiny("gpt2").double()
    optimizer = SophiaG(model.parameters(), clip=None)
    batches = [Counting(padded=True)[0], Counting(padded=True)[1]]
    optimizer.refresh(model, batches, objective, seeded(5))
    generator, loss, total = seeded(5), torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        logits = model(batch["tokens"], attention_mask=batch["attention_mask"]).flatten(0, 1)
        labels = drawn_labels(logits.detach(), generator)
        kept = batch["targets"].flatten() != -100
        loss = loss + F.cross_entropy(logits[kept], labels[kept], reduction="sum")
        total += int(kept.sum())
    for parameter, gradient in zip(
        model.parameters(), torch.autograd.grad(loss / total, list(model.parameters())), strict=True
    ):
        expected = 0.01 * total * gradient**2
        assert torch.allclose(optimizer.state[parameter]["curvature"], expected, rtol=1e-6, atol=1e-12)


def test_in_the_optimizer_micro_batches_of_labels_are_drawn_as_one_sum() -> None:
    """Two micro-batches, class weights: ĥ = (Σ √(c / Z) ∇ℓ)², Z the weights of all labels together."""
    model, batch = labelled("topic")
    cut = [{n: t[:1] for n, t in batch.items()}, {n: t[1:2] for n, t in batch.items()}]
    how = HeadLoss(class_weights=(0.2, 1.0, 3.0))
    optimizer = SophiaG(model.parameters(), clip=None)
    optimizer.refresh(model, cut, Supervised({"topic": how}), seeded(2))
    generator, loss = seeded(2), torch.zeros((), dtype=torch.float64)
    for part, weight in zip(cut, (0.2, 3.0), strict=True):
        said = read_out(model, ("topic",), part["tokens"], attention_mask=part["attention_mask"])["topic"]
        label = drawn_labels(said.detach(), generator)
        loss = loss + (weight / (0.2 + 3.0)) ** 0.5 * F.cross_entropy(said, label)
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        expected = torch.zeros_like(parameter) if gradient is None else 0.01 * gradient**2
        assert torch.allclose(optimizer.state[parameter]["curvature"], expected, rtol=1e-6, atol=1e-14)


def test_heads_are_trained_with_it_and_a_contrastive_objective_is_refused() -> None:
    model, batch = labelled("topic", "many")
    rows = {**batch, "targets": torch.tensor([0, 0, -100])}
    objective = Supervised({"topic": HeadLoss(), "many": HeadLoss()})
    optimizer = SophiaG.for_model(model, lr=1e-2, refresh_every=2)
    settings = TrainSettings(steps=12, learning_rate=1e-2, schedule="constant")
    losses = train(model, [rows] * 12, settings=settings, objective=objective, optimizer=optimizer).losses
    assert losses[-1] < 0.8 * losses[0]
    with pytest.raises(LabError, match="not for Contrastive"):
        train(model, [rows], settings=settings, objective=Contrastive(), optimizer=optimizer)
