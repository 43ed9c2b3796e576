"""Figures and tables of a run as files for a paper: what is written, and that it shows what was reported."""

from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.plots.figures import line_chart
from gpt2lab.runs.report.exports import latex
from gpt2lab.runs.report.write import write_report
from gpt2lab.runs.run import Run

try:
    import cairosvg
except (ImportError, OSError):
    cairosvg = None

draws = pytest.mark.skipif(cairosvg is None, reason="CairoSVG or cairo is not installed")


@pytest.fixture
def run(home: Path) -> Run:
    with Run.start("train", "own", home=home, settings={}) as run:
        run.figure("chart", line_chart({"a": ([1.0, 2.0], [3.0, 1.0])}, x_label="x", y_label="y"), "A chart")
        run.table(
            "t", [{"name_1": "a & b", "95 % low": 0.123456789}, {"name_1": "c", "95 % low": None}], "Of 5 %"
        )
    return run


@draws
def test_figures_become_pdf_and_png_and_tables_latex(run: Run, home: Path) -> None:
    write_report(run.id, figures=("pdf", "png"), tables=("latex",), home=home)
    assert (run.folder / "figures" / "chart.pdf").read_bytes().startswith(b"%PDF-")
    png = (run.folder / "figures" / "chart.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") > 1200  # pixels: 6.4 inches
    assert (run.folder / "tables" / "t.tex").read_text() == (
        "% Of 5 %\n\\begin{tabular}{lr}\n\\toprule\nname\\_1 & 95 \\% low \\\\\n\\midrule\n"
        "a \\& b & 0.1235 \\\\\nc &  \\\\\n\\bottomrule\n\\end{tabular}\n"
    )
    assert "0.123456789" in (run.folder / "tables" / "t.csv").read_text()


@draws
def test_what_a_figure_of_others_refers_to_is_not_drawn(run: Run, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.svg"
    other.write_text('<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9" fill="red"/></svg>')
    refers = f'<image href="{other.as_uri()}" xlink:href="{other.as_uri()}" width="9" height="9"/>'
    drawn = []
    for inner in (refers, ""):
        (run.folder / "figures" / "chart.svg").write_text(
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="9" height="9">'
            f'{inner}<circle r="3"/></svg>'
        )
        write_report(run.id, figures=("png",), home=home)
        drawn.append((run.folder / "figures" / "chart.png").read_bytes())
    assert drawn[0] == drawn[1]


def test_text_of_anybody_is_set_as_it_is() -> None:
    made = latex(
        [{"x": r"\input{/etc/passwd} $a^2$ 5% #1 a_b ~ <|end|> {" + "\x1b\n", "y": -1.5}], "two\nlines \\end"
    )
    assert made.splitlines()[0] == "% two lines \\end"
    assert (
        r"\textbackslash{}input\{/etc/passwd\} \$a\textasciicircum{}2\$ 5\% \#1 a\_b \textasciitilde{}"
        in made
    )
    assert r"\textless{}\textbar{}end\textbar{}\textgreater{} \{\textbackslash{}x1b & -1.5 \\" in made


@pytest.mark.parametrize(("what", "kind"), [("figures", "gif"), ("tables", "word")])
def test_another_kind_is_one_sentence(run: Run, home: Path, what: str, kind: str) -> None:
    with pytest.raises(LabError, match=f"kind of {what[:-1]}"):
        write_report(run.id, home=home, **{what: (kind,)})


def test_without_cairosvg_the_extra_is_named(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cairosvg", None)
    with pytest.raises(LabError, match=r"figures as pdf need CairoSVG: .*\[pdf\]"):
        write_report(run.id, figures=("pdf",), home=home)
