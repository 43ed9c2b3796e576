"""Two or more runs side by side: results, settings that differ, and a report of both.

examples:
  gpt2lab compare train-1 train-2
  gpt2lab compare train-1 train-2 --out comparison     where the HTML and Markdown files go
"""

import argparse
from collections.abc import Sequence
from typing import Any

from gpt2lab.cli.parser import Parser
from gpt2lab.cli.show import cut, print_json, table


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add the runs and the folder of the report."""
    parser.add_argument(
        "names", nargs="+", metavar="RUN", help="at least two runs; `gpt2lab runs` lists them"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="folder of the report (default: the folder of the runs)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the comparison and where its report is."""
    from gpt2lab.lab.verbs import compare

    found = compare(arguments.names, out=arguments.out)
    if arguments.json:
        print_json(found)
        return
    for title in ("results", "settings"):
        lines = found[title]
        if lines:
            header = list(lines[0])
            cells = [[_short(line[column]) for column in header] for line in lines]
            print(table(cells, [title, *header[1:]]), end="\n\n")
    print(f"report  {found['html']}")


def _short(value: Any) -> Any:
    return cut(value, 36) if isinstance(value, str) else value
