"""Where a run's numbers come from: written once, added to, compared over the units of a study."""

import json
import subprocess
from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.runs import environment
from gpt2lab.runs import run as runs
from gpt2lab.runs.provenance import DATA, ENVIRONMENT, Provenance, origins, read_provenance
from gpt2lab.runs.report.write import write_report
from gpt2lab.runs.run import Run
from gpt2lab.text import sources
from gpt2lab.text.data_read import DataRead

BOOK = DataRead("book", 1, 5, "characters", "ab" * 32)


def machine(monkeypatch: pytest.MonkeyPatch, **facts: object) -> None:
    monkeypatch.setattr(runs, "environment", lambda device: {"torch": "2", "cpu": "A"} | facts)


def test_a_run_that_goes_on_elsewhere_keeps_where_it_began(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch)
    with Run.start("train", "one", home=home, settings={}) as run:
        list(sources.documents("tinyworld:2"))
    assert read_provenance(run.folder).later == ()
    with Run.reopen(run.row, home) as run:
        list(sources.documents("tinyworld:2"))
    machine(monkeypatch, cpu="B", gpu="C")
    for _ in range(2):
        with Run.reopen(run.row, home) as run:
            list(sources.documents("tinyworld:3"))
    found = read_provenance(run.folder)
    assert found.environment == {"torch": "2", "cpu": "A"}
    ((since, changed),) = found.later
    assert changed == {"cpu": "B", "gpu": "C"} and since.startswith("20")
    assert found.latest == {"torch": "2", "cpu": "B", "gpu": "C"}
    assert [(one.name, one.documents) for one in found.data] == [("tinyworld:2", 2), ("tinyworld:3", 3)]
    page = write_report(run.id, home=home).with_suffix(".md").read_text()
    assert f"since {since[:10]} cpu B" in page and found.data[0].sha256[:16] in page


def test_a_run_of_which_nothing_is_left_begins_anew(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    with Run.start("arm", "one", home=home, settings={}) as run:
        run.checkpoints.mkdir()
        list(sources.documents("tinyworld:2"))
    machine(monkeypatch, cpu="B")
    with Run.reopen(run.row, home, clean=True) as run:
        pass
    assert read_provenance(run.folder).environment["cpu"] == "A", "its checkpoint is A's work"
    assert read_provenance(run.folder).data == ()
    with Run.reopen(run.row, home, clean=True, anew=True) as run:
        pass
    assert read_provenance(run.folder) == Provenance({"torch": "2", "cpu": "B"})


def test_units_are_compared() -> None:
    alike = Provenance({"torch": "2", "cpu": "A", "changed": ["a.py"]}, data=(BOOK,))
    other = Provenance({"torch": "2", "cpu": "B", "changed": ["a.py"], "gpu": "C"})
    found = origins({"seed0": alike, "seed1": alike, "seed2": other})
    assert found.common == {"torch": "2", "changed": ["a.py"]}
    assert found.differing == (
        ({"cpu": "A", "gpu": None}, ("seed0", "seed1")),
        ({"cpu": "B", "gpu": "C"}, ("seed2",)),
    )
    assert found.data == ((BOOK, ("seed0", "seed1")),)
    assert origins({"seed0": alike}).differing == ()


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    for name, content in (
        (ENVIRONMENT, "[]"),
        (DATA, "{}"),
        (DATA, '[{"name": "a"}]'),
        (ENVIRONMENT, '{"later": [1]}'),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(LabError, match=name):
            read_provenance(tmp_path)
        (tmp_path / name).unlink()
    assert read_provenance(tmp_path) == Provenance({})


def test_the_state_of_the_code_names_what_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gpt2lab" / "runs"
    package.mkdir(parents=True)
    (package / "a.py").write_text("a")
    (package / "b c.py").write_text("b")

    def git(*words: str) -> None:
        name = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *name, *words], check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    state = environment._checkout.__wrapped__
    clean = state()
    assert len(str(clean["commit"])) == 40 and clean["changed"] == [] and "changes" not in clean
    (package / "a.py").write_text("other")
    (package / "b c.py").unlink()
    (package / "new").mkdir()
    (package / "new" / "d.py").write_text("d")
    changed = state()
    assert changed["changed"] == ["gpt2lab/runs/a.py", "gpt2lab/runs/b c.py", "gpt2lab/runs/new/d.py"]
    assert changed == state()
    (package / "a.py").write_text("still other")
    assert state()["changes"] != changed["changes"]
    assert json.dumps(state())
