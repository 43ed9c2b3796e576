"""The seeds of a study: which are asked for, and which it gets besides."""

from collections.abc import Mapping, Sequence
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.wording import listed
from gpt2lab.runs.trial import TUNING_SEED


def chosen_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """Return the seeds: so many from 0 on, or those given.

    LabError for none, for one twice, for one below 0, and for the tuning seed.
    """
    which = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not which or len(set(which)) != len(which) or min(which) < 0:
        raise LabError(f"seeds: give how many (at least 1) or different whole numbers from 0, got {seeds}")
    if TUNING_SEED in which:
        raise LabError(
            f"seed {TUNING_SEED}: settings are chosen on it, so it cannot be judged; give other seeds"
        )
    return which


def with_seeds(about: Mapping[str, Any], more: Sequence[int], study: str) -> dict[str, Any]:
    """Return the settings of a study with further seeds after its own. LabError for one that it has."""
    there = [seed for seed in about["seeds"] if seed in more]
    if there:
        raise LabError(f"seed {there[0]}: {study} has it; its seeds are {listed(about['seeds'])}")
    return {**about, "seeds": [*about["seeds"], *sorted(chosen_seeds(more))]}
