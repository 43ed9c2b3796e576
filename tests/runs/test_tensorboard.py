"""TensorBoard event files, read back with TensorBoard itself."""

import math

import pytest

from gpt2lab.runs.tensorboard import EventWriter, _checksum, _varint

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder):
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_what_was_written(tmp_path):
    writer = EventWriter(tmp_path)
    for step in (0, 1, 300, 70_000, 2**40):
        writer.scalars(step, {"loss": step / 3, "läßt/größe": -1.5})
    writer.close()
    found = read(tmp_path)
    assert [step for step, _ in found["loss"]] == [0, 1, 300, 70_000, 2**40]
    assert [value for _, value in found["loss"]] == pytest.approx([s / 3 for s in (0, 1, 300, 70_000, 2**40)])
    assert found["läßt/größe"][0] == (0, -1.5)


def test_numbers_that_are_not_finite_or_too_large_are_written_as_such(tmp_path):
    writer = EventWriter(tmp_path)
    writer.scalars(1, {"nan": math.nan, "inf": math.inf, "huge": -1e300})
    writer.close()
    found = read(tmp_path)
    assert math.isnan(found["nan"][0][1])
    assert (found["inf"][0][1], found["huge"][0][1]) == (math.inf, -math.inf)


def test_a_restart_makes_tensorboard_forget_later_steps(tmp_path):
    writer = EventWriter(tmp_path)
    for step in range(10):
        writer.scalars(step, {"loss": 1.0})
    writer.close()
    writer = EventWriter(tmp_path)
    writer.restart(5)
    writer.scalars(5, {"loss": 2.0})
    writer.close()
    assert read(tmp_path)["loss"] == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0)]


def test_files_of_one_second_are_named_in_the_order_of_their_making(tmp_path, monkeypatch):
    names = []
    for nanoseconds in (5, 70_000, 123_456_789, 999_999_999):
        monkeypatch.setattr("time.time_ns", lambda now=nanoseconds: 1_700_000_000 * 10**9 + now)
        writer = EventWriter(tmp_path)
        writer.close()
        names.append(writer.path.name)
    assert names == sorted(names)


def test_the_checksum_and_the_varint_are_the_published_ones():
    # CRC-32C of "123456789" is 0xE3069283 (RFC 3720); masked as in TFRecord
    crc = 0xE3069283
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert _checksum(b"123456789") == masked.to_bytes(4, "little")
    assert _varint(300) == b"\xac\x02"
