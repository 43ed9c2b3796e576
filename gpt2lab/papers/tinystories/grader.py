"""Measure `story-quality`: the offline grader of stories, its calibration printed every time.

It stands in for GPT-Eval (Eldan and Li 2023, section 3), where a large model grades completions; it is not
that, and its grades are not comparable with the paper's. On TinyWorld the parser grades exactly; on free text a
reference model and rules do (`free_text`).
"""

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import Model
from gpt2lab.decode.generate import Generation, generate
from gpt2lab.decode.sampling import Sampling
from gpt2lab.measures.corpus import need_tokenizer, start_token
from gpt2lab.measures.measurement import Measurement
from gpt2lab.measures.text_metrics import cut_at_repetition
from gpt2lab.papers.tinystories import free_text
from gpt2lab.papers.tinystories.corpus import stories_of
from gpt2lab.papers.tinystories.diversity import Originality, originality
from gpt2lab.papers.tinystories.grading import OFFLINE_GRADER, Calibration, calibrate
from gpt2lab.text.generators import story_parser
from gpt2lab.text.generators.stories import VARIANTS, Variant, vocabulary

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True)
class TinyWorldGrades:
    """What the parser says of stories; shares from 0 to 1."""

    grammar: float
    """Sentences the generating grammar accepts."""
    consistency: float
    """Later references equal to the first mention."""
    plot: float
    """Stories whose events come in a legal order and that end by themselves."""
    stops: float
    """Stories that end by themselves within the budget."""
    binding: float
    """Pairs written later that were introduced together (binding variant; else nan)."""
    by_kind: dict[str, float]
    """Consistency of each kind of reference."""

    def out_of_ten(self) -> dict[str, float]:
        """Return the graded dimensions on the scale from 0 to 10."""
        return {"grammar": 10 * self.grammar, "consistency": 10 * self.consistency, "plot": 10 * self.plot}


def grade_tinyworld(
    texts: Sequence[str], *, variant: Variant = "standard", stopped: Sequence[bool] | None = None
) -> TinyWorldGrades:
    """Grade TinyWorld stories; `stopped` tells which ended by themselves (default: all). LabError without texts."""
    if not texts:
        raise LabError("no stories to grade")
    ended = [True] * len(texts) if stopped is None else list(stopped)
    readings = [story_parser.read(text, variant=variant) for text in texts]
    whole = [reading.legal and end for reading, end in zip(readings, ended, strict=True)]
    return TinyWorldGrades(
        grammar=story_parser.grammar(readings),  # section 3: grades
        consistency=story_parser.consistency(readings),
        plot=sum(whole) / len(whole),
        stops=sum(ended) / len(ended),
        binding=story_parser.binding(readings),
        by_kind=story_parser.consistency_by_kind(readings),
    )


def calibrate_tinyworld(
    held_out: Sequence[str], training: Sequence[str], *, variant: Variant = "standard", seed: int = 0
) -> Calibration:
    """Calibrate the parser on held-out, trigram and shuffled stories."""
    return calibrate(
        lambda texts: grade_tinyworld(texts, variant=variant).out_of_ten(), held_out, training, seed=seed
    )


def sample_stories(
    lm: "LanguageModel",
    size: int,
    *,
    temperature: float,
    seed: int,
    max_new_tokens: int,
    batch_size: int = 64,
) -> list[Generation]:
    """Draw `size` stories after a start token, each until it ends by itself or the budget is used up.

    LabError for a tokenizer without an end-of-text token.
    """
    tokenizer = need_tokenizer(lm, "story-quality")
    if tokenizer.eos is None:
        raise LabError("stories are sampled until they end, and this tokenizer has no end-of-text token")
    budget = min(max_new_tokens, lm.config.max_positions - 1)
    return generate(
        lm,
        [[start_token(tokenizer)]] * size,
        decoder=Sampling(temperature=temperature),
        max_new_tokens=budget,
        seed=seed,
        batch_size=batch_size,
    )


_OF_THE_WORLD = 0.75
"""Share of known words from which a text is graded as the world's: its own stories have 1, other English up to a half."""


@functools.cache
def _world(variant: Variant) -> frozenset[str]:
    return frozenset(vocabulary(variant))


@dataclass(frozen=True, kw_only=True)
class StoryQuality:
    """Measure `story-quality`: samples stories and grades them offline, beside held-out and worse stories."""

    held_out: str = "tinyworld:200:1000000"
    """Stories the model has not seen: tinyworld or one of its variants (tinyworld-binding) with :SIZE:SEED, or a file."""
    train: str = "tinyworld:12000"
    """Its training stories (for the trigram model and for what is copied)."""
    field: str = "text"
    """Field of the story in jsonl, csv, parquet and hub rows."""
    reference: Model = ""
    """MODEL that grades free text, larger and trained on other stories; needed for free text, not for TinyWorld."""
    samples: int = 64
    """Stories to sample."""
    temperature: float = 0.7
    """Sampling temperature; it trades grammar against diversity, so compare at one temperature only."""
    max_new_tokens: int = 300
    """Budget of a story in tokens."""
    baseline: bool = False
    """Cut texts at the first repeated 4-gram: for baselines only, a TinyStories model stops by itself."""
    seed: int = 0
    """Seed of sampling, shuffling and the trigram model."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model; LabError for settings or data that cannot be used."""
        if self.samples < 2:
            raise LabError(f"story-quality needs at least 2 samples, got {self.samples}")
        held_out, training = (stories_of(data, field=self.field) for data in (self.held_out, self.train))
        drawn = sample_stories(
            lm, self.samples, temperature=self.temperature, seed=self.seed, max_new_tokens=self.max_new_tokens
        )
        texts = [cut_story(story.text) if self.baseline else story.text for story in drawn]
        stopped = [story.finished == "eos" for story in drawn]
        numbers: dict[str, float] = {}
        if self.held_out.startswith("tinyworld"):
            grades, calibration = self._tinyworld(texts, stopped, held_out, training, numbers)
        else:
            grades, calibration = self._free_text(lm, texts, held_out, training, numbers)
        strange = self._strange(texts)
        void = dict.fromkeys(grades, strange) if strange else calibration.void()
        admitted = {name: math.nan if name in void else grade for name, grade in grades.items()}
        numbers = {**admitted, "stops": sum(stopped) / len(stopped), **numbers}
        originals, tables = _creativity(texts, held_out, training)
        return Measurement(
            name="story-quality",
            numbers=numbers | originals,
            units=dict.fromkeys(grades, "of 10"),
            tables={
                "calibration": calibration.rows(admitted),
                **tables,
                "samples": [{"story": t} for t in texts[:5]],
            },
            about={
                "grader": OFFLINE_GRADER,
                "void": "; ".join(f"{name}: {why}" for name, why in void.items()) or "nothing",
                "samples": self.samples,
                "temperature": self.temperature,
                "held-out stories": len(held_out),
                "training stories": len(training),
            },
        )

    def _strange(self, texts: Sequence[str]) -> str:
        """Say why the generated world's grammar cannot grade these texts; empty where it can, and for free text."""
        if not self.held_out.startswith("tinyworld"):
            return ""
        words = [word for text in texts for word in re.findall(r"\w+", text)]
        known = sum(word in _world(self._variant) for word in words) / max(len(words), 1)
        if not words or known >= _OF_THE_WORLD:
            return ""
        return (
            f"only {known:.0%} of the words drawn are of the generated world, whose grammar says nothing of other text; "
            "grade it with held_out=FILE, train=FILE and reference=MODEL"
        )

    @property
    def _variant(self) -> Variant:
        name = self.held_out.partition(":")[0].removeprefix("tinyworld-")
        return next((variant for variant in VARIANTS if variant == name), "standard")

    def _tinyworld(
        self,
        texts: Sequence[str],
        stopped: Sequence[bool],
        held_out: Sequence[str],
        training: Sequence[str],
        numbers: dict[str, float],
    ) -> tuple[dict[str, float], Calibration]:
        found = grade_tinyworld(texts, variant=self._variant, stopped=stopped)
        if not math.isnan(found.binding):
            numbers["binding"] = found.binding
        numbers |= {f"consistency_{kind}": value for kind, value in found.by_kind.items()}
        return found.out_of_ten(), calibrate_tinyworld(
            held_out, training, variant=self._variant, seed=self.seed
        )

    def _free_text(
        self,
        lm: "LanguageModel",
        texts: Sequence[str],
        held_out: Sequence[str],
        training: Sequence[str],
        numbers: dict[str, float],
    ) -> tuple[dict[str, float], Calibration]:
        if not self.reference:
            raise LabError(
                "story-quality on free text needs --reference MODEL: a larger model trained on other stories"
            )
        from gpt2lab.text.language_model import load

        reference = load(self.reference)
        free_text.check_reference(reference, lm)
        grader = free_text.FreeTextGrader(reference, held_out, seed=self.seed)
        numbers["name_cloze"], numbers["name_cloze_stories"] = free_text.name_cloze(lm, held_out)
        calibration = calibrate(grader.grades, grader.calibration_stories, training, seed=self.seed + 1)
        return grader.grades(texts), calibration


def cut_story(text: str) -> str:
    """Return a text up to the first 4-gram of words that stood there before; for baselines only."""
    return " ".join(str(word) for word in cut_at_repetition(text.split(), 4))


def _creativity(
    texts: Sequence[str], held_out: Sequence[str], training: Sequence[str]
) -> tuple[dict[str, float], dict[str, list[dict[str, object]]]]:
    """Measure how varied the texts are, beside as many held-out stories (distinct-2 falls with the amount)."""
    written = [text for text in texts if text.strip()]
    if not written:
        return {}, {}
    model, real = originality(written, training), originality(held_out[: len(written)], training)
    rows: list[dict[str, object]] = [
        {"": name, "model": getattr(model, name), "held-out": getattr(real, name)}
        for name in Originality.__dataclass_fields__
    ]
    numbers = {
        name: float(getattr(model, name)) for name in ("distinct_2", "self_rouge_2", "nearest_rouge_2")
    }
    return numbers, {"creativity": rows}
