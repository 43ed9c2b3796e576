"""`gpt2lab papers new`: what it writes passes ruff and its own tests, runs at once, and refuses to overwrite."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import STUDIED_KINDS
from gpt2lab.cli.skeleton import LONGEST, new_paper

ROOT = Path(__file__).parents[2]


def _python(*words: str, cwd: Path, path: list[Path]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "GPT2LAB_HOME": str(cwd / "runs"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def _ruff(folder: Path) -> None:
    for command in (["check", "--no-cache"], ["format", "--no-cache", "--check"]):
        done = _python("-m", "ruff", *command, ".", cwd=folder, path=[ROOT])
        assert done.returncode == 0, done.stdout + done.stderr


def _announce(folder: Path, site: Path) -> None:
    """Leave behind what `pip install -e` does of a package: its name and its entry points."""
    info = site / f"{folder.name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {folder.name}\nVersion: 0.1.0\n")
    entry = f"{folder.name} = {folder.name.replace('-', '_')}"
    assert entry.replace(" = ", ' = "') in (folder / "pyproject.toml").read_text()
    (info / "entry_points.txt").write_text(f"[gpt2lab.papers]\n{entry}\n")


def test_a_package_of_every_kind_passes_ruff_and_its_own_tests(tmp_path: Path) -> None:
    made = [new_paper(f"my-{kind}", kind=kind, out=tmp_path) for kind in STUDIED_KINDS]
    for paper in made:
        _announce(paper.folder, tmp_path / "site")
        assert not any("xample" in file.read_text() for file in paper.files if file.suffix == ".py")
    _ruff(tmp_path)
    folders = [paper.folder for paper in made]
    tests = [str(folder / "tests") for folder in folders]
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", *tests)
    done = _python(*words, cwd=tmp_path, path=[tmp_path / "site", *folders, ROOT])
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("kind", STUDIED_KINDS)
@pytest.mark.parametrize("name", ["abz", "n" * LONGEST])
def test_the_code_keeps_its_form_under_the_shortest_and_the_longest_name(
    kind: str, name: str, tmp_path: Path
) -> None:
    paper = new_paper(name, kind=kind, out=tmp_path)
    assert (paper.folder / "pyproject.toml") in paper.files
    _ruff(tmp_path)


def test_in_a_checkout_the_paper_is_there_at_once(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "gpt2lab", copy / "gpt2lab", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "tests").mkdir()
    made = _python(
        "-m",
        "gpt2lab",
        "papers",
        "new",
        "My_Idea",
        "--kind",
        "transform",
        "--json",
        cwd=copy / "tests",
        path=[copy],
    )
    assert made.returncode == 0, made.stderr
    folder = copy / "gpt2lab" / "papers" / "my_idea"
    assert json.loads(made.stdout)["folder"] == str(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"__init__.py", "paper.toml", "transform.py", "study.py"}
    assert (copy / "tests" / "papers" / "my_idea" / "test_study.py").is_file()
    _ruff(folder)
    _ruff(copy / "tests")
    words = ("reproduce", "my-idea", "--scale", "smoke", "--seeds", "3", "--workers", "1", "--json")
    study = _python("-m", "gpt2lab", *words, cwd=copy, path=[copy])
    assert study.returncode == 0, study.stderr
    assert [len(claim["values"]) for claim in json.loads(study.stdout)["claims"]] == [3, 3]
    again = _python("-m", "gpt2lab", "papers", "new", "my-idea", cwd=copy, path=[copy])
    assert (again.returncode, again.stdout) == (2, "")
    assert "a paper of this name exists" in again.stderr


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("my idea", {}, "words of letters and digits with hyphens between"),
        ("2nd", {}, "words of letters and digits"),
        ("class", {}, "words of letters and digits"),
        ("x" * 31, {}, "31 letters; a paper's name has at most 30"),
        ("tinystories", {}, "a paper of this name exists"),
        (
            "my-idea",
            {"kind": "optimiser"},
            "--kind optimiser: a paper is begun with one of optimizer, architecture",
        ),
        ("greedy", {"kind": "decoder"}, "there is decoder greedy already"),
        ("json", {}, "Python has a package json already"),
    ],
)
def test_what_cannot_be_a_papers_name_is_refused(
    name: str, options: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(LabError, match=sentence):
        new_paper(name, out=tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "my-idea").mkdir()
    with pytest.raises(LabError, match="my-idea: exists already"):
        new_paper("my-idea", out=tmp_path)
    assert not list((tmp_path / "my-idea").iterdir())
