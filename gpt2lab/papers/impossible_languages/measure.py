"""Three measures of any causal model: perplexity of the languages, surprisal of markers, interchange interventions."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import ModelTokenizer
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.prompts import one_token, read_prompt
from gpt2lab.measures.statistics import paired_t_interval, t_interval, wilson_interval
from gpt2lab.papers.impossible_languages.corpus import sentences_of
from gpt2lab.papers.impossible_languages.generator import plural_of
from gpt2lab.papers.impossible_languages.interchange import (
    CONTROL_LENGTH,
    Examples,
    find_examples,
    interchange_accuracy,
    regular_plural,
)
from gpt2lab.papers.impossible_languages.languages import NAMES, Language, P, R, S, language
from gpt2lab.papers.impossible_languages.perplexity import sampled, sentence_losses
from gpt2lab.papers.impossible_languages.perturbing import Perturbation, perturb
from gpt2lab.papers.impossible_languages.surprisal import marker_surprisals
from gpt2lab.plots.heatmaps import heatmap
from gpt2lab.plots.over_seeds import dots
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.pieces import piece_text, split_text
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.text.tokenizer_files import load_tokenizer

_LONGEST = 1024
"""Tokens of a sentence of the surprisal test with its end token, at most (exclusive), as in the authors' code."""


@dataclass(frozen=True, kw_only=True)
class LanguagePerplexity:
    """Geometric-mean perplexity of the same sentences in several languages, each sentence scored by itself."""

    languages: tuple[str, ...] = NAMES[:9]
    """Languages; the shuffles need no markers, so that any model can be measured on them."""
    data: tuple[str, ...] = ("books:30000",)
    """Text, or annotated sentences (CoNLL-U, JSON, agreement:SIZE:SEED), which hop languages need."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    limit: int | None = 100
    """Read at most this many sentences; none means all."""
    sample: int | None = None
    """Sentences drawn from these for each language, by numpy's default_rng(seed).choice; none means all."""
    seed: int = 0
    """Seed of the sample."""
    tokenizer: ModelTokenizer = ""
    """MODEL or folder whose tokenizer reads the text: for spelled tokens the corpus's DIR/tokenizer; empty: the model's."""
    batch_size: int = 32
    """Sentences in one forward pass; changes speed and memory, not the numbers."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise LabError(f"language-perplexity: limit must be at least 1 sentence, got {self.limit}")
        if not self.languages:
            raise LabError("language-perplexity: name at least one language")
        for name in self.languages:
            language(name)

    def __call__(self, lm: LanguageModel) -> Measurement:
        """Measure a model; LabError for a language whose markers it lacks, and for data without a sentence to score."""
        lm = _reading(lm, self.tokenizer)
        tokenizer = need_tokenizer(lm, "language-perplexity")
        chosen = [language(name) for name in self.languages]
        annotated = any(one.annotated for one in chosen)
        read = sentences_of(self.data, annotated=annotated, field=self.field)
        given = list(itertools.islice(read, self.limit))
        losses: dict[str, Any] = {}
        rows: Table = []
        for one in chosen:
            sentences = _sample(_speaks(tokenizer, one).corpus(given).evaluation(), self.sample, self.seed)
            losses[one.name] = found = sentence_losses(
                lm.model, sentences, batch_size=self.batch_size, label=one.name
            )
            rows.append(
                {
                    "language": one.name, "family": one.family, "sentences": len(found),
                    "tokens": sum(map(len, sentences)), **_exponential("perplexity", t_interval(found)),
                }
            )  # fmt: skip
        for row, one in zip(rows, chosen, strict=True):
            control = losses.get(one.control)
            if control is not None and one.name != one.control and len(control) > 1:
                row |= _exponential("over control", paired_t_interval(losses[one.name], control))
        numbers = {row["language"]: row["perplexity"] for row in rows}
        spans = {row["language"]: (row["perplexity, 95 % low"], row["perplexity, 95 % high"]) for row in rows}
        means = {name: [value] for name, value in numbers.items()}
        return Measurement(
            name="language-perplexity",
            numbers=numbers,
            units=dict.fromkeys(numbers, "perplexity, geometric mean over sentences"),
            tables={"languages": rows},
            arrays=losses,
            figures={"languages": partial(dots, means, label="geometric-mean perplexity", intervals=spans)}
            if len(given) > 1
            else {},
            about={"data": list(self.data), "sample": self.sample, "seed": self.seed},
        )


@dataclass(frozen=True, kw_only=True)
class MarkerSurprisal:
    """Surprisal of a verb's marker where it belongs, and of what follows it where the marker is missing."""

    language: str = "hop_control"
    """The hop language in which the model is asked: the one it was trained on."""
    annotated: tuple[str, ...] = ("agreement:1000:1",)
    """Annotated sentences: CoNLL-U, JSON, agreement:SIZE:SEED (generated)."""
    markers: tuple[str, ...] = (S, P)
    """Tokens that mark singular and plural; a model that has not learnt markers is asked for two tokens of its own."""
    sample: int | None = None
    """Sentences drawn from those that have a marker; none means all."""
    seed: int = 0
    """Seed of the sample."""
    tokenizer: ModelTokenizer = ""
    """MODEL or folder whose tokenizer reads the text: for spelled tokens the corpus's DIR/tokenizer; empty: the model's."""
    batch_size: int = 32
    """Sentences in one forward pass; changes speed and memory, not the numbers."""

    def __post_init__(self) -> None:
        _hop_language("marker-surprisal", self.language)
        _two("marker-surprisal", self.markers)

    def __call__(self, lm: LanguageModel) -> Measurement:
        """Measure a model; LabError if it lacks the markers or an end token, or no sentence has a marker."""
        lm = _reading(lm, self.tokenizer)
        tokenizer = need_tokenizer(lm, "marker-surprisal")
        if tokenizer.eos is None:
            raise LabError(
                "marker-surprisal: sentences end with an end token, which this tokenizer does not have"
            )
        markers = _marker_ids(tokenizer, self.markers, "marker-surprisal")
        given = sentences_of(self.annotated, annotated=True)
        rule = perturb(self.language, tokenizer).with_markers(markers)
        found = [ids for ids in rule.corpus(given).evaluation() if len(ids) + 1 < _LONGEST]
        sentences = _sample(found, self.sample, self.seed)
        bits = marker_surprisals(lm.model, sentences, markers, tokenizer.eos, batch_size=self.batch_size)
        values = {"marker": bits.marker, "without": bits.without, "difference": bits.difference}
        right = bits.right
        return Measurement(
            name="marker-surprisal",
            numbers={
                "marker": float(bits.marker.mean()),
                "difference": float(bits.difference.mean()),
                "right_number": float(right.mean()),
            },
            units={
                "marker": "bits, of the marker in its place",
                "difference": "bits, by which what follows is more surprising where the marker is missing",
                "right_number": "share of sentences in which the right marker is likelier than the other",
            },
            tables={"surprisal": [_interval_row(name, of) for name, of in values.items()]},
            arrays={**values, "right": right},
            about={"language": self.language, "sentences": len(sentences), "annotated": list(self.annotated)},
        )


@dataclass(frozen=True, kw_only=True)
class InterchangeIntervention:
    """How often swapping one block's output at one position between two sentences swaps the number that is predicted."""

    language: str = "hop_words4"
    """The hop language that the model was trained on; in the control an example ends with the verb."""
    annotated: tuple[str, ...] = ("agreement:4000:1",)
    """Annotated sentences in which examples are found: CoNLL-U, JSON, agreement:SIZE:SEED (generated)."""
    base: tuple[str, ...] = ()
    """Beginnings of one's own, all of equally many tokens: `The dog by the tree`; then no examples are searched for."""
    source: tuple[str, ...] = ()
    """For each of them the other one: `The dogs by the tree`."""
    markers: tuple[str, ...] = (S, P)
    """The next token of base and of source: the markers of singular and plural, or two words such as ` is` and ` are`."""
    paper_regex: bool = False
    """Only examples whose ids hold no 0, which is what the pattern of the authors' code finds."""
    tokenizer: ModelTokenizer = ""
    """MODEL or folder whose tokenizer reads the text: for spelled tokens the corpus's DIR/tokenizer; empty: the model's."""
    batch_size: int = 64
    """Examples in one forward pass; changes speed and memory, not the numbers."""

    def __post_init__(self) -> None:
        _hop_language("interchange-intervention", self.language)
        _two("interchange-intervention", self.markers)
        if len(self.base) != len(self.source):
            raise LabError(
                f"interchange-intervention: {len(self.base)} texts for base and {len(self.source)} for source; each base "
                "needs its source"
            )

    def __call__(self, lm: LanguageModel) -> Measurement:
        """Measure a model; LabError if it lacks the markers, no example is found, or lengths differ."""
        lm = _reading(lm, self.tokenizer)
        tokenizer = need_tokenizer(lm, "interchange-intervention")
        lm.config.require_causal("interchange-intervention")
        if not lm.config.n_layers:
            raise LabError(
                "interchange-intervention: this model has no blocks whose outputs could be swapped"
            )
        examples = self._own(lm) if self.base else self._found(tokenizer)
        right = interchange_accuracy(
            lm.model, examples.base, examples.source, examples.answers, batch_size=self.batch_size
        )
        labels = [piece_text(tokenizer, int(token)) for token in examples.base[0]]
        if not self.base:
            labels = [
                "the",
                "SUBJECT",
                "VERB",
                *(f"t{i}" for i in range(1, len(labels) - CONTROL_LENGTH + 1)),
            ]
        share = 100 * right.double().mean(-1)  # IIA[l, p]
        differs = int((examples.base != examples.source).any(0).nonzero()[0])
        return Measurement(
            name="interchange-intervention",
            numbers={
                "last_position": float(share[-1, -1]),
                "last_position_first_block": float(share[0, -1]),
                "subject_first_block": float(share[0, differs]),
                "subject_last_block": float(share[-1, differs]),
            },
            units={
                "last_position": "% of examples, last position after the last block",
                "last_position_first_block": "% of examples, last position after the first block",
                "subject_first_block": "% of examples, first differing position after the first block",
                "subject_last_block": "% of examples, first differing position after the last block",
            },
            tables={"accuracy": _cells(right, labels)},
            arrays={"right": right.numpy()},
            figures={
                "accuracy": partial(
                    heatmap, share.tolist(), rows=range(len(share)), columns=labels, y_label="block", upwards=True,
                    label="interchange intervention accuracy (%)", limits=(0.0, 100.0),
                )
            },
            about={"examples": len(examples), "language": self.language, "markers": list(self.markers)},
        )  # fmt: skip

    def _found(self, tokenizer: Tokenizer) -> Examples:
        markers = _marker_ids(tokenizer, self.markers, "interchange-intervention")
        given = list(sentences_of(self.annotated, annotated=True))
        return examples_of(given, tokenizer, markers, self.language, paper_regex=self.paper_regex)

    def _own(self, lm: LanguageModel) -> Examples:
        name = "interchange-intervention"
        base, source = (
            [read_prompt(lm, text, name, field).ids[0].cpu() for text in texts]
            for field, texts in (("base", self.base), ("source", self.source))
        )
        lengths = {len(ids) for ids in (*base, *source)}
        if len(lengths) > 1:
            raise LabError(f"{name}: all texts must have equally many tokens, got {sorted(lengths)}")
        if any(torch.equal(one, other) for one, other in zip(base, source, strict=True)):
            raise LabError(f"{name}: base and source are the same text, so nothing can be swapped")
        tokenizer = need_tokenizer(lm, name)
        answers = [one_token(tokenizer, self.base[0], text, name, "markers") for text in self.markers]
        return Examples(torch.stack(base), torch.stack(source), torch.tensor([answers]).expand(len(base), 2))


def examples_of(
    given: Sequence[Any],
    tokenizer: Tokenizer,
    markers: tuple[int, int],
    name: str,
    *,
    paper_regex: bool = False,
) -> Examples:
    """Find examples for a language in annotated sentences, as `find_examples`; those of the control end with the verb."""
    control, hopped = (
        perturb(one, tokenizer).with_markers(markers).corpus(given).evaluation()
        for one in ("hop_control", "hop_words4")
    )
    encoded = [
        split_text(tokenizer, *pair)[1] for pair in (("", "The"), ("", "the"), ("so", " The"), ("so", " the"))
    ]
    determiners = [ids[0] for ids in encoded if len(ids) == 1]
    found = find_examples(
        control, hopped, determiners, markers, partial(_plural_token, tokenizer), paper_regex=paper_regex
    )
    return found.control() if language(name).name == "hop_control" else found


def _plural_token(tokenizer: Tokenizer, token: int) -> int | None:
    """Return the token of a noun's plural, None where the noun is no word or its plural is not one token."""
    noun = piece_text(tokenizer, token).strip()
    if not noun.isalpha():
        return None
    ids = split_text(tokenizer, "the", f" {plural_of(noun) or regular_plural(noun)}")[1]
    unknown = tokenizer.unk is not None and tokenizer.unk in (token, *ids)
    return ids[0] if len(ids) == 1 and not unknown else None


def _reading(lm: LanguageModel, tokenizer: str) -> LanguageModel:
    """Return a model with another tokenizer, if one is named. LabError if it has more ids than the model."""
    return LanguageModel(lm.model, load_tokenizer(tokenizer)) if tokenizer else lm


def _speaks(tokenizer: Tokenizer, chosen: Language) -> Perturbation:
    """Return a language in a model's ids. LabError if the vocabulary lacks one of its markers, or has another family's."""
    missing = [glyph for glyph in chosen.markers if tokenizer.id(glyph) is None]
    if missing:
        raise LabError(_lacks(chosen.name, missing))
    foreign = [
        glyph for glyph in (R, S, P) if glyph not in chosen.markers and tokenizer.id(glyph) is not None
    ]
    if foreign and chosen.name in NAMES:
        raise LabError(
            f"{chosen.name}: the model's vocabulary has {' and '.join(foreign)}, which this language has not; a perplexity "
            "over another vocabulary says nothing of it, so measure a model of its own family"
        )
    return perturb(chosen, tokenizer)


def _marker_ids(tokenizer: Tokenizer, markers: Sequence[str], measure: str) -> tuple[int, int]:
    """Return the ids of two markers: entries of the vocabulary, or texts of one token."""
    if missing := [one for one in markers if one in (S, P) and tokenizer.id(one) is None]:
        raise LabError(_lacks(measure, missing))
    ids = []
    for text in markers:
        known = tokenizer.id(text)
        ids.append(one_token(tokenizer, "so", text, measure, "markers") if known is None else known)
    if ids[0] == ids[1]:
        raise LabError(f"{measure}: both markers are the same token, {markers[0]!r}")
    return ids[0], ids[1]


def _lacks(what: str, missing: Sequence[str]) -> str:
    return (
        f"{what}: the model's vocabulary lacks {' and '.join(missing)}; train one on a corpus of the language (python -m "
        "gpt2lab.papers.impossible_languages), or name two tokens of its own as markers"
    )


def _hop_language(measure: str, name: str) -> None:
    if language(name).family != "hop":
        raise LabError(f"{measure}: markers of verbs are in hop languages, not in {name}")


def _two(measure: str, markers: Sequence[str]) -> None:
    if len(markers) != 2 or markers[0] == markers[1]:
        raise LabError(
            f"{measure}: markers are two different tokens, singular and plural, got {list(markers)}"
        )


def _sample(sentences: list[list[int]], size: int | None, seed: int) -> list[list[int]]:
    return sentences if size is None else sampled([sentences], size, seed=seed)


def _exponential(name: str, interval: Any) -> dict[str, float]:
    ends = {"": interval.mean, ", 95 % low": interval.low, ", 95 % high": interval.high}
    return {name + end: float(np.exp(value)) for end, value in ends.items()}


def _interval_row(name: str, values: Any) -> dict[str, Any]:
    found = t_interval(values)
    return {"surprisal": name, "bits": found.mean, "95 % low": found.low, "95 % high": found.high}


def _cells(right: torch.Tensor, labels: Sequence[str]) -> Table:
    rows: Table = []
    for layer in range(right.shape[0]):
        for position, label in enumerate(labels):
            hits = int(right[layer, position].sum())
            share = wilson_interval(hits, right.shape[2])
            rows.append(
                {
                    "block": layer, "position": position, "token": label, "accuracy": hits / right.shape[2],
                    "95 % low": share.low, "95 % high": share.high,
                }
            )  # fmt: skip
    return rows
