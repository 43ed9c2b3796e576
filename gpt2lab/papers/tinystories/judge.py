"""The hook for an external judge: a prompt goes in, grades come out. Nothing here calls one by itself.

The request follows the paper's protocol (a beginning, the separator ***, the continuation; an assessment in
words first, then grades) in the lab's own words. A user who has a large model passes a function.
"""

import re
from collections.abc import Callable, Sequence

from gpt2lab.base.errors import LabError

Judge = Callable[[str], str]
"""Takes a request, returns the judge's answer."""

DIMENSIONS = ("grammar", "creativity", "consistency", "plot")
AGE_GROUPS = {"A": "3 or under", "B": "4-5", "C": "6-7", "D": "8-9", "E": "10-12", "F": "13-16"}

_GRADE = re.compile(
    r"\b(grammar|creativity|consistency|plot)\s*[:=]\s*(-?\d+(?:\.\d+)?)(?:\s*/\s*10\b)?", re.IGNORECASE
)
_AGE = re.compile(r"\bage(?: group)?\s*[:=]\s*([A-F])\b", re.IGNORECASE)


def judge_request(beginning: str, completion: str) -> str:
    """Return the request to grade how `completion` goes on from `beginning`; LabError if either is empty."""
    if not beginning.strip() or not completion.strip():
        raise LabError("a judge needs a beginning and a completion, one of them is empty")
    ages = ", ".join(f"{letter}: {years}" for letter, years in AGE_GROUPS.items())
    return (
        "A pupil was given the beginning of a story and wrote the rest. The part after *** is the pupil's.\n\n"
        f"{beginning.rstrip()} *** {completion.lstrip()}\n\n"
        "First assess the pupil's part in a few sentences: is it grammatical, does it fit the beginning, does it "
        "properly finish the sentence that was cut off at ***?\n"
        "Then write four lines, each with a grade from 0 to 10: Grammar: …, Creativity: …, Consistency: … (with the "
        "beginning), Plot: … (does it make sense).\n"
        f"Last, one line with your guess of the pupil's age group ({ages}), written as Age: …"
    )


def read_grades(answer: str) -> dict[str, float]:
    """Return the grades found in a judge's answer, the last of each dimension.

    LabError for a missing dimension and for a grade outside 0 to 10.
    """
    grades = {name.lower(): float(value) for name, value in _GRADE.findall(answer)}
    missing = [name for name in DIMENSIONS if name not in grades]
    if missing:
        raise LabError(f"the judge's answer has no grade for {', '.join(missing)}: {answer[:60]!r}")
    for name, value in grades.items():
        if not 0.0 <= value <= 10.0:
            raise LabError(f"the judge graded {name} with {value:g}; grades run from 0 to 10")
    return grades


def read_age(answer: str) -> str | None:
    """Return the letter of the age group in a judge's answer, None if there is none."""
    found = _AGE.findall(answer)
    return found[-1].upper() if found else None


def judge_stories(judge: Judge, beginnings: Sequence[str], completions: Sequence[str]) -> dict[str, float]:
    """Ask `judge` about every pair and return the mean grade of each dimension; LabError if there is no pair."""
    if not beginnings:
        raise LabError("a judge needs at least one beginning with its completion")
    answers = [
        read_grades(judge(judge_request(beginning, completion)))
        for beginning, completion in zip(beginnings, completions, strict=True)
    ]
    return {name: sum(answer[name] for answer in answers) / len(answers) for name in DIMENSIONS}
