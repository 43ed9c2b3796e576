"""A world whose bias is known by construction: jobs drawn from a stated P*(job | category, gender), and sentences about it.

P*(j | c, g) ∝ exp(a_j + s_j · sign(g) + u_cj + v_cgj); v is 0 but for a few planted jobs, whose place depends on
category and gender together. The data is generated; nothing in it speaks of real people.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias.frequency import Counts
from gpt2lab.papers.occupational_bias.occupations import Gazetteer
from gpt2lab.papers.occupational_bias.prompts import (
    BASE,
    GENDERS,
    IDENTITIES,
    Cell,
    Gender,
    Prompt,
    identity_prompts,
)

Floats = NDArray[np.float64]

JOBS = (
    "accountant", "baker", "barber", "carpenter", "cashier", "chef", "cleaner", "clerk", "cook", "dancer", "dentist",
    "doctor", "driver", "farmer", "guard", "janitor", "lawyer", "librarian", "mechanic", "nurse", "painter", "plumber",
    "tailor", "teacher",
)  # fmt: skip
PLACES = (
    "airport", "bakery", "bank", "bridge", "castle", "church", "city", "court", "factory", "farm", "forest", "garden",
    "harbour", "hospital", "hotel", "kitchen", "library", "market", "mill", "mine", "museum", "office", "park",
    "school", "shop", "station", "tower", "town", "valley", "village",
)  # fmt: skip
FILLERS = (
    "the {place} is near the {other} .",
    "it rains in the {place} today .",
    "we walk from the {place} to the {other} .",
    "the old {place} was quiet all day .",
)
TEMPLATE_SENTENCE = "{prompt} {job} in the {place} ."
INTERSECTION = "ethnicity"


@dataclass(frozen=True)
class World:
    """The truth."""

    cells: tuple[Cell, ...]
    jobs: tuple[str, ...]
    probabilities: Floats
    """P*(job | cell), [cells, jobs]."""
    planted: tuple[str, ...]
    """Jobs with an interaction of category and gender."""

    @property
    def prompts(self) -> list[Prompt]:
        """One prompt a cell."""
        return identity_prompts(intersections=(INTERSECTION,))

    @property
    def gazetteer(self) -> Gazetteer:
        """The world's jobs."""
        return Gazetteer(self.jobs)

    def expected(self, n: float = 1.0) -> Counts:
        """Return the counts of n completions a cell on average."""
        size = np.full(len(self.cells), n)
        return Counts(self.cells, self.jobs, self.probabilities * n, size, np.zeros(len(self.cells)))

    def draw(self, n: int, generator: np.random.Generator) -> Counts:
        """Return the counts of n answers a cell drawn from the truth: what a perfect model would give."""
        return drawn(self.expected(), n, generator)


def make_world(seed: int = 0, *, planted: int = 8, skew: float = 1.2, interaction: float = 0.3) -> World:
    """Draw the truth: a ~ N(0, 0.7), s ~ N(0, skew), 1.3 times as large for women, u ~ N(0, 0.4), v ~ N(0, interaction).

    10 cells: base and four ethnicities, two genders. LabError unless 0 ≤ planted ≤ 24.
    """
    if not 0 <= planted <= len(JOBS):
        raise LabError(f"planted must lie between 0 and {len(JOBS)} jobs, got {planted}")
    draw = np.random.default_rng(seed)
    categories = [i.category for i in IDENTITIES if i.intersection in (BASE, INTERSECTION)]
    common, gendered = draw.normal(0, 0.7, len(JOBS)), draw.normal(0, skew, len(JOBS))
    own = draw.normal(0, 0.4, (len(categories), len(JOBS)))
    chosen = np.sort(draw.choice(len(JOBS), planted, replace=False))
    both = np.zeros((len(categories), 2, len(JOBS)))
    both[:, :, chosen] = draw.normal(0, interaction, (len(categories), 2, planted))
    cells, rows = [], []
    for c, category in enumerate(categories):
        for g, gender in enumerate(GENDERS):
            sign = 1.3 if gender == "woman" else -1.0
            logits = common + sign * gendered + own[c] + both[c, g]
            weights = np.exp(logits - logits.max())
            rows.append(weights / weights.sum())
            cells.append(Cell(BASE if category == BASE else INTERSECTION, category, gender))
    return World(tuple(cells), JOBS, np.stack(rows), tuple(JOBS[at] for at in chosen))


def drawn(counts: Counts, n: int, generator: np.random.Generator) -> Counts:
    """Return the counts of n answers a cell, each a job, drawn in proportion to the mentions of `counts`."""
    shares = counts.mentions / counts.mentions.sum(1, keepdims=True)
    mentions = np.stack([generator.multinomial(n, row) for row in shares]).astype(np.float64)
    size = np.full(len(counts.cells), float(n))
    return Counts(counts.cells, counts.jobs, mentions, size, np.zeros(len(counts.cells)))


def sentences(world: World, size: int, seed: int, filler: float = 0.3) -> list[str]:
    """Return `size` sentences of the template, cells in equal parts, and `filler` times as many of others, shuffled."""
    draw = np.random.default_rng([seed, 1])
    prompts = world.prompts
    found = []
    for at in range(size):
        cell = at % len(world.cells)
        job = world.jobs[int(draw.choice(len(world.jobs), p=world.probabilities[cell]))]
        place = PLACES[int(draw.integers(len(PLACES)))]
        found.append(TEMPLATE_SENTENCE.format(prompt=prompts[cell].text, job=job, place=place))
    for _ in range(round(filler * size)):
        place, other = (PLACES[int(i)] for i in draw.integers(len(PLACES), size=2))
        found.append(FILLERS[int(draw.integers(len(FILLERS)))].format(place=place, other=other))
    return [found[int(at)] for at in draw.permutation(len(found))]


def pooled(counts: Counts, gender: Gender) -> Floats:
    """Return the mentions of one gender over all cells, [jobs]."""
    total: Floats = counts.mentions[
        [at for at, cell in enumerate(counts.cells) if cell.gender == gender]
    ].sum(0)
    return total


def women_share(counts: Counts, jobs: tuple[str, ...]) -> Floats:
    """Return the share of women among the mentions of each job, over all cells; NaN for one never named."""
    women = dict(zip(counts.jobs, pooled(counts, "woman"), strict=True))
    men = dict(zip(counts.jobs, pooled(counts, "man"), strict=True))
    found = []
    for job in jobs:
        total = women.get(job, 0.0) + men.get(job, 0.0)
        found.append(women.get(job, 0.0) / total if total else np.nan)
    return np.array(found)
