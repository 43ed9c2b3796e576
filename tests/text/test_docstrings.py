import ast
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text import docstrings, sources

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(docstrings.documents(400_000))


def test_the_limit_is_kept_and_a_smaller_one_is_a_beginning(texts: list[str]) -> None:
    assert 400_000 <= sum(map(len, texts)) < 500_000
    few = list(docstrings.documents(50_000))
    assert texts[: len(few)] == few
    assert list(sources.documents("docstrings:50000")) == few


def test_texts_are_distinct_clean_and_long_enough(texts: list[str]) -> None:
    assert len(set(texts)) == len(texts)
    assert all(len(text) >= 40 and text == text.strip() for text in texts)
    assert any("abstract base class" in text.lower() for text in texts)


def test_another_process_gives_the_same_order(texts: list[str]) -> None:
    code = (
        "import hashlib, sys\nfrom gpt2lab.text.docstrings import documents\n"
        "before = set(sys.modules)\n"
        "print(hashlib.sha256('\\0'.join(documents(50_000)).encode()).hexdigest())\n"
        "print(sorted(set(sys.modules) - before))"
    )
    run = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert run[0] == run[1]
    assert "antigravity" not in run[0]  # first in the library; importing it opens a browser


def test_every_place_of_a_file_is_found_and_nothing_else(tmp_path: Path) -> None:
    text = "A text of more than forty characters, number %s."
    source = f'''
"""{text % 0}"""
if True:
    class A:
        """{text % 1}"""
        async def f(self):
            """{text % 2}

               Indented.
            """
            "{text % "no"}"
        def g(self):
            """Short."""
try:
    def h(): "{text % 3}"
except ImportError:
    def h(): "{text % 4}"
else:
    x = """{text % "no"}"""
'''
    ast.parse(source)
    (tmp_path / "a.py").write_text(source)
    found = list(docstrings._of_file(tmp_path / "a.py"))
    assert found[:2] == [text % 0, text % 1]
    assert found[2] == text % 2 + "\n\nIndented."
    assert found[3:] == [text % 3, text % 4]


def test_files_that_are_no_python_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('print "python 2"\n"""' + "x" * 50 + '"""')
    (tmp_path / "b.py").write_bytes(b'"""' + b"\xff" * 50 + b'"""')
    (tmp_path / "c.py").write_text('"""' + "\\ud800" * 50 + '"""')
    assert [list(docstrings._of_file(path)) for path in sorted(tmp_path.iterdir())] == [[], [], []]


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(LabError, match="a limit of 0 characters leaves nothing"):
        docstrings.documents(0)
