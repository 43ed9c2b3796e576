"""The frame: imports stay light, papers keep to themselves, the wheel is whole, two commands do everything."""

import ast
import os
import re
import resource
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gpt2lab"


def _python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("verb", ["--help", "papers", "papers tinystories", "models", "models gpt2"])
def test_help_and_papers_import_no_torch(verb: str) -> None:
    code = (
        "import sys; from gpt2lab.cli import main; status = main(sys.argv[1:]); "
        "heavy = {'torch', 'numpy', 'tokenizers', 'transformers', 'huggingface_hub', 'safetensors'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(status)"
    )
    done = _python("-c", code, *verb.split())
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


@pytest.mark.parametrize(
    "line",
    [
        "trian",
        "train --data nosuch.txt",
        "train --data tinyworl:9",
        "train --data tinyworld:9 --optimizer adamv",
        "train --data tinyworld:9 --model ./nowhere",
        "train --data tinyworld:9 --config nosuch.toml",
        "generate ./nowhere hello",
        "generate ./nowhere hello --decoder greddy",
        "measure perplexity ./nowhere",
        "measure perplexiti ./nowhere",
        "apply quantize ./nowhere --bits 4",
        "predict ./nowhere hello",
        "export ./nowhere --to gguf --out x.gguf",
        "compare measures ./nowhere --scale smoke",
        "compare train-901 train-902",
        "report train-901",
        "resume train-901",
        "runs delete train-901",
        "reproduce conda --scale smal",
        "reproduce cnda",
        "reproduce conda --seeds many",
        "papers no-such-words",
        "models get no-such-model",
    ],
)
def test_a_mistake_that_needs_no_model_is_answered_without_torch(line: str) -> None:
    code = (
        "import sys, time; from gpt2lab.cli import main; status = main(sys.argv[1:]); "
        "assert status == 2 and 'torch' not in sys.modules and time.process_time() < 0.5, time.process_time()"
    )
    done = _python("-c", code, *line.split())
    assert done.returncode == 0 and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("verb", ["--help", "papers", "models"])
def test_help_and_papers_answer_within_three_tenths_of_a_second(verb: str) -> None:
    def seconds() -> float:
        """The time that a person waits; on a machine busy with other work, the processor's time."""
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        assert _python("-m", "gpt2lab", verb).returncode == 0
        waited, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return min(waited, worked * 1.25)

    assert min(seconds() for _ in range(5)) < 0.3


def test_import_gpt2lab_offers_the_verbs_as_functions_without_torch() -> None:
    code = (
        "import sys, gpt2lab; assert 'torch' not in sys.modules; "
        "names = 'load save train generate apply measure reproduce compare resume report'.split(); "
        "assert all(callable(getattr(gpt2lab, name)) for name in names), names; "
        "import gpt2lab.training; from gpt2lab.measures import Measurement; "
        "assert callable(gpt2lab.train) and callable(gpt2lab.measure) and gpt2lab.training.TrainSettings"
    )
    done = _python("-c", code)
    assert done.returncode == 0, done.stderr


def test_a_model_is_laid_out_without_torchs_compiler_which_takes_seconds_to_import() -> None:
    code = (
        "import sys, torch; from gpt2lab.model import Transformer; from tests.tiny import CONFIGS\n"
        "with torch.device('meta'):\n    models = [Transformer(config) for config in CONFIGS.values()]\n"
        "assert models and 'torch._dynamo' not in sys.modules"
    )
    done = _python("-c", code)
    assert done.returncode == 0, done.stderr


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_no_file_of_a_paper_but_its_study_imports_what_records_and_runs_studies() -> None:
    above = tuple(f"gpt2lab.{layer}" for layer in ("runs", "actions", "studies"))
    for path in (PACKAGE / "papers").glob("*/*.py"):
        if path.name != "study.py":
            assert not {name for name in _imports(path) if name.startswith(above)}, path


def test_nothing_below_the_papers_knows_a_papers_name() -> None:
    layers = [p for p in PACKAGE.rglob("*.py") if (PACKAGE / "papers") not in p.parents]
    for path in layers:
        assert not {name for name in _imports(path) if name.startswith("gpt2lab.papers.")}, path


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    assert _circles(PACKAGE) == []


def test_lazy_relative_and_type_checking_imports_make_a_circle_too(tmp_path: Path) -> None:
    package = tmp_path / "p"
    (package / "inner").mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "alone": "from p import lazy",
        "lazy": "def f():\n    from p.inner import checked",
        "inner/__init__": "from p.inner.checked import x",
        "inner/checked": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .. import relative",
        "relative": "import p.lazy",
    }.items():
        (package / f"{name}.py").write_text(text)
    assert _circles(package) == [["p.inner.checked", "p.lazy", "p.relative"]]


def _circles(package: Path) -> list[list[str]]:
    """Return the modules that import each other in a circle, one list for each circle, wherever in a file they import."""
    files = {
        ".".join((package.name, *path.relative_to(package).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in package.rglob("*.py")
        if "skeletons" not in path.parts
    }
    graph = {name: _imported(name, path, files.keys()) - {name} for name, path in files.items()}
    reached = {name: _reached(name, graph) for name in graph}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in graph
        if name in reached[name]
    }
    return sorted(list(group) for group in groups)


def _imported(name: str, path: Path, known: Collection[str]) -> set[str]:
    """Modules of the package that a module imports: of `from a import b`, a.b if that is a module, else a."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found.add(f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base)
    return found & set(known)


def _reached(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    """Modules that importing `start` leads to; `start` itself is one if it is in a circle."""
    found, left = set[str](), [start]
    while left:
        new = graph[left.pop()] - found
        found |= new
        left.extend(new)
    return found


def test_nothing_is_pickled_and_no_global_seed_is_set_for_good() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not {"pickle", "dill", "cloudpickle"} & _imports(path), path
        assert not re.search(r"np\.random\.seed|\brandom\.seed\(", text), path
        # dropout draws from the global stream: it may be set inside a fork that puts it back
        assert "torch.manual_seed(" not in text or "fork_rng" in text, path


def test_every_skip_is_listed_with_its_reason() -> None:
    listed = (ROOT / "tests" / "SKIPPED.md").read_text(encoding="utf-8")
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path != Path(__file__) and re.search(
            r"pytest\.(skip|importorskip)\(|mark\.(skip|skipif|xfail)", text
        ):
            assert str(path.relative_to(ROOT)) in listed, (
                f"{path.relative_to(ROOT)} skips but is not in SKIPPED.md"
            )


def test_the_files_of_the_frame_agree_on_version_and_licence() -> None:
    import gpt2lab

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {gpt2lab.__version__}" in citation
    assert project["license"] == "Apache-2.0" and "license: Apache-2.0" in citation
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")


def test_constraints_pin_every_core_dependency_to_a_public_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for requirement in project["dependencies"]:
        name = re.split(r"[<>=!~ ]", requirement)[0]
        assert re.search(rf"^{name}==[\d.]+$", pins, re.MULTILINE | re.IGNORECASE), name
    assert "+" not in pins


def test_the_wheel_holds_the_papers_and_their_data(tmp_path: Path) -> None:
    if _python(
        "-c", "import setuptools"
    ).returncode:  # in a process of its own: here something may hold distutils
        pytest.skip("setuptools is not installed")
    code = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1], {'--build-option': []}))"
    copy = tmp_path / "copy"
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "gpt2lab", "pyproject.toml", "README.md", "LICENSE"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout.split()
    for name in tracked:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=copy
    )
    assert done.returncode == 0, done.stderr
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    missing = [n for n in tracked if n.startswith("gpt2lab/") and n not in names and (ROOT / n).is_file()]
    assert not missing


@pytest.mark.parametrize("target", ["reproduce", "test"])
def test_the_two_commands_install_when_needed_and_then_do_their_work(target: str) -> None:
    done = subprocess.run(
        ["make", "-n", target, "PYTHON=python-of-my-own"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = {
        "reproduce": "gpt2lab reproduce occupational-bias --scale smoke --seeds 3",
        "test": "-m pytest",
    }
    assert expected[target] in done.stdout
