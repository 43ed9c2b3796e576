"""Levels of difficulty, the curriculum over them, and the split of the tasks' examples into training and test."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.papers.meta_tokens.tasks import SHORTEST, WORDS, Example, draw

LEVELS: dict[str, tuple[int, int]] = {
    "easy": (SHORTEST, 64),
    "medium": (65, 128),
    "hard": (129, 256),
    "extra-hard": (257, 512),
    "long": (513, 1024),
}
"""Words of a prompt, least and most. The paper's last two levels end at 1,024 and 2,048 tokens; these are half of that."""
_PARTS = {0: "test", 1: "tuning"}
"""Of ten prompts, by their hash, one is for test (the paper: 10,000 of 100,000) and one for choosing settings."""


def level(name: str) -> tuple[int, int]:
    """Return the range of prompt lengths of a level. LabError for an unknown one."""
    if name not in LEVELS:
        raise unknown("level", name, LEVELS)
    return LEVELS[name]


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Phases of equal length; in each, prompts come from its range and from those before, equally often."""

    ranges: tuple[tuple[int, int], ...]
    """Range of prompt lengths that each phase adds, ascending."""
    steps: int
    """Updates of all phases together."""

    def __post_init__(self) -> None:
        if not self.ranges or self.steps < 1:
            raise LabError("curriculum: needs at least one range of lengths and one update")
        if any(low > high for low, high in self.ranges) or sorted(self.ranges) != list(self.ranges):
            raise LabError(f"curriculum: ranges ascend, each from least to most, got {self.ranges}")

    def known(self, step: int) -> Sequence[tuple[int, int]]:
        """Return the ranges of the phase of update `step` and of those before it."""
        phase = min(len(self.ranges) - 1, step * len(self.ranges) // self.steps)
        return self.ranges[: phase + 1]


def side(example: Example) -> str:
    """Return the part of a prompt, train, tuning or test: a function of the prompt alone, so that none is in two."""
    text = " ".join(example.without_pauses().prompt)
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    return _PARTS.get(number % 10, "train")


def example(
    task: str,
    number: int,
    ranges: Sequence[tuple[int, int]],
    *,
    seed: int = 0,
    part: str = "train",
    words: int = len(WORDS),
) -> Example:
    """Return example `number` of a part (train, tuning, test): a pure function of all arguments."""
    kind = int.from_bytes(hashlib.blake2b(f"{task} {part}".encode(), digest_size=4).digest(), "little")
    generator = np.random.default_rng([seed, kind, number])
    for _ in range(1000):
        low, high = ranges[int(generator.integers(len(ranges)))]
        made = draw(task, generator, low, high, words=words)
        if side(made) == part:
            return made
    raise LabError(f"{task}: too few different prompts for a part {part}; use longer ones")


def examples(
    task: str,
    count: int,
    ranges: Sequence[tuple[int, int]],
    *,
    seed: int = 0,
    part: str = "test",
    words: int = len(WORDS),
) -> list[Example]:
    """Return `count` different examples of a part. LabError where there are too few."""
    found: dict[tuple[str, ...], Example] = {}
    for number in range(20 * count + 100):
        made = example(task, number, ranges, seed=seed, part=part, words=words)
        found.setdefault(made.prompt, made)
        if len(found) == count:
            return list(found.values())
    raise LabError(
        f"{task}: {len(found)} different prompts were found, {count} are asked for; use longer ones"
    )
