"""Rows of a parquet file, within the limits of `bounded`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError, brief
from gpt2lab.base.extras import install
from gpt2lab.text.bounded import (
    MOST_COLUMNS,
    Budget,
    EmptyFile,
    missing_field,
    refuse_twins,
    seekable,
)

_ROWS = 1000  # decoded at a time
_TEXTS = ("string", "binary")


def parquet_rows(path: Path, field: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) for every row, with all columns or with `field` alone; a thousand rows are decoded at a time.

    LabError for a file that is damaged, holds text that is not UTF-8, or values far larger than itself.
    """
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise LabError(f"{path}: parquet needs pyarrow; {install('parquet')}") from error
    budget, number = Budget(path), 0
    if not budget.size:
        raise EmptyFile(f"{path}: the file is empty")
    with seekable(path) as handle:
        try:
            schema = parquet.ParquetFile(handle).schema_arrow
            names = _names(path, schema.names, field)
            texts = [name for name in names if str(schema.field(name).type).removeprefix("large_") in _TEXTS]
            # A text that stands once in the file and many times in the column stays one in memory.
            file = parquet.ParquetFile(handle, read_dictionary=texts)
            for batch in file.iter_batches(batch_size=_ROWS, columns=names):
                for row in zip(*batch.columns, strict=True):
                    number += 1
                    values = {name: value.as_py() for name, value in zip(names, row, strict=True)}
                    budget.spend(sum(_size(value) for value in values.values()))
                    yield f"{path}, row {number}", values
        except LabError:
            raise
        except UnicodeDecodeError as error:
            raise LabError(f"{path}, row {number}: text that is not UTF-8 (byte {error.start})") from error
        except (
            pyarrow.ArrowException,
            OSError,
            ValueError,
            TypeError,
            ArithmeticError,
            MemoryError,
        ) as error:
            what = f"damaged after row {number}" if number else "not parquet, or cut off"
            raise LabError(f"{path}: {what} ({brief(error)})") from error
    if number == 0:
        raise EmptyFile(f"{path}: the file has no rows")


def _names(path: Path, names: list[str], field: str | None) -> list[str]:
    """Return the columns to read. LabError for too many, for one that is missing, and for two of one name."""
    if len(names) > MOST_COLUMNS:
        raise LabError(f"{path}: {len(names):,} columns of at most {MOST_COLUMNS:,}")
    wanted = names if field is None else [name for name in names if name == field]
    if not wanted:
        raise missing_field(str(path), field or "", names)
    refuse_twins(names, str(path))
    return wanted


def _size(value: object) -> int:
    """Return about how many bytes a value takes."""
    if isinstance(value, str | bytes):
        return len(value) + 1
    if isinstance(value, dict):
        return sum(_size(item) for item in value.values()) + 8
    return sum(map(_size, value)) + 8 if isinstance(value, list) else 8
