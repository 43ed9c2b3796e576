"""Figures and tables of a run as files for a paper of one's own: PDF and PNG beside SVG, LaTeX beside CSV."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.extras import install
from gpt2lab.base.files import atomic_write
from gpt2lab.base.json_files import read_text
from gpt2lab.base.tables import cell, columns_of, number_columns
from gpt2lab.base.wording import printable
from gpt2lab.plots.figures import tidy_svg
from gpt2lab.runs.run_record import RunRecord

FIGURES = ("pdf", "png")
TABLES = ("latex",)
_SCALE = 3  # pixels of a PNG for one of the SVG: 288 to the inch
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}  # fmt: skip


def write_figures(run: RunRecord, kinds: Sequence[str]) -> list[Path]:
    """Write every figure in the run's folder as PDF or PNG beside its SVG; return the new files.

    LabError for another kind, for a figure that is none, or without CairoSVG.
    """
    for kind in kinds:
        if kind not in FIGURES:
            raise unknown("kind of figure", kind, FIGURES)
    made = []
    for path in sorted((run.folder / "figures").glob("*.svg")) if kinds else ():
        # Cleaned: what draws the file would fetch what it refers to.
        drawing = tidy_svg(read_text(path)).encode("utf-8")
        for kind in dict.fromkeys(kinds):
            made.append(path.with_suffix(f".{kind}"))
            atomic_write(made[-1], _converter(kind)(bytestring=drawing, scale=_SCALE if kind == "png" else 1))
    return made


def write_tables(run: RunRecord, kinds: Sequence[str]) -> list[Path]:
    r"""Write every table of a run as LaTeX beside its CSV, for `\input`; return the new files. LabError for another kind."""
    for kind in kinds:
        if kind not in TABLES:
            raise unknown("kind of table", kind, TABLES)
    made = []
    for name, rows in run.tables.items() if kinds else ():
        made.append(run.folder / "tables" / f"{name}.tex")
        atomic_write(made[-1], latex(rows, run.captions("tables")[name]))
    return made


def latex(rows: Sequence[Mapping[str, Any]], caption: str = "") -> str:
    """Return rows as a `tabular` with the rules of booktabs, numbers to the right; the caption is a comment above it."""
    columns = columns_of(rows)
    right = number_columns(rows, columns)
    head, *body = [columns, *([cell(row.get(name)) for name in columns] for row in rows)]
    shape = "".join("r" if at_right else "l" for at_right in right)
    lines = [
        f"% {' '.join(printable(caption).split())}".rstrip(),
        rf"\begin{{tabular}}{{{shape}}}",
        r"\toprule",
        _line(head),
        r"\midrule",
        *map(_line, body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(_text, cells)) + r" \\"


def _text(text: str) -> str:
    """Return text that LaTeX sets as it is."""
    return re.sub(r'[\\{}$&#%_^~<>|"]', lambda found: _SPECIAL[found[0]], " ".join(printable(text).split()))


def _converter(kind: str) -> Callable[..., bytes]:
    try:
        import cairosvg
    except ImportError as error:
        raise LabError(f"figures as {kind} need CairoSVG: {install('pdf')}") from error
    except OSError as error:  # the package is there, the library that it calls is not
        raise LabError(
            f"figures as {kind} need the library cairo, such as Debian's libcairo2 ({error})"
        ) from error
    convert: Callable[..., bytes] = {"pdf": cairosvg.svg2pdf, "png": cairosvg.svg2png}[kind]
    return convert
