"""How an optional dependency is installed: the command that an error about a missing one ends with."""

import os
import shlex
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).parents[2]


def install(extra: str) -> str:
    """Return the command that installs an extra of the package into this Python, from the checkout where there is one."""
    pip = f"{shlex.quote(_short(Path(sys.executable)))} -m pip install"
    if not (_CHECKOUT / "pyproject.toml").is_file():
        return f"{pip} {shlex.quote(f'gpt2lab[{extra}]')}"
    constraints = _CHECKOUT / "constraints.txt"
    pins = f" -c {shlex.quote(_short(constraints))}" if constraints.is_file() else ""
    return f"{pip}{pins} -e {shlex.quote(f'{_short(_CHECKOUT)}[{extra}]')}"


def _short(path: Path) -> str:
    """Return a path as seen from the working folder, where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
