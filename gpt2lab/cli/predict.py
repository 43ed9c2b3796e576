"""Print the predictions of a model's head for texts: a class with probabilities, a number, a label for each word.

examples:
  gpt2lab predict bank "My card has not arrived"
  gpt2lab predict bank --data questions.txt --json
  gpt2lab predict bank --data questions.csv --out answered.csv     the rows with the predictions beside them
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.wording import number
from gpt2lab.cli.parser import MODEL, Parser, add_device, add_dtype
from gpt2lab.cli.show import print_json, table
from gpt2lab.cli.texts import data_rows, typed_texts

if TYPE_CHECKING:
    from pathlib import Path

    from gpt2lab.measures.prediction import Prediction


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add model, texts or --data, and what reads them."""
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument("text", nargs="*", metavar="TEXT", help="text to read; several are read one by one")
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="FILE",
        help="files of texts: the lines of a text, or the rows of jsonl, csv, parquet or a source",
    )
    parser.add_argument(
        "--field", metavar="NAME", help="field of the text in the rows of --data (default: text)"
    )
    parser.add_argument("--head", metavar="NAME", help="name of the head, if a model has several")
    parser.add_argument(
        "--pair", nargs="+", metavar="TEXT", help="the second text of each, for a head of pairs"
    )
    parser.add_argument(
        "--truncate",
        choices=("right", "left"),
        default="right",
        help="side on which a text longer than the context is truncated (default: right)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="write a csv file: every row of --data (or text), prediction, probabilities",
    )
    add_device(parser)
    add_dtype(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print a line for each text: what the head says, how probable it is, and the text."""
    from gpt2lab.actions.predict import predict

    missing = "what to read is missing; give texts"
    out = _free(arguments.out) if arguments.out else None
    rows = None
    if out is not None and arguments.data is not None and not arguments.text:
        rows = data_rows(arguments.data, arguments.field)
    if rows is not None:
        texts = [row[arguments.field or "text"] for row in rows]
    else:
        texts = typed_texts(arguments.text, arguments.data, arguments.field, flag="--data", missing=missing)
    said = predict(
        arguments.model,
        texts,
        device=arguments.device,
        dtype=arguments.dtype,
        command=arguments.line,
        head=arguments.head,
        pairs=arguments.pair,
        truncate=arguments.truncate,
    )
    if out is not None:
        _write(out, rows if rows is not None else [{"text": text} for text in texts], said)
    if arguments.json:
        print_json([{"text": text, **dataclasses.asdict(one)} for text, one in zip(texts, said, strict=True)])
        return
    if out is not None:
        print(f"{len(said)} predictions are in {out}")
        return
    lines = [(_said(one), _score(one), " ".join(text.split())) for text, one in zip(texts, said, strict=True)]
    print(table(lines, ("prediction", "probability", "text")))


def _free(name: str) -> "Path":
    """Return the path of a file that is not there yet. LabError if it is, or is no csv."""
    from gpt2lab.base.files import user_path

    path = user_path(name)
    if path.suffix.lower() != ".csv":
        raise LabError(f"--out {name}: predictions are written as csv; give a name that ends in .csv")
    if path.exists():
        raise LabError(f"--out {name}: there is a file of this name; give another")
    if not path.parent.is_dir():
        raise LabError(f"--out {name}: there is no folder {path.parent}")
    return path


def _write(path: "Path", rows: Sequence[Mapping[str, Any]], said: "Sequence[Prediction]") -> None:
    """Write rows with what is said of each: prediction, its probability, and every class's score."""
    from gpt2lab.base.files import atomic_write
    from gpt2lab.runs.run_record import write_table

    added = [
        {
            "prediction": _said(one),
            "probability": _score(one),
            **{f"score {name}": value for name, value in one.scores.items()},
        }
        for one in said
    ]
    taken = sorted({name for row in rows for name in row} & {name for row in added for name in row})
    if taken:
        raise LabError(f"--out {path.name}: the data have a field {taken[0]!r} already; rename it")
    atomic_write(path, write_table([{**row, **more} for row, more in zip(rows, added, strict=True)]))


def _said(one: "Prediction") -> str:
    """Return a prediction as text: classes, words with their labels, else every number by its name."""
    if one.words:
        return " ".join(f"{word}/{label}" for word, label in zip(one.words, one.labels, strict=True))
    if one.labels:
        return ", ".join(one.labels)
    if len(one.scores) == 1:
        return number(next(iter(one.scores.values())))
    return ", ".join(f"{name} {number(value)}" for name, value in one.scores.items())


def _score(one: "Prediction") -> str:
    """Return the probability of each class that is said; nothing for numbers and words."""
    return ", ".join(number(one.scores[label]) for label in one.labels if label in one.scores)
