"""The training loop: updates, accumulation, resuming, refusing."""

import math
import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.training import TrainResult, TrainSettings, loop, next_token, train
from gpt2lab.training.checkpoints import (
    best_checkpoint,
    load_best_weights,
    newest_checkpoint,
    prune,
    save_checkpoint,
)
from gpt2lab.training.loop import Interrupted
from gpt2lab.training.schedules import learning_rate_share
from tests.tiny import tiny
from tests.training.data import Counting


def settings(**changes: object) -> TrainSettings:
    return TrainSettings(
        **{"steps": 12, "learning_rate": 3e-3, "warmup": 2, "precision": "float32", **changes}
    )


def same(first: Transformer, second: Transformer) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_updates_equal_adamw_written_from_its_equations() -> None:
    """Float64, two accumulated padded micro-batches, clipping, warm-up, cosine, decay of matrices only."""
    asked = settings(steps=6, accumulation=2, weight_decay=0.3, clip=0.5, betas=(0.8, 0.9), eps=1e-6)
    ours, slow = tiny("gpt2").double(), tiny("gpt2").double()
    result = train(ours, Counting(padded=True), settings=asked)
    weights = list(slow.parameters())
    first, second = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    for step in range(6):
        total, count = torch.zeros((), dtype=torch.float64), 0
        for micro in (2 * step, 2 * step + 1):
            batch = Counting(padded=True)[micro]
            logits = slow(batch["tokens"], attention_mask=batch["attention_mask"])
            total = total + F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), reduction="sum")
            count += int((batch["targets"] >= 0).sum())
        gradients = torch.autograd.grad(total / count, weights)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        rate = 3e-3 * [0.5, 1, 1, 0.1 + 0.45 * 1.5, 0.1 + 0.45 * 0.5, 0.1][step]
        for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
            g = g * min(1.0, 0.5 / (norm + 1e-6))
            first[i] = 0.8 * first[i] + 0.2 * g
            second[i] = 0.9 * second[i] + 0.1 * g**2
            with torch.no_grad():
                w -= rate * 0.3 * w if w.dim() >= 2 else 0
                w -= (
                    rate
                    * (first[i] / (1 - 0.8 ** (step + 1)))
                    / ((second[i] / (1 - 0.9 ** (step + 1))).sqrt() + 1e-6)
                )
        assert result.losses[step] == pytest.approx(float(total.detach()) / count, rel=1e-10)
    for (name, a), b in zip(ours.named_parameters(), weights, strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-10), name


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "llama"])
def test_a_model_learns_to_count(family: str) -> None:
    model = Transformer(tiny(family).config)
    result = train(model, Counting(16), settings=settings(steps=150, learning_rate=1e-2))
    assert result.losses[0] > 3.5
    assert result.loss < 1.0
    assert not model.training
    assert result.steps == 150
    assert result.tokens == 150 * 16 * 12
    assert result.tokens_per_second > 0


def test_accumulation_equals_one_large_batch_also_with_padding() -> None:
    class Joined:
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            parts = [Counting(padded=True)[3 * index + k] for k in range(3)]
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    split, whole = tiny("gpt2").double(), tiny("gpt2").double()
    train(split, Counting(padded=True), settings=settings(accumulation=3))
    train(whole, Joined(), settings=settings())
    for a, b in zip(split.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-9)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, dropout: float, precision: str) -> None:
    asked = settings(checkpoint_every=5, accumulation=2, precision=precision)

    def fresh() -> Transformer:
        return tiny("gpt2", residual_dropout=dropout, attention_dropout=dropout, embedding_dropout=dropout)

    whole, resumed = fresh(), fresh()
    train(whole, Counting(), settings=asked, seed=3)

    class Breaks(Counting):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            if index == 17:
                raise OSError("the disk went away")
            return super().__getitem__(index)

    with pytest.raises(OSError, match="went away"):
        train(resumed, Breaks(), settings=asked, checkpoints=tmp_path, seed=3)
    again = fresh()
    result = train(again, Counting(), settings=asked, checkpoints=tmp_path, resume=True, seed=3)
    assert (
        len(result.losses) == 1 + 7
    )  # 12 updates, 5 of them before the last checkpoint, which keeps a tenth of 12
    assert same(whole, again)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    asked = settings(checkpoint_every=4, keep_last=5)
    whole = tiny("gpt2")
    train(whole, Counting(), settings=asked, checkpoints=tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-00000004", "step-00000008", "step-00000012"]
    last = tmp_path / names[-1] / "tensors.safetensors"
    data = bytearray(last.read_bytes())
    data[-1] ^= 1
    last.write_bytes(data)
    (tmp_path / names[1] / "state.json").write_text('{"step": 8')
    with pytest.warns(UserWarning, match="passed over for the one before it") as said:
        assert newest_checkpoint(tmp_path) == tmp_path / names[0]
    assert ["tensors.safetensors" in str(one.message) for one in said] == [True, False]
    assert ["state.json" in str(one.message) for one in said] == [False, True]
    again = tiny("gpt2")
    with pytest.warns(UserWarning, match="passed over"):
        train(again, Counting(), settings=asked, checkpoints=tmp_path, resume=True)
    assert same(whole, again)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("state.json", b'"step": 12', b'"step": 11'),
        ("state.json", b'"initial_lr": 0.0', b'"initial_lr": 0.1'),
        ("state.json", b'"weight_decay": 0.1', b'"weight_decay": 0.9'),
        ("state.json", b'"AdamW"', b'"Adam\xff"'),
        ("state.json", b"{", b""),
        ("SHA256SUMS", b"  state.json", b"  stat.json"),
        ("SHA256SUMS", None, b""),
        ("tensors.safetensors", None, b""),
    ],
)
def test_a_change_anywhere_in_a_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, file: str, old: bytes | None, new: bytes
) -> None:
    whole, again = tiny("gpt2"), tiny("gpt2")
    train(whole, Counting(), settings=settings(checkpoint_every=4), checkpoints=tmp_path)
    path = tmp_path / "step-00000012" / file
    data = path.read_bytes()
    path.write_bytes(new if old is None else data.replace(old, new, 1))
    assert path.read_bytes() != data
    with pytest.warns(
        UserWarning, match=r"step-00000012: (damaged|not whole), .*; this checkpoint is passed over"
    ):
        train(again, Counting(), settings=settings(checkpoint_every=4), checkpoints=tmp_path, resume=True)
    assert same(whole, again)


def test_a_checkpoint_whose_state_is_damaged_is_not_the_best(tmp_path: Path) -> None:
    losses = iter([1.0, 2.0, 3.0])
    asked = settings(checkpoint_every=4, evaluate_every=4, keep_last=5)
    model = tiny("gpt2")
    train(
        model,
        Counting(),
        settings=asked,
        checkpoints=tmp_path,
        evaluate=lambda: {"validation_loss": next(losses)},
    )
    path = tmp_path / "step-00000012" / "state.json"
    path.write_text(path.read_text().replace('"validation_loss": 3.0', '"validation_loss": 0.0'))
    assert best_checkpoint(tmp_path) == tmp_path / "step-00000004"


def test_only_the_newest_and_the_best_checkpoints_are_kept(tmp_path: Path) -> None:
    losses = iter([5.0, 1.0, 2.0, 3.0, 2.5, 2.0])
    asked = settings(checkpoint_every=2, evaluate_every=2, keep_last=2)
    model = tiny("gpt2")
    train(
        model,
        Counting(),
        settings=asked,
        checkpoints=tmp_path,
        evaluate=lambda: {"validation_loss": next(losses)},
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000004", "step-00000010", "step-00000012"]
    assert best_checkpoint(tmp_path) == tmp_path / "step-00000004"
    assert load_best_weights(tmp_path, tiny("gpt2"))[0] == 4


@pytest.mark.parametrize("void", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_validation_loss_that_is_no_number_is_never_the_best(
    tmp_path: Path, void: float, place: int
) -> None:
    losses = [2.0, 3.0, 4.0]
    losses.insert(place, void)
    given = iter(losses)
    asked = settings(steps=4, checkpoint_every=1, evaluate_every=1, keep_last=1)
    train(
        tiny("gpt2"),
        Counting(),
        settings=asked,
        checkpoints=tmp_path,
        evaluate=lambda: {"validation_loss": next(given)},
    )
    best = f"step-{losses.index(2.0) + 1:08d}"
    assert best_checkpoint(tmp_path) == tmp_path / best
    assert sorted(p.name for p in tmp_path.iterdir()) == [best, "step-00000004"]


def test_a_loop_of_ones_own_notes_its_validation_loss(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for step, loss in enumerate([math.nan, 2.0, 3.0, 4.0], start=1):
        save_checkpoint(tmp_path, step, model, optimizer, {"validation_loss": loss})
        prune(tmp_path, keep_last=1)
    assert best_checkpoint(tmp_path) == tmp_path / "step-00000002"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]


def test_without_a_finite_validation_loss_no_checkpoint_is_the_best(tmp_path: Path) -> None:
    asked = settings(steps=2, checkpoint_every=1, evaluate_every=1)
    void = {"validation_loss": math.nan}
    train(tiny("gpt2"), Counting(), settings=asked, checkpoints=tmp_path, evaluate=lambda: void)
    assert best_checkpoint(tmp_path) is None
    with pytest.raises(LabError, match="no checkpoint with a finite validation loss"):
        load_best_weights(tmp_path, tiny("gpt2"))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    train(tiny("gpt2"), Counting(), settings=settings(), checkpoints=tmp_path)
    with pytest.raises(LabError, match="holds another model than this run's settings describe"):
        train(tiny("gpt2", d_model=36), Counting(), settings=settings(), checkpoints=tmp_path, resume=True)
    model = tiny("gpt2")
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(LabError, match="written with AdamW, this run uses SGD"):
        train(model, Counting(), settings=settings(), checkpoints=tmp_path, resume=True, optimizer=other)


def test_evaluating_more_often_changes_nothing() -> None:
    def evaluate() -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        torch.randn(3)  # a careless evaluation may draw from the global generator
        return {"validation_loss": 1.0}

    models = []
    for every in (0, 3):
        model = tiny("gpt2", residual_dropout=0.1)
        train(model, Counting(), settings=settings(evaluate_every=every), evaluate=evaluate)
        models.append(model)
    assert same(*models)


def test_dropout_depends_on_the_seed_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    models = []
    for seed in (1, 1, 2):
        models.append(tiny("gpt2", residual_dropout=0.2))
        train(models[-1], Counting(), settings=settings(steps=2), seed=seed)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])
    assert torch.equal(before, torch.get_rng_state())


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    def sick(model: Transformer, batch: object) -> tuple[torch.Tensor, dict[str, float]]:
        loss, metrics = next_token(model, batch)
        calls.append(1)
        return loss * (float("nan") if len(calls) == 7 else 1), metrics

    calls: list[int] = []
    model = tiny("gpt2")
    with pytest.raises(LabError) as error:
        train(model, Counting(), settings=settings(checkpoint_every=4), objective=sick, checkpoints=tmp_path)
    message = str(error.value)
    assert "the loss is nan at step 7 with learning rate 0.00" in message
    assert "step-00000004" in message
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not model.training


def test_a_gradient_that_is_not_finite_stops_before_the_update() -> None:
    def sick(model: Transformer, batch: object) -> tuple[torch.Tensor, dict[str, float]]:
        loss, metrics = next_token(model, batch)
        # A finite value with an infinite slope: sqrt at 0.
        return loss + (model.embedding.weight.sum() * 0).sqrt(), metrics

    model = tiny("gpt2")
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(
        LabError, match=r"the gradient's norm is nan at step 1 .* no checkpoint was written yet"
    ):
        train(model, Counting(), settings=settings(), objective=sick)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_ctrl_c_finishes_the_update_saves_and_can_be_continued(tmp_path: Path) -> None:
    asked = settings(steps=40)
    whole, stopped, again = tiny("gpt2"), tiny("gpt2"), tiny("gpt2")
    train(whole, Counting(), settings=asked)

    class Presses(Counting):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            if index == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(index)

    with pytest.raises(Interrupted, match="stopped at step 6 of 40, saved in step-00000006"):
        train(stopped, Presses(), settings=asked, checkpoints=tmp_path)
    train(again, Counting(), settings=asked, checkpoints=tmp_path, resume=True)
    assert same(whole, again)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_save_as_ctrl_c_does(number: signal.Signals, tmp_path: Path) -> None:
    class Ends(Counting):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            if index == 5:
                os.kill(os.getpid(), number)
            return super().__getitem__(index)

    with pytest.raises(Interrupted, match="stopped at step 6 of 40, saved in step-00000006"):
        train(tiny("gpt2"), Ends(), settings=settings(steps=40), checkpoints=tmp_path)
    assert signal.getsignal(number) is signal.SIG_DFL


class Dies(RuntimeError):
    """Stands for the death of the process."""


@pytest.mark.parametrize("moment", ["save", "log"])
@pytest.mark.parametrize("step", [4, 7, 8, 12])
def test_a_resumed_run_has_the_rows_and_the_result_of_one_that_was_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, step: int
) -> None:
    asked = settings(checkpoint_every=4, evaluate_every=3, log_every=5, accumulation=2)

    def run(folder: Path, rows: dict[int, dict[str, float]], resume: bool = False) -> TrainResult:
        model = tiny("gpt2")

        def log(step: int, **numbers: float) -> None:
            rows[step] = {
                name: value for name, value in numbers.items() if name not in ("tokens_per_second", "mfu")
            }
            if moment == "log" and step >= dies:
                raise Dies

        def evaluate() -> dict[str, float]:
            return {"validation_loss": float(next(model.parameters()).sum())}

        return train(
            model, Counting(), settings=asked, evaluate=evaluate, log=log, checkpoints=folder, resume=resume
        )

    dies = 99
    rows: dict[int, dict[str, float]] = {}
    whole = run(tmp_path / "whole", rows)
    assert [*rows] == [1, 3, 5, 6, 9, 10, 12]
    dies = step
    save = loop.save_checkpoint

    def saves(folder: Path, at: int, *rest: Any) -> Path:
        if moment == "save" and at >= step:
            raise Dies
        return save(folder, at, *rest)

    monkeypatch.setattr(loop, "save_checkpoint", saves)
    again: dict[int, dict[str, float]] = {}
    with pytest.raises(Dies):
        run(tmp_path / "cut", again)
    monkeypatch.setattr(loop, "save_checkpoint", save)
    dies = 99
    done = run(tmp_path / "cut", again, resume=True)
    assert again == rows
    assert (done.loss, done.tokens, done.steps) == (whole.loss, whole.tokens, whole.steps)
    assert done.validation == whole.validation
    assert done.tokens_per_second > 0


def test_death_after_the_last_update_costs_no_result(tmp_path: Path) -> None:
    asked = settings(steps=40)
    whole = train(tiny("gpt2"), Counting(), settings=asked, checkpoints=tmp_path)
    again = train(tiny("gpt2"), Counting(), settings=asked, checkpoints=tmp_path, resume=True)
    assert (again.loss, again.tokens, again.seconds) == (whole.loss, whole.tokens, whole.seconds)


def test_what_a_killed_process_left_is_swept_on_resume(tmp_path: Path) -> None:
    train(tiny("gpt2"), Counting(), settings=settings(), checkpoints=tmp_path)
    (tmp_path / ".step-00000007.abcd1234.tmp").mkdir()
    (tmp_path / ".step-00000007.abcd1234.tmp" / "tensors.safetensors").write_bytes(b"half")
    (tmp_path / "step-00000012").rename(tmp_path / ".step-00000012.old-17")
    train(tiny("gpt2"), Counting(), settings=settings(), checkpoints=tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000012"]


def test_training_works_outside_the_main_thread() -> None:
    model = tiny("gpt2")
    thread = threading.Thread(target=train, args=(model, Counting()), kwargs={"settings": settings(steps=2)})
    thread.start()
    thread.join()
    assert not same(model, tiny("gpt2"))


def test_gradient_checkpointing_and_bf16_follow_the_plain_run() -> None:
    plain = train(tiny("llama"), Counting(), settings=settings()).losses
    less_memory = train(tiny("llama"), Counting(), settings=settings(gradient_checkpointing=True)).losses
    rough = train(tiny("llama"), Counting(), settings=settings(precision="bf16")).losses
    assert plain == less_memory
    assert rough != plain
    assert rough == pytest.approx(plain, rel=0.03)


def test_rows_are_logged_with_everything_a_reader_wants() -> None:
    rows: list[tuple[int, dict[str, float]]] = []
    train(
        tiny("gpt2"),
        Counting(),
        settings=settings(steps=25, log_every=10),
        log=lambda step, **numbers: rows.append((step, numbers)),
        evaluate=lambda: {"validation_loss": 2.0},
    )
    assert [step for step, _ in rows] == [1, 10, 20, 25]
    wanted = {"loss", "learning_rate", "gradient_norm", "tokens_per_second", "mfu"}
    assert all(wanted <= numbers.keys() for _, numbers in rows)
    assert rows[-1][1]["validation_loss"] == 2.0
    assert 0 < rows[-1][1]["mfu"] < 1.5


def test_any_torch_optimizer_trains_with_the_schedule() -> None:
    model = tiny("gpt2")
    slow, fast = list(model.blocks.parameters()), list(model.embedding.parameters())
    optimizer = torch.optim.SGD([{"params": slow, "lr": 0.1}, {"params": fast, "lr": 0.4}], momentum=0.9)
    train(model, Counting(), settings=settings(steps=3, warmup=0, final_fraction=0.5), optimizer=optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.2])


def test_no_steps_change_nothing(tmp_path: Path) -> None:
    model = tiny("gpt2")
    result = train(model, Counting(), settings=settings(steps=0, warmup=0))
    assert math.isnan(result.loss)
    assert same(model, tiny("gpt2"))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]),
        ("warmup-stable-decay", [0.5, 1, 1, 1, 1, 1, 1, 1, 1 - 0.8 / 3, 1 - 1.6 / 3, 0.2]),
    ],
)
def test_schedules_run_from_warmup_to_the_final_fraction(schedule: str, expected: list[float]) -> None:
    asked = settings(steps=11, schedule=schedule, final_fraction=0.2, decay_fraction=0.3)
    shares = [learning_rate_share(step, asked) for step in range(11)]
    assert shares == pytest.approx(expected)


def test_the_cosine_is_half_way_down_in_the_middle() -> None:
    asked = settings(steps=13, final_fraction=0.0)
    assert learning_rate_share(2, asked) == 1
    assert learning_rate_share(7, asked) == pytest.approx(0.5)
    assert learning_rate_share(12, asked) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("steps must be at least 0, got -1", {"steps": -1, "warmup": 0}),
        ("accumulation must be at least 1, got 0", {"accumulation": 0}),
        ("learning_rate must not be negative, got nan", {"learning_rate": float("nan")}),
        (r"final_fraction must lie in \[0, 1\], got 2", {"final_fraction": 2}),
        ("warmup 20 is longer than the run of 12 steps", {"warmup": 20}),
        (r"betas must lie in \[0, 1\)", {"betas": (0.9, 1.0)}),
    ],
)
def test_settings_that_make_no_sense_are_refused(message: str, fields: dict) -> None:
    with pytest.raises(LabError, match=message):
        settings(**fields)


def test_measured_peak_and_counted_work_agree_with_a_stopwatch() -> None:
    from gpt2lab.training.throughput import flops_per_token, peak_flops

    config = tiny("gpt2").config
    # 6 FLOPs a multiplying weight, and scores and mixing: 3 layers · 3 heads · d_head 8 · 12 · half of 10 positions.
    weights = sum(p.numel() for name, p in tiny("gpt2").named_parameters() if "position" not in name)
    expected = 6 * weights + 12 * 3 * 3 * 8 * 5
    assert flops_per_token(config, 10, tiny("gpt2").count_parameters()["total"]) == expected
    start = time.perf_counter()
    assert peak_flops("cpu", torch.float32, torch.get_num_threads()) > 1e9
    assert time.perf_counter() - start < 5


def _operations(model: Transformer, time_steps: int) -> float:
    """Multiplications and additions of one update that torch counts, a token."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    batch = Counting(batch=2, time=time_steps)[0]
    model.train()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model(batch["tokens"])
        F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten()).backward()
    return counter.get_total_flops() / batch["tokens"].numel()


@pytest.mark.parametrize("frozen", ["nothing", "adapters", "one adapter on top", "the head alone"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_operations_of_training_are_those_that_torch_counts(family: str, frozen: str) -> None:
    """Biases, norms and activations are no matrix products; torch counts all scores, ours half of them as causal."""
    from gpt2lab.model import attach
    from gpt2lab.model.adapters import Lora
    from gpt2lab.training.throughput import done_share, flops_per_token

    model = tiny(family, tied_head=False)
    if "adapter" in frozen:
        targets = ("all-linear",) if frozen == "adapters" else ("blocks.2.attention.qkv",)
        attach(model, Lora(rank=2, targets=targets))
    if frozen == "the head alone":
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    counts = model.count_parameters()["total"]
    ours = flops_per_token(model.config, 2, counts) * done_share(model, 2)
    assert ours == pytest.approx(_operations(model, 2), rel=0.12)


def test_checkpoints_beside_a_frozen_base_hold_what_trains_alone(tmp_path: Path) -> None:
    from gpt2lab.model import attach
    from gpt2lab.model.adapters import Lora

    def adapted(seed: int = 0) -> Transformer:
        model = tiny("gpt2", seed=seed)
        attach(model, Lora(rank=2, name="small"), generator=torch.Generator().manual_seed(3))
        return model

    whole, cut, again = adapted(), adapted(), adapted()
    train(whole, Counting(), settings=settings())
    train(cut, Counting(), settings=settings(checkpoint_every=4, steps=8, laid_out=12), checkpoints=tmp_path)
    path = newest_checkpoint(tmp_path)
    assert path is not None
    with safe_open(path / "tensors.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.startswith("model.")]  # noqa: SIM118  # no mapping
    assert names and all(".adapters.small." in name for name in names)
    train(again, Counting(), settings=settings(), checkpoints=tmp_path, resume=True)
    assert same(whole, again)
    best = adapted()
    with pytest.raises(LabError, match="no checkpoint with a finite validation loss"):
        load_best_weights(tmp_path, best)
    other = adapted(seed=9)
    with pytest.raises(
        LabError, match=r"embedding.weight, which is frozen, has changed since this run began"
    ):
        train(other, Counting(), settings=settings(steps=14), checkpoints=tmp_path, resume=True)


def test_a_frozen_weight_that_changes_all_the_same_is_saved(tmp_path: Path) -> None:
    """Such as a running mean that a wrapper or an objective keeps."""

    def half_frozen() -> Transformer:
        model = tiny("gpt2")
        model.embedding.weight.requires_grad_(False)
        model.final_norm.weight.requires_grad_(False)
        return model

    def averaging(
        model: Transformer, batch: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        with torch.no_grad():
            model.final_norm.weight.mul_(1.01)
        return next_token(model, batch)

    whole, cut, again = half_frozen(), half_frozen(), half_frozen()
    train(whole, Counting(), settings=settings(), objective=averaging)
    shorter = settings(steps=6, laid_out=12)
    train(cut, Counting(), settings=shorter, objective=averaging, checkpoints=tmp_path)
    train(again, Counting(), settings=settings(), objective=averaging, checkpoints=tmp_path, resume=True)
    assert same(whole, again)
    assert not torch.equal(whole.final_norm.weight, half_frozen().final_norm.weight)
