"""The source `impossible-language`: text in one of the fifteen languages, written to a folder."""

from dataclasses import dataclass
from pathlib import Path

from gpt2lab.base.settings import ModelTokenizer
from gpt2lab.papers.impossible_languages.corpus import sentences_of, write_corpus
from gpt2lab.papers.impossible_languages.languages import language
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from gpt2lab.text.tokenizer_files import load_tokenizer


@dataclass(frozen=True, kw_only=True)
class ImpossibleLanguage:
    """Train and test sentences of a language as tokens and as ids, tokenizers, and a manifest of what became of them.

    `gpt2lab train --data DIR/train.jsonl --tokenizer DIR/tokens` trains on exactly these ids. LabError as for
    `write_corpus` when it writes, and for an unknown language.
    """

    language: str
    """Language, such as shuffle_local3; a number at its end is seed, window or distance."""
    data: tuple[str, ...]
    """Text: files, folders, hub:ID, a built-in source. Annotated: CoNLL-U, JSON, agreement:SIZE:SEED (generated)."""
    tokenizer: ModelTokenizer = ""
    """Model or folder that has the tokenizer; empty trains a byte-level BPE on the data."""
    vocab_size: int = 4000
    """Vocabulary size of a tokenizer trained on the data."""
    test: int = 1000
    """Sentences held out."""
    seed: int = 0
    """Seed of what is held out and of the order of the training sentences; not of the language."""
    approximate: bool = False
    """Tag text by rules for a hop language; they overlook verbs."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""

    def __call__(self, out: Path) -> dict[str, object]:
        """Write the folder and return its manifest."""
        chosen = language(self.language)
        return write_corpus(
            chosen,
            self.data,
            load_tokenizer(self.tokenizer) if self.tokenizer else self._trained(chosen.annotated),
            out,
            test=self.test,
            seed=self.seed,
            approximate=self.approximate,
            field=self.field,
        ).manifest

    def _trained(self, annotated: bool) -> Tokenizer:
        given = sentences_of(self.data, annotated=annotated, approximate=self.approximate, field=self.field)
        return train_bpe((sentence.text for sentence in given), self.vocab_size)
