"""What steps do, against a slow reference, and the path from the command line: train, continue, generate, measure, apply."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.cli import main
from gpt2lab.model import Transformer, attach, load_model
from gpt2lab.model.adapters import Lora
from gpt2lab.model.soft_prompt import SoftPrompt
from gpt2lab.papers.pondering import Pondering, pondering_steps, trace
from gpt2lab.papers.pondering.analysis import likely_tokens, loss_by_steps, mean_loss, step_statistics
from gpt2lab.papers.pondering.steps import gradient_norms
from tests.tiny import tiny, tokens


def pondering(**options: object) -> Transformer:
    return attach(tiny("llama"), Pondering(**{"steps": 2, **options})).double().eval()  # type: ignore[arg-type]  # from a dict


@torch.no_grad()
def test_losses_by_number_of_steps_are_those_of_models_with_so_many() -> None:
    rows, model = tokens(5, 9), pondering()
    for steps, loss in loss_by_steps(model, rows, (0, 1, 4), batch_size=2).items():
        logits = pondering(steps=steps)(rows[:, :-1])
        assert loss == pytest.approx(float(F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())))
    assert mean_loss(model, rows) == pytest.approx(loss_by_steps(model, rows, [2])[2])


def test_what_every_pass_does_is_computed_token_by_token() -> None:
    rows, model = tokens(3, 7), pondering()
    found = step_statistics(model, rows, batch_size=2)
    assert [row["pass"] for row in found] == [0, 1, 2]
    inputs, ids, targets = [model.embed(rows[:, :-1]).detach()], rows[:, :-1], rows[:, 1:]
    probabilities = []
    for steps in range(3):
        with pondering_steps(model, steps), torch.no_grad():
            probabilities.append(model(ids).softmax(-1))
        inputs.append(inputs[-1] + probabilities[-1] @ model.embedding.weight.detach())
    for i, row in enumerate(found):
        p, loss, entropy, kl, cosine, raised = probabilities[i], 0.0, 0.0, 0.0, 0.0, 0
        after = probabilities[min(i + 1, 2)]
        for b in range(3):
            for t in range(6):
                loss -= math.log(p[b, t, targets[b, t]])
                entropy -= sum(float(q) * math.log(q) for q in p[b, t])
                kl += sum(float(q) * math.log(q / r) for q, r in zip(p[b, t], after[b, t], strict=True))
                raised += int(after[b, t, targets[b, t]] > p[b, t, targets[b, t]])
                x, y = inputs[i][b, t], inputs[i + 1][b, t]
                cosine += float(x @ y / x.norm() / y.norm())
        assert row["loss"] == pytest.approx(loss / 18, rel=1e-5)
        assert row["entropy"] == pytest.approx(entropy / 18, rel=1e-5)
        if i < 2:
            assert row["kl"] == pytest.approx(kl / 18, rel=1e-4)
            assert row["cosine"] == pytest.approx(cosine / 18, rel=1e-5)
            assert row["raised"] == raised / 18
        else:
            assert not {"kl", "cosine", "raised"} & row.keys()


def test_gradient_norms_are_slopes_of_the_loss_at_a_pass_input() -> None:
    model, ids, targets = pondering(), tokens(1, 5), tokens(1, 5, seed=2)
    norms = gradient_norms(model, ids, targets)
    assert len(norms) == 3 and all(parameter.grad is None for parameter in model.parameters())
    last = trace(model, ids).inputs[-1].detach()
    plain = tiny("llama").double()

    def loss(x: torch.Tensor) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(plain(embeddings=x)[0], targets[0]))

    slopes = torch.zeros_like(last)
    for t in range(5):
        for d in range(24):
            step = torch.zeros_like(last)
            step[0, t, d] = 1e-6
            slopes[0, t, d] = (loss(last + step) - loss(last - step)) / 2e-6
    assert norms[-1] == pytest.approx(float(slopes.norm()), rel=1e-4)


def test_frozen_and_adapted_models_are_looked_into_too() -> None:
    rows = tokens(2, 6)
    expected = step_statistics(pondering(), rows)
    frozen, adapted, prompted = pondering().requires_grad_(False), pondering(), pondering()
    attach(adapted, Lora())
    for model in (frozen, adapted):  # a new adapter changes nothing yet
        for row, known in zip(step_statistics(model, rows), expected, strict=True):
            assert row == pytest.approx(known)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    attach(
        prompted, SoftPrompt(length=4)
    )  # around the passes: they read four positions more than the text has
    steps = trace(prompted, rows)
    assert [x.shape[1] for x in (*steps.inputs, *steps.states)] == [6] * 6
    assert torch.equal(prompted.unembed(steps.states[-1]), prompted(rows))
    assert torch.equal(steps.inputs[0], prompted.embed(rows))
    assert step_statistics(prompted, rows)[-1]["loss"] == pytest.approx(mean_loss(prompted, rows))


def test_likely_tokens_are_listed_for_every_position_and_pass() -> None:
    model, ids = pondering(), tokens(1, 4)[0].tolist()
    rows = likely_tokens(model, ids, lambda token: f"<{token}>", top=2)
    assert [(row["position"], row["pass"]) for row in rows] == [(t, i) for t in range(4) for i in range(3)]
    with pondering_steps(model, 1), torch.no_grad():
        best = model(torch.tensor([ids]))[0, 2].softmax(-1).max(0)
    assert rows[2 * 3 + 1]["top 1"] == f"<{int(best.indices)}> {float(best.values):.2f}"


def test_what_cannot_be_looked_into_is_refused() -> None:
    with pytest.raises(LabError, match="does not ponder"):
        trace(tiny("gpt2"), tokens(1, 3))
    with pytest.raises(LabError, match="no steps to look into"):
        trace(attach(tiny("gpt2"), Pondering(feedback="pause")), tokens(1, 3))
    for look in (mean_loss, step_statistics):
        for rows in (tokens(3, 1), tokens(3, 4)[:0]):
            with pytest.raises(LabError, match="at least one window of two"):
                look(pondering(), rows)
    assert likely_tokens(pondering(), [], str) == []


def test_a_plain_model_is_continued_with_pondering_and_used_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    small = ["--data", "tinyworld:80", "--context", "32", "--batch-size", "4", "--set", "samples=1"]
    shape = ["--d-model", "16", "--n-layers", "1", "--n-heads", "2", "--vocab-size", "300", "--steps", "6"]
    assert main(["train", *small, *shape]) == 0
    (plain,) = (tmp_path / "runs").rglob("model")
    words = ["--set", "architecture_options.steps=2", "--set", "architecture_options.top_k=50"]
    words += ["--steps", "3", "--model", str(plain)]
    assert main(["train", *small, "--architecture", "pondering", *words]) == 0
    (made,) = [folder for folder in (tmp_path / "runs").rglob("model") if folder != plain]
    model = load_model(made)
    assert model.architectures == (Pondering(steps=2, top_k=50),)
    assert json.loads((made / "config.json").read_text())["model_type"] == "gpt2lab"
    capsys.readouterr()
    assert (
        main(["generate", str(made), "one day", "--max-new-tokens", "3", "--decoder", "contrastive-search"])
        == 0
    )
    assert (
        main(["apply", "pondering-steps", str(made), "--set", "steps=1", "--out", str(tmp_path / "one")]) == 0
    )
    assert load_model(tmp_path / "one").architectures == (Pondering(steps=1, top_k=50),)
    capsys.readouterr()
    story = ["--set", "data=tinyworld:20", "--set", "limit=200", "--set", "most=2", "--json"]
    assert main(["measure", "loss-by-steps", str(made), *story]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["steps"] for row in told["tables"]["loss_by_steps"]] == [0, 1, 2]
    assert len(told["tables"]["passes"]) == 3
