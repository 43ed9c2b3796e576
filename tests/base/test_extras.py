"""A missing optional package is answered with the command that installs it, here and now."""

import shlex
from pathlib import Path

import pytest

from gpt2lab.base import extras

ROOT = Path(__file__).parents[2]


def test_in_a_checkout_the_command_installs_the_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(extras.install("export"))
    assert words[1:4] == ["-m", "pip", "install"]
    assert Path(words[0]).exists()
    assert (tmp_path / words[words.index("-c") + 1]).resolve() == ROOT / "constraints.txt"
    folder, _, extra = words[-1].partition("[")
    assert (tmp_path / folder).resolve() == ROOT and extra == "export]"


def test_elsewhere_the_command_installs_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extras, "_CHECKOUT", tmp_path)
    assert shlex.split(extras.install("hub"))[-1] == "gpt2lab[hub]"


def test_every_extra_that_an_error_names_exists() -> None:
    import re
    import tomllib

    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    texts = [file.read_text(encoding="utf-8") for file in (ROOT / "gpt2lab").rglob("*.py")]
    named = {name for text in texts for name in re.findall(r"install\('(\w+)'\)", text)}
    assert named <= set(known) and len(named) >= 7
    assert not any("pip install 'gpt2lab[" in text for text in texts)
