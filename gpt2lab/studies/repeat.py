"""The command line that repeats a study, and the device that it means where none is named."""

from collections.abc import Sequence
from typing import Any

from gpt2lab.base.settings import as_arguments
from gpt2lab.studies.experiment import Experiment


def default_device(scale: str) -> str:
    """Return the GPU for the scales that are made for one, if there is one; else the CPU."""
    if scale in ("gpu", "paper"):
        import torch

        if torch.cuda.is_available():
            return "cuda"
    return "cpu"


def command_of(
    experiment: Experiment,
    scale: str,
    seeds: int | Sequence[int],
    settings: Any,
    device: str,
    threads: int | None,
) -> str:
    """Return the command line that repeats a study; workers are left out, for no number depends on them."""
    words = ["gpt2lab", experiment.verb, "--scale", scale]
    words += _seeds(seeds)
    words += as_arguments(settings, experiment.presets[scale])
    if device != default_device(scale):
        words.append(f"--device {device}")
    if threads != (1 if device == "cpu" else None):
        words.append(f"--threads {threads}")
    return " ".join(words)


def _seeds(seeds: int | Sequence[int]) -> list[str]:
    which = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if which != list(range(which[0], which[0] + len(which))):
        return ["--seed-list", ",".join(map(str, which))]
    return ["--seeds", str(len(which)), *(["--seed", str(which[0])] if which[0] else [])]
