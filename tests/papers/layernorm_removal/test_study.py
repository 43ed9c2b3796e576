"""The study of layernorm-removal: smoke scale end to end, and on a given model."""

from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.layernorm_removal.schedule import Schedule
from gpt2lab.papers.layernorm_removal.study import PRESETS, Settings
from gpt2lab.studies.study import reproduce
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.language_model import LanguageModel, save
from gpt2lab.text.tokenizer import train_bpe
from tests.claims import unreported
from tests.tiny import tiny


def test_a_study_runs_at_smoke_scale_and_shows_every_way(tmp_path: Path) -> None:
    study = reproduce("layernorm-removal", scale="smoke", seeds=1, home=tmp_path, workers=1)
    assert not study.failures
    assert unreported(study) == {}
    results = study.runs[0].results
    for way in ("pretrained", "control", "sequential", "no_penalty", "at_once", "instant"):
        assert 3 < results[f"loss.{way}"] < 8
    assert results["attribution_error.sequential"] < 0.1 < results["attribution_error.control"]
    assert results["export.folded.float64"] < 1e-9
    assert results["patching_ratio"] > 0 and results["peak.at_once"] > 3
    assert {results[f"preferred.{name}"] for name in ("control", "sequential")} <= {0.0, 0.25, 0.5, 0.75, 1.0}
    neurons = [
        [row["neuron"] for row in study.runs[0].tables[f"neurons_{n}"]] for n in ("control", "sequential")
    ]
    assert neurons[0] == neurons[1] and len(neurons[0]) == 3  # the same ones are ablated in both
    assert {row["state"] for row in study.runs[0].tables["units"]} == {"fake"}
    names = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {
        "losses",
        "scales",
        "validation",
        "heads_control",
        "patched_sequential",
        "estimated_control",
    } <= names


def test_a_study_of_a_given_model_reads_its_text_and_english_prompts(tmp_path: Path) -> None:
    text = "Then, John and Mary went to the store. Mary gave a ring to Anna and the Paul of the house."
    tokenizer = train_bpe([text] * 60 + list(documents(0, 40)), vocab_size=420)
    save(LanguageModel(tiny("gpt2", vocab_size=420, eos=tokenizer.eos), tokenizer), tmp_path / "model")
    given = {
        "model": str(tmp_path / "model"), "data": "tinyworld:80", "held_out_every": 8, "context": 16,
        "schedule.start": 0, "train_tokens": 3000, "valid_tokens": 300, "prompts": 4, "samples": 4,
    }  # fmt: skip
    study = reproduce(
        "layernorm-removal", scale="smoke", seeds=1, home=tmp_path / "home", workers=1, settings=given
    )
    assert not study.failures
    run = study.runs[0]
    assert run.results["patching_ratio"] > 0 and len(run.tables["patching_control"]) % 3 == 0
    assert run.results["loss.sequential"] < 6.5
    with pytest.raises(LabError, match=r"none.csv: cannot be read"):
        reproduce(
            "layernorm-removal", scale="smoke", seeds=1, home=tmp_path / "none", workers=1,
            settings={**given, "prompt_file": "none.csv"},
        )  # fmt: skip
    with pytest.raises(LabError, match="ends after 12"):
        reproduce(
            "layernorm-removal", scale="smoke", seeds=1, home=tmp_path / "late", workers=1,
            settings={**given, "schedule.start": 9},
        )  # fmt: skip


def test_the_papers_scale_is_the_papers() -> None:
    paper = PRESETS["paper"]
    assert paper.removal.accumulation * paper.batch_size * paper.context == 524_288
    assert paper.schedule == Schedule(start=20, mlp_gap=2, qk_gap=2, v_gap=3)
    with pytest.raises(LabError, match="together"):
        Settings(model="gpt2")
    with pytest.raises(LabError, match="ends after"):
        Settings(schedule=Schedule(start=200))
