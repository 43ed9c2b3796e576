"""Documentation strings of the standard library and the installed packages: real text on every machine."""

import ast
import hashlib
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import Progress

LIMIT = 8_000_000
"""Characters, unless a limit is given: the standard library and a part of the packages, in some seconds."""

_SHORTEST = 40  # characters; shorter ones are mostly "Return the name."
_LEFT_OUT = frozenset(("test", "tests", "site-packages", "dist-packages", "__pycache__"))
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_HOLDS_BODIES = (*_DOCUMENTED, ast.If, ast.Try, ast.ExceptHandler, ast.With)


def documents(limit: int | None = LIMIT, *, show: bool = True) -> Iterator[str]:
    """Yield documentation strings, one a document, until `limit` characters are out (None: all there are).

    First the standard library, then the packages, each in the order of their paths, so that the same installation
    gives the same text. Files are parsed, never imported. Indentation is removed; strings shorter than 40
    characters, repeated ones and those of tests are left out. `show`: with a progress line of its own.
    LabError for a limit that is not positive.
    """
    if limit is not None and limit < 1:
        raise LabError(f"docstrings: a limit of {limit} characters leaves nothing; the default is {LIMIT:,}")
    return _limited(limit, show)


def _limited(limit: int | None, show: bool) -> Iterator[str]:
    seen: set[bytes] = set()
    given = 0
    with Progress[None](
        total=limit, label="docstrings", unit="characters", enabled=None if show else False
    ) as bar:
        for path in _source_files():
            for text in _of_file(path):
                digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
                if digest in seen:
                    continue
                seen.add(digest)
                yield text
                given += len(text)
                bar.advance(len(text))
                if limit is not None and given >= limit:
                    return


def _source_files() -> Iterator[Path]:
    """Yield the Python files of the standard library, then of the installed packages."""
    paths = sysconfig.get_paths()
    roots = dict.fromkeys(Path(paths[name]).resolve() for name in ("stdlib", "purelib", "platlib"))
    for root in roots:
        yield from _below(root)


def _below(folder: Path) -> Iterator[Path]:
    """Yield the Python files below a folder in the order of their paths."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.is_dir():
            if entry.name not in _LEFT_OUT and not entry.is_symlink():
                yield from _below(entry)
        elif entry.suffix == ".py" and not entry.name.startswith("test_"):
            yield entry


def _of_file(path: Path) -> Iterator[str]:
    """Yield the documentation strings of a file in order; a file that cannot be parsed has none."""
    try:
        source = path.read_bytes()
        if b'"""' not in source and b"'''" not in source:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's escape sequences
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        text = _documentation(node)
        if text is not None:
            yield text
        inner = [*getattr(node, "body", ()), *getattr(node, "orelse", ()), *getattr(node, "handlers", ())]
        waiting += [child for child in reversed(inner) if isinstance(child, _HOLDS_BODIES)]


def _documentation(node: ast.AST) -> str | None:
    if not isinstance(node, _DOCUMENTED):
        return None
    first = node.body[0] if node.body else None
    if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        return None
    text = first.value.value
    if not isinstance(text, str) or len(text) < _SHORTEST:
        return None
    text = inspect.cleandoc(text).strip()
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # an escaped lone surrogate
        return None
    return text if len(text) >= _SHORTEST else None
