"""`gpt2lab papers new`: a paper that works, to be changed into one's own.

What is copied are the packages below `gpt2lab.cli.skeletons`, under new names.
"""

import importlib.util
import keyword
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write, user_path
from gpt2lab.base.registry import STUDIED_KINDS, papers, parts
from gpt2lab.base.wording import listed

LONGEST = 30  # letters of a name: more would break the lines of the code that is written

_TEMPLATES = Path(__file__).parent / "skeletons"

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "SLUG"
version = "0.1.0"
description = "SLUG, a paper of gpt2lab"
requires-python = ">=3.11"
dependencies = ["gpt2lab"]

[project.optional-dependencies]
test = ["pytest>=8.3"]

[project.entry-points."gpt2lab.papers"]
SLUG = "MODULE"

[tool.setuptools]
packages = ["MODULE"]

[tool.setuptools.package-data]
MODULE = ["paper.toml"]

[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = "--import-mode=importlib"

[tool.mypy]
packages = ["MODULE"]
disallow_untyped_defs = true

[tool.ruff]
line-length = 110

[tool.ruff.lint]
select = ["E4", "E7", "E9", "F", "I", "UP", "B", "D1"]
ignore = ["D105", "D107"]

[tool.ruff.lint.isort]
known-first-party = ["gpt2lab", "MODULE"]
"""

_README = """\
# SLUG

A paper of gpt2lab: the KIND `SLUG`, and the study that tests it.

```
pip install -e .
gpt2lab papers SLUG
gpt2lab reproduce SLUG --scale smoke
gpt2lab reproduce SLUG --scale laptop --seeds 3
pytest
```

`MODULE/paper.toml` says what the paper is, `MODULE/KIND.py` is the method, `MODULE/study.py` the study.
"""


@dataclass(frozen=True)
class NewPaper:
    """What was written."""

    slug: str
    """The paper's name, and that of its part."""
    kind: str
    """Kind of the part."""
    folder: Path
    """The paper's folder; of a package of its own, the folder with the pyproject.toml."""
    files: tuple[Path, ...]
    """Every file."""
    installed: bool
    """True if gpt2lab finds it as it is; a package of its own must be installed first."""


def new_paper(
    name: str, *, kind: str = "optimizer", out: Path | str | None = None, package: bool = False
) -> NewPaper:
    """Write a working paper and return what was written.

    Inside the checkout that gpt2lab runs from it becomes a folder of gpt2lab/papers; elsewhere, with `package`, or
    with `out`, a package of its own: a folder of that name in `out` (default: here). LabError for a name that
    cannot be one or is taken, and for a folder that exists.
    """
    slug = _checked(name, kind)
    module = slug.replace("-", "_")
    root = _checkout()
    if root is not None and out is None and not package:
        folder = root / "gpt2lab" / "papers" / module
        tests, inside = root / "tests" / "papers" / module, f"gpt2lab.papers.{module}"
        contents = dict(_files(slug, kind, inside, folder, tests))
    else:
        if importlib.util.find_spec(module) is not None:
            raise LabError(f"{name}: Python has a package {module} already; choose another name")
        folder = user_path(out or ".") / slug
        contents = dict(_files(slug, kind, module, folder / module, folder / "tests"))
        words = {"SLUG": slug, "MODULE": module, "KIND": kind}
        contents[folder / "pyproject.toml"] = _filled(_PYPROJECT, words)
        contents[folder / "README.md"] = _filled(_README, words)
    taken = [place for place in {folder, *(file.parent for file in contents)} if place.exists()]
    if taken:
        raise LabError(f"{min(taken)}: exists already; choose another name, or another place with --out")
    for file, text in contents.items():
        atomic_write(file, text)
    installed = folder / "pyproject.toml" not in contents
    return NewPaper(slug=slug, kind=kind, folder=folder, files=tuple(contents), installed=installed)


def _checked(name: str, kind: str) -> str:
    """Return the paper's slug. LabError if the name cannot be a paper's and a Python package's, or is taken."""
    slug = name.lower().replace("_", "-")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug) or keyword.iskeyword(slug):
        raise LabError(
            f"{name}: a paper's name is words of letters and digits with hyphens between, such as my-idea"
        )
    if len(slug) > LONGEST:
        raise LabError(f"{name}: {len(slug)} letters; a paper's name has at most {LONGEST}")
    if slug in [paper.slug for paper in papers()]:
        raise LabError(f"{name}: a paper of this name exists; `gpt2lab papers {slug}` shows it")
    if kind not in STUDIED_KINDS:
        raise LabError(f"--kind {kind}: a paper is begun with one of {listed(STUDIED_KINDS, 'or')}")
    if slug in [part.name for part in parts(kind)]:
        raise LabError(f"{name}: there is {kind} {slug} already; choose another name")
    return slug


def _checkout() -> Path | None:
    """Return the root of the checkout that gpt2lab runs from, if the current folder is inside it."""
    root = Path(gpt2lab.__file__).resolve().parents[1]
    here = Path.cwd().resolve()
    is_checkout = (root / "pyproject.toml").is_file() and (root / "tests").is_dir()
    return root if is_checkout and (here == root or root in here.parents) else None


def _files(slug: str, kind: str, module: str, folder: Path, tests: Path) -> Iterator[tuple[Path, str]]:
    """Yield every file of the paper with its text."""
    words = {
        "2026-12-01": date.today().isoformat(),  # the day on which the claims are fixed
        f"gpt2lab.cli.skeletons.{kind}": module,
        f"Example{kind.capitalize()}": "".join(word.capitalize() for word in slug.split("-")),
        f"example-{kind}": slug,
        "example-paper": slug,
    }
    for source in (*sorted((_TEMPLATES / kind).iterdir()), _TEMPLATES / "test_study.py"):
        if source.suffix in (".py", ".toml"):
            text = _filled(source.read_text(encoding="utf-8"), words)
            place = tests if source.name.startswith("test_") else folder
            yield place / source.name, _with_sorted_imports(text) if source.suffix == ".py" else text


def _filled(text: str, words: Mapping[str, str]) -> str:
    for old, new in words.items():
        text = text.replace(old, new)
    return text


def _with_sorted_imports(text: str) -> str:
    """Return the text with every block of `from ... import ...` lines in the order of the modules' names."""

    def in_order(block: re.Match[str]) -> str:
        return "".join(sorted(block[0].splitlines(keepends=True), key=lambda line: line.split()[1]))

    return re.sub(r"^(?:from [a-z]\S* import [^(\n]+\n)+", in_order, text, flags=re.MULTILINE)
