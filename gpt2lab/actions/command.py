"""The command line that repeats a training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gpt2lab.base.settings import options, show
from gpt2lab.base.wording import quoted

if TYPE_CHECKING:
    from gpt2lab.actions.train import TrainingSettings


def command_of(settings: "TrainingSettings", name: str) -> str:
    """Return the command line that repeats a training: the data, and every setting that is not the usual one."""
    kind = type(settings)
    words = ["gpt2lab train --data", *(quoted(source) for source in settings.data)]
    usual = {option.name: option.default for option in options(kind)}
    for option in options(kind, default=settings):
        if option.name == "data" or option.default == usual.get(option.name):
            continue
        given = {"": option.default}
        if isinstance(option.default, Mapping):
            given = {f".{key}": value for key, value in option.default.items()}
        words += [f"--set {quoted(option.name + key)}={quoted(show(v))}" for key, v in given.items()]
    return " ".join([*words, f"--name {name}"] if name != "train" else words)
