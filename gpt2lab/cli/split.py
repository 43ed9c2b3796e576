"""Split labelled texts into files for pre-training, fine-tuning and a test that share no text.

examples:
  gpt2lab split notes.csv --field note --label trauma --id no --out parts
  gpt2lab split tickets.jsonl --by date --date day --test 500 --out parts     the latest 500 are the test
  gpt2lab split notes.csv --label cause --positive trauma --out parts         trauma is 1, all others 0
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2lab.base.settings import add_arguments
from gpt2lab.base.wording import size
from gpt2lab.cli.parser import Parser, add_set
from gpt2lab.cli.part_options import typed_options
from gpt2lab.cli.show import pairs, print_json
from gpt2lab.text.labelled_splits import SplitSettings


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add the files, --out, and a flag for every setting of a split."""
    parser.add_argument(
        "source",
        nargs="+",
        metavar="FILE",
        help="rows with a text and, where it is known, a label: csv, jsonl, parquet, hub:ID or a built-in source",
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="a new folder")
    add_set(parser)
    add_arguments(parser, SplitSettings)


def run(arguments: argparse.Namespace) -> None:
    """Print how many documents each file has, and what was left out."""
    from gpt2lab.actions.split import split

    options = typed_options(arguments, SplitSettings, split, "a split")
    done = split(arguments.source, out=arguments.out, **options)
    if arguments.json:
        print_json({"out": str(done.path), "bytes": done.size, **done.manifest})
        return
    print(f"wrote   {done.path}")
    print(f"size    {size(done.size)}")
    print(pairs(_lines(done.manifest)))


def _lines(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a person wants to know of a manifest: files, labels, what was left out."""
    lines = []
    for name, documents in manifest["documents"].items():
        labels = manifest["labels"].get(name, {})
        of_each = ", ".join(f"{label}: {amount:,}" for label, amount in labels.items())
        lines.append((f"{name}.jsonl", f"{documents:,} documents" + (f" ({of_each})" if of_each else "")))
    copies, contradicting = manifest["copies_left_out"], manifest["contradicting_left_out"]
    return [
        *lines,
        ("left out", f"{copies:,} copies, {contradicting:,} whose copies have different labels"),
    ]
