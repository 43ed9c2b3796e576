"""A tokenizer of which only the most frequent ids are kept; every other is <unk>.

A loss over such a vocabulary leaves out what is hard about rare words: compare it with others in bits per byte
only, and say how much of the text was <unk>.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers

from gpt2lab.base.errors import LabError, brief
from gpt2lab.base.files import atomic_write
from gpt2lab.base.json_files import check_seal, read_object, sealed
from gpt2lab.text.tokenizer import Tokenizer

REDUCTION_FILE = "vocabulary_reduction.json"


@dataclass(frozen=True)
class TokenCounts:
    """How often each id of a tokenizer stands in a training stream."""

    counts: tuple[int, ...]
    """By id, one entry for each row of the tokenizer's vocabulary."""
    corpus: str
    """SHA-256 (hex) of the stream of ids."""
    tokenizer: str
    """Fingerprint of the tokenizer."""


def count_tokens(documents: Iterable[Sequence[int]], tokenizer: Tokenizer) -> TokenCounts:
    """Count the ids of a training stream, document by document; LabError for ids outside the vocabulary."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    digest = hashlib.sha256()
    for document in documents:
        ids = np.asarray(document, dtype="<i8")
        if ids.size and (ids.min() < 0 or ids.max() >= tokenizer.vocab_size):
            raise LabError(
                f"the stream has id {ids.max()}, this tokenizer {tokenizer.vocab_size} ids: encoded by another?"
            )
        counts += np.bincount(ids, minlength=tokenizer.vocab_size)
        digest.update(len(ids).to_bytes(8, "little") + ids.tobytes())
    return TokenCounts(tuple(counts.tolist()), digest.hexdigest(), tokenizer.fingerprint)


@dataclass(frozen=True)
class VocabularyReduction:
    """A mapping of a tokenizer's ids to 0 … K - 1, made for one corpus; the last id is <unk>."""

    kept: tuple[int, ...]
    """Old ids in ascending order: the new id of `kept[i]` is i."""
    eos: int
    """Old id of the end of text, one of `kept`."""
    rows: int
    """Rows of the old vocabulary."""
    coverage: float
    """Share of the training stream that is not <unk>."""
    tokenizer: str
    """Fingerprint of the tokenizer it belongs to."""
    corpus: str
    """Fingerprint of the stream it was counted on."""

    @property
    def size(self) -> int:
        """New vocabulary size K, <unk> included."""
        return len(self.kept) + 1

    @property
    def unk(self) -> int:
        """New id of <unk>."""
        return len(self.kept)

    @cached_property
    def _new(self) -> np.ndarray:
        table = np.full(self.rows, self.unk, dtype=np.int64)
        table[list(self.kept)] = np.arange(len(self.kept))
        return table

    def encode(self, ids: Sequence[int]) -> list[int]:
        """Return new ids for old ones; LabError for an id the old tokenizer does not have."""
        old = np.asarray(ids, dtype=np.int64)
        if old.size and (old.min() < 0 or old.max() >= self.rows):
            raise LabError(
                f"id {old.max()}: the tokenizer of this vocabulary has the ids 0 to {self.rows - 1}"
            )
        return [int(new) for new in self._new[old]]

    def decode(self, ids: Iterable[int]) -> list[int | None]:
        """Return old ids for new ones, None for <unk>; LabError for an id outside the new vocabulary."""
        new = list(ids)
        if any(not 0 <= i <= self.unk for i in new):
            raise LabError(f"id {max(new)}: the reduced vocabulary has the ids 0 to {self.unk}")
        return [None if i == self.unk else self.kept[i] for i in new]

    def check(self, *, tokenizer: Tokenizer | None = None, corpus: str | None = None) -> None:
        """LabError unless the mapping was made with this tokenizer and on this corpus."""
        if tokenizer is not None and tokenizer.fingerprint != self.tokenizer:
            raise LabError(
                f"vocabulary reduction: made with tokenizer {self.tokenizer[:8]}…, not with "
                f"{tokenizer.fingerprint[:8]}…; count the stream again with this tokenizer"
            )
        if corpus is not None and corpus != self.corpus:
            raise LabError(
                f"vocabulary reduction: counted on corpus {self.corpus[:8]}…, not on {corpus[:8]}…; "
                "count this stream, or use the corpus it was made for"
            )

    def save(self, folder: Path | str) -> None:
        """Write the mapping into a folder."""
        fields = {
            name: getattr(self, name) for name in ("kept", "eos", "rows", "coverage", "tokenizer", "corpus")
        }
        atomic_write(Path(folder) / REDUCTION_FILE, json.dumps(sealed(fields)) + "\n")

    @staticmethod
    def load(folder: Path | str) -> "VocabularyReduction":
        """Read the mapping of a folder; LabError if there is none or it is damaged."""
        path = Path(folder) / REDUCTION_FILE
        if not path.is_file():
            raise LabError(f"{folder}: no {REDUCTION_FILE} here")
        fields = read_object(path)
        check_seal(fields, str(path))
        try:
            del fields["checksum"]
            return VocabularyReduction(**(fields | {"kept": tuple(fields["kept"])}))
        except (KeyError, TypeError) as error:
            raise LabError(f"{path}: not a vocabulary reduction ({brief(error)})") from error


def reduce_vocabulary(counts: TokenCounts, *, size: int, eos: int | None) -> VocabularyReduction:
    """Keep the `size` - 1 most frequent ids that occur, `eos` always; ties go to the lower id.

    With fewer ids in the stream the vocabulary is smaller than `size`. LabError for a size below 3, for an empty
    stream and without `eos`.
    """
    total = sum(counts.counts)
    if size < 3 or eos is None or total == 0:
        problem = f"size {size}" if size < 3 else "no end-of-text token" if eos is None else "an empty stream"
        raise LabError(
            f"vocabulary reduction: {problem}; it needs a size of at least 3, an eos and some text"
        )
    occurring = [i for i, count in enumerate(counts.counts) if count > 0 and i != eos]
    ranked = sorted(occurring, key=lambda i: (-counts.counts[i], i))  # ties: the lower id
    kept = tuple(sorted([*ranked[: size - 2], eos]))
    coverage = sum(counts.counts[i] for i in kept) / total
    return VocabularyReduction(kept, eos, len(counts.counts), coverage, counts.tokenizer, counts.corpus)


class ReducedTokenizer(Tokenizer):
    """A tokenizer seen through a reduction: the same text, fewer ids, <unk> for the rest."""

    def __init__(self, base: Tokenizer, reduction: VocabularyReduction) -> None:
        """Refuse (LabError) a reduction that was made with another tokenizer."""
        reduction.check(tokenizer=base)
        super().__init__(base.backend, settings=base.settings)
        self.base, self.reduction = base, reduction
        self.vocab_size = reduction.size
        self.eos = self.bos = reduction.encode([reduction.eos])[0]
        self.unk, self.pad = reduction.unk, None
        self.special_ids = frozenset({self.eos, self.unk})

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the reduced ids of a text."""
        return self.reduction.encode(self.base.encode(text, special=special))

    def encode_batch(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the reduced ids of each text."""
        return [self.reduction.encode(ids) for ids in self.base.encode_batch(texts, special=special)]

    def ids_of(self, encoding: tokenizers.Encoding) -> list[int]:
        """Return the reduced ids of an encoding."""
        return self.reduction.encode(encoding.ids)

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Return the text of reduced ids; <unk> has none, or shows as `<unk>` with skip_special=False."""
        pieces: list[str] = []
        run: list[int] = []
        for old in [*self.reduction.decode(ids), None]:  # the last None closes the last run
            if old is not None:
                run.append(old)
                continue
            pieces.append(self.base.decode(run, skip_special=skip_special) if run else "")
            run = []
        return ("" if skip_special else "<unk>").join(pieces)

    @property
    def holes(self) -> tuple[int, ...]:
        """None: every reduced id is that of a token, or <unk>."""
        return ()

    def token(self, id: int) -> str:
        """Return the token of one reduced id as the vocabulary spells it."""
        old = self.reduction.decode([id])[0]
        return "<unk>" if old is None else self.base.token(old)

    def id(self, token: str) -> int | None:
        """Return the reduced id of a token, None if the reduction dropped it or there is none."""
        old = self.base.id(token)
        new = None if old is None else self.reduction.encode([old])[0]
        return None if new == self.reduction.unk else new

    @property
    def vocabulary(self) -> dict[str, int]:
        """Every token that was kept with its reduced id, then <unk>."""
        return {self.token(i): i for i in range(self.vocab_size)}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the base tokenizer's fingerprint and the kept ids."""
        return hashlib.sha256(f"{self.base.fingerprint} {self.reduction.kept}".encode()).hexdigest()
