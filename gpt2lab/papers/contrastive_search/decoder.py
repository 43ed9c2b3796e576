"""Contrastive search: of the likeliest tokens, the one with the best balance of probability and novelty.

Su & Collier 2022 (arXiv 2210.14140), with V the k tokens of highest probability and h the states after the final norm:

    x_t = argmax over v in V of (1 - α) p(v | x_<t) - α max over j < t of cos(h_v, h_{x_j})

p is the softmax over the whole vocabulary, h_v the state of v when it is appended to the text, and j runs over all
earlier tokens, those of the prompt included. The published loop copies the cache k times at every step; here the k
candidates are k queries for the same place of one cache: each sees the text and itself, never another candidate. The
chosen one's keys and values stay, and its state is the input of the head, so that every token takes one forward pass.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.decode.interface import (
    Decoded,
    Decoder,
    Generators,
    Limits,
    OnToken,
    PromptRow,
    row_generators,
)
from gpt2lab.decode.loop import Continuation, Draws, Rows, deciding, hold_back, refuse_nan
from gpt2lab.decode.processors import IMPOSSIBLE, check_penalty, repetition_penalty
from gpt2lab.decode.sampling import Sampling
from gpt2lab.model import Transformer

_SMALLEST_NORM = 1e-12
_EQUALS = 32  # so many tokens as likely as the k-th are ordered without sorting the vocabulary


@dataclass(frozen=True)
class Step:
    """One step of a search: what it chose from. Rows are those of `rows`, candidates in descending probability."""

    rows: list[int]
    """Indices of the prompts that were still computed."""
    candidates: Tensor
    """Token ids, [rows, k]."""
    probabilities: Tensor
    """p(v | x_<t), [rows, k], float32 or wider."""
    penalties: Tensor
    """Largest cosine with an earlier state, [rows, k], float32 or wider; 0 where there is none to compare with."""
    scores: Tensor
    """(1 - α) p - α penalty, [rows, k]; -inf for a token that is impossible (an end token before its time)."""
    chosen: Tensor
    """Index of the candidate taken, [rows]."""


@dataclass(frozen=True, kw_only=True)
class ContrastiveSearch(Decoder):
    """Contrastive search, deterministic; α = 0 or k = 1 is greedy decoding.

    The defaults are the paper's for English; it takes k 3 or 4 in other languages and k 3, α 0.4 for code.
    """

    other_names: ClassVar[Mapping[str, str | None]] = {
        "penalty_alpha": "alpha",
        "top_k": "k",
        "penalty_scope": "scope",
        "low_memory": None,  # the cache is never copied, so there is nothing to save
    }
    """What transformers calls the options."""
    reads_last: ClassVar[bool] = True
    """The last token, too, takes a position of the model: it is read before it is chosen."""

    k: int = 5
    """Candidates at each step: the likeliest tokens."""
    alpha: float = 0.6
    """Weight of novelty against probability, from 0 to 1."""
    scope: Literal["all", "generated"] = "all"
    """Compare candidates with all earlier tokens, or only with new ones."""
    sampled: int = 0
    """First tokens that are drawn by nucleus sampling, for several texts from one prompt (diverse contrastive search)."""
    top_p: float = 0.95
    """Probability mass that those first tokens are drawn from."""
    repetition_penalty: float = 1.0
    """Above 1: lowers the probability of tokens that already occurred; acts before the softmax."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise LabError(f"contrastive-search: k must be at least 1, got {self.k}")
        if not 0.0 <= self.alpha <= 1.0:
            raise LabError(f"contrastive-search: alpha must lie in [0, 1], got {self.alpha}")
        if self.scope not in ("all", "generated"):
            raise LabError(f"contrastive-search: scope is all or generated, got {self.scope!r}")
        if self.sampled < 0 or not 0.0 < self.top_p <= 1.0:
            raise LabError("contrastive-search: sampled must not be negative, and top_p lie in (0, 1]")
        if self.sampled == 0 and self.top_p != type(self).top_p:
            raise LabError(
                f"contrastive-search: top_p {self.top_p} is of the first tokens that are drawn, and sampled is 0"
            )
        check_penalty("contrastive-search", self.repetition_penalty)

    @property
    def draws(self) -> bool:
        """Only the first tokens are drawn, if any."""
        return self.sampled > 0

    @property
    def needs_prompt_tokens(self) -> bool:
        """A repetition penalty counts the prompt's tokens."""
        return self.repetition_penalty != 1.0

    @property
    def rows_per_prompt(self) -> int:
        """Rows of the model's matrices that one prompt takes."""
        return self._read

    @property
    def _read(self) -> int:
        """Candidates that the model has to read: where novelty has no weight, only the likeliest counts."""
        return self.k if self.alpha else 1

    def decode(
        self,
        model: Transformer,
        prompts: Sequence[PromptRow],
        limits: Limits,
        *,
        generator: Generators = None,
        on_token: OnToken | None = None,
        steps: list[Step] | None = None,
    ) -> Decoded:
        """Continue each prompt as `Decoder.decode` says; `steps` is a list that gets a record of every step.

        LabError also if k exceeds the vocabulary, or the text has more tokens than the model has positions: the last new
        token, too, is read before it is chosen.
        """
        if self.k > model.config.vocab_size:
            raise LabError(
                f"contrastive-search: k {self.k} exceeds the vocabulary of {model.config.vocab_size} tokens"
            )
        rows = Rows(len(prompts), limits, on_token)
        with deciding(model):
            # The last token is read too, beside the other candidates.
            text = Continuation(model, prompts, limits, spare=self.k, needs_tokens=self.needs_prompt_tokens)
            draws = Draws(row_generators(generator, len(prompts)), text.device)
            read = self.k if steps is not None else self._read
            logits = text.start()
            states = States(text.hidden, text.real, limits.max_new_tokens)
            while True:
                probabilities, candidates, never = self._candidates(
                    read, logits, text, rows.step, limits, draws
                )
                start = text.length
                hidden = model.hidden(candidates, cache=text.cache, siblings=True)  # [batch, k, d_model]
                unit = states.unit(hidden)
                penalties = states.penalties(unit, 0 if self.scope == "all" else text.width)
                # formula: score of a candidate
                scores = (1 - self.alpha) * probabilities - self.alpha * penalties
                scores = scores.masked_fill(never, IMPOSSIBLE)
                best = scores.argmax(dim=1)  # formula: x_t; of equal scores the likelier token's: the first
                if steps is not None:
                    steps.append(Step(list(rows.batch), candidates, probabilities, penalties, scores, best))
                places = torch.arange(len(best), device=text.device)
                chosen = candidates[places, best]
                refuse_nan(scores, best)  # as they are if a logit or a state is
                rows.take(chosen.tolist())
                if not rows.running:
                    break
                text.cache.keep(start, best)
                states.append(unit[places, best])
                text.append(rows.padded(chosen))
                hidden = hidden[places, best]
                if 2 * len(rows.running) <= len(rows.batch) and model.open_tap is None:
                    kept = rows.drop_ended(text.device)
                    for part in (text, draws, states):
                        part.select(kept)
                    hidden = hidden[kept]
                logits = model.unembed(hidden[:, None])[:, 0]
            states.warn_of_zeros()
        return rows.decoded()

    def _candidates(
        self, k: int, logits: Tensor, text: Continuation, step: int, limits: Limits, draws: Draws
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities and ids of the candidates and which are impossible, each [batch, k].

        One drawn candidate in the first `sampled` steps. A k as large as the vocabulary reaches tokens that are held back.
        """
        ready = hold_back(_wide(logits), step, limits)
        if self.repetition_penalty != 1.0:
            ready = repetition_penalty(ready, *text.so_far(), self.repetition_penalty)
        probabilities = ready.softmax(-1)
        if step < self.sampled:
            nucleus = Sampling(top_p=self.top_p)
            drawn = nucleus.pick(nucleus.process(ready, *text.so_far()), draws)[:, None]
            return probabilities.gather(1, drawn), drawn, torch.zeros_like(drawn, dtype=torch.bool)
        likely, candidates = likeliest(probabilities, k)
        return likely, candidates, ready.gather(1, candidates) == IMPOSSIBLE


class States:
    """Unit-length last states of every token so far, float32 or wider, and which are real."""

    def __init__(self, hidden: Tensor, real: Tensor, room: int) -> None:
        """Take the prompts' states [batch, width, d_model]; real [batch, at least width + room] is False at padding."""
        batch, width, d_model = hidden.shape
        self.real, self.length = real, width
        self._zeros = torch.zeros((), dtype=torch.bool, device=hidden.device)
        unit = self.unit(
            hidden.masked_fill(~real[:, :width, None], 1.0)
        )  # of padding, anything: it is never compared
        self.buffer = unit.new_zeros(batch, width + room, d_model)
        self.buffer[:, :width] = unit

    def unit(self, hidden: Tensor) -> Tensor:
        """Return states at length 1, float32 or wider; one that is all zeros stays so, and its cosines are 0."""
        states = _wide(hidden)
        norms = states.norm(dim=-1, keepdim=True)
        self._zeros |= (norms < _SMALLEST_NORM).any()
        return states / norms.clamp_min(_SMALLEST_NORM)

    def warn_of_zeros(self) -> None:
        """Warn if a state was zero. Asked once at the end, because a device waits for the answer."""
        if bool(self._zeros):
            warnings.warn("contrastive-search: a state is zero; its cosines are taken as 0", stacklevel=3)

    def penalties(self, unit: Tensor, first: int) -> Tensor:
        """Return the largest cosine of candidates [batch, k, d_model] with a real state from slot `first` on, [batch, k]."""
        if first >= self.length:
            return unit.new_zeros(unit.shape[:2])
        # formula: cos(h_v, h_{x_j})
        cosines = unit @ self.buffer[:, first : self.length].transpose(1, 2)  # [batch, k, slots]
        return cosines.masked_fill(~self.real[:, None, first : self.length], float("-inf")).amax(-1)

    def append(self, unit: Tensor) -> None:
        """Add the chosen states, [batch, d_model]."""
        self.buffer[:, self.length] = unit
        self.length += 1

    def select(self, rows: Tensor) -> None:
        """Go on with some of the rows only."""
        self.buffer, self.real = self.buffer[rows], self.real[rows]


def likeliest(probabilities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest probabilities [batch, vocab] in descending order and their ids, both [batch, k].

    Of equal ones the lowest ids, as greedy decoding has it; `topk` takes any of them, and a bf16 model has many.
    """
    vocab = probabilities.shape[1]
    values, ids = probabilities.topk(min(k + _EQUALS, vocab), dim=1)  # formula: V
    if values.shape[1] < vocab and bool(
        (values[:, -1] == values[:, k - 1]).any()
    ):  # there may be lower ids outside
        values, ids = probabilities.sort(dim=1, descending=True, stable=True)
        return values[:, :k], ids[:, :k]
    ids, order = ids.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values[:, :k], ids.gather(1, order)[:, :k]


def _wide(x: Tensor) -> Tensor:
    """Return x in float32, or in its own type if that is wider: scores may differ by 1e-4 only."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
