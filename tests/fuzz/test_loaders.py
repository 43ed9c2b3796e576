"""The short form of `python -m tests.fuzz.loaders`: a few thousand damaged files, none of which may do harm."""

from pathlib import Path

import pytest

from tests.fuzz import loaders
from tests.fuzz.kinds import kinds, same
from tests.fuzz.loaders import FAULTS, UNDETECTABLE, Bench, Fault, run


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("fuzz"), seed=1)


def test_no_damaged_file_gives_anything_but_a_right_answer_or_one_sentence(bench: Bench) -> None:
    count, found = run(bench, 1500)
    faults = [fault for fault in found if fault.what in FAULTS]
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


@pytest.mark.parametrize("kind", ["model.llama", "model.index", "adapter"])
def test_other_weights_under_a_whole_header_are_counted_apart_and_another_header_is_not(
    kind: str, bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def judged(damaged: bytes) -> Fault | None:
        monkeypatch.setattr(loaders, "mutate", lambda data, *_: damaged)
        monkeypatch.setattr(loaders.random.Random, "choice", lambda self, names: victim)
        return bench.at(tmp_path / "case").judge(kind, 0)

    victim = next(name for name in sorted(bench.files[kind]) if name.endswith(".safetensors"))
    data = bench.files[kind][victim]
    head = 8 + int.from_bytes(data[:8], "little")
    fault = judged(data[:head] + b"\0" * 32 + data[head + 32 :])
    assert fault is not None and fault.what == UNDETECTABLE
    assert judged(data) is None
    assert judged(data[:head].replace(b".weight", b".wekght", 1) + data[head:]) is None  # refused
