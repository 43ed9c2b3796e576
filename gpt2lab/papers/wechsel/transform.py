"""Move a model to another language: new tokenizer, embeddings by meaning, and as much further training as is wanted."""

import hashlib
import itertools
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import ModelTokenizer
from gpt2lab.measures.held_out import windows_loss
from gpt2lab.model import Transformer
from gpt2lab.model.interpret.artefacts import model_hash
from gpt2lab.papers.wechsel.dictionary import IDENTICAL, Pairs, identical_words, read_dictionary
from gpt2lab.papers.wechsel.freezing import FreezeInner
from gpt2lab.papers.wechsel.initialisation import MIXED, Initialised, Method, Spaces, checked, wechsel_init
from gpt2lab.papers.wechsel.target_tokenizer import trained_like
from gpt2lab.text import sources
from gpt2lab.text.batches import ArrayTokens, MaskedBatches, PackedBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.skipgram import SkipgramOptions
from gpt2lab.text.splits import PositionRule
from gpt2lab.text.text_vectors import COUNTING, TRAINING, Kind, text_vectors
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.text.tokenizer_files import has_tokenizer, load_tokenizer, save_tokenizer
from gpt2lab.text.vector_files import Vectors, read_vectors
from gpt2lab.text.word_vectors import CountOptions
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.objectives import default_objective
from gpt2lab.training.transform import Journal, TrainingTransform, refuse_other_work

_HELD_OUT, _HELD_OUT_TOKENS = PositionRule(20, 1), 65_536


@dataclass(frozen=True, kw_only=True)
class Wechsel(TrainingTransform):
    """Give a model the vocabulary of another language, each new token's embedding mixed from old ones close in meaning."""

    data: tuple[str, ...] = ()
    """Text in the new language, for its tokenizer, word vectors and the training: files, folders, hub:ID, built-in names."""
    source_data: tuple[str, ...] = ()
    """Text in the model's own language, for its word vectors."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    dictionary: str = ""
    """File of pairs, source TAB target; `identical`: words that both vocabularies have."""
    tokenizer: ModelTokenizer = ""
    """MODEL or folder whose tokenizer is that of the new language; empty trains one of the model's kind on `data`."""
    vocab_size: int = 0
    """Ids of a tokenizer that is trained, at most; 0 is as many as the model's."""
    source_vectors: str = ""
    """Word vectors of the model's language, .bin or .vec; empty makes them from `source_data`."""
    target_vectors: str = ""
    """Word vectors of the new language; empty makes them from `data`."""
    vectors: Kind = "ppmi"
    """How vectors are made from text: ppmi counts words, skipgram trains words with n-grams."""
    counting: CountOptions = COUNTING
    """How ppmi counts."""
    skipgram: SkipgramOptions = TRAINING
    """How skipgram trains."""
    method: Method = "wechsel"
    """nearest: k = 1. permuted: mixed rows dealt out at random. transinner: rows from N(mean, std); frozen: so too, and the
    inner weights wait. fullrand: all weights drawn anew."""
    k: int = 10
    """Source tokens that a token is mixed from."""
    tau: float = 0.1
    """Temperature of the weights."""
    mode: Literal["auto", "ngrams", "frequency"] = "auto"
    """A token's vector: by its n-grams or by the words that hold it; auto is ngrams if both languages' vectors have them."""
    max_words: int | None = None
    """Most frequent words that frequency mode reads; none is all."""
    align: Literal["procrustes", "none"] = "procrustes"
    """none: both vectors are in one space already."""
    inspect: int = 200
    """Tokens of the inspection table that the run keeps, the first ids that are not special."""
    steps: int = 0
    """Updates of training on `data` afterwards; 0 leaves it to `gpt2lab train --model`."""
    freeze: float | None = None
    """Share of the updates in which the inner weights wait; none is 0, for the method frozen 0.1."""
    learning_rate: float = 5e-4
    """Peak, after a warm-up of a tenth of the updates; then it falls linearly to 0."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices and embeddings."""
    batch_size: int = 8
    """Rows of a micro-batch."""
    accumulation: int = 1
    """Micro-batches of an update."""
    context: int | None = None
    """Tokens of a row; none is the model's positions, at most 512."""
    precision: Literal["float32", "bf16", "auto"] = "auto"
    """Arithmetic of the passes; auto is bf16 on GPUs that have it."""
    checkpoint_every: int = 0
    """Updates between two checkpoints; 0 writes one at the end and when the run is stopped."""
    seed: int = 1234
    """Of rows that are drawn, and the order of the data."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise LabError(f"k must be at least 1, got {self.k}; 10 is the paper's value")
        if not 0 < self.tau < math.inf:
            raise LabError(f"tau must be above 0, got {self.tau}; 0.1 is the paper's value")
        for name in ("steps", "vocab_size", "inspect", "seed"):
            if getattr(self, name) < 0:
                raise LabError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.freeze is not None and not 0 <= self.freeze <= 1:
            raise LabError(f"freeze is a share of the updates, in [0, 1], got {self.freeze}")
        if self.max_words is not None and self.max_words < 1:
            raise LabError(f"max_words must be at least 1, got {self.max_words}; none reads all")

    def train(self, lm: LanguageModel, journal: Journal | None) -> LanguageModel:
        """Return the new model; `lm` stays as it is. The journal gets the inspection table, precision, losses.

        LabError for what `wechsel_init` refuses, and for text, vectors, dictionary or tokenizer that are not there.
        """
        made = self.initialise(lm, self._kept_tokenizer(lm, journal))
        if journal is not None:
            self._report(made, journal)
        if self.steps:
            _Training(self, made.lm, journal, made_of=lm).run()
        return made.lm

    def _kept_tokenizer(self, lm: LanguageModel, journal: Journal | None) -> Tokenizer | None:
        """Return the tokenizer that a training goes on with: some trainers would not give the same one again."""
        if journal is None or not self.steps or self.tokenizer:
            return None
        folder = journal.checkpoints / "tokenizer"
        if not has_tokenizer(folder):
            self._require_inputs()
            save_tokenizer(self._tokenizer(checked(lm)), folder)
        return load_tokenizer(folder)

    def initialise(self, lm: LanguageModel, tokenizer: Tokenizer | None = None) -> Initialised:
        """Return the new model before any training, and where each of its rows comes from. LabError as for `train`.

        tokenizer: that of the new language, in place of the one that the options name.
        """
        source = checked(lm)
        self._require_inputs()
        if self.k > source.vocab_size:
            raise LabError(f"k {self.k}: the model has {source.vocab_size} tokens to mix from")
        tokenizer = tokenizer or self._tokenizer(source)
        spaces = self._spaces() if self.method in MIXED else None
        return wechsel_init(lm, tokenizer, spaces, method=self.method, k=self.k, tau=self.tau, seed=self.seed)

    def _require_inputs(self) -> None:
        """Refuse, before anything is read, what lacks its text or dictionary. LabError."""
        mixes = self.method in MIXED
        wants = {
            "data": self.steps > 0 or not self.tokenizer or (mixes and not self.target_vectors),
            "source_data": mixes and not self.source_vectors,
            "dictionary": mixes and self.align == "procrustes",
        }
        for name, wanted in wants.items():
            if wanted and not getattr(self, name):
                raise LabError(f"wechsel: {name} is missing; {_WANTED[name]}")

    def _tokenizer(self, source: Tokenizer) -> Tokenizer:
        if self.tokenizer:
            return load_tokenizer(self.tokenizer)
        return trained_like(source, self._texts(), self.vocab_size or source.vocab_size)

    def _spaces(self) -> Spaces:
        source = self._vectors(self.source_vectors, self.source_data)
        target = self._vectors(self.target_vectors, self.data)
        aligned = self.align == "procrustes"
        pairs: Pairs = []
        if aligned:
            known = self.dictionary == IDENTICAL
            pairs = identical_words(source, target) if known else read_dictionary(self.dictionary).pairs
        return Spaces(source, target, pairs, align=aligned, mode=self.mode, max_words=self.max_words)

    def _vectors(self, file: str, data: tuple[str, ...]) -> Vectors:
        if file:
            return read_vectors(file)
        texts = sources.documents(data, field=self.field)
        return text_vectors(texts, self.vectors, counting=self.counting, skipgram=self.skipgram)

    def _texts(self) -> "itertools.chain[str]":
        return itertools.chain(sources.documents(self.data, field=self.field))

    def _report(self, made: Initialised, journal: Journal) -> None:
        tokenizer = made.tokenizer
        journal.result("vocabulary", tokenizer.vocab_size)
        if made.mixed is None:
            return
        ids = [id for id in range(tokenizer.vocab_size) if id not in tokenizer.special_ids]
        journal.table("tokens", made.rows(ids[: self.inspect]), "Of which old tokens new ones are mixed")
        journal.result("tokens_found", made.found_share)
        for name, value in (made.alignment.numbers() if made.alignment else {}).items():
            journal.result(f"alignment.{name}", value)
        journal.note(f"tokens have their vectors by mode {made.mode}")
        special = [tokenizer.token(id) for id in made.not_found if id in tokenizer.special_ids]
        if drawn := [token for token in special if token not in made.copied]:
            journal.note(
                f"special tokens that the old model lacks, with rows drawn at random: {', '.join(drawn)}"
            )


_WANTED = {
    "data": "give text in the new language",
    "source_data": "give text in the model's own language, or its word vectors with source_vectors",
    "dictionary": f"give a file of pairs, source TAB target, or `{IDENTICAL}` for words that both languages write alike",
}


class _Training:
    """The training of a new model on the text of its language."""

    def __init__(
        self, options: Wechsel, lm: LanguageModel, journal: Journal | None, made_of: LanguageModel
    ) -> None:
        self.options, self.lm, self.journal, self.made_of = options, lm, journal, made_of
        tokenizer = lm.tokenizer
        assert tokenizer is not None
        self.tokenizer = tokenizer
        self.context = min(lm.model.context, 512) if options.context is None else options.context
        if not 1 <= self.context <= lm.model.context:
            raise LabError(f"context {self.context}: the model has {lm.model.context} positions")
        if not lm.config.causal and tokenizer.mask is None:
            raise LabError("the new tokenizer has no mask token, and masked language modelling needs one")

    def run(self) -> None:
        """Train the model in place, in float32 at least, and report the losses."""
        options, journal = self.options, self.journal
        read, held = self._tokens()
        if journal is not None:
            content = hashlib.sha256(read.tobytes() + b"/" + held.tobytes()).hexdigest()
            refuse_other_work(journal, model=model_hash(self.made_of.model), data=content)
        model, dtype = self.lm.model, self.lm.model.dtype
        model.to(torch.promote_types(dtype, torch.float32))
        batches = self._batches(read, shuffle=True)
        held_out = self._batches(held, shuffle=False) if len(held) > self.context else None
        before = self._loss(model, held_out)
        frozen = options.freeze if options.freeze is not None else 0.1 * (options.method == "frozen")
        train(
            model,
            self._maybe_masked(batches),
            settings=self._settings(),
            objective=default_objective(model.config),
            callbacks=[FreezeInner(round(frozen * options.steps))] if frozen else [],
            evaluate=None if held_out is None else lambda: {"validation_loss": self._loss(model, held_out)},
            log=None if journal is None else journal.log,
            checkpoints=None if journal is None else journal.checkpoints,
            resume=True,
            seed=options.seed,
            label="wechsel",
        )
        if journal is not None and held_out is not None:
            journal.result("before.validation_loss", before)
            journal.result("validation_loss", self._loss(model, held_out))
        model.eval().to(dtype)

    def _settings(self) -> TrainSettings:
        options = self.options
        return TrainSettings(
            steps=options.steps,
            learning_rate=options.learning_rate,
            schedule="linear",
            final_fraction=0.0,
            warmup=options.steps // 10,
            weight_decay=options.weight_decay,
            accumulation=options.accumulation,
            precision=options.precision,
            checkpoint_every=options.checkpoint_every,
            evaluate_every=max(1, options.steps // 10),
            log_every=max(1, options.steps // 100),
        )

    def _tokens(self) -> tuple["array[int]", "array[int]"]:
        """Return the tokens that are trained on, as many as there are, and 65,536 of every 20th document at most."""
        end = [] if self.tokenizer.eos is None else [self.tokenizer.eos]
        read, held = array("i"), array("i")
        texts = sources.documents(self.options.data, field=self.options.field)
        for number, text in enumerate(texts):
            ids = self.tokenizer.encode(text)
            if not _HELD_OUT.held_out(number):
                read.extend([*ids, *end])
            elif len(held) < _HELD_OUT_TOKENS:
                held.extend([*ids, *end])
        return read, held[:_HELD_OUT_TOKENS]

    def _batches(self, ids: Sequence[int], *, shuffle: bool) -> PackedBatches:
        rows = self.options.batch_size
        return PackedBatches(
            ArrayTokens(ids), batch_size=rows, context=self.context, seed=self.options.seed, shuffle=shuffle
        )

    def _maybe_masked(self, batches: PackedBatches) -> PackedBatches | MaskedBatches:
        mask = self.tokenizer.mask
        if self.lm.config.causal or mask is None:
            return batches
        rows, special = self.tokenizer.vocab_size, self.tokenizer.special_ids
        return MaskedBatches(batches, mask=mask, vocab_size=rows, special=special, seed=self.options.seed)

    @torch.no_grad()
    def _loss(self, model: Transformer, held_out: PackedBatches | None) -> float:
        """Return the loss on held-out text, of hidden tokens if the model is bidirectional; NaN where there is no text."""
        if held_out is None:
            return math.nan
        if model.config.causal:
            return windows_loss(model, held_out).loss
        masked, objective = self._maybe_masked(held_out), default_objective(model.config)
        training, total, count = model.training, 0.0, 0
        model.eval()
        for number in range(len(held_out)):
            batch = {name: tensor.to(model.device) for name, tensor in masked[number].items()}
            targets = int((batch["targets"] >= 0).sum())
            total, count = total + float(objective(model, batch)[0]) * targets, count + targets
        model.train(training)
        return total / count
