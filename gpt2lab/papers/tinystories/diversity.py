"""Diversity and memorisation: does the model write new stories, or recite old ones?

Three ROUGE measurements on stories cut short and completed by the model (Eldan and Li 2023, section 4): how much
of a completion stands in the true ending, how alike completions are, and how near the nearest training story
is. Every figure stands beside that of held-out stories: the maximum over a training set grows with the set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from gpt2lab.base.errors import LabError
from gpt2lab.decode.generate import generate
from gpt2lab.decode.sampling import Sampling
from gpt2lab.measures.copying import copied_spans, nearest_texts, self_rouge
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.measures.measurement import Measurement
from gpt2lab.measures.text_metrics import Counting, check_counting, distinct_n, rouge_n
from gpt2lab.papers.tinystories.characters import split_prompt
from gpt2lab.papers.tinystories.corpus import stories_of

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True)
class Originality:
    """How varied some texts are and how much of them stands in a training set."""

    distinct_2: float
    """Share of different word pairs among all; falls with the amount of text."""
    self_rouge_2: float
    """Mean over texts of the highest Rouge-2 F with another of them; nan of a single text."""
    nearest_rouge_2: float
    """Mean over texts of the highest Rouge-2 precision in a training story."""
    nearest_rouge_2_max: float
    """The same of the text that is nearest to the training set."""
    copied_span: float
    """Mean over texts of the longest run of words that stands in a training story."""
    copied_span_max: int
    """The longest of all, in words."""
    copied_whole: float
    """Share of texts that stand in the training set as they are."""


def originality(
    texts: Sequence[str], training: Sequence[str], *, counting: Counting = "clipped"
) -> Originality:
    """Measure texts against a training set, all cut into lower-cased words; LabError if either is empty."""
    if not texts or not training:
        raise LabError("originality compares texts with training stories and needs at least one of each")
    # section 4: completion and training set
    nearest = [found.rouge.precision for found in nearest_texts(texts, training, 2, counting=counting)]
    spans = [span.length for span in copied_spans(texts, training)]
    known = {" ".join(story.split()) for story in training}
    return Originality(
        distinct_2=distinct_n(texts, 2),
        # section 4: between completions
        self_rouge_2=fmean(self_rouge(texts, 2, counting=counting)) if len(texts) > 1 else float("nan"),
        nearest_rouge_2=fmean(nearest),
        nearest_rouge_2_max=max(nearest),
        copied_span=fmean(spans),
        copied_span_max=max(spans),
        copied_whole=fmean(" ".join(text.split()) in known for text in texts),
    )


def ending_overlap(
    completions: Sequence[str], endings: Sequence[str], *, counting: Counting = "clipped"
) -> tuple[float, float]:
    """Return the mean Rouge-2 precision of completions in their true ending, and in the ending of the next story.

    The second figure is what two different stories of this kind share: the first one says nothing alone.
    """
    # section 4: completion and true ending
    true = [rouge_n(c, e, 2, counting=counting).precision for c, e in zip(completions, endings, strict=True)]
    others = [*endings[1:], *endings[:1]]
    other = [rouge_n(c, e, 2, counting=counting).precision for c, e in zip(completions, others, strict=True)]
    return fmean(true), fmean(other)


@dataclass(frozen=True, kw_only=True)
class StoryDiversity:
    """Measure `story-diversity`: completions of training stories against their endings, each other, the corpus."""

    train: str = "tinyworld:12000"
    """Training stories: a file with separator lines, or a source such as tinyworld:SIZE[:SEED]."""
    held_out: str = "tinyworld:200:1000000"
    """Stories the model has not seen, of the same kind."""
    field: str = "text"
    """Field of the story in jsonl, csv, parquet and hub rows."""
    prompts: int = 100
    """Training stories that are truncated and completed."""
    prompt_share: float = 0.4
    """Share of a story's words that is kept as the prompt."""
    temperature: float = 1.0
    """Sampling temperature; the paper does not state it for this measurement."""
    counting: Counting = "clipped"
    """How repeated n-grams match: clipped (ROUGE), or membership. The paper does not state it."""
    max_new_tokens: int = 200
    """Longest completion, limited by the model's positions."""
    seed: int = 0
    """Of sampling."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model; LabError for settings or data that cannot be used."""
        check_counting(self.counting)
        if not 0.0 < self.prompt_share < 1.0 or self.prompts < 2:
            raise LabError(
                f"story-diversity needs a prompt_share in (0, 1) and 2 prompts, got {self.prompt_share} and {self.prompts}"
            )
        training, held_out = (stories_of(data, field=self.field) for data in (self.train, self.held_out))
        cut = [split_prompt(story, self.prompt_share) for story in training[: self.prompts]]
        cut = [(prompt, ending) for prompt, ending in cut if ending]
        completions = complete(
            lm, [prompt.rstrip() for prompt, _ in cut], temperature=self.temperature, seed=self.seed,
            max_new_tokens=self.max_new_tokens,
        )  # fmt: skip
        true, other = ending_overlap(completions, [ending for _, ending in cut], counting=self.counting)
        theirs = [split_prompt(story, self.prompt_share)[1] for story in held_out[: len(completions)]]
        model = originality(completions, training, counting=self.counting)
        real = originality(theirs, training, counting=self.counting)
        rows = [
            {"": name, "model": getattr(model, name), "held-out": getattr(real, name)}
            for name in Originality.__dataclass_fields__
        ]
        return Measurement(
            name="story-diversity",
            numbers={
                "ending_rouge_2": true,
                "other_ending_rouge_2": other,
                **{name: getattr(model, name) for name in Originality.__dataclass_fields__},
                **{f"held_out_{name}": getattr(real, name) for name in Originality.__dataclass_fields__},
            },
            units={"copied_span": "words", "copied_span_max": "words"},
            tables={"originality": rows},
            about={
                "completions": len(completions), "training stories": len(training), "held-out stories": len(theirs),
                "temperature": self.temperature, "counting": self.counting,
            },
        )  # fmt: skip


def complete(
    lm: "LanguageModel", prompts: Sequence[str], *, temperature: float, seed: int, max_new_tokens: int = 200
) -> list[str]:
    """Continue each prompt by sampling until the end of text; returns the new text of each.

    A continuation is at most `max_new_tokens` long, less where the model's positions end. LabError for an empty
    prompt and for one as long as the context.
    """
    tokenizer = need_tokenizer(lm, "completing stories")
    room = max_new_tokens
    for prompt in prompts:
        if not prompt.strip():
            raise LabError("a prompt is empty; give at least one word to go on from")
        length = len(tokenizer.encode(prompt, special=True))
        if length >= lm.config.max_positions:
            raise LabError(
                f"a prompt of {length} tokens leaves no room in a context of {lm.config.max_positions}: {prompt[:40]!r}"
            )
        room = min(room, lm.config.max_positions - length)
    made = generate(
        lm,
        list(prompts),
        decoder=Sampling(temperature=temperature),
        max_new_tokens=room,
        seed=seed,
        batch_size=64,
    )
    return [generation.text for generation in made]
