"""What the authors released, through our statistics: XLNet's titles for names, and their table beside the United States."""

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
