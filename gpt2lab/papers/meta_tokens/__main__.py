"""Write examples of a recall task, `python -m gpt2lab.papers.meta_tokens TASK --level easy --out DIR`.

The folder gets train.jsonl and test.jsonl, of which no prompt is in both. A row has prompt, answer, text (both), task,
level, and the places of the pauses.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2lab.base.errors import LabError, system_error
from gpt2lab.base.files import atomic_write
from gpt2lab.base.settings import add_arguments, build, given
from gpt2lab.papers.meta_tokens.levels import LEVELS, examples, level
from gpt2lab.papers.meta_tokens.tasks import PAUSE, TASKS, WORDS, Example

PROGRAM = "python -m gpt2lab.papers.meta_tokens"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How many examples are drawn, and how hard they are."""

    out: str
    """Folder that is written."""
    level: str = "easy"
    """easy, medium, hard, extra-hard, long: words of a prompt."""
    train: int = 9000
    """Training examples."""
    test: int = 1000
    """Test examples."""
    words: int = len(WORDS)
    """Different words that occur, of 500."""
    pause: str = PAUSE
    """How the pause is written, such as <|meta|>, the token that `gpt2lab apply add-meta-token` adds."""
    pauses: bool = True
    """Keep the pauses; without them the same questions are written for a baseline."""
    seed: int = 0
    """Seed of the examples."""


def main(words: Sequence[str] | None = None) -> int:
    """Write the folder and print how many rows it has; returns the exit status: 0, or 2 for a mistake."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        allow_abbrev=False,
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"tasks: {', '.join(TASKS)}; levels: {', '.join(LEVELS)}",
    )
    parser.add_argument("task", help="list-recall, segment-counting, parity or copying")
    add_arguments(parser, Options)
    arguments = parser.parse_args(words)
    try:
        counts = written(arguments.task, build(Options, given(arguments, Options), PROGRAM))
    except (LabError, OSError) as error:
        said = system_error(error) if isinstance(error, OSError) else " ".join(str(error).split())
        print(f"meta_tokens: {said}", file=sys.stderr)  # noqa: T201  # a command line of its own
        return 2
    print(json.dumps(counts))  # noqa: T201  # a command line of its own
    return 0


def written(task: str, options: Options) -> dict[str, int]:
    """Write train.jsonl and test.jsonl, and return their numbers of rows. LabError as for `examples`."""
    ranges = [level(options.level)]
    counts = {"train": options.train, "test": options.test}
    for part, count in counts.items():
        rows = examples(task, count, ranges, seed=options.seed, part=part, words=options.words)
        folder = Path(options.out)
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / f"{part}.jsonl", "".join(_row(one, options) for one in rows))
    return counts


def _row(one: Example, options: Options) -> str:
    kept = one if options.pauses else one.without_pauses()
    prompt = " ".join(options.pause if word == PAUSE else word for word in kept.prompt)
    row = {
        "prompt": prompt,
        "answer": " ".join(kept.answer),
        "text": kept.text(options.pause),
        "task": one.task,
        "level": options.level,
        "pauses": kept.pauses,
    }
    return json.dumps(row) + "\n"


if __name__ == "__main__":
    sys.exit(main())
