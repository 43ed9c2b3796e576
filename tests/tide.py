"""A paper of somebody else's package, found through its entry point: what the tests of studies run."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from gpt2lab.base import registry

TOML = """
slug = "tide"
title = "Tide: An Optimizer That Comes and Goes"
arxiv = "2501.00001"
date = "2025-01"
authors = 3
work = "training"
summary = "Tide lets the momentum rise and fall with a period of its own. It is said to need half of AdamW's updates."
repo = ""

[[parts]]
kind = "optimizer"
name = "tide"
object = "optimizer:Tide"
summary = "momentum that comes and goes"

[[parts]]
kind = "measure"
name = "ebb"
object = "measure:Ebb"

[[claims]]
words = "Half the updates"
paper = "2.1 times fewer"
where = "Table 1"

[[figures]]
what = "updates saved at 125M"
value = "52 %"
where = "Fig. 2"
"""


def make_paper(place: Path, slug: str = "tide", toml: str = TOML, study: str | None = "toy_study.py") -> Path:
    """Write an installed package with one paper below `place`, and return the paper's folder."""
    module = slug.replace("-", "_") + "_papers"
    folder = place / module / slug.replace("-", "_")
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("")
    (folder / "paper.toml").write_text(toml.replace('slug = "tide"', f'slug = "{slug}"'))
    (folder / "optimizer.py").write_text("class Tide:\n    pass\n")
    if study is not None:
        shutil.copy(Path(__file__).parent / "studies" / study, folder / "study.py")
    announced = place / f"{module}-1.0.dist-info"
    announced.mkdir()
    (announced / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (announced / "entry_points.txt").write_text(f"[gpt2lab.papers]\n{slug} = {module}.{folder.name}\n")
    return folder


@pytest.fixture
def tide(tmp_path, monkeypatch):
    """Install the paper `tide` for one test and return its folder."""
    place = tmp_path / "site"
    folder = make_paper(place)
    monkeypatch.syspath_prepend(place)
    importlib.invalidate_caches()
    registry.papers.cache_clear()
    yield folder
    registry.papers.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0].endswith("_papers")]:
        del sys.modules[name]


@pytest.fixture
def home(tmp_path):
    """Return a folder for runs."""
    return tmp_path / "runs"


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Return a function that tells how often each unit of the toy study was run."""
    folder = tmp_path / "calls"
    folder.mkdir()
    monkeypatch.setenv("TOY_CALLS", str(folder))
    return lambda: {path.name: len(path.read_text()) for path in sorted(folder.iterdir())}
