"""DPO against its equation, on texts of one token, of unequal lengths and without padding; and the pairs it reads."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, attach
from gpt2lab.model.adapters import Lora
from gpt2lab.reinforce.pairs import PreferenceBatches, PreferencePair, read_pairs, split_pairs
from gpt2lab.reinforce.preference import DPO, dpo_loss, part_of
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import byte_level
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.rows import validation_numbers
from tests.reinforce import reference as slow
from tests.tiny import tiny

TOKENIZER = byte_level()
PAIRS = [
    PreferencePair("One ", "a", "bcd", "a!"),
    PreferencePair("A longer prompt: ", "yes indeed", "n", "yes"),
    PreferencePair("", "start", "x", "start here"),
]


def _lm(seed: int = 0) -> LanguageModel:
    return LanguageModel(tiny("gpt2", seed=seed, vocab_size=TOKENIZER.vocab_size).double(), TOKENIZER)


def _batch(lm: LanguageModel, pairs: list[PreferencePair] = PAIRS) -> dict[str, torch.Tensor]:
    return PreferenceBatches(pairs, lm, batch_size=len(pairs), shuffle=False)[0]


def _dpo(lm: LanguageModel, **options: Any) -> DPO:
    """The objective, its reference the model as it is now."""
    objective = DPO(**options)
    objective.prepare(lm.model)
    return objective


def _moved(lm: LanguageModel, **options: Any) -> DPO:
    """The objective, with a reference from which the model has moved away."""
    objective = _dpo(lm, **options)
    with torch.no_grad():
        for number, parameter in enumerate(lm.model.parameters()):
            parameter.mul_(1 + 0.02 * (number % 5))
    return objective


def _slow_terms(lm: LanguageModel, objective: DPO, per_token: bool) -> list[tuple[float, ...]]:
    assert objective.reference is not None
    reference = objective.reference

    def said(model: Transformer, prompt: str, text: str) -> float:
        ids = TOKENIZER.encode(prompt) or [TOKENIZER.eos or 0]

        def logits(context: list[int]) -> torch.Tensor:
            with torch.no_grad():
                return model(torch.tensor([context]))[0, -1]

        found = slow.text_logprobs(logits, ids, [*TOKENIZER.encode(text), TOKENIZER.eos or 0])
        return slow.mean(found) if per_token else sum(found)

    return [
        tuple(
            said(model, pair.prompt, text)
            for model in (lm.model, reference.model)
            for text in (pair.chosen, pair.rejected, pair.truth or "")
        )
        for pair in PAIRS
    ]


@pytest.mark.parametrize("per_token", [False, True])
def test_the_loss_of_a_batch_is_that_of_its_pairs_one_by_one(per_token: bool) -> None:
    lm = _lm()
    objective = _moved(lm, beta=0.3, per_token=per_token)
    loss, numbers = objective(lm.model, _batch(lm))
    terms = _slow_terms(lm, objective, per_token)
    expected = [slow.dpo(w, l, rw, rl, 0.3) for w, l, _, rw, rl, _ in terms]
    margins = [0.3 * ((w - rw) - (l - rl)) for w, l, _, rw, rl, _ in terms]
    assert loss.item() == pytest.approx(slow.mean(expected))
    assert numbers["margin"] == pytest.approx(slow.mean(margins))
    assert numbers["accuracy"] == pytest.approx(slow.mean([float(m > 0) for m in margins]))
    assert numbers["reward_chosen"] == pytest.approx(slow.mean([0.3 * (t[0] - t[3]) for t in terms]))
    assert numbers["reward_rejected"] == pytest.approx(slow.mean([0.3 * (t[1] - t[4]) for t in terms]))


def test_the_gradient_is_minus_beta_times_the_wrongness_of_each_pair() -> None:
    rows = slow.random_rows((3,) * 4, 1)
    w, l, rw, rl = (torch.tensor(row, dtype=torch.float64) for row in rows)
    w.requires_grad_(), l.requires_grad_()
    dpo_loss(w, l, rw, rl, beta=0.4).loss.mean().backward()

    def plain(both: list[list[float]]) -> float:
        return slow.mean([slow.dpo(a, b, c, d, 0.4) for a, b, c, d in zip(*both, *rows[2:], strict=True)])

    expected = slow.gradient(plain, rows[:2])
    assert w.grad is not None
    assert l.grad is not None
    assert w.grad.tolist() == pytest.approx(expected[0], rel=1e-6)
    assert l.grad.tolist() == pytest.approx(expected[1], rel=1e-6)


def test_the_anchor_is_the_mean_cross_entropy_of_the_ground_truths_tokens() -> None:
    lm = _lm()
    objective = _moved(lm)
    batch = _batch(lm)
    plain = objective(lm.model, batch)[0].item()
    anchored = DPO(anchor=0.7)
    anchored.reference = objective.reference
    loss, numbers = anchored(lm.model, batch)
    tokens = sum(len(TOKENIZER.encode(pair.truth or "")) + 1 for pair in PAIRS)
    entropy = -sum(terms[2] for terms in _slow_terms(lm, objective, False)) / tokens
    assert numbers["truth"] == pytest.approx(entropy)
    assert loss.item() == pytest.approx(plain + 0.7 * entropy)


@pytest.mark.parametrize("anchor", [0.0, 0.5])
@pytest.mark.parametrize("adapter", [False, True])
def test_the_loss_begins_at_log_2_without_rewards(anchor: float, adapter: bool) -> None:
    lm = _lm()
    if adapter:
        attach(lm.model, Lora(rank=2))
    loss, numbers = _dpo(lm, anchor=anchor)(lm.model, _batch(lm))
    assert loss.item() - anchor * numbers.get("truth", 0.0) == pytest.approx(math.log(2))
    assert (numbers["reward_chosen"], numbers["margin"], numbers["accuracy"]) == (0.0, 0.0, 0.5)


def test_micro_batches_of_pairs_add_up_to_one_batch() -> None:
    lm = _lm()
    objective = _moved(lm, anchor=0.5)
    batches = PreferenceBatches(PAIRS, lm, batch_size=3, shuffle=False)
    whole_loss, whole_numbers = objective(lm.model, batches[0])
    parts = [batches.gather([0]), batches.gather([1, 2])]
    every = [objective.totals(lm.model, part) for part in parts]
    totals = {name: sum((one[name] for one in every), torch.tensor(0)) for name in every[0]}
    found = [objective(lm.model, part, totals) for part in parts]
    assert sum(loss.item() for loss, _ in found) == pytest.approx(whole_loss.item())
    for name, number in whole_numbers.items():
        assert sum(numbers[name] for _, numbers in found) == pytest.approx(number)


def test_a_model_learns_its_pairs_while_the_reference_stays() -> None:
    lm = _lm()
    lm.model.float()
    attach(lm.model, Lora(rank=4))
    objective = _dpo(lm, beta=0.5)
    reference = objective.reference
    assert reference is not None and not reference.is_copy
    assert objective.modules() == {}
    pairs = [PreferencePair(f"Case {i}: ", "good", "bad") for i in range(4)]
    batches = PreferenceBatches(pairs, lm, batch_size=4)
    before = reference.score(part_of(batches[0], "chosen")).logprobs
    done = train(
        lm.model,
        batches,
        settings=TrainSettings(steps=12, learning_rate=3e-2, accumulation=2),
        objective=objective,
    )
    assert done.losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert done.loss < 0.05
    assert torch.equal(reference.score(part_of(batches[0], "chosen")).logprobs, before)


def test_answers_end_with_the_end_of_text_and_prompts_stand_on_the_left() -> None:
    lm = _lm()
    batch = _batch(lm)
    chosen = part_of(batch, "chosen")
    ids = [row[keep].tolist() for row, keep in zip(chosen.tokens, chosen.attention_mask, strict=True)]
    eos = TOKENIZER.eos
    assert ids[0] == [*TOKENIZER.encode("One a"), eos]
    assert ids[2] == [eos, *TOKENIZER.encode("start"), eos]
    assert chosen.mask.sum(1).tolist() == [2, 11, 6]
    open_ended = PreferenceBatches(PAIRS, lm, batch_size=3, shuffle=False, end=False)[0]
    assert part_of(open_ended, "chosen").mask.sum(1).tolist() == [1, 10, 5]


def test_pairs_that_do_not_fit_are_left_out_and_counted() -> None:
    lm = _lm()
    long = PreferencePair("p", "yes", "no" * 40)
    short = PreferencePair("p", "yes", "no")
    batches = PreferenceBatches([long, short, short], lm, batch_size=2)
    assert (batches.dropped, len(batches)) == (1, 1)
    with pytest.raises(LabError, match="none of 1 pairs fits into 40 tokens"):
        PreferenceBatches([long], lm, batch_size=1)
    with pytest.raises(LabError, match="some pairs have a ground truth"):
        PreferenceBatches([short, PAIRS[0]], lm, batch_size=1)
    with pytest.raises(LabError, match="has no tokenizer"):
        PreferenceBatches([short], LanguageModel(lm.model, None), batch_size=1)


def test_pairs_are_read_by_the_names_of_their_fields(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"q": "Why?", "good": "Because.", "bad": "No.", "gt": "Since."},
        {"q": "", "good": "a", "bad": "b", "gt": "c"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read_pairs(path, prompt="q", chosen="good", rejected="bad", truth="gt")
    assert found[0] == PreferencePair("Why?", "Because.", "No.", "Since.", f"{path}, line 1")
    assert read_pairs(path, prompt="q", chosen="good", rejected="bad")[1].truth is None
    with pytest.raises(LabError, match=r"line 1: .*'chosen'"):
        read_pairs(path, prompt="q")
    for row, message in (
        ({"prompt": "p", "chosen": "", "rejected": "b"}, "'chosen' is empty"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "line 1: both answers are the same"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "'prompt' should hold text"),
    ):
        path.write_text(json.dumps(row))
        with pytest.raises(LabError, match=message):
            read_pairs(path)


def test_options_out_of_range_and_a_missing_ground_truth_are_refused() -> None:
    lm = _lm()
    with pytest.raises(LabError, match="beta must be positive, got 0"):
        DPO(beta=0.0)
    with pytest.raises(LabError, match="anchor must not be negative"):
        DPO(anchor=-1.0)
    plain = _batch(lm, [PreferencePair("p", "yes", "no")])
    with pytest.raises(LabError, match="needs a ground-truth answer beside each pair"):
        _dpo(lm, anchor=0.1)(lm.model, plain)
    with pytest.raises(LabError, match=r"call prepare\(model\) before the first batch"):
        DPO()(lm.model, plain)


def test_the_reference_is_made_once_and_owned_where_it_is_a_copy() -> None:
    lm = _lm()
    objective = _dpo(lm)
    first = objective.reference
    objective.prepare(lm.model)
    assert objective.reference is first
    assert first is not None
    (owned,) = objective.modules().values()
    assert owned.module is first.model
    assert not any(parameter.requires_grad for parameter in owned.module.parameters())


def test_pairs_of_one_prompt_stay_on_one_side_of_the_split() -> None:
    pairs = [PreferencePair(f"prompt {i % 10}", f"good {i}", f"bad {i}") for i in range(40)]
    training, validation = split_pairs(pairs, 0.2)
    assert len(training) + len(validation) == 40
    assert not {pair.prompt for pair in training} & {pair.prompt for pair in validation}
    one_prompt = [PreferencePair("", f"good {i}", f"bad {i}") for i in range(10)]
    assert [len(side) for side in split_pairs(one_prompt, 0.2)] == [8, 2]


def test_rows_are_read_split_and_validated_as_one_batch(tmp_path: Path) -> None:
    lm = _lm()
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"q": f"prompt {i}: ", "chosen": "yes", "rejected": "n" * (i % 7 + 1), "gt": "yes!"}
        for i in range(30)
    ]
    path.write_text("\n".join(map(json.dumps, [*rows, {**rows[0], "q": "long " * 20}])))
    objective = _moved(lm, prompt="q", truth="gt", anchor=0.5)
    given: dict[str, Any] = {"context": 40, "valid_fraction": 0.3, "seed": 0}
    cut, whole = (objective.read_rows([str(path)], lm, batch_size=size, **given) for size in (4, 99))
    assert (cut.examples + cut.validation_examples, cut.dropped) == (30, 1)
    assert len(cut.validation) > 1 == len(whole.validation)
    found = validation_numbers(objective, lm, cut.validation)
    loss, numbers = objective(lm.model, whole.validation[0])
    assert found == pytest.approx(
        {"validation_loss": loss.item(), **{f"validation_{n}": x for n, x in numbers.items()}}
    )
    with pytest.raises(LabError, match=r"name its field, objective_options\.truth=FIELD"):
        _dpo(lm, prompt="q", anchor=0.5).read_rows([str(path)], lm, batch_size=4, **given)
