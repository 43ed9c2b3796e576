"""Write a run's report again, as HTML and Markdown, and print its path; export its figures and tables for a paper.

examples:
  gpt2lab report tinystories-laptop-1
  gpt2lab report tinystories-laptop      the newest run of this name
  gpt2lab report conda-laptop-1 --figures pdf,png --tables latex
"""

import argparse
from collections.abc import Sequence

from gpt2lab.cli.parser import Parser
from gpt2lab.cli.show import print_json


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add the run, --figures and --tables."""
    parser.add_argument(
        "name", metavar="RUN", help="a run's id, or its name for the newest; `gpt2lab runs` lists them"
    )

    parser.add_argument(
        "--figures",
        default="",
        metavar="A,B",
        help="also write every figure as pdf or png, beside its SVG ([pdf] extra)",
    )
    parser.add_argument(
        "--tables", default="", metavar="A", help="also write every table as latex, beside its CSV"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the paths of the report."""
    from gpt2lab.runs.report.write import write_report

    figures, tables = (words.split(",") if words else [] for words in (arguments.figures, arguments.tables))
    html = write_report(arguments.name, figures=figures, tables=tables)
    places = {"html": html, "markdown": html.with_suffix(".md")}
    places |= {
        kind: html.parent / kind for kind, asked in (("figures", figures), ("tables", tables)) if asked
    }
    if arguments.json:
        print_json({kind: str(place) for kind, place in places.items()})
    else:
        print("\n".join(map(str, places.values())))
