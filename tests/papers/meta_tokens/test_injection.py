"""Injection of metas against the definition, which targets remain, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, attach
from gpt2lab.papers.meta_tokens import Injector, MetaAttention, MetaInjection, mask_metas
from gpt2lab.training import TrainSettings, train
from tests.tiny import tiny, tokens

META = 60


def text(batch: int, time: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Windows without metas; a target is the next token."""
    ids = tokens(batch, time + 1, vocab=META, seed=seed)
    return {"tokens": ids[:, :-1].clone(), "targets": ids[:, 1:].clone()}


def slow_targets(new: list[int], words: list[int], first: int, *, bridge: bool) -> list[int]:
    """From the definition: words is the row's text with the token behind it; -100 where there is no target."""
    found, read = [], first
    for place, token in enumerate(new):
        read += token != META
        following = new[place + 1] if place + 1 < len(new) else None
        dropped = following == META and not bridge
        found.append(-100 if dropped else words[read])
    return found


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("bridge", [False, True])
def test_rows_and_targets_are_those_of_the_definition(append: bool, bridge: bool) -> None:
    batch = text(6, 30)
    made = Injector(token=META, fraction=0.2, append=append, bridge_targets=bridge)(batch)
    assert made["tokens"].shape == (6, 36 if append else 30)
    for row in range(6):
        new, words = (
            made["tokens"][row].tolist(),
            [*batch["tokens"][row].tolist(), int(batch["targets"][row, -1])],
        )
        assert new.count(META) == 6
        kept = [token for token in new if token != META]
        assert kept == words[: len(kept)] and len(kept) == (30 if append else 24)
        assert made["targets"][row].tolist() == slow_targets(new, words, 0, bridge=bridge)
        assert made["meta_positions"][row].tolist() == [token == META for token in new]
    assert "attention_mask" not in made
    assert META not in made["targets"]


def test_places_are_uniform_and_drawn_anew_at_every_moment() -> None:
    batch, injector = text(40, 20), Injector(token=META, fraction=0.1)
    counts = torch.zeros(20)
    seen = set()
    for moment in range(50):
        marks = injector(batch, moment=moment)["meta_positions"]
        counts += marks.sum(0)
        seen.add(tuple(marks[0].nonzero().flatten().tolist()))
    assert len(seen) > 20
    expected = 40 * 50 * 2 / 20
    assert ((counts - expected).square() / expected).sum() < 50, "chi-square of 19 degrees"
    same = injector(batch, moment=3)
    assert all(torch.equal(same[name], tensor) for name, tensor in injector(batch, moment=3).items())
    part = injector({name: x[7:9] for name, x in batch.items()}, moment=3)
    assert torch.equal(part["tokens"], same["tokens"][7:9]), "no number depends on the batch"
    other = Injector(token=META, fraction=0.1, seed=1)(batch, moment=3)
    assert not torch.equal(other["tokens"], same["tokens"])


def test_first_and_last_places_can_be_spared() -> None:
    injector = Injector(token=META, fraction=0.3, exclude_first=5, exclude_last=8)
    marks = injector(text(9, 20))["meta_positions"]
    assert not marks[:, :5].any() and not marks[:, 12:].any() and (marks.sum(1) == 6).all()


@pytest.mark.parametrize("append", [False, True])
def test_padding_stays_padding_and_short_rows_get_fewer(append: bool) -> None:
    batch = text(4, 20)
    mask = torch.ones(4, 20, dtype=torch.long)
    mask[0, :10] = 0
    mask[1, 12:] = 0
    mask[2, 3:] = 0
    mask[3] = 0
    batch["tokens"][0, :10] = META  # a padding token is no meta
    batch["targets"] = batch["targets"].masked_fill(mask == 0, -100)
    made = Injector(token=META, fraction=0.25, append=append)({**batch, "attention_mask": mask})
    real = made["attention_mask"].bool()
    assert (made["meta_positions"].sum(1)).tolist() == [2, 3, 0, 0]
    assert not (made["meta_positions"] & ~real).any() and (made["targets"][~real] == -100).all()
    assert real.sum(1).tolist() == ([12, 15, 3, 0] if append else [10, 12, 3, 0])
    for row in range(3):
        new = made["tokens"][row][real[row]]
        kept = new[new != META]
        assert torch.equal(kept, batch["tokens"][row][mask[row].bool()][: len(kept)])


def test_a_masked_target_stays_masked() -> None:
    batch = text(3, 24)
    batch["targets"][:, :12] = -100
    made = Injector(token=META, fraction=0.3)(batch)
    for row in range(3):
        seen = 0
        for place, token in enumerate(made["tokens"][row].tolist()):
            seen += token != META
            if seen <= 12:
                assert made["targets"][row, place] == -100


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fraction": 1.0}, r"fraction must lie in \[0, 1\)"),
        ({"fraction": -0.1}, r"fraction must lie in \[0, 1\)"),
        ({"exclude_first": -1}, "numbers of places"),
        ({"fraction": 0.9, "exclude_first": 12}, "no room for 18 metas"),
        ({"fraction": 0.5, "exclude_last": 15}, "no room for 10 metas"),
    ],
)
def test_fractions_and_rows_without_room_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LabError, match=words):
        Injector(token=META, **options)(text(2, 20))


def test_metas_in_the_text_or_among_the_targets_are_refused() -> None:
    batch = text(2, 10)
    batch["tokens"][1, 3] = META
    with pytest.raises(LabError, match="stands in the text before any is injected"):
        Injector(token=META)(batch)
    batch = text(2, 10)
    batch["targets"][1, 3] = META
    with pytest.raises(LabError, match="among the targets"):
        Injector(token=META)(batch)


def test_targets_of_text_with_metas_are_masked_or_bridged() -> None:
    ids = torch.tensor([[1, META, META, 2, 3, META]])
    targets = torch.tensor([[META, META, 2, 3, META, META]])
    assert mask_metas(ids, targets, META).tolist() == [[-100, -100, 2, 3, -100, -100]]
    assert mask_metas(ids, targets, META, bridge_targets=True).tolist() == [[2, 2, 2, 3, -100, -100]]


def model(**options: Any) -> Transformer:
    return attach(tiny("gpt2"), MetaAttention(token=META, draw="model", **options))


def test_the_objective_trains_on_other_places_every_update_and_is_evaluated_on_the_same() -> None:
    trained, objective = model(), MetaInjection(fraction=0.2)
    objective.prepare(trained)
    batch = text(4, 20)
    trained.train()
    rows = []
    for step in range(3):
        objective.before_update(trained, step, 3)
        rows.append(objective.injected(trained, batch)["tokens"])
    assert not torch.equal(rows[0], rows[1]) and not torch.equal(rows[1], rows[2])
    trained.eval()
    losses = []
    for step in range(2):
        objective.before_update(trained, step, 3)
        losses.append(float(objective(trained, batch)[0].detach()))
    assert losses[0] == losses[1]
    made = objective.injected(trained, batch)
    logits = trained(made["tokens"])
    kept = made["targets"] != -100
    expected = torch.nn.functional.cross_entropy(logits[kept], made["targets"][kept])
    assert losses[0] == pytest.approx(float(expected), rel=1e-5)
    assert objective.sampled_terms(batch) < 80


def test_a_model_learns_from_text_with_metas_and_its_second_attention_gets_gradients() -> None:
    trained = attach(tiny("gpt2"), MetaAttention(token=META))
    before = {name: p.clone() for name, p in trained.named_parameters()}
    train(
        trained,
        [text(4, 20, seed=step) for step in range(6)],
        settings=TrainSettings(steps=6, learning_rate=3e-3, precision="float32"),
        objective=MetaInjection(fraction=0.3),
    )
    for name, parameter in trained.named_parameters():
        if ".meta." in name:
            assert not torch.equal(before[name], parameter), name


def test_the_token_is_that_of_the_attention_or_the_last_row_and_growing_rows_need_positions() -> None:
    assert (MetaInjection().injected(model(), text(2, 20))["tokens"] == META).sum() == 4
    assert (MetaInjection().injected(tiny("llama"), text(2, 20))["tokens"] == META).sum() == 4
    with pytest.raises(LabError, match="outside the vocabulary of 61"):
        MetaInjection(token=99).injected(model(), text(2, 20))
    for family, advice in (("gpt2", "its learned positions end there"), ("llama", "extend-context")):
        with pytest.raises(
            LabError, match=f"windows of 44 tokens.*beyond the model's 40 positions; .*{advice}"
        ):
            MetaInjection(append=True).injected(tiny(family), text(2, 40))
