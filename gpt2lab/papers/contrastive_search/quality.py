"""The quality of generated text as the paper judges it: diversity, coherence, MAUVE, length, beside the real continuations.

Coherence is the mean log-probability of a continuation's tokens under a scorer: greedy text has the highest of all, so
it means nothing without diversity beside it.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.extras import install
from gpt2lab.base.files import atomic_write, user_path
from gpt2lab.base.settings import Model
from gpt2lab.decode.generate import build_decoder, generate
from gpt2lab.decode.prompts import added_text, end_tokens
from gpt2lab.measures.continuation import Continuation, opened, score_continuations, split_continuation
from gpt2lab.measures.corpus import need_tokenizer, start_token
from gpt2lab.measures.measurement import Measurement
from gpt2lab.measures.text_metrics import Text, diversity, repetition_n
from gpt2lab.papers.contrastive_search.mauve import mauve, text_features
from gpt2lab.text import sources
from gpt2lab.text.language_model import load
from gpt2lab.text.pieces import beginning, frame
from gpt2lab.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True)
class Sample:
    """A prefix and how it goes on: really, or as a model wrote it."""

    prefix: str
    text: str
    prefix_tokens: list[int]
    tokens: list[int]

    @property
    def words(self) -> int:
        """Words of the continuation, cut at whitespace."""
        return len(self.text.split())


def held_out_samples(
    texts: Iterable[str], tokenizer: Tokenizer, *, prefix: int, new: int, limit: int | None = None
) -> list[Sample]:
    """Cut texts into prefixes and real continuations of so many tokens; shorter texts are passed over.

    LabError if no text is long enough.
    """
    found: list[Sample] = []
    length = prefix + new
    for text in texts:
        if limit is not None and len(found) == limit:
            break
        ids = beginning(tokenizer, text, length)[0][:length]
        if len(ids) == length:
            before, after = ids[:prefix], ids[prefix:]
            real = added_text(tokenizer, before, after)
            found.append(Sample(tokenizer.decode(ids).removesuffix(real), real, before, after))
    if not found:
        raise LabError(f"no text has {length} tokens ({prefix} of prefix and {new} of continuation)")
    return found


def continue_samples(
    lm: "LanguageModel",
    samples: Sequence[Sample],
    *,
    decoder: str,
    options: Mapping[str, object] | None = None,
    new: int,
    stop_at_eos: bool = False,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Sample]:
    """Let the model continue the prefixes; without stop_at_eos the end token is impossible, and all lengths equal.

    A prefix stands after what the tokenizer puts before a text (a llama's bos).
    """
    tokenizer = need_tokenizer(lm, "continuing texts")
    texts = generate(
        lm,
        [[*frame(tokenizer, sample.prefix)[0], *sample.prefix_tokens] for sample in samples],
        decoder=decoder,
        max_new_tokens=new,
        min_new_tokens=0 if stop_at_eos else new,
        seed=seed,
        batch_size=batch_size,
        **dict(options or {}),
    )
    ends = end_tokens(lm)
    return [
        Sample(
            sample.prefix,
            text.text,
            sample.prefix_tokens,
            [token for token in text.tokens if token not in ends],
        )
        for sample, text in zip(samples, texts, strict=True)
    ]


def coherence(
    scorer: "LanguageModel",
    samples: Sequence[Sample],
    *,
    tokenizer: Tokenizer | None = None,
    batch_size: int = 16,
) -> list[float]:
    """Return each continuation's mean over tokens of log p(token | start token, prefix, tokens before), in nats.

    tokenizer: the samples' own; if it is the scorer's too, their ids are scored as they are, else the text is encoded
    anew. nan for an empty continuation; leave those out of a mean. LabError for a scorer without tokenizer.
    """
    own = need_tokenizer(scorer, "coherence")
    same = tokenizer is not None and tokenizer.fingerprint == own.fingerprint
    scored: dict[int, Continuation] = {}
    for index, sample in enumerate(samples):
        if not sample.tokens or not (same or sample.text):
            continue
        if same:
            scored[index] = opened(own, sample.prefix_tokens, sample.tokens, bos=True)
        else:
            scored[index] = split_continuation(own, sample.prefix, sample.text, bos=True)
    scores = score_continuations(
        scorer.model, list(scored.values()), batch_size=batch_size, keep=1, label="coherence"
    )
    values = {
        index: -float(score.losses.double().mean()) for index, score in zip(scored, scores, strict=True)
    }
    return [values.get(index, math.nan) for index in range(len(samples))]


def mean_of(values: Iterable[float]) -> float:
    """Return the mean of those values that are numbers; nan if there is none."""
    numbers = [value for value in values if not math.isnan(value)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def variety(samples: Sequence[Sample], *, on_tokens: bool = False, compat: bool = False) -> dict[str, float]:
    """Return rep_2, rep_3, rep_4 and diversity in percent, on words cut at whitespace or on tokens.

    compat drops the last n-gram of every text, as the published tables do. nan where no text is long enough.
    """
    texts: list[Text] = [sample.tokens if on_tokens else sample.text for sample in samples]
    numbers = {f"rep_{n}": 100 * repetition_n(texts, n, compat=compat) for n in (2, 3, 4)}
    return {"diversity": 100 * diversity(texts, compat=compat), **numbers}


def mauve_of(
    embedder: "LanguageModel", people: Sequence[Sample], model: Sequence[Sample], *, max_tokens: int = 200
) -> float:
    """Return MAUVE in percent of continuations, with the embedder's states as features.

    Both sides are cut to the same number of tokens, at most max_tokens; empty continuations are left out.
    """
    tokenizer = need_tokenizer(embedder, "mauve")
    sides = [
        [ids for ids in tokenizer.encode_batch([sample.text for sample in side]) if ids]
        for side in (people, model)
    ]
    if min(len(side) for side in sides) < 2:
        return math.nan
    most = min(max_tokens, embedder.model.context, *(max(len(ids) for ids in side) for side in sides))
    first, second = (text_features(embedder.model, [ids[:most] for ids in side]) for side in sides)
    return 100 * mauve(first, second)


def bleu(texts: Sequence[str], references: Sequence[str]) -> float:
    """Return corpus BLEU in percent, by sacrebleu with its defaults. LabError without it, or if a text has no reference."""
    try:
        import sacrebleu
    except ImportError:
        raise LabError(f"bleu needs sacrebleu: {install('generation')}") from None
    if not texts or len(texts) != len(references):
        raise LabError(f"bleu: {len(texts)} texts and {len(references)} references; each text needs its own")
    return float(sacrebleu.corpus_bleu(list(texts), [list(references)]).score)


def pass_at_k(passed: Sequence[tuple[int, int]], k: int = 1) -> float:
    """Return the mean over problems of 1 - C(n - c, k) / C(n, k), of n programs c of which passed (Chen et al. 2021, eq. 1).

    Nothing is executed here: run the programs in a sandbox and count. LabError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    if not passed or any(not 0 <= c <= n or not 1 <= k <= n for n, c in passed):
        raise LabError(f"pass@{k}: each problem needs n programs, at least {k}, of which 0 to n passed")
    return math.fsum(1 - math.comb(n - c, k) / math.comb(n, k) for n, c in passed) / len(passed)


def write_jsonl(path: Path | str, rows: str) -> None:
    """Write what `jsonl` made, whole or not at all."""
    atomic_write(user_path(path), rows)


def jsonl(people: Sequence[Sample], model: Sequence[Sample]) -> str:
    """Return a line of JSON for each prefix: prefix, reference, generation, and the generation's token ids."""
    lines = [
        {"prefix": real.prefix, "reference": real.text, "generation": made.text, "tokens": made.tokens}
        for real, made in zip(people, model, strict=True)
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


@dataclass(frozen=True, kw_only=True)
class GenerationQuality:
    """Diversity, MAUVE, length and coherence of a model's continuations, beside the real ones of the same prefixes.

    Diversity and rep-n in percent, on words; coherence in nats a token under the scorer; MAUVE in percent with the states
    of the scorer as features (so it compares only with figures of the same scorer and number of texts).
    """

    data: tuple[str, ...] = ("docstrings",)
    """Texts whose beginnings are the prefixes: files, folders, hub:ID or names of built-in sources."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    texts: int = 100
    """Number of continued texts; texts shorter than prefix and continuation are skipped."""
    prefix: int = 32
    """Tokens of a prefix (the paper: 40)."""
    new: int = 128
    """Largest number of new tokens (the paper: 200)."""
    stop_at_eos: bool = False
    """End at an end token; otherwise end tokens are suppressed, and all continuations have one length."""
    decoder: str = "contrastive-search"
    """Decoder."""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Options of the decoder, options.NAME=VALUE."""
    scorer: Model | None = None
    """MODEL that scores coherence; none is the generator itself, which favours it."""
    compat: bool = False
    """Count n-grams as the published tables do, without the last one of each text."""
    seed: int = 0
    """Seed of the draws."""
    batch_size: int = 16
    """Prefixes in one batch; changes no text."""
    save: str | None = None
    """File for prefixes, references and generations, a line of JSON each."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Generate and measure; LabError for options or texts that do not fit."""
        for name, least in (("texts", 2), ("prefix", 1), ("new", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise LabError(
                    f"generation-quality: {name} must be at least {least}, got {getattr(self, name)}"
                )
        build_decoder(self.decoder, self.options)
        tokenizer = need_tokenizer(lm, "generation-quality")
        scorer = lm if self.scorer is None else load(self.scorer, device=lm.model.device)
        documents = sources.documents(list(self.data), field=self.field)
        people = held_out_samples(documents, tokenizer, prefix=self.prefix, new=self.new, limit=self.texts)
        model = continue_samples(
            lm,
            people,
            decoder=self.decoder,
            options=self.options,
            new=self.new,
            stop_at_eos=self.stop_at_eos,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        if self.save is not None:
            write_jsonl(self.save, jsonl(people, model))
        rows = [{"texts": name, **self._numbers(scorer, tokenizer, side)} for name, side in
                (("model", model), ("people", people))]  # fmt: skip
        numbers = {name: float(value) for name, value in rows[0].items() if name != "texts"}
        numbers["mauve"] = mauve_of(scorer, people, model)
        numbers |= {f"{name}_of_people": float(rows[1][name]) for name in ("diversity", "coherence", "words")}
        return Measurement(
            name="generation-quality",
            numbers=numbers,
            units={"diversity": "%", "mauve": "%", "coherence": "nats/token", "words": "a text"},
            tables={"comparison": rows, "texts": [_shown(*pair) for pair in zip(people, model, strict=True)]},
            about={
                **{name: value for name, value in asdict(self).items() if name not in ("save", "field")},
                "options": dict(self.options) or "the decoder's defaults",
                "scorer": self.scorer or "the generator itself",
                "texts": len(people),
                "start token": start_token(need_tokenizer(scorer, "coherence")),
            },
        )

    def _numbers(
        self, scorer: "LanguageModel", tokenizer: Tokenizer, samples: Sequence[Sample]
    ) -> dict[str, Any]:
        found = coherence(scorer, samples, tokenizer=tokenizer, batch_size=self.batch_size)
        return {
            **variety(samples, compat=self.compat),
            "coherence": mean_of(found),
            "words": mean_of(float(sample.words) for sample in samples),
        }


def _shown(real: Sample, made: Sample) -> dict[str, str]:
    return {"prefix": real.prefix, "model": made.text, "people": real.text}
