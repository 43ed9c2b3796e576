"""The measure: how many labels a model takes, beside the same network with fresh weights and beside counted words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import progress
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.scoring import check_batch_size
from gpt2lab.papers.er_triage.baselines import BASELINES, baseline_scores
from gpt2lab.papers.er_triage.efficiency import factor_rows
from gpt2lab.papers.er_triage.label_word import LabelWord
from gpt2lab.papers.er_triage.notes import read_notes, subset, truth
from gpt2lab.papers.er_triage.pictures import ladder_figure
from gpt2lab.papers.er_triage.training import FineTuning, Floats, fine_tune, redrawn, rung_numbers, scores_of
from gpt2lab.text.labelled_splits import Parts, refuse_leaks, split_documents

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

GIVEN, FRESH = "given", "fresh"


@dataclass(frozen=True, kw_only=True)
class LabelEfficiency:
    """AUC by number of labelled texts: the model fine-tuned, the same network from fresh weights, and TF-IDF beside them."""

    data: tuple[str, ...]
    """Labelled texts of two classes: files (jsonl, csv, parquet), hub:ID or a built-in source."""
    test: str = "0.2"
    """A share of these texts, or a file of others with the same fields, on which everything is judged."""
    field: str = "text"
    """Field of the text in the rows."""
    label: str = "label"
    """Field of the label, 0 or 1."""
    positive: str | None = None
    """The label that counts as 1, if the labels are other than 0 and 1; all others count as 0."""
    budgets: tuple[int, ...] = (15, 30, 60, 120, 250)
    """Numbers of labelled texts; each subset holds the smaller ones."""
    repeats: int = 2
    """Subsets of each size, each with fresh weights of its own."""
    targets: tuple[float, ...] = (0.80, 0.90, 0.93, 0.95, 0.97)
    """AUCs for which the labels that they take are compared."""
    given_rate: float = 5e-4
    """Learning rate of the model that is measured."""
    fresh_rate: float = 1e-3
    """Learning rate of the fresh weights."""
    epochs: float = 4.0
    """Times that each labelled text is seen, within the bounds of the updates."""
    least_steps: int = 100
    """Updates at least, of both."""
    most_steps: int = 500
    """Updates at most, of both."""
    language: float = 0.0
    """λ in L = cross entropy + λ · L_LM, the next-token loss of the labelled texts."""
    read_out: Literal["head", "label-word"] = "head"
    """A linear head on the last token's state, or the class as a word that is written behind the text."""
    label_words: tuple[str, str] = (" no", " yes")
    """The words for class 0 and 1 of label-word, each one token."""
    separator: str = " ?"
    """Text between text and label word."""
    context: int | None = None
    """Tokens of a text that are read; none is the model's context."""
    batch_size: int = 64
    """Texts in one forward pass of the evaluation; changes speed and memory, not the numbers."""

    def __post_init__(self) -> None:
        if not self.budgets or list(self.budgets) != sorted(set(self.budgets)) or self.repeats < 1:
            raise LabError(
                f"label-efficiency: budgets ascend and repeats is 1 or more, got {self.budgets} and {self.repeats}"
            )
        self.how  # noqa: B018  # refuses what makes no sense

    @property
    def how(self) -> FineTuning:
        """How both are trained."""
        return FineTuning(
            epochs=self.epochs,
            least_steps=self.least_steps,
            most_steps=self.most_steps,
            language=self.language,
            read_out=self.read_out,
            label_word=LabelWord(words=self.label_words, separator=self.separator),
            context=self.context,
        )

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure; LabError for labels other than 0 and 1, one class, a text on both sides, a budget above the pool."""
        check_batch_size(self.batch_size)
        parts = self._parts()
        if self.budgets[-1] > len(parts.labelled):
            raise LabError(
                f"label-efficiency: a budget of {self.budgets[-1]} labels, but only {len(parts.labelled)} texts are left "
                "beside the test part; give smaller budgets"
            )
        rows: Table = []
        cut = 0
        names = [(repeat, budget) for repeat in range(self.repeats) for budget in self.budgets]
        for repeat, budget in progress(names, label="label-efficiency", unit="rungs"):
            found, cut = self._rung(lm, parts, budget, repeat)
            rows += [
                {"labels": budget, "repeat": repeat, "strategy": name, **numbers}
                for name, numbers in found.items()
            ]
        return self._measurement(rows, parts, cut)

    def _parts(self) -> Parts:
        read = partial(read_notes, field=self.field, label=self.label, positive=self.positive)
        notes, copies = read(list(self.data))
        known = [one for one in notes if one.label is not None]
        try:
            share = float(self.test)
        except ValueError:
            others, _ = read(self.test)
            parts = Parts([], known, [one for one in others if one.label is not None], copies)
        else:
            parts = split_documents(known, test=share, copies=copies)
        refuse_leaks(parts)
        return parts

    def _rung(
        self, lm: "LanguageModel", parts: Parts, budget: int, repeat: int
    ) -> tuple[dict[str, dict[str, float]], int]:
        """Train every strategy on one subset; numbers by strategy, and how many test texts were cut."""
        notes = subset(parts.labelled, budget, repeat)
        texts, answers, how = [one.text for one in parts.test], truth(parts.test), self.how
        cut, scores = 0, dict[str, Floats]()
        for name, rate in ((GIVEN, self.given_rate), (FRESH, self.fresh_rate)):
            model = lm if name == GIVEN else redrawn(lm, repeat)
            tuned = fine_tune(model, notes, how, learning_rate=rate, seed=repeat, label=f"{name} {budget}")
            scores[name], cut = scores_of(tuned, texts, how, batch_size=self.batch_size)
        for name in BASELINES:
            scores[name] = baseline_scores(name, notes, texts)
        return {name: rung_numbers(answers, own, resamples=0) for name, own in scores.items()}, cut

    def _measurement(self, rows: Table, parts: Parts, cut: int) -> Measurement:
        names = (GIVEN, FRESH, *BASELINES)
        ladders = {name: mean_ladder(rows, name) for name in names}
        means = {name: fmean(ladder.values()) for name, ladder in ladders.items()}
        factors: Table = factor_rows(
            {name: ladders[name] for name in (FRESH, GIVEN, "tfidf")}, self.targets, of=FRESH, over=GIVEN
        )
        drawn = {name: points(rows, name) for name in names}
        return Measurement(
            name="label-efficiency",
            numbers={"gain": means[GIVEN] - means[FRESH], **{f"auc_{name}": means[name] for name in names}},
            tables={"factor": factors, "ladder": rows},
            figures={"auc": partial(ladder_figure, drawn, "AUC")},
            about={
                "data": list(self.data),
                "labelled": len(parts.labelled),
                "test": len(parts.test),
                "copies left out": parts.copies.copies,
                "contradicting labels left out": parts.copies.contradicting,
                "truncated test texts": cut,
                "numbers": "mean AUC over the budgets and repeats; gain is given minus fresh",
            },
        )


def mean_ladder(rows: Sequence[Mapping[str, Any]], strategy: str, what: str = "auc") -> dict[int, float]:
    """Return number of labels → mean over the repeats (or seeds) of one strategy."""
    own = [row for row in rows if row["strategy"] == strategy]
    budgets = sorted({int(row["labels"]) for row in own})
    return {n: fmean(float(row[what]) for row in own if int(row["labels"]) == n) for n in budgets}


def points(
    rows: Sequence[Mapping[str, Any]], strategy: str, what: str = "auc"
) -> list[tuple[list[float], list[float]]]:
    """Return a curve of (labels, value) for each repeat (or seed) of one strategy."""
    own = [row for row in rows if row["strategy"] == strategy]
    found = []
    for repeat in sorted({int(row["repeat"]) for row in own}):
        mine = sorted((int(row["labels"]), float(row[what])) for row in own if int(row["repeat"]) == repeat)
        found.append(([float(n) for n, _ in mine], [value for _, value in mine]))
    return found
