"""The short form of `python -m tests.fuzz.loaders`: a few thousand damaged files, none of which may do harm."""

from pathlib import Path

import pytest

from tests.fuzz.kinds import kinds, same
from tests.fuzz.loaders import FAULTS, Bench, run


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("fuzz"), seed=1)


def test_no_damaged_file_gives_anything_but_a_right_answer_or_one_sentence(bench: Bench) -> None:
    count, faults = run(bench, 1500)
    assert count == 1500
    assert not faults, "\n".join(map(str, faults))


def test_the_bench_sees_each_sort_of_fault(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(load: object) -> str:
        kind = bench.kinds["measurement"]
        monkeypatch.setitem(bench.kinds, "measurement", type(kind)(kind.make, load, weight=1))  # type: ignore[arg-type]  # wrong ones on purpose
        _, faults = run(bench, 200, only="measurement", workers=1)
        return faults[0].what if faults else ""

    def wrong(folder: Path) -> None:
        raise KeyError("x")

    def hungry(folder: Path) -> None:
        bytearray(3 * 2**30)

    assert [fault(wrong), fault(hungry), fault(lambda folder: "other")] == [FAULTS[0], FAULTS[2], FAULTS[3]]


def test_every_kind_reads_its_valid_folder_the_same_twice(bench: Bench) -> None:
    for name, kind in kinds().items():
        assert same(kind.load(bench.valid / name), bench.results[name]), name
