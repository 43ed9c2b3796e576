"""Write the documents of a source to files: generated, perturbed, or read.

examples:
  gpt2lab write tinyworld:300 --out stories.jsonl
  gpt2lab write dna-protein:1000:5 --out pairs.jsonl    rows keep their fields
  gpt2lab write --help                                  the sources that have options of their own
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from gpt2lab.base.outline import part_outline
from gpt2lab.base.registry import parts
from gpt2lab.base.settings import add_arguments, build
from gpt2lab.base.wording import size
from gpt2lab.cli.parser import Parser, add_set
from gpt2lab.cli.part_options import typed_options
from gpt2lab.cli.show import pairs, print_json


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add source, --out, and the options of the source that was typed."""
    known = {one.name: one for one in parts("source") if one.built}
    listed = "; ".join(f"{name}: {one.summary}" for name, one in known.items())
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help=f"a file, folder, hub:ID or built-in source, written as one file; or a source that writes a folder ({listed})",
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        required=True,
        help="a new file, .jsonl or .txt; of the latter sources a folder",
    )
    add_set(parser)
    name = next((word for word in argv if word in known), None)
    if name is not None:
        add_arguments(
            parser.add_argument_group(f"source {name}"), part_outline("source", name), skip=("out",)
        )
        return
    parser.add_argument(
        "--field",
        metavar="FIELD",
        default="text",
        help="field of the text in jsonl, csv, parquet and hub rows",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print where the documents are, and the manifest of a folder."""
    from gpt2lab.actions.write import is_source_part, write

    options: dict[str, Any] = {}
    if is_source_part(arguments.source):
        outline = part_outline("source", arguments.source)
        options = typed_options(arguments, outline, write, "a source")
        build(outline, options, f"write {arguments.source}")
    else:
        options = {**arguments.settings, "field": arguments.field}
    done = write(arguments.source, out=arguments.out, **options)
    if arguments.json:
        count = {} if done.documents is None else {"documents": done.documents}
        print_json({"out": str(done.path), "bytes": done.size, **count, **done.manifest})
        return
    print(f"wrote   {done.path}")
    print(f"size    {size(done.size)}", end="")
    print("" if done.documents is None else f", {done.documents:,} documents")
    if done.manifest:
        print(
            pairs(
                (key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
                for key, value in done.manifest.items()
            )
        )
