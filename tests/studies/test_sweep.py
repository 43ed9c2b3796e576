"""Optimizers under equal conditions: what is equal, how a sweep chooses, how steps to a loss are counted."""

import dataclasses
import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.measures.held_out import windows_loss
from gpt2lab.studies.graph import TUNING_SEED
from gpt2lab.studies.race import Candidate, race, step_ratio, steps_to_reach
from gpt2lab.studies.sweep import best_on_grid, tune, tuned_units
from gpt2lab.studies.workload import TextWorkload, Workload
from gpt2lab.text.generators.topic_bigrams import stream

WORKLOAD = Workload(d_model=16, n_heads=2, context=16, batch_size=8, train_tokens=4000, valid_tokens=1500)
ADAMW = Candidate(name="adamw", optimizer=torch.optim.AdamW, learning_rates=(1e-3, 4e-3))


def test_every_candidate_starts_from_the_same_weights_and_sees_the_same_batches() -> None:
    firsts: list[torch.Tensor] = []

    def prepare(model: Any, optimizer: torch.optim.Optimizer) -> None:
        firsts.append(torch.cat([p.detach().flatten() for p in model.parameters()]))

    losses: dict[str, list[float]] = {"adamw": [], "sgd": []}
    for name, cls in (("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)):
        candidate = Candidate(name=name, optimizer=cls, learning_rates=(1e-3,))
        race(
            WORKLOAD,
            candidate,
            steps=3,
            learning_rate=1e-9,
            seed=4,
            prepare=prepare,
            log=lambda step, name=name, **numbers: losses[name].append(numbers["loss"]),
        )
    assert torch.equal(firsts[0], firsts[1])
    assert losses["adamw"][0] == losses["sgd"][0]  # the first batch, before any update
    assert losses["adamw"][-1] == pytest.approx(
        losses["sgd"][-1], abs=1e-6
    )  # the third batch, nothing learnt


def test_the_validation_loss_is_the_mean_over_every_token_of_all_windows() -> None:
    model = WORKLOAD.model(0)
    tokens = torch.from_numpy(WORKLOAD.validation(3).stream.read(0, 1500))
    covered = len(tokens) // 16 * 16
    rows, following = tokens[:covered].view(-1, 16), tokens[1 : covered + 1].view(-1, 16)
    with torch.no_grad():
        slow = F.cross_entropy(model(rows).double().flatten(0, 1), following.flatten())
    assert windows_loss(model, WORKLOAD.validation(3)).loss == pytest.approx(float(slow), rel=1e-6)


def test_the_model_learns_and_a_rate_that_is_too_high_is_a_loss_of_infinity_not_a_crash() -> None:
    finish = race(WORKLOAD, ADAMW, steps=40, learning_rate=4e-3)
    assert finish.steps == 40
    assert 0 < finish.optimizer_seconds < finish.seconds
    assert finish.loss < math.log(256)
    wild = Candidate(name="sgd", optimizer=torch.optim.SGD, learning_rates=(1e30,))
    assert race(WORKLOAD, wild, steps=10, learning_rate=1e30).loss == math.inf


def test_a_sweep_takes_the_best_of_rates_and_then_of_options_in_a_number_of_trials_known_before() -> None:
    candidate = Candidate(
        name="adamw",
        optimizer=torch.optim.AdamW,
        learning_rates=(1e-4, 2e-4),
        options=({"eps": 1e-8}, {"eps": 1e9}),  # the second never moves
    )
    tuned = tune(WORKLOAD, candidate, steps=15)
    assert tuned.options == {"eps": 1e-8}
    assert tuned.learning_rate == pytest.approx(4e-4)  # too low all of them: the highest tried
    assert tuned.at_edge
    assert len(tuned.tried) == candidate.trials == 4
    assert tuned.loss == min(trial["loss"] for trial in tuned.tried)
    other = dataclasses.replace(candidate, learning_rates=(1e-3, 2e-3), options=({"eps": 1e9}, {"eps": 1e-8}))
    assert tune(WORKLOAD, other, steps=15).options == {"eps": 1e-8}


def test_a_single_rate_is_no_choice_and_lies_at_no_edge() -> None:
    candidate = Candidate(name="adamw", optimizer=torch.optim.AdamW, learning_rates=(1e-3,))
    tuned = tune(WORKLOAD, candidate, steps=2)
    assert (tuned.learning_rate, tuned.at_edge, len(tuned.tried), candidate.trials) == (1e-3, False, 1, 1)


@pytest.mark.parametrize(
    ("minimum", "further", "best", "edge"),
    [
        (2.0, 2, 2.0, False),  # both are spent beside the best
        (2.6, 1, 8**0.5, False),  # between the best and the better of its neighbours
        (16.0, 2, 16.0, True),
        (16.0, 3, 16.0, False),
        (0.5, 2, 0.5, False),
    ],
)
def test_every_search_of_a_grid_takes_as_many_trials(
    minimum: float, further: int, best: float, edge: bool
) -> None:
    seen: list[float] = []

    def loss_of(value: float) -> float:
        seen.append(value)
        return abs(math.log(value / minimum))

    value, _, at_edge = best_on_grid((1.0, 2.0, 4.0), loss_of, further=further)
    assert (value, at_edge) == (pytest.approx(best), edge)
    assert len(set(seen)) == len(seen) == 3 + further


@pytest.mark.parametrize("void", [1.0, 2.0, 4.0])
def test_a_loss_that_is_no_number_is_never_the_best(void: float) -> None:
    value, loss, _ = best_on_grid((1.0, 2.0, 4.0), lambda rate: math.nan if rate == void else rate, further=0)
    assert (value, loss) == ((2.0, 2.0) if void == 1.0 else (1.0, 1.0))
    assert best_on_grid((1.0, 2.0), lambda rate: math.nan, further=0)[1] == math.inf


def test_grids_that_are_none_are_refused() -> None:
    for grid in ((), (2.0, 1.0), (0.0, 1.0), (1.0, 1.0)):
        with pytest.raises(LabError, match="ascends"):
            best_on_grid(grid, lambda value: value, further=0)


def test_steps_to_a_loss_are_read_between_complete_schedules() -> None:
    losses = {100: 4.0, 200: 3.0, 400: 2.5}
    assert steps_to_reach(losses, 3.5) == pytest.approx(100 * 2**0.5)
    assert steps_to_reach(losses, 2.75) == pytest.approx(200 * 2**0.5)
    assert steps_to_reach(losses, 3.0) == 200
    assert steps_to_reach(losses, 4.5) == 100  # an upper bound
    assert steps_to_reach(losses, 2.4) == math.inf
    assert steps_to_reach({100: math.inf, 200: 3.0}, 3.0) == 200


def test_a_ratio_of_steps_is_above_one_for_the_faster_and_its_inverse_side_for_the_slower() -> None:
    slow, fast = {200: 4.0, 400: 3.5, 800: 3.0}, {200: 3.5, 400: 3.0, 800: 2.8}
    assert step_ratio(slow, fast) == pytest.approx(2.0)
    assert step_ratio(slow, slow) == pytest.approx(1.0)
    assert step_ratio(fast, slow) == pytest.approx(0.5)
    assert step_ratio(slow, {200: 9.0, 400: 9.0, 800: math.inf}) == 0.0


def test_a_sweep_chooses_on_windows_that_are_neither_trained_nor_judged() -> None:
    streams = {
        tuple(windows.stream.read(0, 200).tolist())
        for seed in range(3)
        for windows in (WORKLOAD.batches(seed), WORKLOAD.validation(seed), WORKLOAD.tuning(seed))
    }
    assert len(streams) == 9
    tuned = tune(WORKLOAD, ADAMW, steps=10)
    again = {"steps": 10, "learning_rate": tuned.learning_rate, "seed": TUNING_SEED}
    assert tuned.loss == race(WORKLOAD, ADAMW, **again, tuning=True).loss
    assert tuned.loss != race(WORKLOAD, ADAMW, **again).loss


def test_what_depends_on_the_length_of_a_schedule_is_given_to_the_optimizer() -> None:
    given: list[float] = []

    class Noted(torch.optim.AdamW):
        def __init__(self, params: Any, lr: float, period: int) -> None:
            super().__init__(params, lr=lr)
            given.append(period)

    candidate = Candidate(
        name="noted",
        optimizer=Noted,
        learning_rates=(1e-3,),
        by_length=lambda steps: {"period": round(0.5 * steps)},
    )
    for steps in (2, 4):
        race(WORKLOAD, candidate, steps=steps, learning_rate=1e-3)
    assert given == [1, 2]


def test_the_table_of_bigrams_predicts_better_than_single_tokens_and_worse_than_the_process_itself() -> None:
    workload = Workload(train_tokens=20_000, valid_tokens=5_000)
    train, valid = (
        split.stream.read(0, len(split.stream)) for split in (workload.batches(2), workload.validation(2))
    )
    slow = []
    single = Counter(train.tolist())
    pairs, before = (
        Counter(zip(train[:-1].tolist(), train[1:].tolist(), strict=True)),
        Counter(train[:-1].tolist()),
    )
    for a, b in zip(valid[:-1].tolist(), valid[1:].tolist(), strict=True):
        share = (single[b] + 1 / 256) / (len(train) + 1)
        slow.append(-math.log((pairs[a, b] + 20 * share) / (before[a] + 20)))
    loss = workload.bigram_loss(2)
    assert loss == pytest.approx(sum(slow) / len(slow), rel=1e-9)
    assert stream(2 * 2 + 2, 5_000).oracle_loss < loss < math.log(256)


def test_a_comparison_has_a_sweep_of_each_arm_once_and_its_races_in_every_seed() -> None:
    done = []

    def choose(settings: Any, arm: str, run: Any) -> None:
        done.append(("choose", arm))

    def compete(settings: Any, arm: str, run: Any) -> None:
        done.append(("compete", arm))

    specs = tuned_units(("a", "b"), choose, compete)
    assert [(spec.name, spec.tuning, spec.needs) for spec in specs] == [
        ("a.sweep", True, ()),
        ("b.sweep", True, ()),
        ("a", False, ("a.sweep",)),
        ("b", False, ("b.sweep",)),
    ]
    for spec in specs:
        spec.work(None, None)
    assert done == [("choose", "a"), ("choose", "b"), ("compete", "a"), ("compete", "b")]


def test_the_tuning_documents_of_a_text_are_others_than_the_validation_documents() -> None:
    shape = {"d_model": 16, "n_heads": 2, "context": 16, "train_tokens": 4000, "valid_tokens": 1500}
    stories = TextWorkload(**shape, data=("tinystories:150",), vocab_size=300)
    text = stories.text
    halves = [text.tokenizer.decode(tokens.ids.tolist()) for tokens in (text.valid, text.tuning)]
    assert halves[0][:80] == text.valid_documents[0][:80]
    assert halves[1][:80] == text.valid_documents[1][:80]
    assert not any(document in halves[0] for document in text.valid_documents[1::2])
    assert stories.tuning(0).windows > 0
