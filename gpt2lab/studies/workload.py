"""What candidates train, and on what: a small GPT-2 on a generated language, or on text."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.studies.data_names import BIGRAMS, source_of
from gpt2lab.text import sources
from gpt2lab.text.batches import ArrayTokens, PackedBatches
from gpt2lab.text.data_read import DataRead, note, remembered
from gpt2lab.text.generators.topic_bigrams import VOCAB_SIZE, stream
from gpt2lab.text.splits import HashRule
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from gpt2lab.training import TrainSettings
from gpt2lab.training.throughput import flops_per_token

_HELD_OUT = HashRule("sha256", size=4, order="big")
_TUNING = 1 << 31  # streams from here on: no seed's training or validation stream
_CHARACTERS = 8  # read for each token that is wanted: more than a byte-level BPE puts into one on average


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What every candidate trains, and on what: a small GPT-2 on the generated language of topics and bigrams."""

    n_layers: int = 2
    """Blocks."""
    d_model: int = 64
    """Width."""
    n_heads: int = 4
    """Attention heads."""
    context: int = 64
    """Tokens in a row."""
    batch_size: int = 32
    """Rows in an update."""
    train_tokens: int = 400_000
    """Length of the training stream."""
    valid_tokens: int = 60_000
    """Length of the validation stream; all of it is read."""
    warmup: float = 0.05
    """Share of the updates over which the learning rate rises."""
    final_fraction: float = 0.05
    """Share of the peak learning rate at the end of the cosine."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    precision: Literal["float32", "bf16", "auto"] = "float32"
    """Arithmetic of forward and backward pass; auto is bf16 on GPUs that have it."""

    def __post_init__(self) -> None:
        for name in ("d_model", "n_heads", "context", "batch_size", "train_tokens", "valid_tokens"):
            if getattr(self, name) < 1:
                raise LabError(f"workload.{name} must be at least 1, got {getattr(self, name)}")
        if self.n_layers < 0 or self.d_model % self.n_heads:
            raise LabError(
                f"workload.n_layers must not be negative and d_model a multiple of n_heads, got {self.n_layers} layers, "
                f"{self.d_model} and {self.n_heads}"
            )
        for name in ("warmup", "final_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise LabError(f"workload.{name} must lie between 0 and 1, got {getattr(self, name)}")

    @property
    def vocabulary(self) -> int:
        """Ids of the language."""
        return VOCAB_SIZE

    @property
    def config(self) -> TransformerConfig:
        """The model: GPT-2 without biases in its linear maps, tied head."""
        return gpt2_config(
            vocab_size=self.vocabulary,
            d_model=self.d_model,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            max_positions=self.context,
            qkv_bias=False,
            attention_out_bias=False,
            mlp_bias=False,
        )

    def model(self, seed: int) -> Transformer:
        """Return the model with the initial weights of a seed."""
        return Transformer(self.config, generator=torch.Generator().manual_seed(seed))

    def batches(self, seed: int) -> PackedBatches:
        """Return the training batches of a seed; seed 0 reads stream 1, seed 1 stream 3, ..."""
        return self._packed(_tokens(2 * seed + 1, self.train_tokens), seed)

    def validation(self, seed: int) -> PackedBatches:
        """Return the validation windows of a seed, in the order of the stream."""
        return self._packed(_tokens(2 * seed + 2, self.valid_tokens), None)

    def tuning(self, seed: int) -> PackedBatches:
        """Return the windows on which learning rates are chosen for a seed: a stream of its own, as long as validation's."""
        return self._packed(_tokens(_TUNING + seed, self.valid_tokens), None)

    @property
    def flops(self) -> float:
        """Floating-point operations of the forward and backward pass of an update."""
        parameters = self.model(0).count_parameters()["total"]
        return self.batch_size * self.context * flops_per_token(self.config, self.context, parameters)

    def bigram_loss(self, seed: int) -> float:
        """Return the loss of a table of bigrams on the validation windows of a seed, in nats per token.

        It has the counts of the training stream and, as if each token had been followed by 20 further ones, the frequencies
        of single tokens. A model that is not below it has learnt nothing from what is further back.
        """
        train, valid = self.batches(seed).stream, self.validation(seed).stream
        return _bigram_loss(train.read(0, len(train)), valid.read(0, len(valid)), self.vocabulary)

    def settings(self, steps: int, learning_rate: float) -> TrainSettings:
        """Return the loop's settings for a complete schedule of `steps` updates."""
        return TrainSettings(
            steps=steps,
            learning_rate=learning_rate,
            schedule="cosine",
            warmup=round(self.warmup * steps),
            final_fraction=self.final_fraction,
            clip=self.clip,
            log_every=5,
            precision=self.precision,
        )

    def _packed(self, tokens: ArrayTokens, order: int | None) -> PackedBatches:
        """Return rows of tokens in the order of a seed; None: as they stand, more at a time."""
        return PackedBatches(
            tokens,
            batch_size=self.batch_size if order is not None else 128,
            context=self.context,
            seed=order or 0,
            shuffle=order is not None,
        )


@dataclass(frozen=True, kw_only=True)
class TextWorkload(Workload):
    """The same model on text: stories, docstrings, files. Every seed reads the same split, in an order of its own."""

    data: tuple[str, ...] = ("tinystories",)
    """Files, folders, globs, hub:ID, built-in sources (tinystories is tinyworld), or topic-bigrams, which is not text."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    vocab_size: int = 1024
    """Vocabulary size of the byte-level BPE trained on the training documents."""
    valid_fraction: float = 0.1
    """Share of the documents held out, by the hash of their text: every second for tuning, the others for validation."""

    @property
    def vocabulary(self) -> int:
        """Ids of the tokenizer."""
        if self.data == BIGRAMS:
            return super().vocabulary
        return self.text.tokenizer.vocab_size

    @property
    def text(self) -> "Text":
        """The documents, split and encoded; read once in a process. LabError for topic-bigrams, which has none."""
        if self.data == BIGRAMS:
            raise LabError(
                "topic-bigrams: generated ids without words; what reads or writes text takes another source"
            )
        return _read(
            tuple(source_of(name) for name in self.data),
            self.field,
            self.vocab_size,
            self.valid_fraction,
            self.train_tokens,
            self.valid_tokens,
        )

    def batches(self, seed: int) -> PackedBatches:
        """Return the training batches in the order of a seed."""
        if self.data == BIGRAMS:
            return super().batches(seed)
        return self._packed(self.text.train, seed)

    def validation(self, seed: int) -> PackedBatches:
        """Return the validation windows; those of a text are the same for every seed."""
        if self.data == BIGRAMS:
            return super().validation(seed)
        return self._packed(self.text.valid, None)

    def tuning(self, seed: int) -> PackedBatches:
        """Return the tuning windows, the same for every seed. LabError if one document alone is held out."""
        if self.data == BIGRAMS:
            return super().tuning(seed)
        if not len(self.text.tuning):
            raise LabError(
                f"{', '.join(self.data)}: one document is held out; learning rates are chosen on another than the one "
                "that is judged"
            )
        return self._packed(self.text.tuning, None)


@dataclass(frozen=True)
class Text:
    """Documents in two splits."""

    tokenizer: Tokenizer
    """Made from the training documents."""
    train: ArrayTokens
    """The training documents one after the other, each with the end token behind it; at most train_tokens."""
    valid: ArrayTokens
    """The first, third, ... held-out document; at most valid_tokens."""
    tuning: ArrayTokens
    """The other held-out documents, on which learning rates are chosen; at most valid_tokens."""
    valid_documents: tuple[str, ...]
    """All held-out documents themselves."""


@remembered
def _tokens(seed: int, size: int) -> ArrayTokens:
    tokens = stream(seed, size).tokens
    ids = hashlib.sha256(tokens.tobytes()).hexdigest()
    note(DataRead(f"topic-bigrams, stream {seed}", 1, size, "tokens", ids))
    return ArrayTokens(tokens)


def _bigram_loss(train: npt.NDArray[np.int64], valid: npt.NDArray[np.int64], size: int) -> float:
    draws = 20.0
    counts = np.bincount(train[:-1] * size + train[1:], minlength=size * size).reshape(size, size)
    single = (np.bincount(train, minlength=size) + 1 / size) / (len(train) + 1)
    p = (counts + draws * single) / (counts.sum(axis=1, keepdims=True) + draws)
    return float(-np.log(p[valid[:-1], valid[1:]]).mean())


@remembered
def _read(
    data: tuple[str, ...],
    field: str,
    vocab_size: int,
    valid_fraction: float,
    train_tokens: int,
    valid_tokens: int,
) -> Text:
    """Read as much text as the two streams need. LabError if it is too little to split."""
    if not 0 < valid_fraction < 1:
        raise LabError(f"valid_fraction must lie between 0 and 1, got {valid_fraction}")
    sides: tuple[list[str], list[str]] = [], []
    room = [_CHARACTERS * train_tokens, _CHARACTERS * valid_tokens]
    for document in sources.documents(data, field=field):
        valid = _HELD_OUT.below(document, valid_fraction)
        if room[valid] > 0:
            sides[valid].append(document)
            room[valid] -= len(document)
        elif room[not valid] <= 0:
            break
    train, held_out = sides
    if not train or not held_out:
        raise LabError(
            f"{', '.join(data)}: {len(train) + len(held_out)} documents are too few to keep some for validation"
        )
    tokenizer = train_bpe(train, vocab_size)
    return Text(
        tokenizer,
        _encoded(tokenizer, train, train_tokens),
        _encoded(tokenizer, held_out[::2], valid_tokens),
        _encoded(tokenizer, held_out[1::2], valid_tokens),
        tuple(held_out),
    )


def _encoded(tokenizer: Tokenizer, documents: Sequence[str], most: int) -> ArrayTokens:
    assert tokenizer.eos is not None
    ids: list[int] = []
    for encoded in tokenizer.encode_batch(documents):
        ids += [*encoded, tokenizer.eos]
        if len(ids) >= most:
            break
    return ArrayTokens(ids[:most])
