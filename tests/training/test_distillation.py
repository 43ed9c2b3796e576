"""Distillation against its equation, position by position in float64, and through the command line."""

import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from gpt2lab.base.errors import LabError
from gpt2lab.cli import main
from gpt2lab.model import save_model
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.checkpoints import newest_checkpoint
from gpt2lab.training.distillation import Distillation
from tests.cli.conftest import SMALL
from tests.tiny import tiny
from tests.training.data import Counting


def test_the_loss_is_the_equation_and_places_without_a_target_do_not_count(tmp_path: Path) -> None:
    model, teacher = tiny("gpt2").double(), tiny("gpt2", seed=9).double()
    save_model(teacher, tmp_path)
    objective = Distillation(teacher=str(tmp_path), weight=0.3, temperature=1.5)
    objective.prepare(model)
    objective.modules()["teacher"].module.double()
    batch = Counting(padded=True)[0]
    loss, numbers = objective(model, batch)
    own, theirs = (m(batch["tokens"], attention_mask=batch["attention_mask"]) for m in (model, teacher))
    entropy = divergence = 0.0
    places = (batch["targets"] != -100).nonzero().tolist()
    for row, place in places:
        z = own[row, place].tolist()
        entropy += math.log(sum(math.exp(v) for v in z)) - z[int(batch["targets"][row, place])]
        p, q = ([math.exp(v / 1.5) for v in one[row, place].tolist()] for one in (theirs, own))
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    entropy, divergence = entropy / len(places), divergence / len(places)
    assert float(loss.detach()) == pytest.approx(0.7 * entropy + 0.3 * 1.5**2 * divergence, rel=1e-6)
    assert numbers == pytest.approx({"cross_entropy": entropy, "divergence": divergence}, rel=1e-5)
    assert divergence > 0.01


def test_a_student_comes_near_its_teacher_which_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    teacher = tiny("gpt2", seed=9)
    with torch.no_grad():
        teacher.head.weight.mul_(20)  # a teacher that is sure of something
    save_model(teacher, tmp_path / "teacher")
    objective, rows = Distillation(teacher=str(tmp_path / "teacher"), weight=1.0), list[float]()
    train(
        tiny("gpt2"),
        Counting(),
        settings=TrainSettings(steps=60, learning_rate=1e-2, log_every=1, checkpoint_every=30),
        objective=objective,
        log=lambda step, **numbers: rows.append(numbers["divergence"]),
        checkpoints=tmp_path / "checkpoints",
    )
    assert rows[-1] < 0.7 * rows[0]
    path = newest_checkpoint(tmp_path / "checkpoints")
    assert path is not None
    with safe_open(path / "tensors.safetensors", "pt") as file:
        assert not [name for name in file.keys() if name.startswith("objective.")]  # noqa: SIM118  # no mapping


def test_without_a_teacher_a_model_stays_near_what_it_was() -> None:
    moved = []
    for weight in (0.0, 0.95):
        model, before = tiny("gpt2"), tiny("gpt2").eval()
        settings = TrainSettings(steps=30, learning_rate=5e-3)
        train(model, Counting(), settings=settings, objective=Distillation(weight=weight))
        tokens = Counting()[99]["tokens"]
        told = before(tokens).log_softmax(-1)
        moved.append(float((told.exp() * (told - model(tokens).log_softmax(-1))).sum(-1).mean().detach()))
    assert moved[1] < 0.5 * moved[0]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(LabError, match=r"weight must lie in \[0, 1\], got 1\.5"):
        Distillation(weight=1.5)
    with pytest.raises(LabError, match="temperature must be above 0"):
        Distillation(temperature=0.0)
    with pytest.raises(LabError, match="call prepare"):
        Distillation()(tiny("gpt2"), Counting()[0])
    objective = Distillation()
    objective.prepare(tiny("gpt2"))
    with pytest.raises(LabError, match="the teacher has 61 token ids, the model 50"):
        objective.prepare(tiny("gpt2", vocab_size=50))


def test_the_command_line_names_the_teacher_as_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    assert main(["train", *SMALL, "--name", "teacher"]) == 0
    words = ["--objective", "distillation", "--set", "objective_options.teacher=teacher"]
    shared = [word for word in SMALL if word not in ("--vocab-size", "300")]
    assert main(["train", *shared, "--tokenizer", "teacher", *words, "--name", "student"]) == 0
    assert (tmp_path / "runs" / "student-1" / "model" / "config.json").is_file()
