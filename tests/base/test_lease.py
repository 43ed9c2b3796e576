"""Leases: of several claims one succeeds, who is dead holds nothing, who slept finds out before it writes."""

import dataclasses
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gpt2lab
from gpt2lab.base import lease as leases
from gpt2lab.base.files import atomic_folder, atomic_write
from gpt2lab.base.lease import Lease, LeaseHeld, LeaseLost, holder_of
from gpt2lab.base.process import Process

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(gpt2lab.__file__).parents[1])}
HOLD = """
import sys, time
from pathlib import Path
from gpt2lab.base import lease
lease.TIMEOUT, lease.BEAT = 1.0, 0.2
held = lease.Lease.claim(Path(sys.argv[1]))
print("held", flush=True)
for line in sys.stdin:
    time.sleep(float(line))
    try:
        lease.check_writable(Path(sys.argv[1]) / "file")
        print("mine", flush=True)
    except lease.LeaseLost as lost:
        print(lost, flush=True)
"""


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "run"
    place.mkdir()
    return place


@pytest.fixture
def quick(monkeypatch):
    """Let leases run out within a second."""
    monkeypatch.setattr(leases, "TIMEOUT", 1.0)
    monkeypatch.setattr(leases, "_WATCH", 0.6)


def hold(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def ask(process, after=0.0):
    process.stdin.write(f"{after}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def rewrite(folder, process=None, **fields):
    """Change what a lease says."""
    path = folder / ".lease"
    content = json.loads(path.read_text())
    path.write_text(
        json.dumps(content | fields | {"process": content["process"] | (process or {})}).ljust(1024)
    )


def test_a_lease_is_held_once_and_free_after_its_release(folder):
    lease = Lease.claim(folder)
    with pytest.raises(LeaseHeld, match=f"in use by process {os.getpid()} on .*, last sign of life 0 s ago"):
        Lease.claim(folder)
    assert holder_of(folder) is not None
    lease.release()
    assert holder_of(folder) is None
    Lease.claim(folder).release()


def test_of_sixteen_processes_that_claim_at_once_one_succeeds(folder):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom gpt2lab.base.lease import Lease, LeaseHeld\n"
        "go = Path(sys.argv[1]) / 'go'\n"
        "print('ready', flush=True)\n"
        "while not go.exists(): pass\n"
        "try:\n    Lease.claim(go.parent); print('won', flush=True)\n"
        "except LeaseHeld: print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(folder)]
    claimers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        for _ in range(16)
    ]
    for claimer in claimers:
        assert claimer.stdout.readline() == "ready\n"
    (folder / "go").touch()
    said = [claimer.stdout.readline().strip() for claimer in claimers]
    for claimer in claimers:
        claimer.communicate(timeout=30)
    assert sorted(said) == ["held"] * 15 + ["won"]


def test_the_lease_of_a_process_that_was_killed_is_free_at_once(folder):
    process = hold(folder)
    assert holder_of(folder) is not None
    process.kill()
    process.wait()
    assert holder_of(folder) is None
    Lease.claim(folder).release()


def test_another_host_name_changes_nothing(folder):
    process = hold(folder)
    rewrite(folder, {"host": "elsewhere"})
    assert holder_of(folder) is not None
    process.kill()
    process.wait()
    assert holder_of(folder) is None


def leave(folder):
    """Leave a lease that nobody renews any more."""
    Lease.claim(folder)
    leases._held.clear()


def test_a_process_id_that_another_process_has_now_holds_nothing(folder):
    leave(folder)
    rewrite(folder, {"started": "1"})
    assert holder_of(folder) is None
    Lease.claim(folder).release()


def test_a_process_that_slept_longer_than_its_lease_writes_nothing(folder, quick):
    process = hold(folder)
    assert ask(process) == "mine"
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(LeaseHeld):
        Lease.claim(folder)
    time.sleep(1.2)
    mine = Lease.claim(folder)
    process.send_signal(signal.SIGCONT)
    assert f"taken over by process {os.getpid()}" in ask(process)
    assert "stops without writing there" in ask(process)
    mine.check()
    process.communicate(timeout=10)
    mine.check()
    mine.release()


def test_a_process_that_slept_and_lost_nothing_goes_on(folder, quick):
    process = hold(folder)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.2)
    process.send_signal(signal.SIGCONT)
    assert ask(process) == "mine"
    with pytest.raises(LeaseHeld):
        Lease.claim(folder)
    process.communicate(timeout=10)


def test_a_living_process_keeps_its_lease_through_a_call_that_lets_no_thread_run(folder, quick):
    lease = Lease.claim(folder)
    rewrite(folder, uptime=1.0, time=1.0)
    with pytest.raises(LeaseHeld):
        Lease.claim(folder)
    lease.check()
    lease.release()


@pytest.mark.parametrize("hours", [-5, 5])
def test_the_lease_of_another_machine_is_taken_when_it_shows_no_life_whatever_its_clock_says(
    folder, quick, hours
):
    leave(folder)
    rewrite(folder, {"machine": "another"}, time=time.time() + hours * 3600)
    assert holder_of(folder) is None
    began = time.monotonic()
    Lease.claim(folder).release()
    assert time.monotonic() - began >= 0.6


def test_the_lease_of_another_machine_is_held_as_long_as_it_moves_whatever_its_clock_says(folder, quick):
    leave(folder)
    rewrite(folder, {"machine": "another"}, time=1.0)
    code = (
        "import json, sys, time\nfrom pathlib import Path\npath = Path(sys.argv[1])\n"
        "text = path.read_text()\n"
        "for beat in range(100):\n"
        "    path.write_text(json.dumps(json.loads(text) | {'beats': beat + 9}).ljust(1024)); time.sleep(0.1)\n"
    )
    beating = subprocess.Popen([sys.executable, "-c", code, str(folder / ".lease")])
    time.sleep(0.3)
    try:
        with pytest.raises(LeaseHeld):
            Lease.claim(folder)
    finally:
        beating.kill()
        beating.wait()


def test_the_fresh_lease_of_another_machine_is_waited_for(folder, quick):
    leave(folder)
    rewrite(folder, {"machine": "another"})
    assert holder_of(folder) is not None
    with pytest.raises(LeaseHeld):
        Lease.claim(folder)
    Lease.claim(folder, patience=10.0).release()


def test_the_lease_in_a_copied_folder_runs_out_though_its_process_lives(folder, tmp_path, quick):
    process = hold(folder)
    shutil.copytree(folder, tmp_path / "copy")
    time.sleep(1.2)
    Lease.claim(tmp_path / "copy").release()
    assert ask(process) == "mine"
    process.communicate(timeout=10)


def test_a_lease_is_taken_over_by_hand_and_its_holder_finds_out(folder):
    process = hold(folder)
    mine = Lease.claim(folder, take_over=True)
    assert "was taken over" in ask(process)
    process.communicate(timeout=10)
    mine.check()
    mine.release()


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 1024, b"not json", b"[" * 1000, b'{"owner": 3}', b"\xff\xfe"]
)
def test_a_damaged_lease_is_taken_when_nobody_writes_it_again(folder, quick, content):
    (folder / ".lease").write_bytes(content)
    Lease.claim(folder).release()


def test_a_lease_whose_holder_sleeps_with_the_file_locked_is_taken_when_it_runs_out(
    folder, quick, monkeypatch
):
    monkeypatch.setattr(leases, "_STUCK", 0.3)
    code = (
        "import fcntl, os, sys, time\nfrom pathlib import Path\nfrom gpt2lab.base.lease import Lease, LeaseLost\n"
        "held = Lease.claim(Path(sys.argv[1]))\nfile = os.open(held.path, os.O_RDWR)\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\nprint('locked', flush=True)\nsys.stdin.readline()\n"
        "os.close(file)\n"
        "try: held.check()\nexcept LeaseLost as lost: print(lost, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdout.readline() == "locked\n"
    process.send_signal(signal.SIGSTOP)
    assert holder_of(folder) is not None, "reading waits for nobody"
    with pytest.raises(LeaseHeld):
        Lease.claim(folder)
    time.sleep(1.1)
    mine = Lease.claim(folder, patience=5.0)
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate("go\n", timeout=30)
    assert "was taken over" in said
    mine.check()
    mine.release()


def test_a_folder_that_was_deleted_is_not_made_again(folder):
    Lease.claim(folder)
    shutil.rmtree(folder)
    for write in (
        lambda: atomic_write(folder / "deep" / "file", "x"),
        lambda: enter(atomic_folder(folder / "model")),
    ):
        with pytest.raises(LeaseLost, match="moved or deleted"):
            write()
    assert not folder.exists()


def test_a_lease_that_is_lost_during_a_long_write_stops_it_before_the_file_appears(folder):
    mine = Lease.claim(folder)
    with pytest.raises(LeaseLost), atomic_folder(folder / "checkpoint") as place:
        (place / "weights").write_text("x")
        rewrite(folder, owner="another process")
    assert [path.name for path in folder.iterdir()] == [".lease"]
    mine.release()


def test_files_outside_the_folder_are_written_all_the_same(folder, tmp_path):
    Lease.claim(folder)
    Lease.claim(folder, take_over=True)
    atomic_write(tmp_path / "elsewhere", "x")
    assert (tmp_path / "elsewhere").read_text() == "x"


def test_a_process_knows_itself_and_the_dead():
    mine = Process.this()
    assert mine.state() == "running"
    assert dataclasses.replace(mine, pid=2**22 + 1).state() == "dead"
    assert dataclasses.replace(mine, started="1").state() == "dead"
    assert dataclasses.replace(mine, host="elsewhere").state() == "running"
    assert dataclasses.replace(mine, machine="another").state() == "unknown"
    assert dataclasses.replace(mine, namespace="another").state() == "unknown"


def enter(context):
    with context:
        pass


def test_a_folder_in_the_place_of_a_lease_holds_nothing_and_is_named_by_a_claim(tmp_path: Path) -> None:
    (tmp_path / ".lease").mkdir()
    assert holder_of(tmp_path) is None
    with pytest.raises(IsADirectoryError) as error:
        Lease.claim(tmp_path)
    assert str(tmp_path / ".lease") in str(error.value)


def test_a_file_system_without_locks_has_leases_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lease = Lease.claim(tmp_path)
    with pytest.raises(LeaseHeld):
        Lease.claim(tmp_path)
    lease.check()
    lease.release()
    Lease.claim(tmp_path).release()
