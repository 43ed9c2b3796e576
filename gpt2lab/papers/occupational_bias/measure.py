"""The measure: sample or score a model's jobs for every group, and say how they are divided."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.files import atomic_write, user_path
from gpt2lab.base.settings import Model
from gpt2lab.base.tables import columns_of
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.papers.occupational_bias.analysis import Analysis, analyse, numbers, tables, units
from gpt2lab.papers.occupational_bias.figures import Draw, figures
from gpt2lab.papers.occupational_bias.frequency import Counts
from gpt2lab.papers.occupational_bias.labour import (
    MOST_NAMED,
    POPULATION,
    Statistics,
    detailed_statistics,
    joined,
    read_population,
    read_statistics,
)
from gpt2lab.papers.occupational_bias.occupations import Gazetteer, read_gazetteer, shipped_gazetteer
from gpt2lab.papers.occupational_bias.prompts import (
    IDENTITIES,
    IDENTITY_TEMPLATE,
    NAME_TEMPLATE,
    Prompt,
    identity_prompts,
    name_prompts,
    read_identities,
    read_names,
)
from gpt2lab.papers.occupational_bias.regression import require_statsmodels
from gpt2lab.papers.occupational_bias.sampling import (
    COMPLETIONS,
    Drawing,
    Exact,
    count_answers,
    exact,
    sample,
)
from gpt2lab.text.language_model import LanguageModel, load

_SHOWN = 10  # titles that the tokenizer cannot say, by name


@dataclass(frozen=True, kw_only=True)
class OccupationalBias:
    """Jobs that a model gives to each gender and group: concentration, regressions, distance to labour statistics."""

    templates: tuple[str, ...] = ("identity",)
    """Sets of prompts: identity, names, or both."""
    mode: Literal["sampled", "exact", "both"] = "sampled"
    """sampled: completions, as in the paper. exact: the probability of every title right after the prompt, no noise,
    so every job of the labour statistics is compared with them, however rare."""
    n: int = 700
    """Completions of each identity prompt; the paper draws 7000."""
    names_n: int = 100
    """Completions of each name; the paper draws 1000."""
    temperature: float = 1.0
    """Divides the logits."""
    top_k: int | None = 50
    """Sample only from this many most probable tokens; none: all."""
    top_p: float = 1.0
    """Sample from the fewest tokens with this probability mass; 1 is all."""
    max_new_tokens: int = 10
    """Length of a completion in tokens."""
    seed: int = 0
    """Seed; with a prompt's name it determines all draws of the prompt."""
    batch_size: int = 256
    """Completions in one batch; changes no number."""
    titles: Literal["first", "all"] = "first"
    """Counted occupations of a completion: the first, or each of them once."""
    compat_duplicates: bool = False
    """Count a list of k titles as k · k rows with each title k times, as the authors' code does."""
    merge_gendered: bool = False
    """Count waitress as waiter, policeman as police officer, and so on; the table with both is always included."""
    gazetteer: str = ""
    """CSV file of titles (column job; update_match renames); none: the 792 of the authors."""
    labour_titles: bool = False
    """Also search for the occupation names of the labour statistics, and compare those jobs with them."""
    identities: str = ""
    """CSV file of categories: intersection, category, woman, man (the words before either noun); none: the paper's 14."""
    intersections: tuple[str, ...] = ()
    """Only these besides base, such as ethnicity; none: all."""
    template: str = IDENTITY_TEMPLATE
    """Identity prompt; {X} is the category's word, {Y} woman or man."""
    names: str = ""
    """CSV file of first names: name, region, gender; none: the paper's 200."""
    name_template: str = NAME_TEMPLATE
    """Name prompt; {Z} is the name."""
    statistics: str = ""
    """CSV file of labour statistics: job, us_base_F, us_base_M, ... in percent; none: 32 jobs, United States 2019."""
    population: str = ""
    """CSV file of the shares of the employed by which prompts are weighted: group (woman, man, Asian, ...), share; none:
    United States 2019."""
    beside: Model = ""
    """A second MODEL, measured in the same way and shown beside the first."""
    out: str = ""
    """Folder for completions (from which a stopped measurement resumes), tables (CSV), figures (SVG) and numbers (JSON)."""

    def __post_init__(self) -> None:
        for name in self.templates:
            if name not in ("identity", "names"):
                raise unknown("set of prompts", name, ("identity", "names"))
        if not self.templates:
            raise LabError("templates: give identity, names or both")
        if min(self.n, self.names_n) < 1:
            raise LabError(
                f"n and names_n must be at least 1 completion a prompt, got {self.n} and {self.names_n}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise LabError(f"top_k must be at least 1, got {self.top_k}; none keeps all tokens")
        self._refuse_idle_options()

    def _refuse_idle_options(self) -> None:
        """LabError for an option that would do nothing beside the others."""
        identity, names = "identity" in self.templates, "names" in self.templates
        for option, given, works, needs in (
            ("identities", bool(self.identities), identity, "identity among the templates"),
            ("intersections", bool(self.intersections), identity, "identity among the templates"),
            ("template", self.template != IDENTITY_TEMPLATE, identity, "identity among the templates"),
            ("names", bool(self.names), names, "names among the templates"),
            ("name_template", self.name_template != NAME_TEMPLATE, names, "names among the templates"),
            ("compat_duplicates", self.compat_duplicates, self.mode != "exact", "sampled completions"),
        ):
            if given and not works:
                raise LabError(f"{option} needs {needs}; without, it does nothing")

    def __call__(self, lm: LanguageModel) -> Measurement:
        """Measure. LabError: a file or option that is wrong, statsmodels missing, a group without any occupation."""
        lm.config.require_causal("occupational-bias")
        prompts, titles = self.prompts(), self.read_titles()
        population = read_population(self.population) if self.population else POPULATION
        statistics = self._read_statistics(prompts, population)
        require_statsmodels()
        other = load(self.beside, device=lm.model.device) if self.beside else None
        if other is not None:
            other.config.require_causal(f"occupational-bias beside {self.beside}")
        found, scored = self._modes(lm, prompts, titles, self.out)
        if other is not None:
            counts, mass = self._modes(other, prompts, titles, f"{self.out}/beside" if self.out else "")
            found |= {f"beside.{name}" if name else "beside": value for name, value in counts.items()}
            scored |= {f"beside.{name}" if name else "beside": value for name, value in mass.items()}
            found = _same_jobs(found)
        analyses = {
            name: analyse(counts, statistics, population, most_named=0.0 if name in scored else MOST_NAMED)
            for name, counts in found.items()
        }
        measurement = self._put_together(analyses, scored, prompts, titles)
        if self.out:
            write_artefacts(measurement, self.out)
        return measurement

    def prompts(self) -> list[Prompt]:
        """Return all prompts that are asked for."""
        found: list[Prompt] = []
        if "identity" in self.templates:
            own = read_identities(self.identities) if self.identities else IDENTITIES
            found += identity_prompts(own, self.template, self.intersections)
        if "names" in self.templates:
            found += name_prompts(read_names(self.names) if self.names else None, self.name_template)
        return found

    def read_titles(self) -> Gazetteer:
        """Return the gazetteer that is asked for."""
        if self.gazetteer:
            titles = read_gazetteer(self.gazetteer, labour_titles=self.labour_titles)
        else:
            titles = shipped_gazetteer(labour_titles=self.labour_titles)
        return titles.merged() if self.merge_gendered else titles

    def size(self, prompt: Prompt) -> int:
        """Return how many completions a prompt gets."""
        return self.names_n if prompt.cell.intersection == "names" else self.n

    def _modes(
        self, lm: LanguageModel, prompts: list[Prompt], titles: Gazetteer, out: str
    ) -> tuple[dict[str, Counts], dict[str, Exact]]:
        """Return the counts by the prefix of their numbers, the headline first, and what the exact mode says besides."""
        found: dict[str, Counts] = {}
        exactly: dict[str, Exact] = {}
        if self.mode in ("sampled", "both"):
            drawing = Drawing(
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                max_new_tokens=self.max_new_tokens,
                seed=self.seed,
                batch_size=self.batch_size,
            )
            folder = user_path(out) / COMPLETIONS if out else None
            answers = sample(lm, prompts, self.size, titles, drawing, folder=folder)
            found[""] = count_answers(answers, which=self.titles, compat_duplicates=self.compat_duplicates)
        if self.mode in ("exact", "both"):
            scored = exact(lm, prompts, self.size, titles, batch_size=self.batch_size)
            name = "exact" if found else ""
            found[name], exactly[name] = scored.counts, scored
        return found, exactly

    def _read_statistics(
        self, prompts: list[Prompt], population: Mapping[str, float] = POPULATION
    ) -> Statistics:
        """Read the table; the shipped one has no figures for ethnicities of your own, and then speaks of base alone.

        LabError if it has figures for a category whose share of the population is not known.
        """
        own = list(dict.fromkeys(p.cell.category for p in prompts if p.cell.intersection == "ethnicity"))
        if not self.statistics and not set(own) <= set(POPULATION):
            own = []
        found = read_statistics(self.statistics or None, own)
        for category in own:
            if f"{category.lower()}_F" in found.percent and category not in population:
                raise LabError(
                    f"{category}: its share of the employed is not known; give a file with it as population"
                )
        if self.labour_titles and not self.statistics:
            found = joined(found, detailed_statistics())
        return found

    def _put_together(
        self,
        analyses: Mapping[str, Analysis],
        scored: Mapping[str, Exact],
        prompts: list[Prompt],
        titles: Gazetteer,
    ) -> Measurement:
        all_numbers: dict[str, float] = {}
        all_tables: dict[str, Table] = {}
        all_figures: dict[str, Draw] = {}
        notes: list[str] = []
        for name, analysis in analyses.items():
            all_numbers |= {f"{name}.{k}" if name else k: v for k, v in numbers(analysis).items()}
            all_tables |= {f"{name}: {k}" if name else k: v for k, v in tables(analysis).items()}
            all_figures |= {f"{name}: {k}" if name else k: v for k, v in figures(analysis).items()}
            notes += [f"{name}: {note}" if name else note for note in analysis.notes]
        for name, exactly in scored.items():
            mass = list(exactly.mass.values())
            del all_numbers[f"{name}.without_title" if name else "without_title"]  # 0 by construction
            all_numbers[f"{name}.title_mass" if name else "title_mass"] = sum(mass) / len(mass)
            all_tables[f"{name}: titles" if name else "titles"] = [
                {"group": str(cell), "probability of a title": value} for cell, value in exactly.mass.items()
            ]
            all_figures.pop(f"{name}: missing titles" if name else "missing titles")
        return Measurement(
            name="occupational-bias",
            numbers=all_numbers,
            units=units(list(all_numbers)),
            tables=all_tables,
            figures=all_figures,
            arrays={"mentions": analyses[""].counts.mentions},
            about=self._about(analyses[""], scored, notes, prompts, titles),
        )

    def _about(
        self,
        first: Analysis,
        scored: Mapping[str, Exact],
        notes: list[str],
        prompts: list[Prompt],
        titles: Gazetteer,
    ) -> dict[str, object]:
        """Return the settings and counts that one must know to compare the numbers."""
        about: dict[str, object] = {
            "prompts": len(prompts),
            "completions": int(first.counts.answers.sum()),
            "mode of the numbers without prefix": "exact" if self.mode == "exact" else "sampled",
            "decoding": f"temperature {self.temperature:g}, top_k {self.top_k}, top_p {self.top_p:g}, "
            f"{self.max_new_tokens} tokens, seed {self.seed}",
            "titles": f"{len(titles.titles)} in the gazetteer, {self.titles} of a completion counts"
            + (", as the authors' code counts" if self.compat_duplicates else ""),
            "jobs named": len(first.counts.jobs),
        }
        if self.mode == "exact":
            about["completions"] = 0
            about["decoding"] = "none: probabilities of titles right after the prompt, as shares of the list"
            about["titles"] = f"{len(titles.titles)} in the gazetteer"
        if scored:
            about["tests in the exact mode"] = f"as if {self.n} completions fell as the probabilities say"
            unsayable = next(iter(scored.values())).unsayable
            more = ", ..." if len(unsayable) > _SHOWN else ""
            shown = f": {', '.join(unsayable[:_SHOWN])}{more}" if unsayable else ""
            about["titles the tokenizer cannot say"] = f"{len(unsayable)}{shown}"
        if first.comparison is not None:
            about["labour statistics"] = self.statistics or "United States 2019, Bureau of Labor Statistics"
            about["population"] = self.population or "United States 2019"
            about["without statistics"] = ", ".join(first.comparison.without_statistics) or "none"
        if notes:
            about["not computed"] = "; ".join(notes)
        return about


def _same_jobs(found: Mapping[str, Counts]) -> dict[str, Counts]:
    """Give all counts the same jobs: the Gini coefficient depends on how many there are."""
    jobs = tuple(sorted({job for counts in found.values() for job in counts.jobs}))
    same = {}
    for name, counts in found.items():
        mentions = np.zeros((len(counts.cells), len(jobs)))
        mentions[:, [jobs.index(job) for job in counts.jobs]] = counts.mentions
        same[name] = replace(counts, jobs=jobs, mentions=mentions)
    return same


def write_artefacts(measurement: Measurement, folder: Path | str) -> None:
    """Write numbers and settings as JSON, every table as CSV, every figure as SVG."""
    place = user_path(folder)
    atomic_write(place / "measurement.json", measurement.to_json())
    for name, rows in measurement.tables.items():
        if rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, columns_of(rows))
            writer.writeheader()
            writer.writerows(rows)
            atomic_write(place / "tables" / f"{_file(name)}.csv", text.getvalue())
    for name in measurement.figures:
        atomic_write(place / "figures" / f"{_file(name)}.svg", measurement.figure_svg(name))


def _file(name: str) -> str:
    return "_".join(name.replace(",", " ").replace(":", " ").split())
