"""Word vectors and alignments by command line, `python -m gpt2lab.papers.wechsel vectors|align`."""

import argparse
import json
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2lab.base.errors import LabError, system_error
from gpt2lab.base.settings import add_arguments, build, given
from gpt2lab.papers.wechsel.words import COUNTING, TRAINING, Kind
from gpt2lab.text.skipgram import SkipgramOptions
from gpt2lab.text.word_vectors import CountOptions

PROGRAM = "python -m gpt2lab.papers.wechsel"


@dataclass(frozen=True, kw_only=True)
class VectorOptions:
    """Which text vectors are made of, and how."""

    data: tuple[str, ...]
    """Text: files, folders, hub:ID, built-in names."""
    out: str
    """File that is written: .bin keeps counts and n-grams, .vec is text."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    vectors: Kind = "ppmi"
    """ppmi counts words, skipgram trains words with n-grams."""
    counting: CountOptions = COUNTING
    """How ppmi counts."""
    skipgram: SkipgramOptions = TRAINING
    """How skipgram trains."""


@dataclass(frozen=True, kw_only=True)
class AlignOptions:
    """How an alignment is tested."""

    held_out: float = 0.1
    """Share of the dictionary's source words that test the alignment."""
    candidates: int = 20_000
    """Most frequent target words among which translations are looked for."""


def main(words: Sequence[str] | None = None) -> int:
    """Run a command and print what it found as JSON; returns the exit status: 0, or 2 for a mistake."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, allow_abbrev=False, description=(__doc__ or "").partition("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    vectors = commands.add_parser("vectors", help="make word vectors from text", allow_abbrev=False)
    add_arguments(vectors, VectorOptions)
    aligned = commands.add_parser(
        "align", help="align two languages' vectors over a dictionary", allow_abbrev=False
    )
    for name, text in (
        ("source", "vectors"),
        ("target", "vectors"),
        ("dictionary", "pairs, source TAB target; or identical"),
    ):
        aligned.add_argument(name, help=text)
    add_arguments(aligned, AlignOptions)
    arguments = parser.parse_args(words)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = _done(arguments)
        for one in told:
            print(f"{PROGRAM.split('.')[-1]}: {one.message}", file=sys.stderr)  # noqa: T201  # a command line of its own
    except (LabError, OSError) as error:
        said = system_error(error) if isinstance(error, OSError) else " ".join(str(error).split())
        print(f"{PROGRAM.split('.')[-1]}: {said}", file=sys.stderr)  # noqa: T201  # a command line of its own
        return 2
    print(json.dumps(found, indent=2, ensure_ascii=False))  # noqa: T201  # a command line of its own
    return 0


def _done(arguments: argparse.Namespace) -> dict[str, object]:
    """Return what the command that was asked for found."""
    if arguments.command == "vectors":
        return make_vectors(build(VectorOptions, given(arguments, VectorOptions), PROGRAM))
    options = build(AlignOptions, given(arguments, AlignOptions), PROGRAM)
    return make_alignment(arguments.source, arguments.target, arguments.dictionary, options)


def make_vectors(options: VectorOptions) -> dict[str, object]:
    """Make vectors of text, write them, and return how many there are. LabError as `text_vectors` and the writers say."""
    from gpt2lab.papers.wechsel.words import text_vectors
    from gpt2lab.text import sources
    from gpt2lab.text.vector_files import SubwordVectors, write_bin, write_vec

    if not options.out.endswith((".bin", ".vec")):
        raise LabError(f"out {options.out}: vectors are written as .bin or .vec")
    texts = sources.documents(options.data, field=options.field)
    made = text_vectors(texts, options.vectors, counting=options.counting, skipgram=options.skipgram)
    known = made.known() if isinstance(made, SubwordVectors) else made
    if options.out.endswith(".bin"):
        write_bin(made, options.out)
    else:
        write_vec(known, options.out)
    ngrams = isinstance(made, SubwordVectors) and made.has_ngrams and options.out.endswith(".bin")
    return {
        "words": len(known.words),
        "dimensions": known.vectors.shape[1],
        "n-grams": ngrams,
        "out": options.out,
    }


def make_alignment(source: str, target: str, dictionary: str, options: AlignOptions) -> dict[str, object]:
    """Align two files of vectors and return the report. LabError as `align` and the readers say."""
    from gpt2lab.papers.wechsel.alignment import align
    from gpt2lab.papers.wechsel.dictionary import IDENTICAL, Dictionary, identical_words, read_dictionary
    from gpt2lab.text.vector_files import read_vectors

    one, other = read_vectors(source), read_vectors(target)
    found = (
        Dictionary(identical_words(one, other)) if dictionary == IDENTICAL else read_dictionary(dictionary)
    )
    _, report = align(one, other, found.pairs, held_out=options.held_out, candidates=options.candidates)
    numbers = {name: None if math.isnan(value) else value for name, value in report.numbers().items()}
    return {**numbers, "lines_skipped": len(found.skipped)}


if __name__ == "__main__":
    sys.exit(main())
