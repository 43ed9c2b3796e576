"""Corpora of a language: sentences of text, annotated files or the generator, perturbed, split and written to a folder."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_folder, atomic_write, user_path
from gpt2lab.base.json_files import json_sha256, write_json
from gpt2lab.base.progress import progress
from gpt2lab.papers.impossible_languages.annotations import FORMATS, Sentence, annotated_sentences
from gpt2lab.papers.impossible_languages.generator import annotated as generated
from gpt2lab.papers.impossible_languages.languages import Language, language
from gpt2lab.papers.impossible_languages.perturbing import Given, Perturbed, perturb
from gpt2lab.papers.impossible_languages.tagger import split_sentences, tag_approximately
from gpt2lab.papers.impossible_languages.vocabulary import spell, spelled, with_markers
from gpt2lab.text import sources
from gpt2lab.text.manifests import MANIFEST, refuse_foreign
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.text.tokenizer_files import save_tokenizer

GENERATED = "agreement"
"""Name of the generator among sources: `agreement:SIZE:SEED`."""
_SIZE = 40_000


def sentences_of(
    data: Sequence[str], *, annotated: bool, approximate: bool = False, field: str = "text"
) -> Iterator[Sentence]:
    """Yield the sentences of data in order: text of any source, annotated files, `agreement[:SIZE[:SEED]]`.

    annotated: words with lemma and features are needed; text gets them from rules if `approximate` says so.
    LabError for text where they are needed, and for data that are not there.
    """
    if not data:
        raise LabError(f"no data: give files, a source, or {GENERATED}:SIZE:SEED")
    for item in data:
        name, *numbers = item.split(":")
        if name == GENERATED:
            yield from _generated(item, numbers)
        elif item.lower().removesuffix(".gz").endswith(FORMATS[:3]) or _is_annotated_jsonl(item):
            yield from annotated_sentences(item)
        elif annotated and not approximate:
            raise LabError(
                f"{item}: hop languages need words with lemma and features; give CoNLL-U or annotated JSON, "
                f"{GENERATED}:SIZE:SEED, or approximate=true, which tags by rules that overlook verbs"
            )
        else:
            for text in sources.documents(item, field=field):
                for sentence in split_sentences(text):
                    yield tag_approximately(sentence) if annotated else Sentence(sentence)


def _is_annotated_jsonl(item: str) -> bool:
    """Tell whether the first line of a jsonl file holds annotated sentences."""
    path = user_path(item)
    if not item.lower().endswith(".jsonl") or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as lines:
        first = lines.readline(1 << 16)
    return '"word_annotations"' in first or '"sent_annotations"' in first


def _generated(item: str, numbers: list[str]) -> Iterator[Sentence]:
    if len(numbers) > 2 or not all(one.isdecimal() and len(one) < 10 for one in numbers):
        raise LabError(f"{item}: expected {GENERATED}:SIZE:SEED with whole numbers")
    size, seed = (int(numbers[0]) if numbers else _SIZE), (int(numbers[1]) if len(numbers) > 1 else 0)
    return (one.sentence for one in generated(seed, size))


def shuffled(sentences: Sequence[list[int]], seed: int) -> list[list[int]]:
    """Return sentences in the order of `default_rng(seed).shuffle(list)`, as the authors put training data together."""
    order = list(sentences)
    np.random.default_rng(seed).shuffle(order)
    return order


def joined(sentences: Sequence[Sequence[int]], eos: int) -> npt.NDArray[np.int64]:
    """Return sentences one after the other, each ended by eos: int64 [tokens]."""
    return np.array([token for ids in sentences for token in (*ids, eos)], dtype=np.int64)


@dataclass(frozen=True)
class Written:
    """A folder that `write_corpus` has written."""

    folder: Path
    manifest: dict[str, object]


def write_corpus(
    name: str | Language,
    data: Sequence[str],
    tokenizer: Tokenizer,
    out: Path | str,
    *,
    test: int = 1000,
    seed: int = 0,
    approximate: bool = False,
    field: str = "text",
) -> Written:
    """Perturb data into a folder: train and test as spelled tokens and as ids, tokenizers, and a manifest with counts.

    The last `test` sentences of the data, after a shuffle by `seed`, are the test part; of these the affected ones are
    `test`, the others `unaffected`. Training sentences are shuffled by the seed once more. The folder appears whole.
    LabError: a folder that holds something else, fewer sentences than `test` asks for, nothing left to train or evaluate.
    """
    chosen, folder = language(name), user_path(out)
    refuse_foreign(folder, "corpus of a language")
    ours = with_markers(tokenizer, chosen)
    if ours.eos is None:
        raise LabError(
            f"{chosen.name}: sentences are joined by an end token, which this tokenizer does not have"
        )
    found = list(sentences_of(data, annotated=chosen.annotated, approximate=approximate, field=field))
    parts = _parts(found, test, seed)
    rule = perturb(chosen, ours)
    perturbed = {
        part: rule.corpus(progress(given, label=f"{chosen.name}, {part}", unit="sentences"))
        for part, given in parts.items()
    }
    train, evaluated = shuffled(perturbed["train"].training(), seed), perturbed["test"].evaluation()
    if not train:
        raise LabError(f"{chosen.name}: no sentence is left to train on")
    manifest = _manifest(chosen, data, ours, perturbed, seed=seed, approximate=approximate)
    manifest["sha256"] = {"train": json_sha256(train), "test": json_sha256(evaluated)}
    with atomic_folder(folder) as temporary:
        _write_part(temporary, "train", train, ours)
        _write_part(temporary, "test", evaluated, ours)
        if unaffected := [ids for _, ids in perturbed["test"].unaffected]:
            _write_part(temporary, "unaffected", unaffected, ours)
        for folder_name, one in (("tokenizer", ours), ("tokens", spelled(ours))):
            (temporary / folder_name).mkdir()
            save_tokenizer(one, temporary / folder_name)
        write_json(temporary / MANIFEST, manifest)
    return Written(folder, manifest)


def _parts(found: list[Sentence], test: int, seed: int) -> dict[str, list[Given]]:
    if not 1 <= test < len(found):
        raise LabError(
            f"test: {test} sentences are to be held out of {len(found)}; it must be at least 1, and fewer than there are"
        )
    order = np.random.default_rng(seed).permutation(len(found)).tolist()
    return {
        "train": [found[i] for i in sorted(order[:-test])],
        "test": [found[i] for i in sorted(order[-test:])],
    }


def _manifest(
    chosen: Language,
    data: Sequence[str],
    tokenizer: Tokenizer,
    perturbed: dict[str, Perturbed],
    **settings: object,
) -> dict[str, object]:
    return {
        "language": chosen.name,
        "family": chosen.family,
        "data": list(data),
        **settings,
        "vocabulary": tokenizer.vocab_size,
        "markers": {glyph: tokenizer.id(glyph) for glyph in chosen.markers},
        "tokenizer": tokenizer.fingerprint,
        "sentences": {part: one.counts for part, one in perturbed.items()},
    }


def _write_part(folder: Path, name: str, sentences: Sequence[list[int]], tokenizer: Tokenizer) -> None:
    """Write sentences as spelled tokens, each a row of jsonl (a document of its own), and as ids, one a line."""
    rows = (json.dumps({"text": spell(tokenizer, ids)}, ensure_ascii=False) for ids in sentences)
    atomic_write(folder / f"{name}.jsonl", "".join(row + "\n" for row in rows))
    atomic_write(folder / f"{name}.ids", "".join(" ".join(map(str, ids)) + "\n" for ids in sentences))
