"""The sentences of the study, prepared once for all units and seeds: text as ids, annotated sentences, two tokenizers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError
from gpt2lab.papers.impossible_languages.annotations import Sentence
from gpt2lab.papers.impossible_languages.corpus import GENERATED, sentences_of
from gpt2lab.papers.impossible_languages.interchange import Examples
from gpt2lab.papers.impossible_languages.languages import language
from gpt2lab.papers.impossible_languages.measure import examples_of
from gpt2lab.papers.impossible_languages.perturbing import Given, perturb
from gpt2lab.papers.impossible_languages.study.settings import Settings
from gpt2lab.papers.impossible_languages.vocabulary import with_markers
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.text.data_read import remembered
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run

UNIT = "text"
"""The unit that prepares it."""
JUDGED, TUNING = "test sentences", "tuning sentences"
"""What reports call the two held-out parts."""
PARTS = ("train", "tuning", "test")
_TRAIN, _TUNE, _TEST, _EXAMPLES = 0, 1, 2, 3
"""Seeds of the generator, one for each part."""
_ORDER = 20240114
"""Seed by which sentences of text are divided, the same for every study."""


@dataclass(frozen=True)
class Material:
    """What a language is trained and judged on."""

    tokenizer: Tokenizer
    """With the language's markers."""
    sentences: dict[str, list[Given]]
    """Of each part, before they are perturbed."""


def prepare(settings: Settings, run: "Run") -> None:
    """Make tokenizers and sentences, and keep them for the other units."""
    text = [one.text for one in sentences_of([settings.data], annotated=False)]
    tokenizer = train_bpe(text, settings.vocab_size)
    parts = divided(settings, tokenizer.encode_batch(text))
    save_tokenizer(tokenizer, run.folder / "tokenizer")
    for part, sentences in parts.items():
        run.array(
            part, np.array([t for ids in sentences for t in ids], dtype=np.uint32), f"Text: {part}, joined"
        )
        run.array(
            f"{part}_lengths", np.array([len(ids) for ids in sentences], dtype=np.uint32), "Tokens of each"
        )
        run.result(f"sentences.{part}", len(sentences))
    run.result("unigram_loss", unigram_loss(parts["train"], parts["test"], tokenizer.vocab_size))
    hops = _annotated(settings, "train")
    # lemmas too: hop languages write them in the place of the verbs
    words = (" ".join(w.lemma or w.text for w in one.words) for one in hops)
    save_tokenizer(train_bpe(words, settings.hop_vocab_size), run.folder / "hop_tokenizer")


def divided(settings: Settings, encoded: Sequence[list[int]]) -> dict[str, list[list[int]]]:
    """Return sentences of the wanted lengths by part, in an order that is always the same.

    Each sentence is in one part alone, however often the text repeats it. LabError for too few.
    """
    kept = [ids for ids in encoded if settings.shortest <= len(ids) <= settings.longest]
    kept = [list(ids) for ids in dict.fromkeys(map(tuple, kept))]
    order = np.random.default_rng(_ORDER).permutation(len(kept)).tolist()
    held_out = settings.test + settings.tuning
    if len(kept) <= held_out:
        raise LabError(
            f"data {settings.data}: {len(kept)} different sentences; {held_out} are held out, which leaves none to train on"
        )
    cuts = {
        "test": order[: settings.test],
        "tuning": order[settings.test : held_out],
        "train": order[held_out : held_out + settings.sentences],
    }
    return {part: [kept[i] for i in cuts[part]] for part in PARTS}


def unigram_loss(training: Sequence[list[int]], test: Sequence[list[int]], vocab_size: int) -> float:
    """Return the mean over sentences of their mean loss under the frequencies of training tokens, nats; tokens 2 ... n."""
    counts = np.bincount(np.concatenate([*map(np.asarray, training)]), minlength=vocab_size) + 1.0
    losses = -np.log(counts / counts.sum())
    return float(np.mean([losses[ids[1:]].mean() for ids in test]))


def material(settings: Settings, record: RunRecord, name: str) -> Material:
    """Return what the unit has kept for a language."""
    chosen = language(name)
    folder = "hop_tokenizer" if chosen.annotated else "tokenizer"
    tokenizer = with_markers(load_tokenizer(Path(record.folder) / folder), chosen)
    if chosen.annotated:
        return Material(tokenizer, {part: list(_annotated(settings, part)) for part in PARTS})
    return Material(tokenizer, {part: list(_ids(record, part)) for part in PARTS})


def examples(settings: Settings, tokenizer: Tokenizer, name: str) -> Examples:
    """Return the examples of the interchange interventions of a language, the same for every seed."""
    given = list(sentences_of([f"{GENERATED}:{100 * settings.examples + 500}:{_EXAMPLES}"], annotated=True))
    size = perturb(name, tokenizer).coding.markers
    found = examples_of(given, tokenizer, (size[0], size[1]), name)
    cut = slice(None, settings.examples)
    return Examples(found.base[cut], found.source[cut], found.answers[cut])


def _ids(record: RunRecord, part: str) -> list[list[int]]:
    ends = np.cumsum(record.arrays[f"{part}_lengths"].astype(np.int64))
    joined: npt.NDArray[np.int64] = record.arrays[part].astype(np.int64)
    return [ids.tolist() for ids in np.split(joined, ends[:-1])]


@remembered
def _annotated(settings: Settings, part: str) -> tuple[Sentence, ...]:
    """Return annotated sentences of a part: of the data that are named, or the generator's under the part's seed."""
    sizes = {"train": settings.hop_sentences, "tuning": 4 * settings.tuning, "test": 4 * settings.test}
    if not settings.hop_data:
        seed = {"train": _TRAIN, "tuning": _TUNE, "test": _TEST}[part]
        return tuple(sentences_of([f"{GENERATED}:{sizes[part]}:{seed}"], annotated=True))
    given = list(sentences_of([settings.hop_data], annotated=True))
    order = np.random.default_rng(_ORDER).permutation(len(given)).tolist()
    first, second = len(given) // 10, len(given) // 5
    cuts = {"test": order[:first], "tuning": order[first:second], "train": order[second:]}
    return tuple(given[i] for i in cuts[part])
