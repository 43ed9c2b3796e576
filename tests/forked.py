"""Modules run as processes of their own, forked from one that has imported the package: a start costs no import of torch.

    run("gpt2lab", "runs", "--json", environment=..., folder=...)      as `python -m gpt2lab runs --json`

What a start itself must show (no torch for --help, closed streams, Ctrl-C from a shell) is tested with a fresh interpreter.
"""

import atexit
import functools
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run(
    module: str, *words: str, environment: Mapping[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a module to its end, as `subprocess.run([sys.executable, "-m", module, *words], capture_output=True)` does."""
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place) / "out", Path(place) / "err"
        process = Forked(module, *words, environment=environment, out=out, err=err, folder=folder)
        return subprocess.CompletedProcess(
            [module, *words], process.wait(), out.read_text("utf-8"), err.read_text("utf-8")
        )


class Forked:
    """A module that runs in a process of its own and writes to two files, or named pipes, in place of its streams."""

    def __init__(
        self,
        module: str,
        *words: str,
        environment: Mapping[str, str],
        out: Path,
        err: Path,
        folder: Path | None = None,
    ) -> None:
        self.returncode: int | None = None
        self.pid = int(
            _ask(
                {
                    "module": module,
                    "words": words,
                    "environment": dict(environment),
                    "out": str(out),
                    "err": str(err),
                    "folder": str(folder or Path.cwd()),
                }
            )
        )

    def wait(self, seconds: float = 300.0) -> int:
        """Return the exit status, or minus the signal, once the process has ended; kill it after so many seconds."""
        deadline = time.monotonic() + seconds
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"process {self.pid} has not ended within {seconds:.0f} s")
            time.sleep(0.005)
        return status

    def poll(self) -> int | None:
        """Return the exit status if the process has ended."""
        if self.returncode is None:
            said = _ask({"poll": self.pid}).strip()
            self.returncode = int(said) if said else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _ask(request: Mapping[str, Any]) -> str:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    assert answer, "the process that forks has ended"
    return answer


@functools.cache
def _server() -> subprocess.Popen[str]:
    """Return the process that forks: one for each process of the tests, for as long as those live."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.forked"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert server.stdin is not None
    atexit.register(server.stdin.close)
    return server


def main() -> None:
    """Fork for every request on standard input, until it ends."""
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    _import_what_most_need()
    gc.freeze()  # a child looks through none of it when it ends
    for line in requests:
        request = json.loads(line)
        if "poll" in request:
            said = _status(*os.waitpid(request["poll"], os.WNOHANG))
        elif (said := os.fork()) == 0:
            requests.close()
            answers.close()
            _become(request)
            return
        answers.write(f"{'' if said is None else said}\n")
        answers.flush()


def _status(pid: int, status: int) -> int | None:
    return os.waitstatus_to_exitcode(status) if pid else None


def _import_what_most_need() -> None:
    import torch
    from matplotlib import figure  # noqa: F401  for the charts of reports

    from gpt2lab.actions import apply, generate, measure, train  # noqa: F401

    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # the first optimizer imports torch's compiler


def _become(request: Mapping[str, Any]) -> None:
    """Be a process that was started with the request's words; returns or raises what the module does."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for number, name in enumerate((os.devnull, request["out"], request["err"])):
        opened = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [
        os.getcwd(),
        *filter(None, path),
        *(place for place in sys.path if place not in ("", str(ROOT))),
    ]
    sys.path_importer_cache.clear()
    sys.argv = [request["module"], *request["words"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
