"""Both languages, prepared once for all units and seeds: tokenizers, ids of every part, word vectors, dictionary."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpt2lab.actions.models import loaded
from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write
from gpt2lab.papers.wechsel.alignment import align
from gpt2lab.papers.wechsel.cipher import ciphered, plain_lines, word_cipher
from gpt2lab.papers.wechsel.dictionary import Pairs, read_dictionary
from gpt2lab.papers.wechsel.initialisation import Spaces
from gpt2lab.papers.wechsel.study.settings import CIPHER, Settings
from gpt2lab.papers.wechsel.target_tokenizer import trained_like
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.text import sources
from gpt2lab.text.batches import ArrayTokens, PackedBatches
from gpt2lab.text.text_vectors import sentences, text_vectors
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer
from gpt2lab.text.vector_files import Vectors, read_vectors, write_bin

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run

UNIT = "languages"
"""The unit that prepares them."""
JUDGED, TUNING = "validation text", "tuning text"
"""What reports call the two held-out parts of the target language."""
PARTS = ("source_train", "source_valid", "train", "tuning", "valid")
_ORDER, _CIPHER = 0, 5
"""Seeds of the order of lines and of the cipher, the same for every study."""
_Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Material:
    """What every arm is trained and judged on."""

    source: Tokenizer
    target: Tokenizer
    ids: dict[str, _Ids]
    """Token ids of each part, lines joined by the end of text."""

    def batches(self, part: str, settings: Settings, seed: int, *, share: float = 1.0) -> PackedBatches:
        """Return training batches of a part, or of its first share, in the order of a seed."""
        ids = self.ids[part]
        few = ids[: max(round(share * len(ids)), settings.context + 2)]
        return PackedBatches(
            ArrayTokens(few), batch_size=settings.batch_size, context=settings.context, seed=seed
        )

    def windows(self, part: str, settings: Settings) -> PackedBatches:
        """Return the windows of a held-out part in their order."""
        ids = self.ids[part][: settings.windows * settings.context + 1]
        return PackedBatches(
            ArrayTokens(ids), batch_size=settings.batch_size, context=settings.context, shuffle=False
        )

    def bytes_of(self, part: str, settings: Settings) -> int:
        """Return the UTF-8 bytes that the targets of a part's windows spell."""
        windows = self.windows(part, settings).windows
        tokenizer = self.source if part.startswith("source") else self.target
        targets = self.ids[part][1 : windows * settings.context + 1]
        return len(tokenizer.decode(targets.tolist(), skip_special=True).encode())


def prepare(settings: Settings, run: "Run") -> None:
    """Make tokenizers, ids, vectors and dictionary, and keep them for the other units."""
    source, target, pairs, test = _texts(settings)
    parts = {
        "source_train": source[len(source) // 20 :], "source_valid": source[: len(source) // 20],
        "valid": target[: len(target) // 10], "tuning": target[len(target) // 10 : len(target) // 5],
        "train": target[len(target) // 5 :],
    }  # fmt: skip
    tokenizers = _tokenizers(settings, parts)
    for side, tokenizer in tokenizers.items():
        save_tokenizer(tokenizer, run.folder / f"{side}_tokenizer")
        run.result(f"vocabulary.{side}", tokenizer.vocab_size)
    ids = {}
    for part in PARTS:
        ids[part] = _joined(parts[part], tokenizers["source" if part.startswith("source") else "target"])
        run.array(part, ids[part].astype(np.uint32), f"Token ids of the part {part}")
        run.result(f"tokens.{part}", len(ids[part]))
    for language, (train, valid) in {
        "source": ("source_train", "source_valid"),
        "target": ("train", "valid"),
    }.items():
        rows = tokenizers[language].vocab_size
        run.result(f"unigram_loss.{language}", unigram_loss(ids[train], ids[valid], rows))
    vectors = {"source": _vectors(settings, settings.source_vectors, parts["source_train"], run, "source"),
               "target": _vectors(settings, settings.target_vectors, parts["train"], run, "target")}  # fmt: skip
    for name, some in (("pairs", pairs), ("test_pairs", test)):
        lines = "".join(f"{one}\t{other}\n" for one, other in some)
        atomic_write(run.folder / f"{name}.tsv", lines)
    _, report = align(vectors["source"], vectors["target"], pairs, test=test or None)
    for key, value in report.numbers().items():
        run.result(f"alignment.{key}", value)


def _texts(settings: Settings) -> tuple[list[str], list[str], Pairs, Pairs]:
    """Return the lines of both languages in a drawn order, the dictionary, and the pairs that test the alignment."""
    lines = _lines(settings, settings.data)
    if settings.target != CIPHER:
        return lines, _lines(settings, settings.target), read_dictionary(settings.dictionary).pairs, []
    source, other = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    cipher = word_cipher(lines, _CIPHER)
    counts = Counter(word for words in sentences(source) for word in words)
    frequent = [
        word for word, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0])) if word in cipher
    ]
    words, size = [(word, cipher[word]) for word in frequent], settings.dictionary_words
    if settings.dictionary:
        return source, ciphered(other, cipher), read_dictionary(settings.dictionary).pairs, []
    return source, ciphered(other, cipher), words[:size], words[size : 2 * size]


def _lines(settings: Settings, data: str) -> list[str]:
    documents = sources.documents([data])
    if settings.plain:
        lines = plain_lines(documents)
    else:
        lines = list(dict.fromkeys(line for text in documents for line in text.split("\n") if len(line) > 20))
    if len(lines) < 40:
        raise LabError(
            f"{data}: {len(lines)} different lines of more than 20 characters; a language needs 40"
        )
    return [lines[i] for i in np.random.default_rng(_ORDER).permutation(len(lines))]


def _tokenizers(settings: Settings, parts: dict[str, list[str]]) -> dict[str, Tokenizer]:
    if not settings.model:
        return {
            "source": train_bpe(parts["source_train"], settings.vocab_size),
            "target": train_bpe(parts["train"], settings.vocab_size),
        }
    source = loaded(settings.model, "cpu", None).tokenizer
    if source is None:
        raise LabError(f"{settings.model}: this model has no tokenizer; give one that reads text")
    return {
        "source": source,
        "target": trained_like(source, parts["train"], settings.vocab_size or source.vocab_size),
    }


def _joined(lines: list[str], tokenizer: Tokenizer) -> _Ids:
    end = [] if tokenizer.eos is None else [tokenizer.eos]
    return np.array([id for ids in tokenizer.encode_batch(lines) for id in [*ids, *end]], dtype=np.int64)


def _vectors(settings: Settings, file: str, lines: list[str], run: "Run", side: str) -> Vectors:
    """Return the vectors of a file, or those that text gives, which are kept."""
    if file:
        return read_vectors(file)
    made = text_vectors(lines, settings.vectors, counting=settings.counting, skipgram=settings.skipgram)
    write_bin(made, run.folder / f"{side}.bin")
    run.result(f"words.{side}", len(made.words))
    return made


def unigram_loss(training: _Ids, held_out: _Ids, vocab_size: int) -> float:
    """Return the loss under the frequencies of training tokens with one added, nats per token."""
    counts = np.bincount(training, minlength=vocab_size) + 1.0
    return float(-np.log(counts / counts.sum())[held_out[1:]].mean())


def material(settings: Settings, record: RunRecord) -> Material:
    """Return what the unit has kept."""
    folder = Path(record.folder)
    source, target = (load_tokenizer(folder / f"{side}_tokenizer") for side in ("source", "target"))
    return Material(source, target, {part: record.arrays[part].astype(np.int64) for part in PARTS})


def spaces(settings: Settings, record: RunRecord, *, aligned: bool = True) -> Spaces:
    """Return the word vectors of both languages and the dictionary; not aligned: none is needed."""
    folder = Path(record.folder)
    source, target = (
        read_vectors(file or folder / f"{side}.bin")
        for side, file in (("source", settings.source_vectors), ("target", settings.target_vectors))
    )
    pairs = read_dictionary(folder / "pairs.tsv").pairs
    return Spaces(source, target, pairs, align=aligned, mode=settings.mode)
