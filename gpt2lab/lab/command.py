"""The command line that repeats a training."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gpt2lab.base.settings import options, show

if TYPE_CHECKING:
    from gpt2lab.lab.training import TrainingSettings


def command_of(settings: "TrainingSettings", name: str) -> str:
    """Return the command line that repeats a training: the data, and every setting that is not the usual one."""
    kind = type(settings)
    words = ["gpt2lab train --data", *(shlex.quote(source) for source in settings.data)]
    usual = {option.name: option.default for option in options(kind)}
    for option in options(kind, default=settings):
        if option.name == "data" or option.default == usual.get(option.name):
            continue
        given = {"": option.default}
        if isinstance(option.default, Mapping):
            given = {f".{key}": value for key, value in option.default.items()}
        words += [
            f"--set {shlex.quote(option.name + key)}={shlex.quote(show(v))}" for key, v in given.items()
        ]
    return " ".join([*words, f"--name {name}"] if name != "train" else words)
