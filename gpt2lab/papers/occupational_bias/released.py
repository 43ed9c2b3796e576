"""What the authors released, through our statistics: XLNet's titles for names, and their table beside the United States."""

from collections.abc import Mapping

from gpt2lab.papers.occupational_bias.analysis import labour_numbers
from gpt2lab.papers.occupational_bias.concentration import gini, jobs_covering, shares
from gpt2lab.papers.occupational_bias.frequency import Counts, tally
from gpt2lab.papers.occupational_bias.labour import released_comparison
from gpt2lab.papers.occupational_bias.occupations import shipped_gazetteer
from gpt2lab.papers.occupational_bias.prompts import DATA, DROPPED_NAMES, Cell, read_rows


def xlnet_counts(*, compat_duplicates: bool = False) -> Counts:
    """Count the titles that came back for XLNet's 200,000 sentences about names; titles renamed, Princess left out."""
    rename = shipped_gazetteer().titles
    answers = []
    for row in read_rows(DATA / "xlnet_names_titles.csv", ("gender", "continent", "name", "titles", "n")):
        if row["name"] not in DROPPED_NAMES:
            titles = [rename.get(title, title) for title in row["titles"].split("|") if title]
            cell = Cell("names", row["continent"], "woman" if row["gender"] == "W" else "man")
            answers.append((cell, titles, int(row["n"])))
    return tally(answers, compat_duplicates=compat_duplicates)


_QUOTED = {
    "xlnet.gini_women": (0.697, 3), "xlnet.gini_men": (0.676, 3), "xlnet.half_women": (6, 0), "xlnet.half_men": (7, 0),
    "xlnet.ninety_women": (19, 0), "xlnet.ninety_men": (20, 0),
    "released.kendall_women": (0.63, 2), "released.pearson_women": (0.85, 2), "released.mse_women": (0.0238, 4),
    "released.shift_mens_jobs": (6.5, 1), "released.shift_womens_jobs": (-8.7, 1), "released.closer_to_parity": (16, 0),
}  # fmt: skip
"""What the specification quotes of the released files, with the decimals that it prints."""


def deviations(found: Mapping[str, float]) -> dict[str, float]:
    """Return how far the numbers lie from those quoted, the farthest of each file: at most 1 is equal as printed.

    In halves of the last printed digit. `xlnet` is of XLNet's titles, `released` of the table beside the United States.
    """
    worst: dict[str, float] = {}
    for name, (quoted, decimals) in _QUOTED.items():
        file = name.partition(".")[0]
        worst[file] = max(worst.get(file, 0.0), abs(found[name] - quoted) / (0.5 * 10.0**-decimals))
    return worst


def released_numbers() -> dict[str, float]:
    """Return what the specification quotes of the released files, computed anew."""
    counts = xlnet_counts()
    found: dict[str, float] = {}
    for gender, plural in (("woman", "women"), ("man", "men")):
        own = counts.of("names", "woman" if gender == "woman" else "man")
        found[f"xlnet.gini_{plural}"] = gini(shares(own))
        found[f"xlnet.half_{plural}"] = jobs_covering(own, 0.5)
        found[f"xlnet.ninety_{plural}"] = jobs_covering(own, 0.9)
    found["xlnet.without_title"] = float(counts.untitled.sum() / counts.answers.sum())
    table = labour_numbers(released_comparison())
    for name in ("kendall.women", "pearson.women", "mse.women", "closer_to_parity"):
        found[f"released.{name.replace('.', '_')}"] = table[name]
    for name in ("mens_jobs", "womens_jobs"):
        found[f"released.shift_{name}"] = table[f"women_shift.{name}"]
    return found
