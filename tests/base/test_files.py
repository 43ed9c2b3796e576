"""A file appears whole or not at all."""

import concurrent.futures
import errno
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2lab.base import files
from gpt2lab.base.errors import LabError
from gpt2lab.base.files import (
    SUMS,
    atomic_folder,
    atomic_write,
    check_place,
    check_sums,
    locked,
    restore,
    sha256,
    sweep,
    user_path,
    write_sums,
)


def test_a_written_file_is_whole_and_readable_by_others(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a" / "b.txt", "één")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "één"
    assert (tmp_path / "a" / "b.txt").stat().st_mode & 0o777 == 0o644
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    atomic_write(tmp_path / "b", b"old")
    with pytest.raises(UnicodeEncodeError):
        atomic_write(tmp_path / "b", "\ud800")
    assert (tmp_path / "b").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_folder_replaces_the_old_one_at_the_end_of_the_block(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for word in ("one", "two"):
        with atomic_folder(target) as folder:
            (folder / "w").write_text(word)
    assert (target / "w").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_block_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic_folder(target) as folder:
        (folder / "w").write_text("one")
    with pytest.raises(RuntimeError), atomic_folder(target) as folder:
        (folder / "w").write_text("two")
        raise RuntimeError
    assert (target / "w").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_the_checksum_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    assert sha256(tmp_path / "f") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def _dies_within(code: str, folder: Path) -> None:
    """Run code in a process of its own that ends itself by SIGKILL."""
    done = subprocess.run(
        [sys.executable, "-c", f"import os, signal, sys\nfrom pathlib import Path\n{code}", str(folder)],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_are_readable_by_whom_the_umask_lets_whatever_wrote_them(
    umask: int, mode: int, tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        with atomic_folder(tmp_path / "model") as folder:
            for name in ("a", "b/c"):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text("x")
                (folder / name).chmod(0o600)  # as safetensors does
        atomic_write(tmp_path / "file", "x")
    finally:
        os.umask(before)
    paths = list(tmp_path.rglob("*"))
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_file()} == {mode}
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_dir()} == {0o777 & ~umask}


def test_a_file_system_without_modes_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    with atomic_folder(tmp_path / "model") as folder:
        (folder / "a").touch(0o600)
        monkeypatch.setattr(os, "chmod", refuse)
    assert (tmp_path / "model" / "a").exists()


def test_a_home_of_somebody_unknown_is_a_name_like_any_other() -> None:
    assert user_path("~/a") == Path.home() / "a"
    assert user_path("~nobody-of-this-name/a") == Path("~nobody-of-this-name/a")


def test_what_stands_for_an_open_file_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "stdout"
    with (tmp_path / "f").open("w") as handle:
        out.symlink_to(f"/proc/self/fd/{handle.fileno()}")
        with pytest.raises(LabError, match="a device or a pipe"):
            atomic_write(out, "x")
    assert out.is_symlink()


def test_a_place_where_no_folder_can_be_put_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for place, why in (
        (tmp_path / "file" / "a" / "b", "is a file"),
        (tmp_path / "file", "a file, where a folder is to be"),
        (tmp_path / "loop", "a file, where a folder is to be"),
        (Path("/"), "another file system is mounted there"),
    ):
        with pytest.raises(LabError, match=why):
            check_place(place)
    check_place(tmp_path / "a" / "b")
    check_place(tmp_path)
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # root may write wherever a mode forbids it
    with pytest.raises(LabError, match=f"because {tmp_path} cannot be written in"):
        check_place(tmp_path / "a" / "b")


@pytest.mark.parametrize("what", ["file", "loop"])
def test_a_file_where_a_folder_is_to_be_is_a_sentence_and_stays(what: str, tmp_path: Path) -> None:
    place = tmp_path / what
    place.touch() if what == "file" else place.symlink_to(what)
    with pytest.raises(LabError, match=f"{what}: a file, where a folder is to be"), atomic_folder(place):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [what]


def test_a_folder_that_is_a_mount_point_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(one: Path, other: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "rename", busy)
    with (
        pytest.raises(LabError, match="mounted there, which a folder cannot replace"),
        atomic_folder(tmp_path / "m"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exchange", [True, False])
def test_at_no_moment_is_there_no_folder_or_none_that_can_be_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    seen = []
    rename = os.rename

    def look(*names: Path) -> None:
        seen.append((tmp_path / "model").exists())
        rename(*names)
        seen.append((tmp_path / "model").exists())

    with atomic_folder(tmp_path / "model") as folder:
        (folder / "w").write_text("one")
    if not exchange:
        monkeypatch.setattr(files, "_renameat2", lambda: None)
    monkeypatch.setattr(os, "rename", look)
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "w").write_text("two")
    assert all(seen) is exchange, "two renames have a gap, an exchange has none"
    assert (tmp_path / "model" / "w").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_swap_that_died_between_two_renames_is_undone_by_reading_or_sweeping(tmp_path: Path) -> None:
    code = (
        "from gpt2lab.base import files\nfiles._renameat2 = lambda: None\n"
        "target, rename = Path(sys.argv[1]), os.rename\n"
        "with files.atomic_folder(target) as folder: (folder / 'w').write_text('one')\n"
        f"def once(a, b):\n    rename(a, b) if '.old-' not in str(b) else (rename(a, b), {KILL})\n"
        "os.rename = once\n"
        "with files.atomic_folder(target) as folder: (folder / 'w').write_text('two')\n"
    )
    for again in (restore, lambda path: sweep(path.parent)):
        _dies_within(code, tmp_path / "model")
        assert not (tmp_path / "model").exists()
        again(tmp_path / "model")
        assert (tmp_path / "model" / "w").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_what_killed_writers_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    for opened in ("atomic_folder", "atomic_file", "locked"):
        code = f"from gpt2lab.base import files\nwith files.{opened}(Path(sys.argv[1])): {KILL}"
        _dies_within(code, tmp_path / "deep" / "name")
    left = sorted(path.name for path in (tmp_path / "deep").iterdir())
    assert len(left) == 3
    (tmp_path / "deep" / ".notes").write_text("somebody's own hidden file")
    with atomic_folder(tmp_path / "deep" / "other") as folder:
        assert sorted(path.name for path in sweep(tmp_path)) == left
        (folder / "w").write_text("x")
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == [".notes", "other"]


def test_a_folder_is_written_without_what_a_killed_writer_of_it_left(tmp_path: Path) -> None:
    code = f"from gpt2lab.base import files\nwith files.atomic_folder(Path(sys.argv[1])): {KILL}"
    _dies_within(code, tmp_path / "name")
    with atomic_folder(tmp_path / "name"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def _replaces(folder: str, word: str) -> int:
    """Replace a folder of three equal files many times; return how often another than a whole one was seen."""
    broken = 0
    for _ in range(40):
        with atomic_folder(Path(folder) / "s") as temporary:
            for name in "abc":
                (temporary / name).write_text(word)
        try:
            at = os.open(Path(folder) / "s", os.O_RDONLY)
        except OSError:
            broken += 1
            continue
        os.close(at)
    return broken


def test_several_processes_may_replace_one_folder_at_once(tmp_path: Path) -> None:
    with concurrent.futures.ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as pool:
        done = [pool.submit(_replaces, str(tmp_path), str(number)) for number in range(4)]
        assert [one.result(timeout=60) for one in done] == [0, 0, 0, 0]
    assert len({path.read_text() for path in (tmp_path / "s").iterdir()}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def _counts(folder: str) -> None:
    for _ in range(50):
        with locked(Path(folder) / "n"):
            number = int((Path(folder) / "n").read_text())
            (Path(folder) / "n").write_text(str(number + 1))


def test_a_lock_is_held_by_one_process_at_a_time_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("0")
    with concurrent.futures.ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as pool:
        for one in [pool.submit(_counts, str(tmp_path)) for _ in range(4)]:
            one.result(timeout=60)
    assert (tmp_path / "n").read_text() == "200"
    assert [path.name for path in tmp_path.iterdir()] == ["n"]


@pytest.mark.parametrize("name", ["weights", "state", SUMS])
def test_every_flipped_bit_of_every_file_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "weights").write_bytes(bytes(range(7)))
    (tmp_path / "state").write_text("{}")
    write_sums(tmp_path)
    check_sums(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for at in range(len(whole)):
        for bit in (1, 32):
            (tmp_path / name).write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            with pytest.raises(LabError, match=f"{tmp_path.name}: "):
                check_sums(tmp_path)
    (tmp_path / name).write_bytes(whole[:-1])
    with pytest.raises(LabError):
        check_sums(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(LabError, match="not whole"):
        check_sums(tmp_path)


def test_a_file_too_many_is_found_and_one_alone_can_be_checked(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("{}")
    write_sums(tmp_path)
    (tmp_path / "more").write_text("x")
    check_sums(tmp_path, ["state"])
    with pytest.raises(LabError, match="the checksum of more is not the one"):
        check_sums(tmp_path)
    done = subprocess.run(["sha256sum", "-c", "--quiet", SUMS], cwd=tmp_path, check=False)
    assert done.returncode == 0


def test_a_device_or_a_pipe_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("/dev/null")
    for path in (pipe, link):
        with pytest.raises(LabError, match="a device or a pipe"):
            atomic_write(path, "content")
    assert pipe.is_fifo() and link.is_symlink() and sorted(tmp_path.iterdir()) == [link, pipe]
