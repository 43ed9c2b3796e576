"""What every test gets."""

import gc
import os
import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

# One thread a process: the suite runs two processes on two cores, and sums do not change with the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GPT2LAB_QUIET", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch  # after the environment is set

from tests.tide import calls as calls  # fixtures that every folder may use
from tests.tide import home as home
from tests.tide import tide as tide

torch.set_num_threads(1)

# Folders of tests lie in memory where there is room: on a disk each of their tens of thousands of fsyncs waits 5 to 10 ms.
# What must survive a disk is tested there: tests/survival works in the system's own temporary folder.
MEMORY = Path("/dev/shm")
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 8 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave what is imported and collected out of every later search for garbage: ten thousand tests live to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep runs in a folder of the session where a test does not say where: measuring a model leaves one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT2LAB_HOME", str(tmp_path_factory.mktemp("runs")))
        yield


# A shell that starts the tests in the background lets them ignore Ctrl-C, and so would every process they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# One started under nohup lets them ignore the end of its terminal.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real models and published data beside the checkout."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GPT2LAB_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip("the shared data folder is not on this machine (GPT2LAB_SHARED_DATA)")
    return folder
