"""The seeds of a study as they are typed: how many, or which."""

import argparse

from gpt2lab.base.errors import LabError, brief
from gpt2lab.cli.parser import add_seed

_MOST = 1000
_USUAL = 3  # the fewest that give verdicts


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """Add --seeds, --seed and --seed-list."""
    parser.add_argument(
        "--seeds",
        metavar="N",
        help=f"how many: 7 is seven seeds, 0 to 6 (default: {_USUAL}, the fewest that give verdicts)",
    )
    add_seed(parser, meaning="first of them", default=None)
    add_seed_list(parser, "which, instead of how many: 7,8 is seeds 7 and 8")


def add_seed_list(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add --seed-list."""
    parser.add_argument("--seed-list", metavar="A,B", help=meaning)


def seeds_of(arguments: argparse.Namespace) -> int | list[int]:
    """Return how many seeds from 0 on, or which. LabError for both, or for what is no whole number."""
    how_many, first, which = arguments.seeds, arguments.seed, arguments.seed_list
    if which is not None:
        for flag, value in (("--seeds", how_many), ("--seed", first)):
            if value is not None:
                raise LabError(
                    f"{flag} {brief(str(value))}: --seed-list {brief(which)} says which; give one of the two"
                )
        return listed_seeds(which)
    number = _USUAL if how_many is None else _number(how_many)
    return number if not first else list(range(first, first + number))


def listed_seeds(text: str) -> list[int]:
    """Read --seed-list. LabError for what is no list of whole numbers."""
    try:
        return [int(piece) for piece in text.split(",")]
    except ValueError:
        raise LabError(f"--seed-list {brief(text)}: give which seeds, such as 7,8") from None


def _number(text: str) -> int:
    if "," in text:
        raise LabError(f"--seeds {brief(text)}: says how many; which ones is --seed-list {brief(text)}")
    try:
        number = int(text)
    except ValueError:
        raise LabError(
            f"--seeds {brief(text)}: give how many, such as 3; which ones is --seed-list 0,2,5"
        ) from None
    if number > _MOST:
        raise LabError(f"--seeds {text}: at most {_MOST:,} seeds are run in one study")
    return number
