"""Make word vectors of text, by counting or training, and write them as a file that fastText reads.

examples:
  gpt2lab vectors --data notes.txt --out notes.bin
  gpt2lab vectors --data books:400000 --counting.dimensions 100 --out books.vec
  gpt2lab vectors --data notes.txt --vectors skipgram --skipgram.epochs 10 --out notes.bin
"""

import argparse
from collections.abc import Sequence

from gpt2lab.actions.vectors import READ_BY
from gpt2lab.base.outline import outline
from gpt2lab.base.settings import add_arguments, build, options
from gpt2lab.base.wording import size
from gpt2lab.cli.parser import Parser, add_set
from gpt2lab.cli.part_options import typed_options
from gpt2lab.cli.show import print_json


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add --data, --out, and how vectors are counted and trained."""
    parser.add_argument(
        "--data",
        metavar="TEXT",
        nargs="+",
        required=True,
        help="text: files, folders, hub:ID, built-in sources",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        required=True,
        help="a new file: .bin keeps counts and n-grams, .vec is text",
    )
    add_set(parser)
    cls = _options()
    names = [option.name for option in options(cls)]
    add_arguments(parser, cls, only=[name for name in names if "." not in name])
    for kind, group in READ_BY.items():
        inner = [name for name in names if name.startswith(f"{group}.")]
        add_arguments(parser.add_argument_group(f"--vectors {kind}"), cls, only=inner)
    parser.elsewhere = lambda name: _full(name, names)


def _options() -> type:
    """Return the options, read from their source: names, types, defaults and docs, without torch."""
    found = outline("gpt2lab.text.text_vectors:VectorOptions")
    assert found is not None, "the lab's own settings are written so that they can be read"
    return found


def _full(name: str, names: Sequence[str]) -> str | None:
    """Say of a name without its group what is meant; None if no group has it."""
    found = [f"--{full.replace('_', '-')}" for full in names if full.rpartition(".")[2] == name]
    return f"an option of one kind of vectors; give {' or '.join(found)}" if found else None


def run(arguments: argparse.Namespace) -> None:
    """Print where the vectors are, and how many."""
    from gpt2lab.actions.vectors import vectors

    cls = _options()
    chosen = typed_options(arguments, cls, vectors, "word vectors")
    build(cls, chosen, "vectors")
    done = vectors(arguments.data, out=arguments.out, **chosen)
    if arguments.json:
        numbers = {"words": done.words, "dimensions": done.dimensions, "ngrams": done.ngrams}
        print_json({"out": str(done.path), "bytes": done.size, **numbers, "notes": list(done.notes)})
        return
    print(f"wrote   {done.path}")
    grams = ", and those of n-grams" if done.ngrams else ""
    print(f"size    {size(done.size)}: {done.words:,} words of {done.dimensions} numbers{grams}")
    for note in done.notes:
        print(f"note    {note}")
