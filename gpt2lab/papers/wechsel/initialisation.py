"""A model with another vocabulary: all weights but the tokens' are kept, and new rows are mixed, drawn or permuted."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.papers.wechsel.alignment import AlignmentReport, align
from gpt2lab.papers.wechsel.dictionary import Pairs
from gpt2lab.papers.wechsel.mixing import Mixture, mixed_rows, mixture, random_rows
from gpt2lab.papers.wechsel.subwords import chosen_mode, token_vectors
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.special_tokens import ROLES
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.text.vector_files import Vectors

Method = Literal["wechsel", "nearest", "permuted", "transinner", "frozen", "fullrand"]
MIXED = ("wechsel", "nearest", "permuted")
"""Methods that read word vectors."""
ROWS = ("embedding.weight", "head.weight", "head.bias")
"""The tensors with a row, or an entry, for each token."""


@dataclass(frozen=True)
class Spaces:
    """The word vectors of both languages, and what aligns them."""

    source: Vectors
    target: Vectors
    pairs: Pairs
    """Pairs of the dictionary; not read where `align` is false."""
    align: bool = True
    """False: the vectors are in one space already, R = I."""
    mode: Literal["auto", "ngrams", "frequency"] = "auto"
    """How a token gets its vector; auto is n-grams if both have them, else frequency."""
    max_words: int | None = None
    """Most frequent words that frequency mode reads; None is all."""


@dataclass(frozen=True)
class Initialised:
    """The new model, and where each of its rows comes from."""

    lm: LanguageModel
    source: Tokenizer
    """The tokenizer of the model that it was made of."""
    mixed: Mixture | None = None
    """Of which source tokens each token is mixed; None for methods that read no word vectors."""
    alignment: AlignmentReport | None = None
    """How the two spaces were aligned."""
    mode: str = ""
    """How tokens got their vectors."""
    copied: tuple[str, ...] = ()
    """Special tokens whose rows are the old ones."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The new model's tokenizer."""
        assert self.lm.tokenizer is not None
        return self.lm.tokenizer

    @property
    def not_found(self) -> tuple[int, ...]:
        """Ids without a vector, whose rows were drawn, special tokens that were copied afterwards among them."""
        return () if self.mixed is None else tuple(np.flatnonzero(~self.mixed.found).tolist())

    @property
    def found_share(self) -> float:
        """Share of the ids that have a vector."""
        return float("nan") if self.mixed is None else float(self.mixed.found.mean())

    def made_of(self, id: int) -> list[tuple[str, float, float]]:
        """Return the source tokens that a token is mixed of, each with weight and similarity; none if it was drawn."""
        if self.mixed is None or not self.mixed.found[id]:
            return []
        parts = zip(self.mixed.sources[id], self.mixed.weights[id], self.mixed.similarities[id], strict=True)
        return [
            (written(self.source, int(source)), float(weight), float(alike))
            for source, weight, alike in parts
        ]

    def rows(self, ids: Sequence[int], most: int = 5) -> list[dict[str, Any]]:
        """Return the inspection table: of each id the token and `0.31 dog, 0.22 hound, ...`, the largest weights first."""
        table = []
        for id in ids:
            parts = self.made_of(id)
            mixed = ", ".join(f"{weight:.2f} {name}" for name, weight, _ in parts[:most]) or "drawn"
            table.append(
                {
                    "id": id,
                    "token": written(self.tokenizer, id),
                    "made of": "copied" if self.tokenizer.token(id) in self.copied else mixed,
                    "similarity": parts[0][2] if parts else None,
                }
            )  # fmt: skip
        return table


def written(tokenizer: Tokenizer, id: int) -> str:
    """Return a token as people read it: its text, with ␣ for a blank; as the vocabulary spells it if it has none."""
    text = tokenizer.decode([id], skip_special=False)
    if not text.strip() or "\ufffd" in text:
        return tokenizer.token(id)
    return text.replace(" ", "␣").replace("\n", "↵")


def wechsel_init(
    lm: LanguageModel,
    tokenizer: Tokenizer,
    spaces: Spaces | None = None,
    *,
    method: Method = "wechsel",
    k: int = 10,
    tau: float = 0.1,
    seed: int = 1234,
) -> Initialised:
    """Return the model with the vocabulary of `tokenizer`; `lm` stays as it is.

    wechsel: each row is a mean of those of the k source tokens nearest in `spaces`, with softmax weights of temperature tau;
    nearest: the same with k = 1; permuted: wechsel's rows dealt out at random; transinner and frozen: rows drawn from
    N(mean, std) of the old ones; fullrand: every weight of the model drawn anew. An untied head, and its bias, are made as
    the embedding is. Special tokens that both have keep their row, but for fullrand. seed: of what is drawn.
    LabError for a model without tokenizer, with architectures attached or of integers, spaces that are missing, and as
    `mixture`, `align` and `token_vectors` say.
    """
    if method not in get_args(Method):
        raise LabError(f"method {method!r}: one of {', '.join(get_args(Method))}")
    source = checked(lm)
    if method == "fullrand":
        return Initialised(LanguageModel(_drawn_anew(lm.model, tokenizer, seed), tokenizer), source)
    mixed, report, mode = None, None, ""
    if method in MIXED:
        if spaces is None:
            raise LabError(f"{method} needs word vectors of both languages and a dictionary")
        mixed, report, mode = _mixture(source, tokenizer, spaces, 1 if method == "nearest" else k, tau)
    model = _resized(lm.model, tokenizer)
    state, old = model.state_dict(), lm.model.state_dict()
    same = {name: tensor for name, tensor in old.items() if name not in ROWS}
    copied = _shared_special(source, tokenizer)
    order = _dealt(mixed, copied, seed) if method == "permuted" and mixed is not None else None
    for name in ROWS:
        if name not in state:
            continue
        table = old[name][: source.vocab_size]
        rows = _new_rows(table, mixed, tokenizer.vocab_size, seed)
        if order is not None:
            rows = rows[order]
        for new, was in copied.items():  # special tokens are copied last
            rows[new] = table[was]
        same[name] = rows
    model.load_state_dict(same)
    names = tuple(tokenizer.token(id) for id in copied)
    return Initialised(LanguageModel(model.eval(), tokenizer), source, mixed, report, mode, names)


def checked(lm: LanguageModel) -> Tokenizer:
    """Return the tokenizer of a model that can get another vocabulary. LabError if it cannot."""
    if lm.tokenizer is None:
        raise LabError(
            "wechsel reads the model's vocabulary, and this model has no tokenizer; put its tokenizer.json beside it"
        )
    if lm.model.architectures:
        raise LabError("wechsel works on a model without architectures; transfer first, then attach")
    if not lm.model.embedding.weight.is_floating_point():
        raise LabError("wechsel mixes weights, and these are stored as integers; apply dequantize first")
    return lm.tokenizer


def _mixture(
    source: Tokenizer, target: Tokenizer, spaces: Spaces, k: int, tau: float
) -> tuple[Mixture, AlignmentReport | None, str]:
    mode = chosen_mode(spaces.mode, spaces.source, spaces.target)
    report = None
    if spaces.align:
        rotation, report = align(spaces.source, spaces.target, spaces.pairs)
    one = token_vectors(source, spaces.source, mode, max_words=spaces.max_words)
    other = token_vectors(target, spaces.target, mode, max_words=spaces.max_words)
    if spaces.align:
        one = one @ rotation  # u_s <- u_s R
    found = mixture(one, other, k=k, tau=tau)
    if not found.found.any():
        warnings.warn(
            "no token of the new vocabulary has a vector: every row is drawn at random", stacklevel=3
        )
    return found, report, mode


def _new_rows(table: Tensor, mixed: Mixture | None, count: int, seed: int) -> Tensor:
    if mixed is not None:
        return mixed_rows(table, mixed, seed=seed)
    return random_rows(table, count, seed=seed).to(table.dtype).to(table.device)


def _shared_special(source: Tokenizer, target: Tokenizer) -> dict[int, int]:
    """Return new id → old id of the special tokens of the source that the target has too, by how they are written."""
    roles = {getattr(source, role) for role in ROLES} - {None}
    found = {target.id(source.token(old)): old for old in sorted(source.special_ids | roles)}
    return {new: old for new, old in found.items() if new is not None}


def _dealt(mixed: Mixture, copied: dict[int, int], seed: int) -> Tensor:
    """Return an order of all rows in which those that were mixed change places among themselves at random."""
    order = np.arange(len(mixed.found))
    there = np.array([id for id in np.flatnonzero(mixed.found) if id not in copied], dtype=np.int64)
    order[there] = np.random.default_rng(seed).permutation(there)
    return torch.from_numpy(order)


def _resized(model: Transformer, tokenizer: Tokenizer) -> Transformer:
    """Return a model of the same shape with the rows and the special ids of a tokenizer; its weights are to be loaded."""
    config = model.config.replace(
        vocab_size=tokenizer.vocab_size, bos=tokenizer.bos, eos=tokenizer.eos, pad=tokenizer.pad
    )
    made = Transformer(config)
    return made.to(device=model.device, dtype=model.dtype)


def _drawn_anew(model: Transformer, tokenizer: Tokenizer, seed: int) -> Transformer:
    made = _resized(model, tokenizer).to("cpu", torch.float32)
    made.reset_parameters(torch.Generator().manual_seed(seed))
    return made.to(device=model.device, dtype=model.dtype).eval()
