"""--config FILE: the settings of a verb from a TOML file, below whatever is typed.

A key is the name of a flag or of a setting, `a.b` or a table [a] for one inside another.
"""

import argparse
import dataclasses
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpt2lab.base.errors import LabError, nearest, shown
from gpt2lab.base.files import user_path
from gpt2lab.base.json_files import LARGEST_CONFIG, read_text
from gpt2lab.base.values import show
from gpt2lab.cli.parser import Parser


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """What a file says."""

    path: str
    """As it was typed."""
    values: Mapping[str, object]
    """Values by dotted name, as TOML has them."""

    @property
    def words(self) -> list[str]:
        """The values as flags: a file may choose the part whose options are flags."""
        return [f"--{key.replace('_', '-')}={show(value)}" for key, value in self.values.items()]

    def mistake(self, error: LabError, typed: Mapping[str, object]) -> LabError:
        """Return an error with the file in front if it speaks of a key of the file that nothing typed overrides."""
        for key in self.values:
            name = key.rpartition(".")[2].replace("-", "_")
            if key not in typed and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", str(error)):
                return LabError(f"{self.path}: {error}")
        return error


def read_config(path: str) -> ConfigFile:
    """Read a file of settings. LabError, naming the file, for one that is not there or no TOML."""
    text = read_text(user_path(path), largest=LARGEST_CONFIG)
    try:
        return ConfigFile(path, dict(_flat(tomllib.loads(text))))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise LabError(f"{path}: no TOML: {error}") from None


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def preset(parser: Parser, config: ConfigFile) -> argparse.Namespace:
    """Return what a file says, for `parse_args` to fill the rest in: flags by their names, all else for --set.

    LabError, naming file and key: a word that is typed and no setting, no such flag where a verb has no settings, a value
    that a flag does not take.
    """
    flags = {
        word.removeprefix("--").replace("-", "_"): action
        for action in parser._actions
        for word in action.option_strings
        if word.startswith("--") and not word.startswith("--no-")
    }
    positional = {action.dest for action in parser._actions if not action.option_strings}
    found = argparse.Namespace()
    for key, value in config.values.items():
        name = key.replace("-", "_").removeprefix(f"{parser.section}." if parser.section else "")
        if name in positional or name in ("config", "set", "help"):
            raise LabError(f"{config.path}: {key} is no setting; it is given on the command line")
        if name in flags:
            setattr(found, flags[name].dest, _taken(flags[name], value, f"{config.path}: {key}"))
        elif "set" in flags:
            found.assignments = [*getattr(found, "assignments", []), f"{key}={show(value)}"]
        else:
            match = nearest(name, flags)
            hint = f"did you mean {match}?" if match else f"see {parser.prog} --help"
            raise LabError(f"{config.path}: {key}: no such option; {hint}")
    return found


def _taken(action: argparse.Action, value: object, where: str) -> object:
    """Return a value as the flag stores it. LabError if it does not take it."""
    if action.nargs == 0 and not isinstance(value, bool):
        raise LabError(f"{where} must be true or false, got {shown(value)}")
    if action.default is argparse.SUPPRESS or action.nargs == 0:
        return value  # settings are checked where they are built
    several = isinstance(value, list)
    if several and not (action.nargs in ("+", "*") or isinstance(action.default, list)):
        raise LabError(f"{where} must be one value, got {len(value)}")  # type: ignore[arg-type]  # a list, as asked
    taken = [_one(action, show(item), where) for item in (value if several else [value])]  # type: ignore[attr-defined]  # as above
    return taken if several or action.nargs in ("+", "*") or isinstance(action.default, list) else taken[0]


def _one(action: argparse.Action, text: str, where: str) -> object:
    if action.choices is not None and text not in action.choices:
        raise LabError(f"{where} must be one of {', '.join(map(str, action.choices))}, got {shown(text)}")
    if not callable(action.type):
        return text
    try:
        return action.type(text)
    except (argparse.ArgumentTypeError, ValueError, TypeError) as error:
        raise LabError(f"{where} {error}") from None


def typed_names(words: Sequence[str]) -> dict[str, object]:
    """Return the names of the flags and settings among the words of a line."""
    names: dict[str, object] = {}
    for at, word in enumerate(words):
        if word == "--set" and at + 1 < len(words):
            names[words[at + 1].partition("=")[0]] = True
        elif word.startswith("--"):
            names[word.removeprefix("--").partition("=")[0].replace("-", "_")] = True
    return names
