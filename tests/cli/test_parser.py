"""Mistakes on the command line are one sentence with the nearest right word, and exit status 2."""

import argparse
import json
import os
import signal
import subprocess
import sys

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.base.tables import cell
from gpt2lab.cli import VERBS, main, parse
from gpt2lab.cli.parser import Parser, typed, whole
from gpt2lab.cli.show import pairs, print_json, table


def _said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(list(words))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return status, captured.err.strip()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("ppers", "gpt2lab: ppers: no such verb; did you mean papers?"),
        (
            "papers --srot date",
            "gpt2lab: --srot: no such option; did you mean --sort? (gpt2lab papers --help lists all)",
        ),
        ("papers --sort wrok", "gpt2lab: argument --sort: invalid choice: 'wrok'"),
        ("generate m p --decoder greddy", "gpt2lab: greddy: no such decoder; did you mean greedy?"),
        ("reproduce conda --set topk", "gpt2lab: --set topk: a setting is given as NAME=VALUE"),
        (
            "reproduce conda --seed x",
            "gpt2lab: argument --seed: must be a whole number of at least 0, got 'x'",
        ),
        ("measure perplexty m", "gpt2lab: perplexty: no such measure; did you mean perplexity?"),
        (
            "reproduce conda --seeds x",
            "gpt2lab: --seeds x: give how many, such as 3; which ones is --seed-list 0,2,5",
        ),
        ("reproduce conda --seeds 0,2", "gpt2lab: --seeds 0,2: says how many; which ones is --seed-list 0,2"),
        ("reproduce conda --seed-list 0,x", "gpt2lab: --seed-list 0,x: give which seeds, such as 7,8"),
        ("runs --limit -1", "gpt2lab: argument --limit: must be a whole number of at least 0, got '-1'"),
    ],
)
def test_a_mistake_is_one_sentence(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = _said(capsys, *line.split())
    assert status == 2
    assert said.startswith(sentence)


def test_debug_shows_the_traceback_before_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ppers", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_status_130_with_what_the_work_says_of_going_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(words: list[str]) -> int:
        raise KeyboardInterrupt("stopped at step 3; go on with: gpt2lab resume train-1")

    monkeypatch.setattr("gpt2lab.cli._dispatch", stopped)
    status, said = _said(capsys, "train")
    assert (status, said) == (130, "gpt2lab: stopped at step 3; go on with: gpt2lab resume train-1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_every_verb_that_is_asked_to_end_ends_as_by_ctrl_c(
    number: signal.Signals, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt2lab.cli._dispatch", lambda words: os.kill(os.getpid(), number))
    assert _said(capsys, "measure") == (130, "gpt2lab: stopped")


def test_a_defect_of_ours_is_status_1_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(words: list[str]) -> int:
        raise KeyError("tokens")

    monkeypatch.setattr("gpt2lab.cli._dispatch", broken)
    assert _said(capsys, "runs") == (1, "gpt2lab: a defect: KeyError: 'tokens' (--debug shows where)")


def test_an_error_of_the_system_names_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(words: list[str]) -> int:
        raise PermissionError(13, "Permission denied", "x/store.sqlite")

    monkeypatch.setattr("gpt2lab.cli._dispatch", denied)
    assert _said(capsys, "runs") == (2, "gpt2lab: x/store.sqlite: permission denied")


def test_the_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"gpt2lab {verb}" in text for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_json_and_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0
    assert "--json" in text
    assert f"gpt2lab {verb}" in text.partition("examples:")[2]


def test_abbreviated_flags_are_refused() -> None:
    parser = Parser(prog="gpt2lab x")
    parser.add_argument("--steps")
    with pytest.raises(LabError, match=r"--step: no such option; did you mean --steps\?"):
        parser.parse_args(["--step", "3"])


def test_a_word_too_many_is_named() -> None:
    with pytest.raises(LabError, match=r"^extra: one word too many"):
        Parser(prog="gpt2lab x").parse_args(["extra"])


def test_a_flag_is_found_before_parsing_in_both_spellings() -> None:
    assert typed(["a", "--decoder", "beam"], "--decoder") == "beam"
    assert typed(["--decoder=beam"], "--decoder") == "beam"
    assert typed(["--decoder"], "--decoder") is None


def test_whole_numbers_only() -> None:
    assert whole("3") == 3
    for text in ("-1", "1.5", "x"):
        with pytest.raises(argparse.ArgumentTypeError):
            whole(text)


def test_json_has_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": float("inf"), "b": [float("nan"), 1.5]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5]}


def test_tables_align_numbers_to_the_right() -> None:
    assert table([["a", 1], ["bb", 22]], ("name", "n")) == "name   n\na      1\nbb    22"
    assert pairs([("a", 0.5), ("long", None)]) == "  a     0.5\n  long  "
    assert (cell(0.123456), cell(True), cell("x")) == ("0.1235", "yes", "x")


def test_a_table_wider_than_the_terminal_loses_no_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    header = ["name", *(f"column{i}" for i in range(200))]
    said = table([[f"row{j}", *(1000 * j + i for i in range(200))] for j in range(3)], header)
    assert max(map(len, said.splitlines())) <= 30
    words = said.split()
    assert all(name in words for name in header)
    assert all(
        str(1000 * j + i) in words or f"{1000 * j + i:,}" in words for j in range(3) for i in range(200)
    )
    assert words.count("row2") == words.count("name") > 1, "every block says what its lines are"


def test_text_in_the_last_column_is_cut_where_enough_of_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    said = table([["a", "b", "a sentence of more than forty columns, which is cut"]], ("x", "y", "words"))
    assert said.splitlines()[1] == "a  b  a sentence of more than forty col…"


def test_a_word_that_is_not_utf_8_is_in_the_command_that_repeats_the_run() -> None:
    name = os.fsdecode(b"it's caf\xe9.txt")
    _, arguments = parse(["measure", "perplexity", "train-1", "--data", name])
    assert arguments.line == r"gpt2lab measure perplexity train-1 --data $'it\x27s caf\xe9.txt'"
    told = subprocess.run(
        ["bash", "-c", f"printf %s {arguments.line.split('--data ')[1]}"], stdout=subprocess.PIPE
    )
    assert os.fsdecode(told.stdout) == name


@pytest.mark.parametrize(
    ("words", "closed", "encoding"),
    [("papers", ">&-", "utf-8"), ("papers", "<&- >&- 2>&-", "utf-8"), ("papers --json", "", "ascii")],
)
def test_a_closed_or_narrow_output_is_no_defect(words: str, closed: str, encoding: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m gpt2lab {words} {closed}"],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    if not closed:
        assert len(json.loads(done.stdout.decode(encoding))) >= 30
