"""Compare runs, or all parts of one kind under equal conditions.

examples:
  gpt2lab compare train-1 train-2
  gpt2lab compare train-1 train-2 --out comparison     folder of the HTML and Markdown files
  gpt2lab compare optimizers --on tinystories          all that are built, each with its learning rate tuned
  gpt2lab compare optimizers --on notes/*.txt --only adamw,conda,"conda refresh=50"
  gpt2lab compare decoders --on train-1                or --on docstrings, which trains a model first
  gpt2lab compare measures gpt2 train-1 --on docstrings
  gpt2lab compare optimizers --help                    options and settings of a comparison of parts
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import PART_KINDS
from gpt2lab.base.settings import options
from gpt2lab.base.wording import count, listed
from gpt2lab.cli.parser import Parser, settings_help, typed
from gpt2lab.cli.reproduce import add_study
from gpt2lab.cli.seeds import seeds_of
from gpt2lab.cli.show import cut, paragraph, print_json, table
from gpt2lab.studies.comparison import KINDS

if TYPE_CHECKING:
    from gpt2lab.studies.study import Study


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add runs and --out, or for a kind of part what a study takes."""
    kind = next((word for word in argv if word in KINDS), None)
    if kind is not None:
        _add_parts(parser, argv, kind)
        return
    _refuse_other_kinds(argv)
    parser.add_argument(
        "names",
        nargs="+",
        metavar="RUN",
        help=f"at least two runs (see `gpt2lab runs`); or one of {listed(KINDS, 'or')}",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="folder of the report (default: the folder of the runs)"
    )


def _refuse_other_kinds(argv: Sequence[str]) -> None:
    """LabError if the first word is a kind of part that is not compared, or one that is in the singular."""
    word = next((word for word in argv if not word.startswith("-")), "")
    if f"{word}s" in KINDS:
        raise LabError(f"compare {word}: did you mean compare {word}s?")
    if word.removesuffix("s") in PART_KINDS:
        raise LabError(
            f"compare {word}: {listed(KINDS)} are compared as kinds; of others, make the models with apply or train, "
            "then gpt2lab compare measures MODEL MODEL"
        )


def _add_parts(parser: Parser, argv: Sequence[str], kind: str) -> None:
    """Add the options of a comparison of parts; its settings, if --help is asked for."""
    parser.add_argument("kind", choices=KINDS, help="kind of part to compare")
    if kind == "measures":
        parser.add_argument("models", nargs="*", metavar="MODEL", help="folders, hub ids, or names of runs")
    what = {
        "optimizers": "data: tinystories, docstrings, books, topic-bigrams, files, hub:ID (default: tinystories)",
        "decoders": "a model, or data as for `compare optimizers` to train one (default: tinystories)",
        "measures": "text of the measures that read any (default: docstrings)",
    }[kind]
    parser.add_argument("--on", nargs="+", default=[], metavar="ON", help=what)
    parser.add_argument(
        "--only",
        default="",
        metavar="A,B",
        help='selected parts, with options if needed: "NAME OPTION=VALUE" (default: all that are built)',
    )
    add_study(parser)
    if "--help" in argv or "-h" in argv:
        from gpt2lab.studies.comparison import module_of
        from gpt2lab.studies.experiment import load_comparison

        experiment = load_comparison(module_of(kind))
        scale = typed(argv, "--scale") or "laptop"
        listing = options(experiment.settings_class, default=experiment.settings(scale))
        parser.epilog = f"{parser.epilog}\n\n{settings_help(f'settings at {scale} scale', listing)}"


def run(arguments: argparse.Namespace) -> None:
    """Print the comparison and where its report is."""
    if hasattr(arguments, "kind"):
        _compare_parts(arguments)
    else:
        _compare_runs(arguments)


def _compare_parts(arguments: argparse.Namespace) -> None:
    from gpt2lab.actions.models import pick_device, refuse_missing

    for model in getattr(arguments, "models", ()):
        refuse_missing(model)
    from gpt2lab.studies.comparison import compare_parts  # torch, of which a wrong name need not wait

    study = compare_parts(
        arguments.kind,
        on=arguments.on,
        models=getattr(arguments, "models", ()),
        only=[words.strip() for words in arguments.only.split(",") if words.strip()],
        scale=arguments.scale,
        seeds=seeds_of(arguments),
        workers=arguments.workers,
        settings=arguments.settings,
        device=str(pick_device(arguments.device)) if arguments.device else None,
        threads=arguments.threads,
    )
    show_comparison(study, as_json=arguments.json)


def show_comparison(study: "Study", as_json: bool) -> None:
    """Print the tables of a comparison of parts; LabError with what went wrong, if anything did."""
    tables, texts = study.tables, study.texts
    if as_json:
        print_json({**study.to_plain(), "tables": tables})
    else:
        captions = study.captions
        for name, rows in tables.items():
            header = list(rows[0])
            print(table([[_short(row[column]) for column in header] for row in rows], header))
            print(paragraph(captions[name]), end="\n\n")
        if "left_out" in texts:
            print(f"left out\n{texts['left_out']}\n")
        print(f"report  {study.report}")
        print(f"run     {study.id}")
    if study.failures:
        raise LabError(f"{study.id}: {listed(study.failures)}; gpt2lab resume {study.id} tries them again")


def _compare_runs(arguments: argparse.Namespace) -> None:
    from gpt2lab.actions.compare import compare
    from gpt2lab.runs.kinds import WORDS
    from gpt2lab.runs.report.side_by_side import shared

    found = compare(arguments.names, out=arguments.out)
    if arguments.json:
        print_json(found)
        return
    for kind, lines in found["verdicts"].items():
        print(_side_by_side(WORDS[kind].title.lower(), lines), end="")
    print(_side_by_side("results", found["results"]), end="")
    differing, alone = shared(found["settings"])
    print(_side_by_side("settings", differing), end="")
    for run, names in alone.items():
        print(f"{count(len(names), 'setting')} that only {run} has: {cut(listed(names), 60)}")
    print(f"report  {found['html']}")


def _side_by_side(title: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for every name, a column for every run; empty if there is nothing to show."""
    if not lines:
        return ""
    header = list(lines[0])
    cells = [[_short(line[column]) for column in header] for line in lines]
    return table(cells, [title, *header[1:]]) + "\n\n"


def _short(value: Any) -> Any:
    return cut(value, 36) if isinstance(value, str) else value
