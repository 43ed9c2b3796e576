"""A package of somebody else's, installed as any package is: its paper is there for every verb, and breaks no other."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.forked import run

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "third-party-paper"


@dataclass(frozen=True)
class Site:
    """A place where packages are installed, and how commands see it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        home = self.folder.parent / "runs"
        path = os.pathsep.join([str(self.folder), str(ROOT)])
        return {**os.environ, "PYTHONPATH": path, "GPT2LAB_HOME": str(home), "OMP_NUM_THREADS": "1"}

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run("gpt2lab", *words, environment=self.environment, folder=self.folder.parent)

    def python(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.folder.parent,
            check=False,
        )

    def lab(self, *words: str) -> str:
        done = self.type(*words)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout


def _installed(place: Path) -> Site:
    """Install the example as `pip install` does; a copy is built, so that nothing is left beside the source."""
    source, site = place / "source", place / "site"
    shutil.copytree(EXAMPLE, source)
    words = "-m pip install --quiet --no-deps --no-build-isolation --no-index --disable-pip-version-check --target"
    done = subprocess.run(
        [sys.executable, *words.split(), str(site), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Site(site)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return _installed(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def broken(site: Site, tmp_path: Path) -> Site:
    """A copy of the installed package that may be damaged."""
    shutil.copytree(site.folder, tmp_path / "site")
    return Site(tmp_path / "site")


def test_an_installed_paper_is_listed_applied_measured_trained_with_and_generated_from(site: Site) -> None:
    listed = json.loads(site.lab("papers", "prune-retrain", "--json"))
    assert listed[0]["built"] and [part["built"] for part in listed[0]["parts"]] == [True, True, True]
    small = "--d-model 16 --n-layers 1 --n-heads 2 --context 32 --vocab-size 280 --batch-size 2 --steps 2"
    train = ("train", "--data", "tinyworld:60", *small.split(), "--optimizer", "masked-adamw", "--json")
    assert json.loads(site.lab(*train))["id"] == "train-1"
    applied = json.loads(site.lab("apply", "magnitude-prune", "train-1", "--share", "0.25", "--json"))
    assert (applied["id"], applied["model"], applied["origin"]) == ("magnitude-prune-1", "train-1", "train-1")
    measured = json.loads(site.lab("measure", "sparsity", "magnitude-prune-1", "--json"))
    assert measured["numbers"]["sparsity"] == pytest.approx(0.25, abs=0.01)
    assert site.lab("generate", "magnitude-prune-1", "one day", "--max-new-tokens", "4").startswith("one day")
    rows = json.loads(site.lab("runs", "--json"))
    chain = [(row["id"], row["origin"]) for row in rows]
    assert chain == [
        ("sparsity-1", "magnitude-prune-1"), ("magnitude-prune-1", "train-1"), ("train-1", None),
    ]  # fmt: skip


def test_its_study_runs_in_worker_processes_and_gets_verdicts(site: Site) -> None:
    words = ("reproduce", "prune-retrain", "--scale", "smoke", "--seeds", "3", "--workers", "2", "--json")
    study = json.loads(site.lab(*words))
    assert [len(claim["values"]) for claim in study["claims"]] == [3, 3]
    assert study["claims"][0]["status"] in (
        "holds",
        "does not hold",
        "inconclusive",
        "not tested at this scale",
    )
    assert set(study["results"]) == {"seed0", "seed1", "seed2"}


def test_its_parts_pass_the_same_battery_as_ours(site: Site) -> None:
    done = site.python(
        *(
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(ROOT),
            str(ROOT / "tests" / "contract"),
        ),
        # Fetched models lie in our home folder, not in the site's.
        *("-k", "(magnitude-prune or sparsity or masked-adamw) and not real_model"),
        *("-c", str(ROOT / "pyproject.toml")),
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_a_broken_description_is_one_sentence_and_the_rest_goes_on(broken: Site) -> None:
    (broken.folder / "prune_retrain" / "paper.toml").write_text("slug = ")
    done = broken.type("papers", "tinystories")
    assert done.returncode == 0 and "TinyStories" in done.stdout
    assert done.stderr.startswith("gpt2lab: the paper prune-retrain is left out: ")
    assert done.stderr.count("\n") == 1


def test_a_part_that_cannot_be_imported_is_one_sentence_and_the_others_work(broken: Site) -> None:
    (broken.folder / "prune_retrain" / "optimizer.py").write_text("import no_such_library\n")
    assert "masked-adamw" in broken.lab("papers", "prune-retrain")
    done = broken.type("train", "--data", "tinyworld:9", "--optimizer", "masked-adamw")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "optimizer masked-adamw: prune_retrain.optimizer cannot be imported" in done.stderr
    study = broken.type("reproduce", "prune-retrain", "--scale", "smoke")
    assert (study.returncode, study.stderr.count("\n")) == (2, 1)
    assert "the study of prune-retrain: prune_retrain.study cannot be imported" in study.stderr


def test_a_package_that_cannot_be_imported_at_all_is_one_sentence(broken: Site) -> None:
    (broken.folder / "prune_retrain" / "__init__.py").write_text("def\n")
    assert "masked-adamw" in broken.lab("papers", "prune-retrain")  # its description needs no import
    done = broken.type("train", "--data", "tinyworld:9", "--optimizer", "masked-adamw")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "optimizer masked-adamw: prune_retrain.optimizer cannot be imported (SyntaxError" in done.stderr


@pytest.mark.parametrize(
    "last_words", ["import os; os._exit(3)", "raise SystemExit(3)", "raise KeyboardInterrupt"]
)
def test_a_package_that_ends_the_process_on_import_is_listed_and_ends_no_other_verb(
    last_words: str, broken: Site
) -> None:
    inner = broken.folder / "prune_retrain" / "deep"
    shutil.copytree(broken.folder / "prune_retrain", inner)
    (broken.folder / "prune_retrain" / "__init__.py").write_text(f"{last_words}\n")
    _announce(broken, "prune-retrain = prune_retrain.deep")
    assert "masked-adamw" in broken.lab("papers", "prune-retrain")
    small = "--d-model 16 --n-layers 1 --n-heads 2 --context 32 --vocab-size 280 --batch-size 2 --steps 1"
    assert (
        json.loads(broken.lab("train", "--data", "tinyworld:60", *small.split(), "--json"))["id"] == "train-1"
    )


def test_a_part_whose_module_exits_is_one_sentence(broken: Site) -> None:
    (broken.folder / "prune_retrain" / "optimizer.py").write_text("raise SystemExit('no licence')\n")
    done = broken.type("train", "--data", "tinyworld:9", "--optimizer", "masked-adamw")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "prune_retrain.optimizer cannot be imported (SystemExit: no licence)" in done.stderr
    (broken.folder / "prune_retrain" / "optimizer.py").write_text("raise KeyboardInterrupt\n")
    done = broken.type("train", "--data", "tinyworld:9", "--optimizer", "masked-adamw")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (130, "", 1)
    assert "stopped while prune_retrain.optimizer was imported for optimizer masked-adamw" in done.stderr


def test_what_a_package_prints_on_import_does_not_stand_in_the_json(broken: Site) -> None:
    file = broken.folder / "prune_retrain" / "optimizer.py"
    file.write_text("print('hello')\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    small = "--d-model 16 --n-layers 1 --n-heads 2 --context 32 --vocab-size 280 --batch-size 2 --steps 1"
    words = ("train", "--data", "tinyworld:60", *small.split(), "--optimizer", "masked-adamw", "--json")
    done = broken.type(*words)
    assert json.loads(done.stdout)["id"] == "train-1"
    assert done.stderr == "hello\n"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("nothing after it", "'nothing after it' is not NAME = package"),
        ("= prune_retrain", "'= prune_retrain' is not NAME = package"),
        ("odd = prune_retrain:Name [extra]", "is not NAME = package"),
        (
            "odd = prune_retrain.missing",
            "the paper odd is left out: there is no module prune_retrain.missing",
        ),
        ("odd = prune_retrain.measure", "prune_retrain.measure is not a package"),
        ("odd = no_such_package", "there is no module no_such_package"),
        ("odd = \udcff", "is not NAME = package"),
    ],
)
def test_a_malformed_line_of_entry_points_is_one_sentence_and_the_rest_is_read(
    line: str, sentence: str, broken: Site
) -> None:
    _announce(broken, f"{line}\nprune-retrain = prune_retrain")
    done = broken.type("papers", "prune-retrain")
    assert done.returncode == 0 and "masked-adamw" in done.stdout
    assert sentence in done.stderr and done.stderr.count("\n") == 1


def test_a_malformed_entry_points_file_of_another_package_is_nobodys_concern(broken: Site) -> None:
    other = broken.folder / "other-1.0.dist-info"
    other.mkdir()
    (other / "entry_points.txt").write_bytes(b"[console_scripts]\nno equals sign\n\xff\n[x")
    assert "masked-adamw" in broken.lab("papers", "prune-retrain")


def _announce(site: Site, lines: str) -> None:
    """Replace what the installed package says of itself."""
    file = next(site.folder.glob("*.dist-info/entry_points.txt"))
    file.write_bytes(f"[gpt2lab.papers]\n{lines}\n".encode("utf-8", "surrogateescape"))
