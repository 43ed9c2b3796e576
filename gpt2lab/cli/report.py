"""Write a run's report again, as HTML and Markdown, and say where it is.

examples:
  gpt2lab report tinystories-laptop-1
  gpt2lab report tinystories-laptop      the newest run of this name
"""

import argparse
from collections.abc import Sequence

from gpt2lab.cli.parser import Parser
from gpt2lab.cli.show import print_json


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add the run."""
    parser.add_argument(
        "name", metavar="RUN", help="a run's id, or its name for the newest; `gpt2lab runs` lists them"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the paths of the report."""
    from gpt2lab.lab.report import write_report

    html = write_report(arguments.name)
    if arguments.json:
        print_json({"html": str(html), "markdown": str(html.with_suffix(".md"))})
    else:
        print(f"{html}\n{html.with_suffix('.md')}")
