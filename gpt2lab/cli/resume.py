"""Resume a study, a training or a transform that trains; the result is that of a run that was never stopped.

examples:
  gpt2lab resume train-1
  gpt2lab resume tinystories-laptop-1 --workers 2
  gpt2lab resume tinystories-laptop-1 --seed-list 6,7    further seeds for a study; what was judged before is kept
  gpt2lab resume train-1 --take-over         the process that runs it is gone, or must stop
"""

import argparse
from collections.abc import Sequence

from gpt2lab.cli.apply import show_applied
from gpt2lab.cli.compare import show_comparison
from gpt2lab.cli.parser import Parser, whole
from gpt2lab.cli.reproduce import show_study
from gpt2lab.cli.seeds import add_seed_list, listed_seeds
from gpt2lab.cli.train import show_training


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add the run and the workers."""
    parser.add_argument(
        "name", metavar="RUN", help="a run's id, or its name for the newest; `gpt2lab runs` lists them"
    )
    parser.add_argument(
        "--workers", type=whole, metavar="N", help="of a study: parallel processes (default: one a core)"
    )
    add_seed_list(parser, "of a study: further seeds, which it then has beside its own")
    parser.add_argument(
        "--take-over",
        action="store_true",
        help="even if another process seems to run it; that process stops at its next write",
    )


def run(arguments: argparse.Namespace) -> None:
    """Resume the run, then print what the command that began it prints."""
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.resume import resume

    more = listed_seeds(arguments.seed_list) if arguments.seed_list is not None else ()
    done = resume(arguments.name, workers=arguments.workers, take_over=arguments.take_over, seeds=more)
    if isinstance(done, Run) and done.row.kind == "apply":
        show_applied(done.id, as_json=arguments.json)
    elif isinstance(done, Run):
        show_training(done, as_json=arguments.json)
    elif done.claims:
        show_study(done, as_json=arguments.json)
    else:  # a comparison of parts makes none
        show_comparison(done, as_json=arguments.json)
