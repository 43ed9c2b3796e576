"""How a model writes: repetition, variety and copying of its continuations, beside those of the real texts."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2lab.base.errors import LabError
from gpt2lab.decode.generate import generate
from gpt2lab.decode.prompts import added_text
from gpt2lab.measures import corpus
from gpt2lab.measures.copying import copied_spans, nearest_texts, self_rouge
from gpt2lab.measures.lab_backend import back_end_row
from gpt2lab.measures.measurement import Measurement
from gpt2lab.measures.text_measure import TextMeasure
from gpt2lab.measures.text_metrics import distinct_n, diversity, repetition_n, words
from gpt2lab.text import sources
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.pieces import beginning

if TYPE_CHECKING:
    from gpt2lab.decode.backend import TextBackend

_WORD = re.compile(r"\s*\S+")
_TOKENS_A_WORD = 3  # that a back end may use: English words have 1.3, code and names more


def describe(texts: Sequence[str], corpus_texts: Sequence[str] = ()) -> dict[str, float]:
    """Return the statistics of several texts; with a corpus, also how much they take from it.

    words: mean length; rep_2 … rep_4 and diversity (Su & Collier 2022); distinct_1, distinct_2 (Li et al. 2016);
    self_rouge_2: mean of each text's highest ROUGE-2 F with another; nearest_rouge_2: mean of its highest ROUGE-2
    precision in a text of the corpus; copied_words: mean of its longest span that stands in the corpus.
    All but words and copied_words are shares. LabError for fewer than two texts.
    """
    n = len(texts)
    numbers = {
        "words": sum(len(words(text)) for text in texts) / max(n, 1),
        "diversity": diversity(texts),
        **{f"rep_{k}": repetition_n(texts, k) for k in (2, 3, 4)},
        **{f"distinct_{k}": distinct_n(texts, k) for k in (1, 2)},
        "self_rouge_2": sum(self_rouge(texts, 2)) / n,
    }
    if corpus_texts:
        nearest = nearest_texts(texts, corpus_texts, 2)
        numbers["nearest_rouge_2"] = sum(found.rouge.precision for found in nearest) / n
        numbers["copied_words"] = sum(span.length for span in copied_spans(texts, corpus_texts)) / n
    return numbers


@dataclass(frozen=True, kw_only=True)
class TextStatistics(TextMeasure):
    """Repetition and variety of what a model writes, beside the real continuations of the same prompts.

    Of a text back end, which has no tokens to count, lengths are in words, and longer continuations are cut.
    """

    data: tuple[str, ...] = ("docstrings",)
    """Texts whose beginnings are the prompts: files, folders, hub:ID or names of built-in sources."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    against: tuple[str, ...] = ()
    """Texts to search for copies, usually the training data; the real continuations are compared with them too."""
    texts: int = 100
    """Number of continued texts; texts shorter than prompt and continuation are skipped."""
    prompt_tokens: int = 32
    """Tokens of each prompt; words for a text back end."""
    new_tokens: int = 64
    """Tokens of each continuation, real or generated; generation does not stop earlier. Words for a text back end."""
    decoder: str = "sampling"
    """Decoder; a text back end supports sampling and greedy."""
    batch_size: int = 16
    """Prompts in one batch; changes speed, not the texts."""
    seed: int = 0
    """Seed of the draws."""

    def __call__(self, lm: "LanguageModel | TextBackend") -> Measurement:
        """Generate and measure; LabError if there are not two texts that are long enough."""
        for name in ("prompt_tokens", "new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise LabError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.texts < 2:
            raise LabError(f"statistics of texts need at least 2 texts, got {self.texts}")
        prompts, written, real = self._written(lm) if isinstance(lm, LanguageModel) else self._asked(lm)
        known = list(corpus.read_texts(self.against, self.field)) if self.against else []
        model, text = describe(written, known), describe(real, known)
        about = {"data": list(self.data), "against": list(self.against) or "nothing", "texts": len(prompts)}
        about |= {"prompt_tokens": self.prompt_tokens, "new_tokens": self.new_tokens}
        about |= {"decoder": self.decoder, "seed": self.seed}
        if not isinstance(lm, LanguageModel):
            about |= {**back_end_row(lm), "lengths": "words"}
        rows = [{"measure": name, "model": model[name], "real_text": text[name]} for name in model]
        examples = [
            {"prompt": prompt, "model": one, "real_text": truth}
            for prompt, one, truth in zip(prompts, written, real, strict=True)
        ]
        return Measurement(
            name="text-statistics",
            numbers={**model, **{f"{name}_of_real_text": value for name, value in text.items()}},
            tables={"comparison": rows, "texts": examples},
            about=about,
        )

    def _written(self, lm: "LanguageModel") -> tuple[list[str], list[str], list[str]]:
        """Prompts, what the model writes after them, and how they really go on."""
        prompts, real = self._prompts(lm)
        generations = generate(
            lm,
            prompts,
            decoder=self.decoder,
            max_new_tokens=self.new_tokens,
            stop_at_eos=False,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        return [one.prompt for one in generations], [one.text for one in generations], real

    def _asked(self, backend: "TextBackend") -> tuple[list[str], list[str], list[str]]:
        """The same of a back end, in words."""
        if self.decoder not in ("sampling", "greedy"):
            raise LabError(
                f"text-statistics: {backend.name} decodes by sampling or greedy, not {self.decoder}"
            )
        length, prompts, real = self.prompt_tokens + self.new_tokens, [], []
        for text in sources.documents(list(self.data), field=self.field):
            ends = [found.end() for found in itertools.islice(_WORD.finditer(text), length)]
            if len(ends) == length:
                border = ends[self.prompt_tokens - 1]
                prompts.append(text[:border])
                real.append(text[border : ends[-1]])
            if len(prompts) == self.texts:
                break
        self._need_two(prompts, length, "words")
        answers = backend.generate(
            prompts,
            max_new_tokens=_TOKENS_A_WORD * self.new_tokens,
            temperature=1.0 if self.decoder == "sampling" else 0.0,
            seed=self.seed,
        )
        written = []
        for (answer,) in answers:
            ends = [found.end() for found in itertools.islice(_WORD.finditer(answer.text), self.new_tokens)]
            written.append(answer.text[: ends[-1] if ends else 0])
        return prompts, written, real

    def _need_two(self, prompts: Sequence[object], length: int, unit: str) -> None:
        if len(prompts) < 2:
            raise LabError(
                f"{', '.join(self.data)}: {len(prompts)} texts have {length} {unit} (prompt_tokens + new_tokens); "
                "at least 2 must"
            )

    def _prompts(self, lm: "LanguageModel") -> tuple[list[list[int]], list[str]]:
        """Return the first tokens of the chosen texts, and the text of the tokens after them."""
        tokenizer = corpus.need_tokenizer(lm, "text-statistics")
        length = self.prompt_tokens + self.new_tokens
        prompts: list[list[int]] = []
        real: list[str] = []
        for text in sources.documents(list(self.data), field=self.field):
            ids = beginning(tokenizer, text, length)[0][:length]
            if len(ids) == length:
                prompts.append(ids[: self.prompt_tokens])
                real.append(added_text(tokenizer, ids[: self.prompt_tokens], ids[self.prompt_tokens :]))
            if len(prompts) == self.texts:
                break
        self._need_two(prompts, length, "tokens")
        return prompts, real
