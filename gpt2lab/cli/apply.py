"""Apply a transform to a model and save the new model; the given one is not changed. The work is recorded as a run.

examples:
  gpt2lab apply quantize train-1 --bits 4 --out small
  gpt2lab apply --help                  the transforms there are
  gpt2lab apply quantize --help         the options of one
"""

import argparse
from collections.abc import Sequence

from gpt2lab.actions.models import find_model
from gpt2lab.base.progress import duration
from gpt2lab.base.wording import number, size
from gpt2lab.cli.parser import Parser
from gpt2lab.cli.part_options import add_part, part_options
from gpt2lab.cli.runs import plain
from gpt2lab.cli.show import print_json
from gpt2lab.runs.store import Store


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add transform, model, --out, and the options of the transform that was typed."""
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the new model (default: model, in the folder of the run)"
    )
    add_part(parser, argv, "transform", "transform", skip=("out",))


def run(arguments: argparse.Namespace) -> None:
    """Print what was written, its size, and how long it took."""
    from gpt2lab.actions.apply import apply

    name = arguments.transform
    made = apply(
        name,
        arguments.model,
        out=arguments.out,
        save=True,
        device=arguments.device,
        dtype=arguments.dtype,
        command=arguments.line,
        **part_options(arguments, "transform", name, apply),
    )
    show_applied(made.source, as_json=arguments.json)


def show_applied(identity: str, *, as_json: bool) -> None:
    """Print what a run of a transform has written."""
    row, folder = Store().find(identity), find_model(identity)
    results = row.numbers
    if as_json:
        print_json({**plain(row), "out": str(folder)})
        return
    print(f"wrote   {folder}")
    print(f"size    {size(int(results['bytes']))}, {number(results['parameters'])} parameters", end="")
    print(f" (before: {number(results['parameters_before'])})")
    print(f"took    {duration(results['seconds'])}")
    print(f"run     {row.id}")
    print(f'next    gpt2lab generate {row.id} "..."')
