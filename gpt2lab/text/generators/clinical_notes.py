"""Generated emergency-room notes with a planted cause: which of them are traumatic, and how far unlabelled text shows it.

A note reads `{homme|femme} {age} ans atcd {shared} pour {cues} examen {shared} {cues} conduite {shared}`; every word but
the frame is invented. A world has `causes` latent causes, a third of them traumatic, and lists of words: of each cause, of
each class, and shared ones. A cue is, with probability `align`, a word of the note's class, else one of its cause; with
probability `ambiguity` it is drawn for a class (a cause) at random instead. With align 0 a note holds words of its cause
only: the label then depends on which arbitrary causes are traumatic, and unlabelled text says almost nothing of that.

The lists are those of the world, the notes those of the seed: a note follows from world, seed, level and its number alone.
The class of a note is drawn first, so that the share of traumatic notes is `prevalence`. All of it is generated; there is no
patient behind any note.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError, unknown

SYLLABLES = [
    "ba",
    "cor",
    "der",
    "fi",
    "gal",
    "lo",
    "mar",
    "nor",
    "pe",
    "que",
    "ri",
    "sal",
    "tor",
    "ul",
    "va",
    "xi",
    "tra",
    "plo",
    "gri",
    "chu",
]
SUFFIXES = ["ite", "ose", "algie", "age", "ure", "ement", "eur", "tion", "ique", "ie"]
LEVELS = {"easy": (0.10, 5), "medium": (0.25, 4), "hard": (0.40, 4)}
"""Ambiguity and number of cues of each level."""
CLASSES = 2
CAUSE_WORDS, CLASS_WORDS, SHARED_WORDS = 24, 400, 200
_CAUSE_RANK, _CLASS_RANK, _SHARED_RANK, _FREQUENCY_RANK = 0.7, 0.6, 0.8, 0.3
_BLOCK = 500  # notes drawn together
_DAYS = 730

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Note:
    """A note with its ground truth."""

    id: str
    """Its name, unique for a seed."""
    date: str
    """Day, YYYY-MM-DD."""
    text: str
    """What is written."""
    label: int
    """1 for a traumatic cause, else 0."""
    cause: int
    """The latent cause."""

    def row(self) -> dict[str, Any]:
        """Return the note as a row of a source: id, date, text, label ("1" or "0" as a number), cause."""
        return {
            "id": self.id,
            "date": self.date,
            "text": self.text,
            "label": self.label,
            "cause": self.cause,
        }


@dataclass(frozen=True, kw_only=True)
class ClinicalNotes:
    """A world of notes; LabError for a level that is none, or shares and counts that make no sense."""

    level: str = "medium"
    """easy, medium or hard: how often a cue misleads, and how many there are."""
    align: float = 0.6
    """Share of the cues that are words of the class; 0 is the negative control."""
    causes: int = 24
    """Latent causes, a third of them traumatic."""
    prevalence: float = 1 / 3
    """Share of traumatic notes."""
    world: int = 0
    """Seed of the words, the causes and their frequencies."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise unknown("level of clinical notes", self.level, LEVELS)
        if not 0 <= self.align <= 1 or not 0 < self.prevalence < 1:
            raise LabError(
                f"clinical notes: align must lie in [0, 1] and prevalence in (0, 1), got {self.align} and {self.prevalence}"
            )
        if self.causes < 3 or self.world < 0:
            raise LabError(
                f"clinical notes: it takes 3 causes or more and a world of 0 or more, got {self.causes} and {self.world}"
            )

    @cached_property
    def words(self) -> list[str]:
        """All invented words, in the order in which the lists take them: causes, classes, shared."""
        needed = self.causes * CAUSE_WORDS + CLASSES * CLASS_WORDS + SHARED_WORDS
        draw = np.random.default_rng([self.world, 1])
        found: set[str] = set()
        while len(found) < needed:
            count = int(draw.integers(2, 4))
            stem = "".join(SYLLABLES[i] for i in draw.integers(len(SYLLABLES), size=count).tolist())
            found.add(stem + SUFFIXES[int(draw.integers(len(SUFFIXES)))])
        ordered = sorted(found)
        return [ordered[i] for i in draw.permutation(needed).tolist()]

    @cached_property
    def class_of(self) -> Ints:
        """The class of each cause, int64 [causes]: a third are 1."""
        classes = np.zeros(self.causes, dtype=np.int64)
        classes[: self.causes // 3] = 1
        return np.asarray(np.random.default_rng([self.world, 2]).permutation(classes), dtype=np.int64)

    @property
    def cause_words(self) -> list[list[str]]:
        """The words of each cause, the most frequent first."""
        return [self.words[c * CAUSE_WORDS : (c + 1) * CAUSE_WORDS] for c in range(self.causes)]

    @property
    def class_words(self) -> list[list[str]]:
        """The words of class 0 and of class 1, the most frequent first."""
        first = self.causes * CAUSE_WORDS
        return [self.words[first + c * CLASS_WORDS : first + (c + 1) * CLASS_WORDS] for c in range(CLASSES)]

    @property
    def shared_words(self) -> list[str]:
        """The words that every note may have, the most frequent first."""
        return self.words[-SHARED_WORDS:]

    def notes(self, size: int, seed: int = 0, first: int = 0) -> Iterator[Note]:
        """Yield notes number `first` to `first + size - 1` of a seed. LabError for a negative number."""
        if min(size, seed, first) < 0:
            raise LabError(f"clinical notes: size and seed must not be negative, got {size} and {seed}")
        for block in range(first // _BLOCK, -(-(first + size) // _BLOCK)):
            start = block * _BLOCK
            drawn = self._block(seed, block)
            yield from drawn[max(first - start, 0) : first + size - start]

    def _block(self, seed: int, block: int) -> list[Note]:
        """Draw one block of notes."""
        draw = np.random.default_rng([self.world, 3, seed, block])
        ambiguity, cues = LEVELS[self.level]
        labels = (draw.random(_BLOCK) < self.prevalence).astype(np.int64)
        causes = np.empty(_BLOCK, dtype=np.int64)
        frequency = _ranked(self.causes, _FREQUENCY_RANK)
        for label in range(CLASSES):
            mine = np.flatnonzero(self.class_of == label)
            shares = frequency[mine] / frequency[mine].sum()
            causes[labels == label] = draw.choice(mine, size=int((labels == label).sum()), p=shares)
        shape = (_BLOCK, cues)
        of_class, misled = draw.random(shape) < self.align, draw.random(shape) < ambiguity
        classes = np.where(misled, draw.integers(CLASSES, size=shape), labels[:, None])
        hints = np.where(misled, draw.integers(self.causes, size=shape), causes[:, None])
        class_ranks = draw.choice(CLASS_WORDS, size=shape, p=_ranked(CLASS_WORDS, _CLASS_RANK))
        cause_ranks = draw.choice(CAUSE_WORDS, size=shape, p=_ranked(CAUSE_WORDS, _CAUSE_RANK))
        places = np.where(
            of_class,
            self.causes * CAUSE_WORDS + classes * CLASS_WORDS + class_ranks,
            hints * CAUSE_WORDS + cause_ranks,
        )
        shared = draw.choice(SHARED_WORDS, size=(_BLOCK, 3), p=_ranked(SHARED_WORDS, _SHARED_RANK))
        women, ages = draw.random(_BLOCK) < 0.5, draw.integers(1, 96, size=_BLOCK)
        days = draw.integers(_DAYS, size=_BLOCK)
        texts = [
            self._written(bool(woman), age, cue, other)
            for woman, age, cue, other in zip(
                women, ages.tolist(), places.tolist(), shared.tolist(), strict=True
            )
        ]
        dates = (np.datetime64("2024-01-01") + days).astype(str).tolist()
        return [
            Note(f"{seed}-{block * _BLOCK + i}", dates[i], text, int(labels[i]), int(causes[i]))
            for i, text in enumerate(texts)
        ]

    def _written(self, woman: bool, age: int, cues: Sequence[int], shared: Sequence[int]) -> str:
        """Return the text of a note from the places of its words."""
        words, half = self.words, (len(cues) + 1) // 2
        before, after = (" ".join([words[place] for place in part]) for part in (cues[:half], cues[half:]))
        history, finding, plan = (words[place - SHARED_WORDS] for place in shared)
        sex = "femme" if woman else "homme"
        return f"{sex} {age} ans atcd {history} pour {before} examen {finding} {after} conduite {plan}"


def _ranked(count: int, power: float) -> npt.NDArray[np.float64]:
    """Return probabilities proportional to rank^-power, [count]."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -power
    return weights / weights.sum()


def rows(
    size: int, seed: int = 0, world: int = 0, *, level: str = "medium", align: float = 0.6, causes: int = 24
) -> Iterator[dict[str, Any]]:
    """Yield notes as rows with id, date, text, label and cause. LabError as `ClinicalNotes`."""
    for note in ClinicalNotes(level=level, align=align, causes=causes, world=world).notes(size, seed):
        yield note.row()
