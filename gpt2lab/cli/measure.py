"""Measure a model: print numbers with their units and the settings. The result is recorded as a run.

examples:
  gpt2lab measure perplexity train-1 --data docstrings:300000
  gpt2lab measure text-statistics openai:http://localhost:8000/v1#NAME     a model behind a server
  gpt2lab measure perplexity --help     the options of a measure
"""

import argparse
from collections.abc import Sequence

from gpt2lab.cli.parser import Parser
from gpt2lab.cli.part_options import add_part, part_options


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add measure, model, and the options of the measure that was typed."""
    add_part(parser, argv, "measure", "measure")


def run(arguments: argparse.Namespace) -> None:
    """Print the measurement."""
    from gpt2lab.actions.measure import measure

    result = measure(
        arguments.measure,
        arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        command=arguments.line,
        **part_options(arguments, "measure", arguments.measure, measure),
    )
    print(result.to_json() if arguments.json else result)
