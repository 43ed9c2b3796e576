"""What a page shows runs, as written: every fenced command and Python block, in order, in one folder for each page.

A comment in the page's source, right above a fence, says what a reader does not see:

    <!-- not run: REASON -->       what needs the hub, a GPU or hours; its commands are parsed all the same
    <!-- before: PYTHON -->        makes what the page takes for granted, such as the reader's own file
    <!-- needs: NAME ... -->       what needs real models of the catalogue: it runs where `make test` has fetched them

The smoke scale of a study, on the page of its paper, is what the paper's own tests run: it is not run once more here.

In the folder of every page but the README are two small runs, train-1 and train-2, and three hardly trained models called
gpt2, EleutherAI/pythia-70m and google-bert/bert-base-uncased: what a page's hub ids find there.
"""

import glob
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpt2lab.base.registry import parts
from gpt2lab.cli import VERBS, main, parse
from tests.cli.conftest import SMALL, in_process_environment
from tests.real_models import MODELS_AT_HAND, is_at_hand

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MOST_NOT_RUN = 24
_FENCE = re.compile(
    r"(?:<!-- (not run|before|needs):\s+((?:(?!-->).)*?)\s*-->\n)?```(\w*)\n(.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


_STUDY = re.compile(r"gpt2lab reproduce (\S+) --scale smoke(?: --seeds 1)?(?:  +#.*)?")


@dataclass(frozen=True)
class Block:
    """What stands in a fence."""

    language: str
    """python, sh, none for commands; text, toml and yaml are only shown."""
    text: str
    """Its lines."""
    before: str
    """Python that makes what the page takes for granted."""
    reason: str
    """Why it is not run; empty if it is."""
    needs: tuple[str, ...] = ()
    """Models of the catalogue that must be at hand."""

    @property
    def runs(self) -> bool:
        """Whether it is run."""
        return (
            not self.reason
            and self.language in ("", "sh", "python")
            and all(is_at_hand(name) for name in self.needs)
        )


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in their order; the results of studies show only what a run printed."""
    for kind, said, language, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        before, reason, needs = (said if kind == one else "" for one in ("before", "not run", "needs"))
        yield Block(language, text, before, reason, tuple(needs.split()))


def _commands(text: str) -> list[str]:
    """Return the commands at the beginning of a line, without what explains them two blanks further on."""
    found = re.findall(r"^ *(?:.*&& )?(gpt2lab [a-z].*?)(?:  .*)?$", text, re.MULTILINE)
    return [command.partition(" #")[0].strip() for command in found]


def _shown() -> list[tuple[str, str]]:
    shown = []
    for page in PAGES:
        text = "".join(block.text for block in blocks(page) if block.language in ("", "sh"))
        shown += [(page.name, command) for command in _commands(text)]
    for verb in VERBS:
        text = (ROOT / "gpt2lab" / "cli" / f"{verb}.py").read_text(encoding="utf-8")
        shown += [(f"{verb} --help", command) for command in _commands(text.partition('"""\n\n')[0])]
    return shown


@pytest.mark.parametrize(("page", "command"), _shown())
def test_a_shown_command_is_understood(
    page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word.replace("NAME=VALUE", "a=b") for word in shlex.split(command)[1:]]
    if "--config" in words:
        monkeypatch.chdir(tmp_path)  # the page says what is in the file
        Path(words[words.index("--config") + 1]).touch()
    if "--help" in words:
        with pytest.raises(SystemExit) as left:
            parse(words)
        assert left.value.code == 0
    else:
        module, _ = parse(words)
        assert module.__name__.endswith(words[0])


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what every page finds: two runs, and models under the hub ids that pages name."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in in_process_environment(folder / "runs").items():
            patch.setenv(name, value)
        for seed in ("0", "1"):
            assert main(["train", *SMALL, "--seed", seed]) == 0
        for name, family in (
            ("gpt2", "gpt2"),
            ("EleutherAI/pythia-70m", "gpt_neox"),
            ("google-bert/bert-base-uncased", "bert"),
        ):
            sizes = ["--context", "128", "--vocab-size", "400", "--n-layers", "3"]
            words = [
                word
                for word in SMALL
                if word not in ("--vocab-size", "300", "--context", "32", "--n-layers", "1")
            ]
            assert main(["train", *words, *sizes, "--family", family, "--name", family]) == 0
            shutil.move(folder / "runs" / f"{family}-1" / "model", folder / name)
            shutil.rmtree(folder / "runs" / f"{family}-1")
    return folder


def _type(line: str, page: str) -> None:
    """Do what a shell does with a line, in this process."""
    words = [
        found for word in shlex.split(line, comments=True) for found in (sorted(glob.glob(word)) or [word])
    ]
    if not words:
        return
    assert words[0] == "gpt2lab", f"{page}: not a command of gpt2lab: {line}"
    try:
        status = main(words[1:])
    except SystemExit as left:  # --help
        status = int(left.code or 0)
    assert status == 0, f"{page}: {line}"


def _is_run_by_the_papers_own_tests(line: str, page: Path) -> bool:
    """Whether a line of a paper's page runs what is in tests/papers; the line is parsed here as all are."""
    found = _STUDY.fullmatch(line.strip())
    if found is None or page.parent.name != "papers":
        return False
    tests = ROOT / "tests" / "papers" / found[1].replace("-", "_") / "test_study.py"
    return tests.is_file() and f'reproduce("{found[1]}", scale="smoke"' in tests.read_text(encoding="utf-8")


def _with_blocks() -> list[Path]:
    """Return the pages with blocks to run; a result's page shows only what a study printed, and the command behind it."""
    pages = [page for page in PAGES if page.parent.name != "results"]
    return [page for page in pages if any(block.runs for block in blocks(page))]


@pytest.mark.parametrize("page", _with_blocks(), ids=lambda page: page.stem)
def test_every_block_of_a_page_runs_as_written(
    page: Path, stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "page"
    if page.name == "README.md":
        folder.mkdir()  # what it needs it makes
    else:
        shutil.copytree(stand_ins, folder)
    for name, value in in_process_environment(folder / "runs").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GPT2LAB_HOME")  # runs are where a reader's are: in ./runs
    if any(block.needs and block.runs for block in blocks(page)):
        (folder / "runs").mkdir(exist_ok=True)
        (folder / "runs" / "models").symlink_to(MODELS_AT_HAND)
    monkeypatch.chdir(folder)
    known: dict[str, Any] = {}
    for block in blocks(page):
        exec(compile(block.before, f"{page.name}, before", "exec"), known)
        if block.runs and block.language == "python":
            exec(compile(block.text, page.name, "exec"), known)
        elif block.runs:
            for line in block.text.splitlines():
                if not _is_run_by_the_papers_own_tests(line, page):
                    _type(line, page.name)


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    left_out = [(page.name, block.reason) for page in PAGES for block in blocks(page) if block.reason]
    assert all(len(reason.split()) >= 3 for _, reason in left_out)
    for page in PAGES:
        for block in blocks(page):
            if block.reason and block.language == "python":
                compile(block.text, page.name, "exec")
    assert len(left_out) <= MOST_NOT_RUN, left_out


def test_every_page_shows_some_commands_and_every_verb_is_shown() -> None:
    shown = {command.split()[1] for _, command in _shown()}
    assert shown == set(VERBS)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_parts_that_the_readme_counts_as_there_are_built() -> None:
    built = {part.name for part in parts() if part.built}
    assert {"greedy", "sampling", "beam", "perplexity", "cloze", "adamw"} <= built
