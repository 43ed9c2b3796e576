"""TensorBoard event files, written without TensorBoard.

A file is a sequence of TFRecords (length, its checksum, data, its checksum); the data are protocol buffers of
the message Event {wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7}. The format is forty
lines; the package would be forty megabytes. tests/runs/test_tensorboard.py reads the files with TensorBoard itself.
"""

import functools
import struct
import time
from collections.abc import Mapping
from pathlib import Path

_DOUBLE, _VARINT, _BYTES, _FLOAT = 1, 0, 2, 5  # wire types of protocol buffers


class EventWriter:
    """Appends scalars to a new event file in `folder`."""

    def __init__(self, folder: Path) -> None:
        stamp = time.time_ns()
        # Nine digits: TensorBoard reads files in the order of their names.
        self.path = folder / f"events.out.tfevents.{stamp // 10**9}.{stamp % 10**9:09d}"
        self._file = self.path.open("ab")
        self._write(_field(3, _BYTES, b"brain.Event:2"))

    def restart(self, step: int) -> None:
        """Tell TensorBoard to forget what older files of the folder say of `step` and later."""
        self._write(_step(step) + _field(7, _BYTES, _field(1, _VARINT, 1)))

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append one event with all of `numbers`."""
        values = b"".join(
            _field(1, _BYTES, _field(1, _BYTES, name.encode()) + _field(2, _FLOAT, value))
            for name, value in numbers.items()
        )
        self._write(_step(step) + _field(5, _BYTES, values))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, fields: bytes) -> None:
        event = _field(1, _DOUBLE, time.time()) + fields
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))


def _step(step: int) -> bytes:
    return _field(2, _VARINT, step)


def _field(number: int, wire: int, value: float | bytes) -> bytes:
    """Return one field of a protocol buffer."""
    tag = bytes([number << 3 | wire])
    if isinstance(value, bytes):
        return tag + _varint(len(value)) + value
    if wire == _VARINT:
        return tag + _varint(int(value))
    if wire == _DOUBLE:
        return tag + struct.pack("<d", value)
    try:
        return tag + struct.pack("<f", value)
    except OverflowError:  # too large for 32 bits
        return tag + struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def _varint(value: int) -> bytes:
    """Return a whole number in groups of seven bits, lowest first."""
    value &= (1 << 64) - 1  # a negative number stands as its two's complement
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _checksum(data: bytes) -> bytes:
    """Return the masked CRC-32C of a TFRecord."""
    crc = 0xFFFFFFFF
    table = _crc_table()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)


@functools.cache
def _crc_table() -> tuple[int, ...]:
    """Return the remainders of all bytes by the Castagnoli polynomial, reflected."""

    def remainder(byte: int) -> int:
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        return byte

    return tuple(remainder(byte) for byte in range(256))
