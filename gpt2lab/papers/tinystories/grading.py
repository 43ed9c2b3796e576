"""What every offline grader shares: grades from 0 to 10, and the calibration without which they mean nothing.

An offline grader stands in for a large model acting as a teacher. It is not the paper's GPT-Eval, and its grades
are not comparable with the paper's: it sees what it was built to see and nothing else. So it always grades
three kinds of text beside the model's: held-out stories, stories of a trigram model, shuffled stories. A
dimension on which held-out stories get less than 9 or shuffled ones more than 3 is void.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gpt2lab.papers.tinystories.baselines import TrigramModel, shuffled

REAL_AT_LEAST, SHUFFLED_AT_MOST = 9.0, 3.0
OFFLINE_GRADER = "offline grader (rules and a reference model; not GPT-Eval, and not comparable with it)"

Grades = Mapping[str, float]
"""Dimension → grade from 0 to 10; nan where there was nothing to grade."""


@dataclass(frozen=True)
class Calibration:
    """What a grader says of texts whose quality is known."""

    real: Grades
    """Of held-out stories."""
    trigram: Grades
    """Of stories from a trigram model of the training stories."""
    shuffled: Grades
    """Of the held-out stories with their words in random order."""

    def void(self) -> dict[str, str]:
        """Return the dimensions whose grade is void, with the reason."""
        reasons = {}
        for name, real in self.real.items():
            worst = self.shuffled[name]
            if not real >= REAL_AT_LEAST:
                reasons[name] = f"held-out stories get {real:.1f}, less than {REAL_AT_LEAST:g}"
            elif not worst <= SHUFFLED_AT_MOST:
                reasons[name] = f"shuffled stories get {worst:.1f}, more than {SHUFFLED_AT_MOST:g}"
        return reasons

    def rows(self, grades: Grades | None = None) -> list[dict[str, object]]:
        """Return the table to print beside every grade: one row a dimension."""
        void = self.void()
        return [
            {
                "dimension": name,
                **({} if grades is None else {"model": grades.get(name, math.nan)}),
                "held-out": self.real[name],
                "trigram": self.trigram[name],
                "shuffled": self.shuffled[name],
                "void": void.get(name, ""),
            }
            for name in self.real
        ]


def calibrate(
    grade: Callable[[Sequence[str]], Grades], real: Sequence[str], training: Sequence[str], *, seed: int
) -> Calibration:
    """Grade held-out stories, as many trigram stories of the training stories, and the held-out ones shuffled."""
    longest = max((len(story.split()) for story in real), default=1)
    trigram = TrigramModel(training).sample(len(real), seed=seed, max_words=longest)
    return Calibration(grade(real), grade(trigram), grade(shuffled(real, seed=seed)))
