"""What a measure returns: numbers with units, tables, figures, arrays, files, and the settings and counts behind them."""

import hashlib
import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from gpt2lab.base.errors import LabError, brief
from gpt2lab.base.files import sha256
from gpt2lab.base.json_files import parse_json
from gpt2lab.base.json_numbers import NOT_FINITE, json_value
from gpt2lab.base.tables import columns_of, number_columns, padded
from gpt2lab.base.wording import number, printable
from gpt2lab.measures.arrays import FILE_NAME, Array, array_sha256, number_array, read_npy
from gpt2lab.plots.figures import to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Drawing = Union[bytes, Figure, Callable[[], bytes | Figure]]  # noqa: UP007  # Figure is known to mypy only

Table = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The result of measuring a model. Nothing is drawn until a figure is asked for."""

    name: str
    """The measure's name, as on the command line."""
    numbers: Mapping[str, float]
    """What was measured, the headline first."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Units of the numbers that have one."""
    tables: Mapping[str, Table] = field(default_factory=dict)
    """Rows of plain values."""
    figures: Mapping[str, "Drawing"] = field(default_factory=dict)
    """SVG files, matplotlib figures, or functions that make one when called."""
    arrays: Mapping[str, Array] = field(default_factory=dict)
    """Arrays of numbers, by names that can be files'; a run keeps each as arrays/NAME.npy."""
    files: Mapping[str, bytes | Path] = field(default_factory=dict)
    """Contents, or paths of files, by file name; a run keeps each as files/NAME."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Settings, counts and whatever else one must know to compare the numbers; plain values."""

    def __post_init__(self) -> None:
        if not self.numbers and not self.tables:
            raise LabError(f"{self.name}: a measurement needs a number or a table")
        object.__setattr__(self, "numbers", {key: float(value) for key, value in self.numbers.items()})
        for key in self.units:
            if key not in self.numbers:
                raise LabError(f"{self.name}: a unit for {key}, which was not measured")
        for key in (*self.arrays, *self.files):
            if not FILE_NAME.fullmatch(key):
                raise LabError(
                    f"{self.name}: {printable(key)!r} cannot name an array or a file; use letters, digits and . _ + = -"
                )
        arrays = {key: number_array(key, values) for key, values in self.arrays.items()}
        object.__setattr__(self, "arrays", arrays)

    def __getitem__(self, name: str) -> float:
        """Return one number; LabError with the names there are if it is not among them."""
        if name not in self.numbers:
            raise LabError(f"{self.name} has no number {name}; it has {', '.join(self.numbers)}")
        return self.numbers[name]

    def figure_svg(self, name: str) -> bytes:
        """Draw one figure and return it as an SVG file. LabError if there is none of that name."""
        if name not in self.figures:
            raise LabError(f"{self.name} has no figure {name}; it has {', '.join(self.figures) or 'none'}")
        drawn: Any = self.figures[name]
        drawn = drawn() if callable(drawn) else drawn
        if isinstance(drawn, bytes):
            return drawn
        return to_svg(drawn, f"{self.name}: {name}").encode("utf-8")

    def to_json(self, *, figures: bool = False) -> str:
        """Write the measurement as one JSON object; `figures` draws and includes them as SVG text.

        JSON has no NaN or infinity: in numbers they become the words "nan", "inf" and "-inf", elsewhere null.
        Arrays and files are described by shape, type, size and checksum; their content lies beside, see `from_json`.
        """
        content: dict[str, Any] = {
            "name": self.name,
            "numbers": json_value(self.numbers),
            "units": dict(self.units),
            "tables": _table_value(self.tables),
            "about": _table_value(self.about),
        }
        if self.arrays:
            content["arrays"] = {key: _described(array) for key, array in self.arrays.items()}
        if self.files:
            content["files"] = {key: _weighed(file) for key, file in self.files.items()}
        if figures:
            content["figures"] = {key: self.figure_svg(key).decode("utf-8") for key in self.figures}
        return json.dumps(content, ensure_ascii=False, allow_nan=False)

    @staticmethod
    def from_json(text: str, folder: Path | None = None) -> "Measurement":
        """Read what `to_json` wrote; with arrays and files if `folder` is that of the run that holds them.

        LabError if it is something else, and for an array or a file that is missing or not the one that was measured.
        """
        where = "this is not a measurement written by gpt2lab"
        content = parse_json(text, where)
        try:
            found = Measurement(
                name=_text(content["name"]),
                numbers={key: NOT_FINITE.get(value, value) for key, value in content["numbers"].items()},
                units={key: _text(unit) for key, unit in content["units"].items()},
                tables={name: [dict(row) for row in rows] for name, rows in content["tables"].items()},
                figures={key: _text(svg).encode("utf-8") for key, svg in content.get("figures", {}).items()},
                arrays={} if folder is None else _read_arrays(content.get("arrays", {}), folder),
                files={} if folder is None else _find_files(content.get("files", {}), folder),
                about=dict(content["about"]),
            )
        except LabError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise LabError(f"{where}: {type(error).__name__} {brief(error)}") from error
        return found

    def __str__(self) -> str:
        """Write numbers, settings and tables for the terminal."""
        parts = [f"{self.name}\n{_numbers(self.numbers, self.units)}"]
        if self.about:
            width = max(len(key) for key in self.about)
            parts.append("\n".join(f"  {key:<{width}}  {show(value)}" for key, value in self.about.items()))
        parts += [f"{name}\n{show_table(rows)}" for name, rows in self.tables.items() if rows]
        if self.arrays:
            parts.append(f"arrays\n{show_table(array_rows(self.arrays))}")
        if self.files:
            parts.append("files\n" + "\n".join(f"  {name}" for name in self.files))
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        """Write numbers and tables as a notebook shows them."""
        numbers = [
            {"number": key, "value": value, "unit": self.units.get(key, "")}
            for key, value in self.numbers.items()
        ]
        tables = [(self.name, numbers), *self.tables.items(), ("arrays", array_rows(self.arrays))]
        return "\n".join(_html_table(name, rows) for name, rows in tables if rows)


def array_rows(arrays: Mapping[str, Array]) -> Table:
    """Return name, shape and type of each array, as rows of a table."""
    return [
        {"array": name, "shape": " × ".join(map(str, array.shape)) or "one number", "type": str(array.dtype)}
        for name, array in arrays.items()
    ]


def _described(array: Array) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": array_sha256(array)}


def _weighed(file: bytes | Path) -> dict[str, Any]:
    if isinstance(file, bytes):
        return {"bytes": len(file), "sha256": hashlib.sha256(file).hexdigest()}
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def _read_arrays(described: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Array]:
    found = {}
    for name, description in described.items():
        path = folder / "arrays" / f"{_plain_name(name)}.npy"
        found[name] = read_npy(path)
        if _described(found[name]) != description:
            raise LabError(f"{path}: not the array that was measured; shape, type or checksum differ")
    return found


def _find_files(described: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, bytes | Path]:
    found: dict[str, bytes | Path] = {}
    for name, description in described.items():
        path = folder / "files" / _plain_name(name)
        if not path.is_file() or _weighed(path) != description:
            raise LabError(f"{path}: missing, or not the file that was measured; size or checksum differ")
        found[name] = path
    return found


def _plain_name(name: str) -> str:
    """Return a name that was read; ValueError for one that would lead out of its folder."""
    if not FILE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} names no file")
    return name


def _html_table(caption: str, rows: Sequence[Mapping[str, Any]]) -> str:
    columns = columns_of(rows)
    head = "".join(f"<th>{_html(name)}</th>" for name in columns)
    lines = [[show(row[name]) if name in row else "" for name in columns] for row in rows]
    body = "".join(f"<tr>{''.join(f'<td>{_html(text)}</td>' for text in line)}</tr>" for line in lines)
    return f"<table><caption>{_html(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html(text: object) -> str:
    return html.escape(printable(str(text)))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {type(value).__name__}")
    return value


def show(value: Any) -> str:
    """Write a value for people: numbers in five digits, lists by commas, nothing as `none`."""
    if isinstance(value, (int, float)):
        return number(value, 5)
    if isinstance(value, (list, tuple)):
        return ", ".join(show(item) for item in value)
    return "none" if value is None else str(value)


def show_table(rows: Sequence[Mapping[str, Any]], limit: int = 20) -> str:
    """Write rows in aligned columns, numbers to the right; of more than `limit` rows the first and the last, half each.

    A line between them says how many were left out: the last rows are often the answer (the last blocks of a model).
    """
    if not rows:
        return ""
    columns = columns_of(rows)
    head = rows if len(rows) <= limit else rows[: limit - limit // 2]
    tail = rows[len(rows) - limit // 2 :] if len(rows) > limit else []
    cells = [[show(row[c]) if c in row else "" for c in columns] for row in (*head, *tail)]
    right = number_columns(rows, columns)
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    lines = ["  " + "  ".join(padded(line, widths, right)) for line in [columns, *cells]]
    if tail:
        lines.insert(1 + len(head), f"  … {len(rows) - limit:,} more rows")
    return "\n".join(line.rstrip() for line in lines)


def _numbers(numbers: Mapping[str, float], units: Mapping[str, str]) -> str:
    """Write numbers under each other, their decimal points in one column."""
    if not numbers:
        return ""
    shown = {key: show(value) for key, value in numbers.items()}
    name_width = max(len(key) for key in shown)
    before = max(len(text.partition(".")[0]) for text in shown.values())
    after = max(len(text) - len(text.partition(".")[0]) for text in shown.values())
    lines = []
    for key, text in shown.items():
        whole, point, rest = text.partition(".")
        lines.append(f"  {key:<{name_width}}  {whole:>{before}}{point + rest:<{after}}  {units.get(key, '')}")
    return "\n".join(line.rstrip() for line in lines)


def _table_value(value: Any) -> Any:
    """Return what stands in tables in JSON's own types; a number that is not finite is null."""
    return json_value(value, not_finite=lambda _: None, other=_scalar)


def _scalar(value: Any) -> Any:
    """Return the scalars of numpy and torch as Python's, all else as text."""
    return value.item() if hasattr(value, "item") else str(value)
