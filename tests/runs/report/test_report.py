"""Reports: what they hold, that they stand alone, that they are well formed."""

import dataclasses
import html.parser
import math
import re
import shutil
from types import SimpleNamespace

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.base.extras import install
from gpt2lab.base.interval import Interval
from gpt2lab.base.json_numbers import flat
from gpt2lab.runs.report.document import (
    DataTable,
    Document,
    Fact,
    Facts,
    Passage,
    Picture,
    Prose,
    Section,
    claim_facts,
    measured,
)
from gpt2lab.runs.report.html import to_html
from gpt2lab.runs.report.markdown import to_markdown
from gpt2lab.runs.report.side_by_side import comparison_rows
from gpt2lab.runs.report.write import write_comparison, write_report
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Store
from gpt2lab.runs.verdicts import JudgedClaim, RecordedClaim, Status, Verdict
from gpt2lab.studies.claim import Above
from gpt2lab.studies.study import reproduce

VOID = {"meta", "br", "img", "hr"}


class Checker(html.parser.HTMLParser):
    """Collects what matters of a page and fails on tags that do not match."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.headings, self.text, self.tags = [], [], [], [], set()
        self.linked = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag in ("a", "link", "img", "script") and (attributes.get("href") or attributes.get("src")):
            self.linked.append((tag, attributes.get("href") or attributes.get("src")))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def check(page):
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids), "ids are unique"
    assert not {"script", "link", "img", "iframe"} & checker.tags, "nothing is loaded from elsewhere"
    assert not re.search(r"@import|url\((?!#)", page)
    assert checker.headings[0] == 1
    assert all(b - a <= 1 for a, b in zip(checker.headings, checker.headings[1:], strict=False)), (
        "no level is left out"
    )
    for referred in re.findall(r'(?:href="#|url\(#|aria-labelledby=")([^")]+)', page):
        assert referred in checker.ids
    return " ".join(" ".join(checker.text).split()), checker


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """Return a folder for runs in which the first test that wants the study lets it run, once for all."""
    return tmp_path_factory.mktemp("studied")


@pytest.fixture
def study(tide, home, studied):
    """Return a study's folder and report, a copy for each test."""
    if not any(studied.iterdir()):
        reproduce("tide", home=studied, workers=1, settings={"gain": "0.4"})
    shutil.copytree(studied, home)
    folder = home / Store(home).find("tide").id
    return SimpleNamespace(id=folder.name, folder=folder, report=folder / "report.html")


def test_the_report_of_a_study_says_what_a_reader_asks(study):
    text, checker = check(study.report.read_text())
    order = [
        "Tide: An Optimizer That Comes and Goes",
        "3 authors, 2025-01",
        "laptop scale",
        "3 of 3 seeds",
        "What was asked.",
        "What was found.",
        "What it means.",
        "The paper",
        "Tide lets the momentum rise and fall",
        "Verdicts",
        "Tide ends with a lower loss than the baseline",
        "✓ holds",
        "80 % power for",
        "Fig. 2: 0.4 nats lower at 125M",
        "– not tested at this scale",
        "Claim by claim",
        "loss.tide - loss.base",
        "nats per token",
        "With 3 seeds and this spread",
        "Checks of the implementation",
        "✓ passes",
        "passes if above 0",
        "Final loss of every arm",
        "Training loss over updates: mean over seeds",
        "Seeds and arms",
        "A sample",
        "Settings",
        "1 setting differs from the preset",
        "instead of 0.5",
        "By how much tide is better, in nats.",
        "Environment",
        "Run it again",
        "gpt2lab reproduce tide --scale laptop --seeds 3 --set gain=0.4",
    ]
    position = 0
    for words in order:
        assert words in text[position:], words
        position = text.index(words, position)
    assert ("a", "https://arxiv.org/abs/2501.00001") in checker.linked
    message = Store(study.folder.parent).find(study.id).message
    assert message.startswith("A holds · ") and "passes" not in message, "a check is no verdict"


def test_the_same_in_markdown(study):
    text = study.report.with_suffix(".md").read_text()
    assert text.startswith("# Tide: An Optimizer That Comes and Goes\n")
    assert "| A | Tide ends with a lower loss than the baseline | ✓ **holds** |" in text
    assert "|  | check | outcome | measured | source |" in text
    assert "| E | Every update is counted | ✓ **passes** |" in text.partition("## Checks of")[2]
    assert "**passes**" not in text.partition("## Checks of")[0]
    assert "```\ngpt2lab reproduce tide --scale laptop --seeds 3 --set gain=0.4\n```" in text
    assert "**0.4** (instead of 0.5)" in text
    for linked in re.findall(r"!\[[^]]*\]\(([^)]*)\)", text):
        assert (study.folder / linked).exists()


def test_a_report_is_written_again_from_the_folder_alone(study, home):
    page = study.report.read_text()
    study.report.unlink()
    assert write_report("tide", home=home) == study.report
    assert study.report.read_text() == page


@pytest.mark.parametrize("content", ["{", "{}", "[1]", '[{"values": 3}]'])
def test_damaged_verdicts_are_a_sentence(study, home, content):
    (study.folder / "verdicts.json").write_text(content)
    with pytest.raises(
        LabError, match=r"verdicts\.json: (cannot be read|not JSON|must hold a JSON list|not written by)"
    ):
        write_report("tide", home=home)


def test_a_study_that_failed_says_so_at_the_top(tide, home):
    study = reproduce("tide", scale="smoke", home=home, settings={"fail_in": "1/tide"})
    text, _ = check(study.report.read_text())
    assert (
        "This run has failed: seed 1 tide: the loss is nan at step 5. gpt2lab resume tide-smoke-1 goes on"
        in text
    )
    assert "2 of 3 seeds" in text
    assert "✗ failed" in text


@pytest.fixture
def runs(home):
    for name, rate, last in (("slow", 0.001, 3.0), ("fast", 0.01, 2.5)):
        settings = {"train": {"learning_rate": rate, "steps": 3}, "data": ["a.txt"]}
        with Run.start(
            "train", name, home=home, settings=settings, command=f"gpt2lab train --lr {rate}"
        ) as run:
            for step in (1, 2, 3):
                run.log(step, loss=last + 3 / step)
                run.log(step, validation_loss=last + 1.1 + 1 / step - 1 / 3)
            run.result("validation_loss", last + 1.1)
            run.text("samples", "It is a <b>truth</b> | universally", caption="Samples")
    return home


def test_the_report_of_a_training_run_has_its_curve_and_its_samples(runs):
    path = write_report("fast", home=runs)
    text, checker = check(path.read_text())
    for words in ("fast-1", "training", "finished", "validation_loss", "3.6", "Loss over updates"):
        assert words in text
    assert "It is a <b>truth</b> | universally" in text
    assert "svg" in checker.tags
    assert "gpt2lab train --lr 0.01" in text
    assert (path.parent / "figures" / "loss-over-updates.svg").exists()


def test_a_comparison_puts_results_curves_and_differing_settings_side_by_side(runs):
    path = write_comparison(["slow", "fast"], home=runs)
    text, _ = check(path.read_text())
    assert "slow-1 and fast-1 compared" in text
    assert "train.learning_rate 0.001 0.01" in text
    assert "train.steps" not in text
    assert "validation_loss 4.1 3.6" in text
    assert "Validation loss over updates" in text
    sides = comparison_rows([Store(runs).find("slow"), Store(runs).find("fast")], runs)
    assert sides["results"] == [{"name": "validation_loss", "slow-1": 4.1, "fast-1": 3.6}]
    assert sides["settings"] == [{"name": "train.learning_rate", "slow-1": "0.001", "fast-1": "0.01"}]


def test_a_comparison_takes_two_different_runs(runs):
    with pytest.raises(LabError, match="at least two different runs, got fast-1"):
        write_comparison(["fast", "fast-1"], home=runs)


def test_without_matplotlib_a_report_says_which_extra_draws(runs, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    text, _ = check(write_report("fast", home=runs).read_text())
    assert f"figures need matplotlib: {install('plots')}" in text


def test_whatever_a_run_reports_a_page_stays_well_formed():
    nasty = '<script>alert("x")</script> & `code` | "quotes"'
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><g id="a" fill="#22272e" stroke="#ffffff"/><use href="#a"/></svg>'
    blocks = [
        Prose(nasty),
        Section(nasty, [Passage(nasty, nasty + "```"), DataTable(nasty, [{nasty: nasty}, {nasty: 1.0}])]),
        Section("twice", [Picture("a", nasty, svg), Picture("a", "", svg)]),
        Section("twice", [Facts(nasty, [Fact(nasty, nasty, nasty, nasty)])], folded=True),
        DataTable("long", [{"n": i} for i in range(100)]),
        DataTable("empty", []),
    ]
    document = Document(nasty, [nasty], blocks)
    text, _ = check(to_html(document))
    assert "60 more rows" in text
    assert "````text" in to_markdown(document, None)


def test_a_table_of_200_columns_is_cut_into_blocks_in_markdown_and_keeps_its_first_column_in_view(tmp_path):
    rows = [{"model": name, **{f"n{i}": float(i) for i in range(200)}} for name in ("a", "b")]
    document = Document("x", [], [DataTable("wide", rows)])
    lines = [line for line in to_markdown(document, tmp_path).splitlines() if line.startswith("|")]
    assert len(lines) == 20 * 4
    assert max(line.count("|") for line in lines) == 12
    assert all(line.startswith(("| model |", "| --- |", "| a |", "| b |")) for line in lines)
    assert all(f" n{i} |" in "".join(lines) for i in range(200))
    page = to_html(document)
    check(page)
    assert page.count("<th scope") == 201
    assert page.count('<table class="data wide"') == 1
    assert re.search(r"\.wide td:first-child \{ position: sticky", page)


def test_settings_that_one_run_alone_has_are_named_not_listed_beside_blanks(home):
    for name, settings in (
        ("a", {"data": "x", "steps": 3, "seed": 1, "only": []}),
        ("b", {"seed": 2, "bits": 4, "only": ["y"]}),
    ):
        with Run.start("train", name, home=home, settings=settings) as run:
            run.log(1, loss=1.0)
            if name == "a":
                run.log(2, loss=0.5)
    text, _ = check(write_comparison(["a", "b"], home=home).read_text())
    assert (
        "seed 1 2 only – y 2 settings that only a-1 has: data and steps . 1 setting that only b-1 has: bits ."
        in text
    )


def test_a_line_that_is_alone_in_a_comparison_is_named(home):
    for name in ("a", "b"):
        with Run.start("train", name, home=home, settings={}) as run:
            run.result("x", 1.0)
            if name == "a":
                run.log(1, loss=1.0)
                run.log(2, loss=0.5)
    text, _ = check(write_comparison(["a", "b"], home=home).read_text())
    assert "Training loss over updates: a-1" in text
    assert "The runs have the same settings." in text


def test_the_colours_of_a_figure_follow_the_page():
    page = to_html(
        Document("x", [], [Picture("a", "", '<svg><g fill="#0072b2" style="stroke: #22272e"/></svg>')])
    )
    assert '<g style="stroke: var(--ink); fill: var(--c0)"/>' in page


def judged(values=(), interval=None, **claim):
    verdict = Verdict(Status.HOLDS, "a < b", tuple(enumerate(values)), interval)
    return JudgedClaim(RecordedClaim("A", "It is so", **claim), verdict)


def test_a_quantity_that_no_seed_has_is_left_out_and_one_that_some_lack_is_a_dash():
    assert measured(judged([math.nan, math.nan])) == ""
    assert measured(judged([math.nan, 0.25])) == "seeds –, 0.25"
    alike = judged([math.nan], Interval(0.5, 0.5, 0.5, 3, 0.0), unit="s")
    assert measured(alike) == "0.5 s"


def test_items_of_a_fixed_model_are_not_listed_as_if_seeds_had_found_them():
    assert measured(judged([0.25, 0.25], over="items")) == "the same in every seed"
    assert dict(claim_facts(judged([0.25, 0.25], over="items")))["seeds"] == "the same in every seed"
    assert measured(judged([0.25, 0.5], over="items")) == "seeds 0.25, 0.5"
    assert measured(judged([0.25, 0.25])) == "seeds 0.25, 0.25"


def test_nested_settings_are_flattened():
    assert flat({"a": {"b": {"c": 1}}, "d": [1, 2]}) == {"a.b.c": 1, "d": [1, 2]}


def test_a_claim_says_its_quantity_and_its_threshold_in_words():
    stated = {"measure": "a - b", "expressions": ("measure",), "holds_if": Above(0.1)}
    facts = dict(claim_facts(judged(**stated, quantity="what a is above b", unit="nats")))
    assert facts["measured"] == "what a is above b (`a - b`), nats"
    assert facts["holds if"] == "above 0.1"
    facts = dict(claim_facts(judged(**stated, holds_in_part_if=Above(0.0))))
    assert facts["measured"] == "`a - b`"
    assert facts["holds if"] == "above 0.1; in part if above 0"


def test_settings_that_differ_come_first_and_the_others_are_folded(home):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings:
        data: tuple[str, ...] = ()
        """Files."""
        steps: int = 3
        """Updates."""
        name: str = ""
        """A name."""

    with Run.start("train", "own", home=home, settings=Settings(data=("a.txt",))) as run:
        run.result("x", 1.0)
    page = write_report(run.id, home=home).read_text()
    text, _ = check(page)
    assert (
        "1 setting differs from the defaults data a.txt instead of nothing Files. The other 2 settings"
        in text
    )
    assert text.index("The other 2 settings") < text.index("Updates.") < text.index("A name.")
    assert page.count("<details") == 2
    with Run.start("train", "usual", home=home, settings=Settings()) as run:
        run.result("x", 1.0)
    text, _ = check(write_report(run.id, home=home).read_text())
    assert "The defaults, unchanged. All 3 settings" in text
    assert "instead of" not in text


def test_a_curve_of_one_point_is_a_number(home):
    for name in ("one", "two"):
        with Run.start("train", name, home=home, settings={}) as run:
            for step in (1, 2, 3):
                run.log(step, loss=3.0 - step)
            run.log(3, validation_loss=2.25)
    text, checker = check(write_comparison(["one", "two"], home=home).read_text())
    assert (
        "Validation loss in nats per token: one-1 2.25 after 3 updates and two-1 2.25 after 3 updates."
        in text
    )
    assert "Validation loss over updates" not in text
    assert "svg" in checker.tags


@pytest.mark.parametrize(
    ("settings", "unit"),
    [
        ({"objective": None, "task": {"kind": "language"}}, True),
        ({"objective": "dpo", "task": {"kind": "language"}}, False),
        ({"objective": None, "task": {"kind": "regression"}}, False),
    ],
)
def test_a_loss_that_is_not_of_tokens_is_not_said_to_be(settings, unit, home):
    for name, last in (("curve", 3), ("point", 1)):
        with Run.start("train", name, home=home, settings=settings) as run:
            for step in range(last):
                run.log(step, loss=3.0 - step)
        page = write_report(name, home=home).read_text()
        assert ("nats per token" in page) is unit
        assert ("Loss: training loss 3 after" in page) is (name == "point" and not unit)
