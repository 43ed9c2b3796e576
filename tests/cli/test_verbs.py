"""Every verb through the real command line, on one small trained run."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import SMALL, Lab, in_process_environment, typed


def test_generate_prints_the_prompt_and_goes_on_the_same_way_for_the_same_seed(lab: Lab, said: Lab) -> None:
    words = (
        "generate",
        "small-1",
        "one day",
        "--decoder",
        "sampling",
        "--top-p",
        "0.9",
        "--max-new-tokens",
        "8",
    )
    first = lab(*words, "--seed", "3")
    assert first.status == 0, first.err
    assert first.out.startswith("one day") and len(first.out) > len("one day\n")
    assert said(*words, "--seed", "3").out == first.out


def test_generate_takes_several_prompts_any_decoder_and_prints_json(said: Lab) -> None:
    done = said("generate", "small", "one", "two", "--decoder", "beam", "--set", "beams=2", "--json")
    assert done.status == 0, done.err
    assert [text["prompt"] for text in done.json] == ["one", "two"]


def test_a_model_is_named_by_run_by_the_runs_folder_or_by_the_models_folder(said: Lab, trained: Path) -> None:
    places = ("small-1", str(trained / "small-1"), str(trained / "small-1" / "model"))
    texts = [said("generate", place, "one day", "--max-new-tokens", "5").out for place in places]
    assert texts[0] == texts[1] == texts[2] != ""


def test_measure_prints_numbers_with_units_and_the_same_as_json(lab: Lab, said: Lab) -> None:
    words = ("measure", "perplexity", "small-1", "--data", "tinyworld:20", "--limit", "200")
    shown, plain = lab(*words), said(*words, "--json")
    assert (shown.status, plain.status) == (0, 0), shown.err + plain.err
    assert "nats/token" in shown.out
    assert plain.json["numbers"]["perplexity"] > 1


def test_measure_takes_several_files_as_a_shell_gives_them(said: Lab, tmp_path: Path) -> None:
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for file in files:
        file.write_text("one day the ball was lost . " * 20, encoding="utf-8")
    done = said("measure", "perplexity", "small-1", "--data", *map(str, files), "--json")
    assert done.status == 0, done.err
    assert done.json["about"]["data"] == [str(file) for file in files]


def test_runs_lists_newest_first_filters_and_limits(lab: Lab, said: Lab) -> None:
    listed = lab("runs", "small-", "finished", "--kind", "train", "--json")
    assert listed.status == 0, listed.err
    rows = [row for row in listed.json if row["id"].startswith("small-")]  # others may go on from these
    assert [row["id"] for row in rows] == ["small-2", "small-1"]
    assert rows[0]["results"]["validation_loss"] > 0
    assert len(said("runs", "SMALL-1", "--kind", "train", "--limit", "1", "--json").json) == 1
    assert "none of" in said("runs", "no-such-word").out


def test_report_says_where_the_html_and_the_markdown_are(lab: Lab) -> None:
    done = lab("report", "small-1", "--json")
    assert done.status == 0, done.err
    html = Path(done.json["html"]).read_text(encoding="utf-8")
    assert "small-1" in html
    assert "gpt2lab train --data tinyworld:80" in Path(done.json["markdown"]).read_text(encoding="utf-8")


def test_compare_shows_results_side_by_side_and_only_settings_that_differ(lab: Lab) -> None:
    done = lab("compare", "small-1", "small-2")
    assert done.status == 0, done.err
    assert "validation_loss" in done.out
    settings = done.out.partition("settings")[2].partition("report")[0]
    assert [line.split()[0] for line in settings.splitlines()[1:] if line] == ["seed"]


def test_the_command_that_a_run_prints_repeats_it(lab: Lab, trained: Path, tmp_path: Path) -> None:
    import shlex

    row = lab("runs", "small-1", "--kind", "train", "--json").json[-1]
    words = shlex.split(row["command"])
    assert words[0] == "gpt2lab"
    again = typed(tmp_path / "again", *words[1:], "--json")
    assert again.status == 0, again.err
    weights = [home / row["id"] / "model" / "model.safetensors" for home in (trained, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_ctrl_c_saves_and_resume_ends_as_if_nothing_had_been(
    tmp_path: Path, said: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word if word != "6" else "40" for word in SMALL]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    monkeypatch.setenv("GPT2LAB_HOME", str(whole))
    assert said("train", *words).status == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2lab", "train", *words],
        env=in_process_environment(cut),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if list((cut / "train-1" / "checkpoints").glob("step-*")):
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.005)
    _, told = process.communicate(timeout=120)
    if process.returncode == 0:  # it was quicker than the signal: nothing to resume
        return
    assert process.returncode == 130
    assert "go on with: gpt2lab resume train-1" in told
    assert typed(cut, "runs", "--json").json[0]["status"] == "interrupted"
    resumed = typed(cut, "resume", "train-1", "--json")
    assert resumed.status == 0, resumed.err
    weights = [home / "train-1" / "model" / "model.safetensors" for home in (whole, cut)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_papers_lists_thirty_searches_sorts_and_shows_one(said: Lab) -> None:
    every = said("papers", "--json").json
    assert len(every) >= 30
    assert all(
        {"title", "date", "authors", "work", "claims", "figures", "built"} <= set(paper) for paper in every
    )
    dates = [paper["date"] for paper in said("papers", "--sort", "date", "--json").json]
    assert dates == sorted(dates)
    assert [paper["slug"] for paper in said("papers", "conda", "--json").json] == ["conda"]
    planned = next((paper for paper in every if not paper["built"]), None)
    if planned is not None:  # until all thirty are there
        shown = said("papers", planned["slug"]).out
        assert "not built yet" in shown
        parts = [part for part in planned["parts"] if not part["built"]]
        assert all(f"{part['kind']} {part['name']} (planned)" in shown for part in parts)
    assert {paper["slug"] for paper in said("papers", "optimizer", "training", "--json").json} >= {
        "conda",
        "sophia",
    }


def test_nothing_run_yet_is_said_plainly(tmp_path: Path) -> None:
    done = typed(tmp_path / "empty", "runs")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("no runs yet in ")
    assert json.loads(typed(tmp_path / "empty", "runs", "--json").out) == []


def test_compare_takes_runs_or_a_kind_of_part(said: Lab) -> None:
    runs = said("compare", "small-1", "small-2", "--json")
    assert runs.status == 0
    assert "results" in runs.json
    line = ["compare", "decoders", "--on", "small-1", "--only", "greedy,sampling top_k=3", "--scale", "smoke"]
    done = said(*line, "--seeds", "1", "--set", "prompts=2")
    assert done.status == 0, done.err
    assert "sampling top_k=3" in done.out
    again = said("resume", done.out.split()[-1])
    assert again.status == 0
    assert "tokens/s" in again.out
    wrong = said("compare", "decoders", "--on", "small-1", "--only", "sampling top_q=3", "--scale", "smoke")
    assert wrong.status == 2
    assert "top_p" in wrong.err


def test_help_of_a_comparison_lists_its_settings_at_the_scale(
    said: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        said("compare", "optimizers", "--scale", "smoke", "--help")
    told = capsys.readouterr().out
    assert "workload.vocab_size=300" in told
    assert "--only" in told


@pytest.mark.parametrize("decoder", ["greedy", "contrastive-search", "beam"])
def test_without_a_limit_any_decoder_writes_what_fits(said: Lab, decoder: str) -> None:
    done = said("generate", "small-1", "one day the ball was in the house", "--decoder", decoder, "--json")
    assert done.status == 0, done.err
