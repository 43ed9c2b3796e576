"""Callbacks, early stopping, the best weights, and numbers that follow a schedule."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.training import Batch, Objective, TrainResult, TrainSettings, adamw, next_token, train
from gpt2lab.training.callbacks import Callback, EarlyStopping, Watched
from gpt2lab.training.ramps import GroupSchedule, Ramp
from tests.tiny import tiny
from tests.training.data import Counting

NAN, INF = math.nan, math.inf


def settings(**changes: object) -> TrainSettings:
    given: dict[str, object] = {
        "steps": 8, "learning_rate": 3e-3, "precision": "float32", "evaluate_every": 1, **changes,
    }  # fmt: skip
    return TrainSettings(**given)  # type: ignore[arg-type]  # each is one


class Notes(Callback):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard = list[tuple[str, int]]()
        self.numbers = dict[str, float]()

    def on_start(self, step: int, model: Transformer) -> None:
        self.heard.append(("start", step))

    def on_update(self, step: int, numbers: Mapping[str, float], model: Transformer) -> None:
        assert model.training
        self.heard.append(("update", step))
        self.numbers = dict(numbers)

    def on_evaluation(self, step: int, numbers: Mapping[str, float], model: Transformer) -> None:
        self.heard.append(("evaluation", step))
        assert numbers == {"validation_loss": 1.0}

    def on_end(self, step: int, numbers: Mapping[str, float], model: Transformer) -> None:
        self.heard.append(("end", step))


def test_a_callback_hears_of_start_updates_evaluations_and_end() -> None:
    notes = Notes()
    train(
        tiny("gpt2"),
        Counting(),
        settings=settings(steps=3, evaluate_every=2, evaluate_start=True),
        callbacks=[notes],
        evaluate=lambda: {"validation_loss": 1.0},
    )
    assert notes.heard == [
        ("start", 0), ("evaluation", 0), ("update", 1), ("update", 2), ("evaluation", 2), ("update", 3),
        ("evaluation", 3), ("end", 3),
    ]  # fmt: skip
    assert {"loss", "learning_rate", "gradient_norm"} == set(notes.numbers)


class ThirdUpdate(Callback):
    """Ends a run after three updates, whatever is evaluated; counts over a resume."""

    def __init__(self) -> None:
        self.count = 0

    def on_update(self, step: int, numbers: Mapping[str, float], model: Transformer) -> None:
        self.count += 1
        self.stop_reason = "three are enough" if self.count >= 3 else ""

    def state(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]


def test_a_callback_may_end_the_run_and_the_last_weights_are_saved_and_evaluated(tmp_path: Path) -> None:
    model, evaluated = tiny("gpt2"), list[float]()

    def evaluate() -> dict[str, float]:
        evaluated.append(1.0)
        return {"validation_loss": 1.0}

    asked = settings(evaluate_every=0)
    done = train(
        model, Counting(), settings=asked, callbacks=[ThirdUpdate()], evaluate=evaluate, checkpoints=tmp_path
    )
    assert (done.steps, done.stopped, len(done.losses), len(evaluated)) == (3, "three are enough", 3, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    with pytest.raises(LabError, match="written with 1 callbacks, not 0"):
        train(model, Counting(), settings=asked, checkpoints=tmp_path, resume=True)


def losses(values: list[float]) -> Callable[[], dict[str, float]]:
    given: Iterator[float] = iter(values)
    return lambda: {"validation_loss": next(given)}


@pytest.mark.parametrize(
    ("values", "options", "steps"),
    [
        ([5, 4, 4.5, 4.2, 3], {"patience": 2}, 4),
        ([5, 4, 4.5, 3.9, 4, 4, 4], {"patience": 2}, 6),
        ([5, 4.97, 4.94, 4.91, 4.8], {"patience": 3, "min_delta": 0.1}, 4),
        ([5, 4.97, 4.85, 4.8, 4.7, 4.6, 4.5, 4.4], {"patience": 2, "min_delta": 0.1}, 8),
        ([NAN, NAN, 1], {"patience": 2}, 2),
        ([5, NAN, -INF, 1], {"patience": 2}, 3),
        ([1, 2, 3, 2, 1], {"patience": 2, "mode": "max"}, 5),
    ],
)
def test_a_run_ends_when_evaluations_get_no_better(
    values: list[float], options: dict[str, Any], steps: int
) -> None:
    asked = settings(early_stopping=EarlyStopping(**options))
    done = train(tiny("gpt2"), Counting(), settings=asked, evaluate=losses([*values, values[-1]]))
    assert done.steps == steps
    reason = f"stopped early at step {steps}: validation_loss has not improved on "
    assert done.stopped.startswith(reason) if steps < 8 else not done.stopped


class Breaks(Counting):
    """Ends in the middle of a run."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if index == self.at:
            raise InterruptedError
        return super().__getitem__(index)


def run(
    folder: Path, batches: Counting, *, resume: bool = False, **changes: object
) -> tuple[Transformer, TrainResult]:
    """A run whose evaluation is a function of the weights that falls, then rises."""
    model = tiny("gpt2")
    start = tiny("gpt2").embedding.weight.detach()

    def evaluate() -> dict[str, float]:
        away = float((model.embedding.weight.detach() - start).norm())
        return {"validation_loss": (away - 0.45) ** 2, "away": away}

    done = train(
        model,
        batches,
        settings=settings(steps=12, schedule="constant", **changes),
        evaluate=evaluate,
        checkpoints=folder,
        resume=resume,
    )
    return model, done


@pytest.mark.parametrize("at", [1, 3, 4, 6, 7])
@pytest.mark.parametrize("every", [1, 3])
def test_a_killed_run_stops_early_at_the_same_update_with_the_same_best_weights(
    tmp_path: Path, at: int, every: int
) -> None:
    options = {
        "early_stopping": EarlyStopping(patience=3),
        "keep": "best",
        "checkpoint_every": every,
        "keep_last": 1,
        "evaluate_start": True,
    }
    model, done = run(tmp_path / "whole", Counting(), **options)
    with pytest.raises(InterruptedError):
        run(tmp_path / "cut", Breaks(at), **options)
    again, redone = run(tmp_path / "cut", Counting(), resume=True, **options)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert (done.steps, done.kept, done.stopped) == (redone.steps, redone.kept, redone.stopped)
    assert done.validation == redone.validation
    assert done.kept is not None and 0 < done.kept < done.steps < 12, (done.kept, done.steps)
    once_more, same = run(tmp_path / "cut", Counting(), resume=True, **options)
    assert same.steps == done.steps
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), once_more.parameters(), strict=True))


@pytest.mark.parametrize(
    ("values", "watched", "best"),
    [
        ([3, 1, 2, 1], Watched(), 2),
        ([3, 1, NAN, 2], Watched(), 2),
        ([NAN, 3, -INF, 4], Watched(), 2),
        ([3, 1, NAN, 4], Watched(mode="max"), 4),
        ([INF, 1, 4, 2], Watched(mode="max"), 3),
    ],
)
def test_the_weights_of_the_best_evaluation_are_kept(
    tmp_path: Path, values: list[float], watched: Watched, best: int
) -> None:
    snapshots = list[list[Tensor]]()
    model = tiny("gpt2")
    given = iter(values)

    def evaluate() -> dict[str, float]:
        snapshots.append([p.detach().clone() for p in model.parameters()])
        return {"validation_loss": next(given)}

    asked = settings(steps=4, keep="best", best=watched, keep_last=1)
    done = train(model, Counting(), settings=asked, evaluate=evaluate, checkpoints=tmp_path)
    assert (done.kept, done.steps, done.validation) == (best, 4, {"validation_loss": values[best - 1]})
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), snapshots[best - 1], strict=True))


def test_without_a_finite_number_the_last_weights_are_kept_aloud(tmp_path: Path) -> None:
    asked = settings(steps=2, keep="best")
    with pytest.warns(UserWarning, match="no finite validation_loss was measured; the last weights are kept"):
        done = train(
            tiny("gpt2"), Counting(), settings=asked, evaluate=losses([NAN, NAN]), checkpoints=tmp_path
        )
    assert done.kept is None


def test_a_checkpoint_between_two_evaluations_is_not_the_best(tmp_path: Path) -> None:
    """Step 3 has the numbers of step 2 in its notes, and other weights."""
    asked = settings(steps=4, evaluate_every=2, checkpoint_every=3, keep="best", keep_last=5)
    done = train(tiny("gpt2"), Counting(), settings=asked, evaluate=losses([1, 2]), checkpoints=tmp_path)
    assert done.kept == 2


def test_what_cannot_be_kept_or_watched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        LabError, match="keep best: needs evaluations while the model trains; give evaluate_every"
    ):
        settings(evaluate_every=0, keep="best")
    with pytest.raises(LabError, match="early_stopping: needs evaluations while"):
        settings(evaluate_every=0, early_stopping=EarlyStopping())
    for asked in ({"keep": "best"}, {"early_stopping": EarlyStopping()}):
        with pytest.raises(LabError, match="the only evaluation is after the last of 3 updates"):
            settings(steps=3, evaluate_every=3, **asked)
    for options in ({"patience": 0}, {"min_delta": -1.0}, {"min_delta": NAN}):
        with pytest.raises(LabError, match=f"early_stopping: {next(iter(options))} must"):
            EarlyStopping(**options)  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(LabError, match="keep best: needs evaluations, and a folder"):
        train(tiny("gpt2"), Counting(), settings=settings(keep="best"), evaluate=losses([1] * 9))
    for asked, words in (
        (settings(keep="best", best=Watched(number="validation_los")), "best.number: validation_los"),
        (settings(early_stopping=EarlyStopping(number="accuracy")), "early_stopping.number: accuracy"),
    ):
        with pytest.raises(LabError, match=words):
            train(
                tiny("gpt2"),
                Counting(),
                settings=asked,
                evaluate=losses([1] * 9),
                checkpoints=tmp_path / words,
            )


def test_a_ramp_is_constant_then_changes_then_is_constant() -> None:
    ramp = Ramp(start=1.0, end=3.0, begin=0.25, until=0.75)
    assert [ramp.at(step, 9) for step in range(9)] == [1, 1, 1, 1.5, 2, 2.5, 3, 3, 3]
    curved = Ramp(start=0.0, end=1.0, shape="cosine")
    assert [curved.at(step, 5) for step in (0, 1, 2, 4)] == pytest.approx([0, (1 - 0.5**0.5) / 2, 0.5, 1])
    assert [Ramp(end=2.0, begin=0.5, until=0.5).at(step, 3) for step in range(3)] == [1, 2, 2]
    assert Ramp(start=2.0).at(0, 1) == 2
    for begin, until in ((0.5, 0.4), (-0.1, 1.0), (0.0, 1.1)):
        with pytest.raises(LabError, match="begin and until"):
            Ramp(begin=begin, until=until)


def test_weight_decay_and_the_rate_of_one_group_follow_their_schedules(tmp_path: Path) -> None:
    def go(
        folder: Path, batches: Counting, resume: bool = False
    ) -> tuple[Transformer, list[tuple[float, ...]]]:
        model, seen = tiny("gpt2"), list[tuple[float, ...]]()
        optimizer = adamw(model, settings(weight_decay=0.2))

        class Sees(Callback):
            def on_update(self, step: int, numbers: Mapping[str, float], model: Transformer) -> None:
                seen.append(tuple(g[name] for g in optimizer.param_groups for name in ("weight_decay", "lr")))

        train(
            model,
            batches,
            settings=settings(
                steps=5, schedule="constant", weight_decay=0.2, checkpoint_every=2, evaluate_every=0,
                weight_decay_schedule=Ramp(start=1.0, end=3.0),
            ),
            optimizer=optimizer,
            schedules=[GroupSchedule(option="lr", factor=Ramp(start=1.0, end=0.0), groups=(1,))],
            callbacks=[Sees()],
            checkpoints=folder,
            resume=resume,
        )  # fmt: skip
        return model, seen

    whole, seen = go(tmp_path / "whole", Counting())
    wanted = [(0.2 * (1 + step / 2), 3e-3, 0.0, 3e-3 * (1 - step / 4)) for step in range(5)]
    assert [value for row in seen for value in row] == pytest.approx([v for row in wanted for v in row])
    with pytest.raises(InterruptedError):
        go(tmp_path / "cut", Breaks(3))
    again, _ = go(tmp_path / "cut", Counting(), resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (
            GroupSchedule(option="momentum", factor=Ramp()),
            "momentum: the optimizer's groups have no such number",
        ),
        (GroupSchedule(option="fused", factor=Ramp()), "fused: the optimizer's groups have no such number"),
        (GroupSchedule(option="lr", factor=Ramp(), groups=(2,)), "lr: no group 2; the optimizer has 2"),
    ],
)
def test_a_schedule_of_nothing_is_refused(schedule: GroupSchedule, words: str) -> None:
    with pytest.raises(LabError, match=words):
        train(tiny("gpt2"), Counting(), settings=settings(), schedules=[schedule])


def test_a_coefficient_of_the_objective_follows_its_schedule() -> None:
    class Penalised(Objective):
        weight = 0.0

        def before_update(self, model: Transformer, step: int, steps: int) -> None:
            self.weight = Ramp(start=0.0, end=2.0).at(step, steps)

        def __call__(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
            loss, _ = next_token(model, batch)
            return loss + self.weight * model.embedding.weight.square().sum(), {"weight": self.weight}

    rows = list[float]()
    train(
        tiny("gpt2"),
        Counting(),
        settings=settings(steps=5, log_every=1, evaluate_every=0),
        objective=Penalised(),
        log=lambda step, **numbers: rows.append(numbers["weight"]),
    )
    assert rows == [0.0, 0.5, 1.0, 1.5, 2.0]
