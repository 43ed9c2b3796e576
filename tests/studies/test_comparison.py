"""Parts side by side: who takes part, what is equal, what the tables say, and who is left out."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2lab.base import registry
from gpt2lab.base.errors import LabError
from gpt2lab.measures.text_metrics import diversity
from gpt2lab.studies.comparison import compare_parts
from gpt2lab.studies.data_names import given_model
from gpt2lab.studies.entries import chosen_entries
from gpt2lab.studies.resume import resume
from gpt2lab.studies.workload import TextWorkload, Workload
from gpt2lab.text.language_model import LanguageModel, load, save
from gpt2lab.text.tokenizer import byte_level
from tests.tiny import tiny

SHAPE = {
    "d_model": 16,
    "n_heads": 2,
    "context": 16,
    "batch_size": 8,
    "train_tokens": 4000,
    "valid_tokens": 1500,
}


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A folder with a tiny model that reads bytes."""
    folder = tmp_path / "spoken"
    save(LanguageModel(tiny("gpt2", vocab_size=257), byte_level()), folder)
    return folder


def test_the_entries_are_all_that_is_built_or_those_named_with_their_options() -> None:
    everyone = [entry.name for entry in chosen_entries("optimizer", ())]
    assert everyone == [one.name for one in registry.parts("optimizer") if one.built]
    chosen = chosen_entries("decoder", ("greedy", "sampling top_p=0.9 temperature=0.7"))
    assert [entry.arm for entry in chosen] == ["greedy", "sampling_top_p_0_9_temperature_0_7"]
    assert chosen[1].options == {"top_p": "0.9", "temperature": "0.7"}
    with pytest.raises(LabError, match="did you mean greedy"):
        chosen_entries("decoder", ("gredy",))
    with pytest.raises(LabError, match="named twice"):
        chosen_entries("decoder", ("greedy", "greedy"))


def test_topic_bigrams_are_the_same_workload_by_either_name_and_text_is_split_once_for_all_seeds() -> None:
    plain, named = Workload(**SHAPE), TextWorkload(**SHAPE, data=("topic-bigrams",))
    assert named.config == plain.config
    assert torch.equal(named.batches(1)[3]["tokens"], plain.batches(1)[3]["tokens"])
    assert torch.equal(named.validation(1)[0]["tokens"], plain.validation(1)[0]["tokens"])
    with pytest.raises(LabError, match="ids without words"):
        _ = named.text

    stories = TextWorkload(**SHAPE, data=("tinystories:150",), vocab_size=300)
    assert stories.text is TextWorkload(**SHAPE, data=("tinystories:150",), vocab_size=300, clip=2.0).text
    assert torch.equal(stories.validation(0)[0]["tokens"], stories.validation(5)[0]["tokens"])
    assert not torch.equal(stories.batches(0)[0]["tokens"], stories.batches(5)[0]["tokens"])
    read = stories.text.tokenizer.decode(stories.text.train.ids.tolist())
    assert all(document not in read for document in stories.text.valid_documents)
    assert len(stories.text.train) == 4000
    with pytest.raises(LabError, match="too few"):
        _ = TextWorkload(**SHAPE, data=("tinystories:1",)).text


def test_optimizers_are_compared_with_intervals_and_a_stranger_takes_part(home: Path, tide: Path) -> None:
    (tide / "optimizer.py").write_text("from torch.optim import SGD as Tide\n")
    study = compare_parts(
        "optimizers", on="tinystories:120", only=("adamw", "tide momentum=0.5"), scale="smoke", seeds=2,
        home=home,
    )  # fmt: skip
    assert study.failures == []
    rows = {row["optimizer"]: row for row in study.tables["optimizers"]}
    assert set(rows) == {"adamw", "tide momentum=0.5"}
    for name, row in rows.items():
        arm = name.replace(" momentum=0.5", "_momentum_0_5")
        found = [run.results[f"{arm}.loss.s10"] for run in study.runs]
        assert row["loss after 10"] == pytest.approx(sum(found) / 2)
        (tried,) = {
            str(run.arms[f"{arm}.sweep"].tables["sweep"]): run.arms[f"{arm}.sweep"].tables["sweep"]
            for run in study.runs
        }.values()
        assert {line["learning_rate"] for line in tried} >= {1e-3, 4e-3}  # everybody's grid
    own = rows["tide momentum=0.5"]
    assert own["above adamw, paired, 95 % low"] < own["above adamw, paired, 95 % high"]
    first = [study.runs[0].arms[arm].series("loss")[1][0] for arm in ("adamw", "tide_momentum_0_5")]
    assert len(set(first)) == 1  # the same weights and the same batch, before any update
    assert {path.stem for path in (study.folder / "figures").iterdir()} >= {
        "training_loss", "loss_by_length", "loss_by_time", "sweeps",
    }  # fmt: skip
    assert (
        "gpt2lab compare optimizers --scale smoke --seeds 2 --set workload.data=tinystories:120"
        in (study.folder / "report.md").read_text()
    )
    report = (study.folder / "report.html").read_text()
    assert "Optimizers side by side" in report and "Every built optimizer" in report
    assert "No claim was judged" not in report
    page = (study.folder / "report.md").read_text()
    assert re.search(
        r"found\.\*\* Of the others tide momentum=0\.5 ends lowest, [\d.]+ nats per token (below|above) adamw",
        page,
    )
    assert page.index("What was asked") < page.index("loss_by_length.svg") < page.index("## ")


def test_an_optimizer_that_cannot_be_made_is_left_out_with_the_reason(home: Path, tide: Path) -> None:
    (tide / "optimizer.py").write_text(
        "from torch.optim import SGD\n\n\nclass Tide(SGD):\n"
        "    def __init__(self, params, moon, lr):\n        super().__init__(params, lr=lr)\n"
    )
    study = compare_parts(
        "optimizers", on="topic-bigrams", only=("adamw", "tide"), scale="smoke", seeds=1, home=home
    )
    assert study.failures == []
    assert [row["optimizer"] for row in study.tables["optimizers"]] == ["adamw"]
    assert "moon" in study.texts["left_out"]


def test_a_comparison_that_was_stopped_goes_on_with_the_units_that_are_left(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2lab.studies.comparison import optimizers

    done, once = [], optimizers.choose

    def choose(workload: Any, candidate: Any, *given: Any, **more: Any) -> Any:
        done.append(candidate.name)
        if len(done) == 2:
            raise KeyboardInterrupt
        return once(workload, candidate, *given, **more)

    monkeypatch.setattr(optimizers, "choose", choose)
    with pytest.raises(KeyboardInterrupt, match="gpt2lab resume compare-optimizers-smoke-1"):
        compare_parts(
            "optimizers",
            on="topic-bigrams",
            only=("adamw", "adamw eps=1e-6"),
            scale="smoke",
            seeds=1,
            home=home,
        )
    study: Any = resume("compare-optimizers-smoke-1", home=home)
    assert done == ["adamw", "adamw eps=1e-6", "adamw eps=1e-6"]
    assert len(study.tables["optimizers"]) == 2


def test_decoders_continue_the_same_prompts_of_a_model_trained_on_the_text(home: Path) -> None:
    study = compare_parts(
        "decoders",
        on="tinystories:300",
        only=("greedy", "sampling top_p=0.9"),
        scale="smoke",
        seeds=2,
        home=home,
    )
    assert study.failures == []
    rows = {row["decoder"]: row for row in study.tables["decoders"]}
    assert list(rows) == ["real text", "greedy", "sampling top_p=0.9"]
    for run in study.runs:
        # the likeliest token at every step of the same prompts
        assert run.results["greedy.log_probability"] > run.results["sampling_top_p_0_9.log_probability"]
        assert run.results["greedy.tokens_per_second"] > 0
        assert run.series("loss")[1]
        texts = run.texts["texts"]
        assert texts.count("⟶") == 3
    assert {path.stem for path in (study.folder / "figures").iterdir()} >= {"diversity_perplexity", "speed"}
    page = (study.folder / "report.md").read_text()
    assert re.search(
        r"found\.\*\* (greedy|sampling top_p=0\.9) comes nearest to the diversity of real text", page
    )
    assert page.index("What it means") < page.index("diversity_perplexity.svg") < page.index("## ")


def test_numbers_of_continuations_are_those_of_a_slow_loop(spoken: Path) -> None:
    from gpt2lab.studies.comparison.decoders import _text_numbers

    lm = load(spoken)
    prompts = [[72, 101, 108], [97, 32]]
    written = [[108, 111, 32, 97, 32, 97, 32, 97, 32, 97], [98, 32, 99, 32, 100, 32, 101, 32, 102, 32]]
    logs = []
    with torch.no_grad():
        for prompt, tokens in zip(prompts, written, strict=True):
            logits = lm.model(torch.tensor([prompt + tokens])).double().log_softmax(-1)[0]
            logs.append([float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(tokens)])
    found = _text_numbers(lm, prompts, written, batch_size=1)
    every = [value for row in logs for value in row]
    assert found["perplexity"] == pytest.approx(math.exp(-sum(every) / len(every)), rel=1e-5)
    assert found["log_probability"] == pytest.approx(sum(sum(row) / len(row) for row in logs) / 2, rel=1e-5)
    assert found["diversity"] == diversity(["lo a a a a", "b c d e f "])


def test_prompts_of_decoders_begin_as_the_model_has_learnt_texts_to(shared_data: Path) -> None:
    from gpt2lab.studies.comparison.decoders import Settings, _prompts

    lm = load(shared_data / "models" / "stories260k-llama")
    settings = Settings(prompts=2, prompt_tokens=5, new_tokens=4)
    prompts, real = _prompts(lm, ["Once upon a time there was a girl."] * 2, settings, 0)
    assert prompts[0][0] == lm.tokenizer.bos and len(prompts[0]) == 5 and len(real[0]) == 4
    assert lm.tokenizer.decode([*prompts[0], *real[0]]).startswith("Once upon a time")


def test_words_decide_whether_decoders_get_a_model_or_text(
    spoken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    (tmp_path / "notes.txt").write_text("a text")
    assert given_model((str(spoken),)) == str(spoken)
    assert given_model((str(tmp_path / "notes.txt"),)) is None
    assert given_model(("docstrings",)) is None
    assert given_model(("tinystories:20",)) is None
    assert given_model(("someone/model",)) == "someone/model"


def test_measures_of_two_models_stand_in_one_table_and_what_cannot_be_measured_says_why(
    spoken: Path, home: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    save(LanguageModel(tiny("llama", vocab_size=257), byte_level()), other)
    only = (
        "perplexity limit=200", "text-statistics texts=3 prompt_tokens=4 new_tokens=6", "multiple-choice",
    )  # fmt: skip
    study = compare_parts(
        "measures", models=(str(spoken), str(other)), on="tinyworld:20",
        only=only, scale="smoke", seeds=3, home=home,
    )  # fmt: skip
    assert study.failures == []
    headline = study.tables["measures"]
    assert [row["model"] for row in headline] == [str(spoken), str(other)]
    assert all(row["perplexity limit=200: perplexity"] > 1 for row in headline)
    drawn = study.tables["text_statistics_texts_3_prompt_tokens_4_new_tokens_6"]
    bounds = [column for column in drawn[0] if column.endswith((", 95 % low", ", 95 % high"))]
    assert bounds
    assert all(isinstance(row[column], float) or row[column] == "" for row in drawn for column in bounds)
    assert "multiple-choice" in study.texts["left_out"]
    page = (study.folder / "report.md").read_text()
    assert re.search(
        rf"found\.\*\* perplexity limit=200: perplexity: {re.escape(str(spoken))} [\d.,]+ and ", page
    )
    assert "perplexity_limit_200.m1.perplexity" in study.runs[0].results
    assert (
        "perplexity_limit_200.m1.perplexity" not in study.runs[1].results
    )  # nothing is drawn, so once is enough


def test_a_comparison_of_what_is_no_kind_or_of_nothing_is_refused(home: Path) -> None:
    with pytest.raises(LabError, match="did you mean decoders"):
        compare_parts("decoder", home=home)
    with pytest.raises(LabError, match="name the models"):
        compare_parts("measures", home=home)
    with pytest.raises(LabError, match="only measures take models"):
        compare_parts("optimizers", models=("gpt2",), home=home)


@pytest.mark.parametrize(
    ("kind", "given", "sentence"),
    [
        ("optimizers", {"on": "nowhere.txt"}, "nowhere.txt: no such file"),
        ("optimizers", {"settings": {"lengths": "10,5"}}, "lengths ascend from above 0, got 10,5"),
        ("optimizers", {"settings": {"lengths": "0,5"}}, "lengths ascend from above 0"),
        ("optimizers", {"settings": {"learning_rates": ""}}, "learning_rates ascend from above 0, got none"),
        ("optimizers", {"settings": {"tuning_steps": "0"}}, "tuning_steps must be at least 1"),
        ("optimizers", {"settings": {"workload.precision": "fp8"}}, "precision must be"),
        ("optimizers", {"settings": {"workload.batch_size": "0"}}, "batch_size must be at least 1, got 0"),
        ("decoders", {"settings": {"prompts": "0"}}, "prompts must be at least 2, got 0"),
        ("decoders", {"settings": {"new_tokens": "99"}}, "the model has 32 positions"),
        ("decoders", {"on": "nobody/nothing"}, "nobody/nothing"),
        ("measures", {"models": ("nobody/nothing",)}, "nobody/nothing"),
        ("measures", {"models": ("x",), "only": ("perplexity limit=many",)}, "limit must be a whole number"),
    ],
)
def test_a_mistake_is_told_before_any_run(
    kind: str, given: Any, sentence: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LabError, match=sentence):
        compare_parts(kind, scale="smoke", home=home, **given)
    assert not home.exists()


def test_a_kind_that_is_not_compared_says_what_is(capsys: pytest.CaptureFixture[str]) -> None:
    from gpt2lab.cli import main

    assert main(["compare", "transforms", "--on", "docstrings"]) == 2
    assert "optimizers, decoders and measures are compared as kinds" in capsys.readouterr().err
    assert main(["compare", "optimizer"]) == 2
    assert "did you mean compare optimizers?" in capsys.readouterr().err
