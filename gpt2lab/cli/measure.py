"""Measure a model: numbers with their units, and the settings behind them. A run keeps them.

examples:
  gpt2lab measure perplexity train-1 --data docstrings:300000
  gpt2lab measure perplexity --help     the options of a measure
"""

import argparse
from collections.abc import Sequence

from gpt2lab.base.registry import part
from gpt2lab.base.settings import given
from gpt2lab.cli.parser import Parser
from gpt2lab.cli.part_options import add_part


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add measure, model, and the options of the measure that was typed."""
    add_part(parser, argv, "measure", "what to measure")


def run(arguments: argparse.Namespace) -> None:
    """Print the measurement."""
    from gpt2lab.actions import remember

    options = {**given(arguments, part("measure", arguments.measure)), **arguments.settings}
    result = remember.measure(
        arguments.measure,
        arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        options=options,
        command=arguments.line,
    )
    print(result.to_json() if arguments.json else result)
