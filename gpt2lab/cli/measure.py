"""Measure a model: numbers with their units, and the settings behind them.

examples:
  gpt2lab measure perplexity train-1 --data *.txt
  gpt2lab measure perplexity --help     the options of a measure
"""

import argparse
from collections.abc import Sequence

from gpt2lab.base.errors import unknown
from gpt2lab.base.registry import part, parts
from gpt2lab.base.settings import add_arguments, given
from gpt2lab.cli.parser import Parser, add_device, add_seed, add_set


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add measure, model, and the options of the measure that was typed."""
    known = {one.name: one for one in parts("measure")}
    listed = "; ".join(f"{name}: {one.summary}" for name, one in known.items() if one.built)
    parser.add_argument("measure", metavar="NAME", help=f"what to measure ({listed})")
    parser.add_argument("model", metavar="MODEL", help="a folder, a hub id, or the name of a run")
    add_device(parser)
    add_set(parser)
    plain = [word for word in argv if not word.startswith("-")]
    name = next((word for word in plain if word in known), plain[0] if plain else None)
    if name is None:
        add_seed(parser)
        return
    if name not in known:
        raise unknown("measure", name, [one for one in known if known[one].built])
    kind = part("measure", name)
    if "seed" not in getattr(kind, "__dataclass_fields__", {}):
        add_seed(parser)
    add_arguments(parser.add_argument_group(f"measure {name}"), kind, skip=("device",))


def run(arguments: argparse.Namespace) -> None:
    """Print the measurement."""
    from gpt2lab.lab import verbs

    options = {**given(arguments, part("measure", arguments.measure)), **arguments.settings}
    result = verbs.measure(arguments.measure, arguments.model, device=arguments.device, **options)
    print(result.to_json() if arguments.json else result)
