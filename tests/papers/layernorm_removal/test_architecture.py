"""Norms that are frozen path by path: values, constants, schedules, resuming, refusals."""

from pathlib import Path

import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, attach, load_model, save_model
from gpt2lab.model.adapters import Lora
from gpt2lab.papers.layernorm_removal.architecture import (
    StagedNorms,
    calibrate,
    fire,
    stage_of,
    staged,
    unit_of,
    unit_table,
)
from gpt2lab.papers.layernorm_removal.objective import EvenLogScales, EvenScales
from gpt2lab.papers.layernorm_removal.schedule import RECIPES, Schedule, check_length, fitted, units
from gpt2lab.training import TrainSettings, train
from tests.papers.layernorm_removal import reference
from tests.tiny import BIDIRECTIONAL, tiny, tokens
from tests.training.data import Counting

QUICK = Schedule(start=2, mlp_gap=1, qk_gap=1, v_gap=1)


def made(family: str = "gpt2", **options: object) -> Transformer:
    return attach(tiny(family), StagedNorms(**{"schedule": QUICK, **options}))  # type: ignore[arg-type]  # given by the tests


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gpt_neox", "llama"])
def test_real_norms_give_the_models_own_logits(family: str) -> None:
    ids = tokens(3, 9)
    assert torch.allclose(made(family)(ids), tiny(family)(ids), atol=1e-5)


@torch.no_grad()
def test_queries_and_values_read_norms_of_their_own() -> None:
    model, ids = made().double(), tokens(2, 5)
    norm = model.blocks[1].norm1
    norm.constant.fill_(1.7)
    fire(model, "qk.1")
    reads = ["blocks.1.hook_resid_pre", "blocks.1.ln1.hook_normalized", "blocks.1.ln1v.hook_normalized"]
    with model.tap(read=[*reads, "blocks.1.attn.hook_q", "blocks.1.attn.hook_v"]) as tap:
        model(ids)
    qkv = model.blocks[1].attention.qkv
    for name, constant in ((reads[1], 1.7), (reads[2], None)):
        for b, t in ((0, 0), (1, 3)):
            expected = reference.norm(tap[reads[0]][b, t], norm.weight, norm.bias, constant)
            assert torch.allclose(tap[name][b, t], expected, atol=1e-6)  # the constant is a float32
    q = tap[reads[1]] @ qkv.weight[:24].T + qkv.bias[:24]
    v = tap[reads[2]] @ qkv.weight[48:].T + qkv.bias[48:]
    assert torch.allclose(tap["blocks.1.attn.hook_q"].flatten(2), q)
    assert torch.allclose(tap["blocks.1.attn.hook_v"].flatten(2), v)


def test_the_constant_follows_the_running_mean_until_the_last_path_is_fake() -> None:
    model = made(
        momentum=0.8,
        schedule=Schedule(
            events=(*(f"9:{u}" for u in units(3) if u not in ("qk.0", "v.0")), "2:qk.0", "4:v.0")
        ),
    )
    norm, mask = model.blocks[0].norm1, Counting(padded=True)
    seen = list[float]()

    class Watched(Counting):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            batch = super().__getitem__(index)
            with torch.no_grad(), model.tap(read=["blocks.0.hook_resid_pre"]) as tap:
                model.hidden(batch["tokens"], attention_mask=batch.get("attention_mask"))
            real = batch.get("attention_mask")
            seen.append(reference.mean_sigma(tap["blocks.0.hook_resid_pre"], real))
            return batch

    constants = list[float]()
    train(
        model, Watched(padded=True), settings=TrainSettings(steps=8, learning_rate=1e-2, log_every=1),
        log=lambda step, **numbers: constants.append(float(norm.constant[1])),
    )  # fmt: skip
    assert len(mask[0]) and len(seen) == 8
    average = seen[0]
    for step, value in enumerate(seen):
        average = 0.8 * average + 0.2 * value if step else value
        if step < 4:
            assert constants[step] == pytest.approx(average, rel=1e-5)
    assert float(norm.average[1]) == pytest.approx(average, rel=1e-5)
    assert (
        constants[4:] == [constants[3]] * 4
    )  # qk was fake at step 2 and went on moving; frozen with v before step 4


def test_evaluation_and_recomputed_blocks_are_not_measured() -> None:
    plain, again = made(), made()
    settings = {"steps": 3, "learning_rate": 1e-3, "accumulation": 2}
    train(
        plain,
        Counting(),
        settings=TrainSettings(**settings),
        evaluate=lambda: {"x": float(plain(tokens(2, 5)).sum())},
    )
    train(again, Counting(), settings=TrainSettings(**settings, gradient_checkpointing=True))
    for one, two in zip(staged(plain), staged(again), strict=True):
        assert torch.allclose(one.average, two.average, rtol=1e-5) and float(one.average[1]) > 0


def test_the_papers_schedule_and_tables() -> None:
    small = RECIPES["small"].schedule.steps_of(12, late=True)
    assert (small["mlp.0"], small["qk.0"], small["v.0"], small["f"]) == (20, 44, 68, 104)
    assert (small["mlp.11"], small["eot"], small["bos"]) == (42, 106, 116)
    for name, layers, qk, v, f, bos in (
        ("medium", 24, 68, 116, 188, 200),
        ("large", 36, 174, 318, 534, 546),
        ("xl", 48, 242, 434, 722, 734),
    ):
        steps = RECIPES[name].schedule.steps_of(layers, late=True)
        assert (steps["qk.0"], steps["v.0"], steps["f"], steps["bos"]) == (qk, v, f, bos)
        assert len(RECIPES[name].schedule.steps_of(layers)) == 3 * layers + 1
    assert fitted(12, 300) == Schedule(start=20, mlp_gap=2, qk_gap=2, v_gap=3)
    assert max(fitted(3, 2).steps_of(3).values()) < 2


def test_gated_feed_forwards_get_most_of_a_fitted_schedule() -> None:
    found = fitted(5, 240, gated=True)
    assert (found.start, found.mlp_gap, found.qk_gap, found.v_gap) == (12, 19, 2, 5)
    assert fitted(5, 240).mlp_gap < found.mlp_gap and found.steps_of(5)["f"] <= 0.65 * 240
    deep = fitted(32, 300, gated=True).steps_of(32)
    assert deep["f"] == 195 and deep["mlp.31"] > 130 and len({deep[f"mlp.{i}"] for i in range(32)}) == 32


@pytest.mark.parametrize(("layers", "steps"), [(48, 300), (36, 300), (5, 8), (3, 1)])
def test_a_fitted_schedule_spreads_the_units_where_a_gap_is_less_than_a_step(layers: int, steps: int) -> None:
    found = fitted(layers, steps).steps_of(layers)
    order = [found[f"{group}.{layer}"] for group in ("mlp", "qk", "v") for layer in range(layers)]
    assert order == sorted(order) and found["f"] >= order[-1]
    assert min(order) == steps // 15 and max(found.values()) == int(0.4 * steps) < steps
    assert len(set(order)) >= 0.8 * (found["f"] - min(order))  # next to no step is left out
    late = fitted(layers, steps, late=True).steps_of(layers, late=True)
    assert late["f"] <= late["eot"] <= late["bos"] < steps


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Schedule(mlp_gap=-1), "negative"),
        (lambda: Schedule(events=("2:f", "3:f")), "frozen twice"),
        (lambda: Schedule(events=("2:mlp.0", "2:g")).steps_of(1), "no such unit|unit"),
        (lambda: Schedule(events=("2:mlp.0",)).steps_of(1), "leave out"),
        (lambda: Schedule(events=("soon",)), "STEP:UNIT"),
        (lambda: Schedule(order=("mlp", "mlp", "v", "f")), "once each"),
        (lambda: check_length({"f": 10}, 10), "ends after 10"),
        (lambda: StagedNorms(momentum=1.0), "momentum"),
        (lambda: StagedNorms(momentum=-0.1), "momentum"),
        (lambda: EvenScales(penalty=-1.0), "penalty"),
        (lambda: made(schedule=Schedule(events=("0:mlp.0",))), "leave out"),
        (lambda: fire(made(), "f"), "measured"),
        (lambda: attach(made(), StagedNorms()), "staged already"),
        (lambda: attach(attach(tiny("gpt2"), Lora(rank=2)), StagedNorms()), "own blocks"),
        (lambda: Schedule(events=("2:f", "3:eot")).steps_of(0), "special_positions"),
    ],
)
def test_what_cannot_be_is_refused_in_words(make: object, words: str) -> None:
    with pytest.raises(LabError, match=words):
        make()  # type: ignore[operator]  # a function of the table above


def test_a_schedule_that_ends_late_is_warned_about() -> None:
    with pytest.warns(UserWarning, match="only 1 of 20"):
        check_length({"f": 19}, 20)


def test_the_verb_train_refuses_a_run_that_ends_before_the_last_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path))
    with pytest.raises(LabError, match="f is frozen before step 34, and the run ends after 11"):
        gpt2lab.train(
            architecture="staged-norms", n_layers=2, d_model=16, steps=11, data=["tinyworld:20"], context=16
        )
    model = made()  # the last event comes before step 11
    stage = stage_of(model)
    with pytest.warns(UserWarning, match="only 1 of 12 steps remain"):
        stage.require_steps(model, 12)
    calibrate(model, [{"tokens": tokens(2, 5)}])
    for unit in stage.steps:
        fire(model, unit)
    stage.require_steps(model, 2)  # trained on for a while, with all norms fake


@pytest.mark.parametrize("family", BIDIRECTIONAL)
def test_post_norm_families_are_told_why_not(family: str) -> None:
    model = tiny(family)
    before = set(model.state_dict())
    with pytest.raises(LabError, match="residual stream"):
        attach(model, StagedNorms())
    assert set(model.state_dict()) == before


def test_resuming_between_the_events_gives_the_same_bits(tmp_path: Path) -> None:
    settings = TrainSettings(steps=14, learning_rate=3e-3, checkpoint_every=5)

    class Cut(Counting):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            if index == 7:
                raise RuntimeError("power cut")
            return super().__getitem__(index)

    whole, cut, again = made(), made(), made()
    train(whole, Counting(), settings=settings, objective=EvenScales())
    with pytest.raises(RuntimeError, match="power cut"):
        train(cut, Cut(), settings=settings, objective=EvenScales(), checkpoints=tmp_path)
    train(again, Counting(), settings=settings, objective=EvenScales(), checkpoints=tmp_path, resume=True)
    expected = whole.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in again.state_dict().items())
    assert all(row["state"] == "fake" for row in unit_table(again))
    save_model(again, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert torch.equal(loaded(tokens(2, 6)), again(tokens(2, 6)))
    assert unit_table(loaded) == unit_table(again)


def test_a_saved_model_without_its_flags_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_model(made(), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    save_file({name: x for name, x in load_file(file).items() if name != "final_norm.fake"}, file)
    with pytest.raises(LabError, match=r"final_norm.fake is missing"):
        load_model(tmp_path / "model")


@torch.no_grad()
def test_position_0_and_ends_of_text_have_a_constant_until_their_events() -> None:
    model = made(special_positions=True, end_of_text=5).double()
    norm = model.blocks[0].norm1
    norm.constant.copy_(torch.tensor([3.0, 1.5]))
    for unit in ("qk.0", "v.0"):
        fire(model, unit)
    ids = torch.tensor([[5, 7, 5, 8]])

    def scales() -> tuple[list[float], list[float]]:
        with model.tap(read=["blocks.0.ln1.hook_scale", "blocks.0.ln1v.hook_scale"]) as tap:
            model(ids)
        return tuple(tap[f"blocks.0.{n}.hook_scale"].flatten().tolist() for n in ("ln1", "ln1v"))  # type: ignore[return-value]  # two

    assert scales() == ([3.0, 1.5, 1.5, 1.5], [3.0, 1.5, 3.0, 1.5])
    padded = torch.tensor([[9, 5, 7, 5, 8]])
    mask = torch.tensor([[0, 1, 1, 1, 1]])
    assert torch.allclose(model(padded, attention_mask=mask)[:, 1:], model(ids))
    fire(model, "eot")
    assert scales() == ([3.0, 1.5, 1.5, 1.5], [3.0, 1.5, 1.5, 1.5])
    fire(model, "bos")
    assert scales() == ([1.5] * 4, [1.5] * 4)


@torch.no_grad()
def test_calibration_is_the_mean_of_every_tokens_sigma() -> None:
    model, batch = made(), {"tokens": tokens(3, 7)}
    calibrate(model, [batch])
    assert not model.training
    with model.tap(read=["resid_mid"]) as tap:
        model.hidden(batch["tokens"])
    norm, _ = unit_of(model, "mlp.2")
    expected = reference.mean_sigma(tap["resid_mid"][2])
    assert float(norm.constant[1]) == pytest.approx(expected, rel=1e-5)
    flat = float(tap["resid_mid"][2].std())  # what an early version of the authors' code used
    assert abs(flat - expected) > 1e-3
    assert stage_of(model).steps["mlp.0"] == 2


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("end", [None, 4])
def test_the_log_scales_are_evened_before_every_norm(family: str, end: int | None) -> None:
    model = tiny(family).double()
    batch = {name: tensor for name, tensor in Counting()[0].items() if name != "attention_mask"}
    loss, metrics = EvenLogScales(penalty=0.3, end_of_text=end)(model, batch)
    names = [f"blocks.{i}.hook_resid_{half}" for i in range(3) for half in ("pre", "mid")]
    with torch.no_grad(), model.tap(read=[*names, "blocks.2.hook_resid_post"]) as tap:
        model.hidden(batch["tokens"])
    states = [tap[name] for name in (*names, "blocks.2.hook_resid_post")]

    def scale(x: torch.Tensor) -> float:
        centred = family == "gpt2"
        return reference.sigma(x) if centred else (float(x.square().mean()) + model.config.norm_eps) ** 0.5

    expected = reference.log_spread(states, batch["tokens"], end, scale)
    assert metrics["spread"] == pytest.approx(expected, rel=1e-9)
    assert float(loss) == pytest.approx(metrics["cross_entropy"] + 0.3 * expected, rel=1e-6)
    loss.backward()
    assert all(block.mlp.up.weight.grad is not None for block in model.blocks)
    assert EvenScales(penalty=0.3, end_of_text=end)(model, batch)[1]["sigma"] == metrics["sigma"]


@pytest.mark.parametrize("end", [None, 4])
def test_the_auxiliary_loss_is_the_papers(end: int | None) -> None:
    model = tiny("gpt2").double()
    batch = {name: tensor for name, tensor in Counting()[0].items() if name != "attention_mask"}
    loss, metrics = EvenScales(penalty=0.3, end_of_text=end)(model, batch)
    with torch.no_grad(), model.tap(read=["blocks.2.hook_resid_post"]) as tap:
        model.hidden(batch["tokens"])
    target, spread = reference.spread(tap["blocks.2.hook_resid_post"], batch["tokens"], end)
    assert metrics["sigma"] == pytest.approx(target, rel=1e-9)
    assert metrics["spread"] == pytest.approx(spread, rel=1e-9)
    assert float(loss.detach()) == pytest.approx(metrics["cross_entropy"] + 0.3 * spread, rel=1e-9)
    alone = {"tokens": batch["tokens"][:, :1], "targets": batch["targets"][:, :1]}
    assert EvenScales()(model, alone)[1]["sigma"] == 1.0


def test_a_rate_laid_out_for_a_longer_run_is_that_runs_rate() -> None:
    from gpt2lab.training.schedules import learning_rate_share

    settings = TrainSettings(
        steps=600, laid_out=1200, warmup=15, final_fraction=4e-5 / 3e-4, learning_rate=3e-4
    )
    for step in (15, 100, 599):
        expected = reference.rate(step, 3e-4, 4e-5, 15, 1200)
        assert 3e-4 * learning_rate_share(step, settings) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(LabError, match="laid_out"):
        TrainSettings(steps=10, laid_out=5)
