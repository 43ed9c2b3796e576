"""argparse with errors that name the nearest right word, and the flags that every verb has."""

import argparse
import dataclasses
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from gpt2lab.base.errors import LabError, nearest, shown
from gpt2lab.base.settings import Option, parse_assignments, show


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are LabErrors, and that accepts no abbreviated flag."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
                prog, max_help_position=30, width=min(shutil.get_terminal_size().columns, 110)
            ),
            **options,
        )
        self.section = ""
        """Section of the settings whose names are flags without it: steps for train.steps."""
        self.elsewhere: Callable[[str], str | None] = lambda name: None
        """Says of a setting that is no flag here where it is one, or how it is given; None if it is none."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and answer an unknown flag with the nearest known one."""
        known, rest = self.parse_known_args(args, namespace)
        if rest:
            flag = next((word for word in rest if word.startswith("-")), rest[0]).partition("=")[0]
            if not flag.startswith("-"):
                raise LabError(f"{flag}: one word too many; {self.prog} --help shows what is taken")
            elsewhere = self.elsewhere(flag.removeprefix("--").replace("-", "_"))
            if elsewhere is not None:
                raise LabError(f"{flag}: {elsewhere} ({self.prog} --help lists what is taken)")
            match = nearest(flag, self._option_string_actions)
            hint = (
                f"did you mean {match}? ({self.prog} --help lists all)"
                if match
                else f"see {self.prog} --help"
            )
            raise LabError(f"{flag}: no such option; {hint}")
        return known

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong as a LabError."""
        raise LabError(f"{message} ({self.prog} --help shows what is taken)")


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what every verb takes: --config, --json, --debug."""
    group = parser.add_argument_group("everywhere")
    group.add_argument(
        "--config",
        metavar="FILE",
        help="TOML file with values of flags and settings; the command line overrides it",
    )
    group.add_argument("--json", action="store_true", help="print one JSON object only")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add --set NAME=VALUE, repeatable."""
    parser.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set any setting by name, `a.b=c` for a nested one; may be repeated",
    )


def add_seed(parser: argparse.ArgumentParser, meaning: str, default: int | None = 0) -> None:
    """Add --seed; with the default None a verb can tell whether it was typed."""
    parser.add_argument("--seed", type=whole, default=default, metavar="N", help=f"{meaning} (default: 0)")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="cpu, cuda, cuda:1, mps (default: the GPU if there is one, else the CPU)",
    )


MODEL = "a folder, a .gguf file, a hub id, or the name of a run or of a model of the catalogue"
"""What every verb says of its MODEL."""


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Add --dtype."""
    from gpt2lab.actions.models import DTYPES

    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="type of the loaded weights (default: that of the file; of a GGUF file float32, and stored: its 4 to 8 bits)",
    )


def rename_settings(arguments: argparse.Namespace) -> argparse.Namespace:
    """Turn the typed --set pairs into `arguments.settings`, a dict by dotted name."""
    if hasattr(arguments, "assignments"):
        arguments.settings = parse_assignments(arguments.assignments)
    return arguments


def whole(text: str) -> int:
    """Read a whole number of at least 0, below 2^63; argparse names the flag if it is none."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number < 2**63:
        least = "at least 0, below 2^63" if number > 0 else "at least 0"
        raise argparse.ArgumentTypeError(f"must be a whole number of {least}, got {shown(text)}")
    return number


def settings_help(title: str, options: Iterable[Option]) -> str:
    """Return the part of a --help that lists settings reachable by --set: name, default, what it means."""
    lines = [f"{title} (--set NAME=VALUE):"]
    for option in options:
        has = option.default not in (None, "", (), {}, dataclasses.MISSING)
        lines.append(f"  {option.name}={show(option.default)}" if has else f"  {option.name}")
        if option.doc:
            lines.append(f"      {option.doc}")
    return "\n".join(lines)


def typed(argv: Sequence[str], flag: str) -> str | None:
    """Return the value of a flag before the whole line is parsed: what else there is depends on it."""
    for at, word in enumerate(argv):
        if word == flag and at + 1 < len(argv):
            return argv[at + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None
