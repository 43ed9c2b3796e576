"""How often each job was named in each cell: n[c, g, j], what all statistics of the paper are made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias.prompts import BASE, Cell, Gender

Floats = NDArray[np.float64]
Which = Literal["first", "all"]
GAZETTEER = "the gazetteer"
"""What finds titles by default, in words."""
"""Which titles of a completion count: its first, or every one (each once)."""


@dataclass(frozen=True)
class Counts:
    """Mentions of jobs by cell. Whole numbers if sampled, expected ones in the exact mode."""

    cells: tuple[Cell, ...]
    jobs: tuple[str, ...]
    mentions: Floats
    """[cells, jobs]."""
    completions: Floats
    """[cells]: rows of the frequency matrix; a completion without a title is one too."""
    untitled: Floats
    """[cells]: completions without a title."""
    drawn: Floats | None = None
    """[cells]: completions as they were drawn, where the rows are more (`compat_duplicates`)."""
    recogniser: str = GAZETTEER
    """What found the titles, in words."""

    @property
    def answers(self) -> Floats:
        """How many completions were drawn, [cells]: what thresholds and shares without a title refer to."""
        return self.completions if self.drawn is None else self.drawn

    @property
    def intersections(self) -> list[str]:
        """The groups of categories but base, in their order."""
        return [name for name in dict.fromkeys(c.intersection for c in self.cells) if name != BASE]

    def rows(self, intersection: str, gender: Gender | None = None) -> list[int]:
        """Return the indices of the cells of an intersection, of one gender or both."""
        return [
            at
            for at, cell in enumerate(self.cells)
            if cell.intersection == intersection and gender in (None, cell.gender)
        ]

    def categories(self, intersection: str) -> list[str]:
        """Return the categories of an intersection, in their order."""
        return list(dict.fromkeys(self.cells[at].category for at in self.rows(intersection)))

    def row(self, category: str, gender: Gender) -> int:
        """Return the index of a cell. LabError if there is none."""
        for at, cell in enumerate(self.cells):
            if (cell.category, cell.gender) == (category, gender):
                return at
        raise LabError(f"{category} {gender}: no such cell; there are {', '.join(map(str, self.cells))}")

    def of(self, intersection: str, gender: Gender) -> Floats:
        """Return the mentions of one gender summed over the categories of an intersection, [jobs].

        LabError if there are none, instead of shares of nothing.
        """
        total: Floats = self.mentions[self.rows(intersection, gender)].sum(0)
        if not total.sum():
            raise LabError(
                f"{intersection}, {gender}: no occupation was named; sample more, or look at the texts"
            )
        return total

    def calls(self, intersection: str) -> float:
        """Return how many completions an intersection has."""
        return float(self.answers[self.rows(intersection)].sum())

    def frequent(self, intersection: str, share: float = 0.0025, *, with_base: bool = False) -> list[int]:
        """Return the jobs named at least `share` times the number of calls of an intersection.

        with_base: the mentions of base count too, as in the regressions; the threshold stays that of the intersection.
        """
        rows = self.rows(intersection) + (self.rows(BASE) if with_base and intersection != BASE else [])
        total = self.mentions[rows].sum(0)
        return [
            at for at in range(len(self.jobs)) if total[at] >= max(share * self.calls(intersection), 1e-9)
        ]

    def renamed(self, rename: Mapping[str, str]) -> "Counts":
        """Return the counts with some jobs merged into others. A completion that named both counts twice."""
        names = [rename.get(job, job) for job in self.jobs]
        jobs = tuple(sorted(set(names)))
        mentions = np.zeros((len(self.cells), len(jobs)))
        for at, name in enumerate(names):
            mentions[:, jobs.index(name)] += self.mentions[:, at]
        return replace(self, jobs=jobs, mentions=mentions)

    def check_titled(self) -> None:
        """LabError if some cell has no title at all: its shares would be divisions by zero."""
        silent = [at for at, own in enumerate(self.mentions) if not own.sum()]
        if silent:
            more = f" (nor for {', '.join(str(self.cells[at]) for at in silent[1:])})" if silent[1:] else ""
            remedy = (
                "use the exact mode, another gazetteer"
                if self.recogniser == GAZETTEER
                else "another recogniser"
            )
            raise LabError(
                f"{self.cells[silent[0]]}: none of {self.answers[silent[0]]:,.0f} completions names an occupation found by "
                f"{self.recogniser}{more}; draw more, {remedy}, or a model that knows occupations"
            )


def tally(
    answers: Iterable[tuple[Cell, Sequence[str], int]],
    *,
    which: Which = "first",
    compat_duplicates: bool = False,
) -> Counts:
    """Count (cell, titles of a completion, how many such completions).

    A job counts once a completion. compat_duplicates: as the authors' code does, a list of k titles becomes k · k
    rows in which each title stands k times; thresholds still refer to completions. LabError if there is no completion.
    """
    mentions: dict[Cell, dict[str, float]] = {}
    rows: dict[Cell, float] = {}
    drawn: dict[Cell, float] = {}
    untitled: dict[Cell, float] = {}
    for cell, titles, times in answers:
        own = mentions.setdefault(cell, {})
        drawn[cell] = drawn.get(cell, 0.0) + times
        rows[cell] = rows.get(cell, 0.0) + times * (max(1, len(titles) ** 2) if compat_duplicates else 1)
        untitled[cell] = untitled.get(cell, 0.0) + (times if not titles else 0)
        if compat_duplicates:
            counted = [title for title in titles for _ in titles]
        else:
            counted = list(titles[:1]) if which == "first" else list(dict.fromkeys(titles))
        for title in counted:
            own[title] = own.get(title, 0.0) + times
    if not rows:
        raise LabError("there are no completions to count")
    cells = tuple(rows)
    jobs = tuple(sorted({job for own in mentions.values() for job in own}))
    matrix = np.array([[mentions[cell].get(job, 0.0) for job in jobs] for cell in cells]).reshape(
        len(cells), len(jobs)
    )
    by_cell = [np.array([values[c] for c in cells]) for values in (rows, untitled, drawn)]
    return Counts(cells, jobs, matrix, by_cell[0], by_cell[1], by_cell[2] if compat_duplicates else None)


def expected(probabilities: Mapping[Cell, Mapping[str, float]], n: Mapping[Cell, int]) -> Counts:
    """Return the counts that n completions of each cell would have on average, given P(job | cell)."""
    cells = tuple(probabilities)
    jobs = tuple(sorted({job for own in probabilities.values() for job in own}))
    shares = np.array([[probabilities[cell].get(job, 0.0) for job in jobs] for cell in cells])
    times = np.array([float(n[cell]) for cell in cells])
    rest = 1 - shares.sum(1)
    rest[rest < 1e-9] = 0.0  # rounding
    return Counts(cells, jobs, shares * times[:, None], times, times * rest)
