"""What a run ran on: the machine, the versions, the state of the code."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gpt2lab.base.version import __version__

_PACKAGES = ("torch", "numpy", "tokenizers", "safetensors", "matplotlib")


def environment(device: str = "cpu") -> dict[str, object]:
    """Return the machine and the versions as plain values; no path, user or host name is among them."""
    found: dict[str, object] = {
        "gpt2lab": __version__,
        **_checkout(),
        "python": platform.python_version(),
        **{name: version for name in _PACKAGES if (version := _version(name))},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": cores(),
        "threads": _threads(),
        "device": device,
    }
    if device.startswith("cuda") and "torch" in sys.modules:
        found["gpu"] = sys.modules["torch"].cuda.get_device_name(device)
    return found


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _threads() -> int | None:
    """Return how many threads one operation uses, None if torch decides later."""
    if "torch" in sys.modules:
        return int(sys.modules["torch"].get_num_threads())
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


@functools.cache
def _checkout() -> dict[str, object]:
    """Return commit, changed files and their hash, where the code runs from a git checkout of the project."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return {}

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
        return said.rstrip("\n")

    try:
        commit = git("rev-parse", "HEAD")
        listing = git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", "gpt2lab")
    except (OSError, subprocess.SubprocessError):
        return {}
    changed = sorted(entry[3:] for entry in listing.split("\0") if entry)
    return {
        "commit": commit,
        "changed": changed,
        **({"changes": _digest(root, changed)} if changed else {}),
    }


def _digest(root: Path, files: Sequence[str]) -> str:
    """Return a hash of the content of changed files: the same uncommitted state has the same."""
    digest = hashlib.sha256()
    for name in files:
        path = root / name
        content = path.read_bytes() if path.is_file() else b"deleted"
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]
