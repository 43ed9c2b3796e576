"""Beam search, as in transformers, token for token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.decode.interface import Decoded, Decoder, Generators, Limits, OnToken, PromptRow
from gpt2lab.decode.loop import Continuation, deciding, hold_back
from gpt2lab.decode.processors import check_penalty, repetition_penalty
from gpt2lab.model import Transformer

NEVER = -1.0e9  # a score that no sequence reaches; finite, so that adding to it stays a number


_MOST = 1024  # each beam is a row of the batch with a cache of its own


@dataclass(frozen=True, kw_only=True)
class Beam(Decoder):
    """Keep the `beams` best unfinished sequences by log p, and the `beams` best finished ones by score.

    score(y) = log p(y) / |y|^length_penalty, |y| in new tokens, the end token included (the length normalisation of
    Wu et al. 2016, eq. 14, without its offset). The best score wins.
    """

    streams: ClassVar[bool] = False
    """Tokens are known only at the end."""

    beams: int = 4
    """Sequences kept at each step; 1 is greedy decoding."""
    length_penalty: float = 1.0
    """Exponent of the length by which log p is divided: above 0 favours longer sequences, below 0 shorter ones."""
    early_stopping: bool | Literal["never"] = False
    """When a prompt is done: true, with `beams` finished sequences; false, when the best running one at its present
    length scores below them; never, when it could not beat them at any length that is allowed."""
    repetition_penalty: float = 1.0
    """Makes tokens that already occurred less likely if above 1."""

    def __post_init__(self) -> None:
        if not 1 <= self.beams <= _MOST:
            limit = "at least 1" if self.beams < 1 else f"at most {_MOST:,}"
            raise LabError(f"beam: beams must be {limit}, got {self.beams}")
        check_penalty("beam", self.repetition_penalty)

    @property
    def draws(self) -> bool:
        """Nothing is drawn."""
        return False

    @property
    def needs_prompt_tokens(self) -> bool:
        """A repetition penalty counts the prompt's tokens."""
        return self.repetition_penalty != 1.0

    @property
    def rows_per_prompt(self) -> int:
        """Rows of the model's batch that one prompt takes."""
        return self.beams

    def decode(
        self,
        model: Transformer,
        prompts: Sequence[PromptRow],
        limits: Limits,
        *,
        generator: Generators = None,
        on_token: OnToken | None = None,
    ) -> Decoded:
        """Continue each prompt as `Decoder.decode` says; nothing is drawn, and on_token is refused."""
        if on_token is not None:
            raise LabError(
                "beam search knows its tokens only at the end and cannot stream them; use greedy or sampling"
            )
        with deciding(model):
            text = Continuation(model, prompts, limits, needs_tokens=self.needs_prompt_tokens)
            logits = text.start().repeat_interleave(self.beams, dim=0)
            text.select(torch.arange(len(prompts), device=text.device).repeat_interleave(self.beams))
            search = _Search(self, len(prompts), limits, text.device)
            while True:
                beam, token = search.step(self._logp(logits, text, search.length, limits))
                if search.done:
                    break
                if not search.in_place:
                    text.reorder(beam)
                logits = text.step(token)
        return search.decoded()

    def _logp(self, logits: Tensor, text: Continuation, step: int, limits: Limits) -> Tensor:
        """log p of every next token, [batch · beams, vocab]; penalties act on these, as in transformers."""
        logp = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        if self.repetition_penalty != 1.0:
            logp = repetition_penalty(logp, *text.so_far(), self.repetition_penalty)
        return hold_back(logp, step, limits)


class _Search:
    """Running and finished sequences of every prompt.

    Tensors are [batch, beams] and [batch, beams, max_new_tokens]. A prompt that is decided is frozen: it takes no more
    finished sequences, so that its outcome does not depend on how long the others go on.
    """

    def __init__(self, options: Beam, batch: int, limits: Limits, device: torch.device) -> None:
        self.options, self.limits, self.length = options, limits, 0
        self.first_wins = (
            options.early_stopping is True or options.beams == 1
        )  # a single beam is greedy decoding
        shape = (batch, options.beams)
        self.eos = torch.tensor(limits.eos, dtype=torch.int64, device=device)
        self.running = torch.full((*shape, limits.max_new_tokens), limits.pad, device=device)
        self.running_score = torch.full(shape, NEVER, device=device)
        self.running_score[:, 0] = 0.0  # all beams start equal: only the first may branch
        self.best = self.running.clone()
        self.best_score = torch.full(shape, NEVER, device=device)
        self.best_length = torch.zeros(shape, dtype=torch.int64, device=device)
        self.open = torch.ones(batch, 1, dtype=torch.bool, device=device)
        """Whether a prompt's running sequences may still beat its finished ones."""
        self.first = torch.arange(batch, device=device)[:, None] * options.beams
        self.done = self.in_place = False

    def step(self, logp: Tensor) -> tuple[Tensor, Tensor]:
        """Extend by one token; logp [batch · beams, vocab] → for each new running row: the old row, and its token.

        Twice as many candidates as beams are kept (more with several end tokens), so that enough of them go on even if
        each beam's best ends.
        """
        beams, vocab = self.options.beams, logp.shape[1]
        total = (logp.view(-1, beams, vocab) + self.running_score[..., None]).flatten(1)
        keep = min(max(2, 1 + len(self.eos)) * beams, beams * vocab)
        score, index = total.topk(keep, dim=1)
        if bool(score[:, 0].isnan().any()):  # NaN ranks first
            raise LabError(
                "the model's logits are not numbers (NaN); its weights or the tokens' embeddings hold some"
            )
        beam, token = index // vocab, index % vocab
        texts = _rows(self.running, beam)
        texts[..., self.length] = token
        self.length += 1
        ended = torch.isin(token, self.eos) | (self.length == self.limits.max_new_tokens)
        self._finish(texts, score, ended)
        running_score, chosen = (score + ended * NEVER).topk(beams, dim=1)
        self.running, self.running_score = _rows(texts, chosen), running_score
        self._close(bool(ended.all()))
        beam = (beam.gather(1, chosen) + self.first).flatten()
        self.in_place = bool((beam[1:] > beam[:-1]).all())  # beam counts up: every row goes on from itself
        return beam, token.gather(1, chosen).flatten()

    def _finish(self, texts: Tensor, score: Tensor, ended: Tensor) -> None:
        """Put ended candidates among the best, if they are among the first `beams` and the prompt is still open."""
        beams = self.options.beams
        score = score / self.length**self.options.length_penalty
        if self.first_wins:
            score = score + (self.best_length > 0).all(1, keepdim=True) * NEVER
        among_first = torch.arange(score.shape[1], device=score.device) < beams
        ended = ended & among_first
        score = score + ~self.open * NEVER + ~ended * NEVER
        score, chosen = torch.cat([self.best_score, score], dim=1).topk(beams, dim=1)
        self.best_score = score
        self.best_length = torch.cat([self.best_length, ended * self.length], dim=1).gather(1, chosen)
        self.best = _rows(torch.cat([self.best, texts], dim=1), chosen)

    def _close(self, all_ended: bool) -> None:
        """Close prompts whose best running sequence can no longer win; `done` when no prompt is open."""
        options, full = self.options, self.best_length > 0
        longest = options.early_stopping == "never" and options.length_penalty > 0
        length = self.limits.max_new_tokens if longest else self.length
        hope = self.running_score[:, :1] / length**options.length_penalty
        worst = torch.where(full, self.best_score.amin(1, keepdim=True), NEVER)
        self.open = self.open & (hope > worst).any(1, keepdim=True)
        enough = self.first_wins and bool(full.all())
        self.done = all_ended or enough or not bool(self.open.any())

    def decoded(self) -> Decoded:
        """Return each prompt's best sequence."""
        lengths = self.best_length[:, 0].tolist()
        tokens = [row[:length] for row, length in zip(self.best[:, 0].tolist(), lengths, strict=True)]
        return Decoded(
            tokens=tokens,
            finished=["eos" if row and row[-1] in self.limits.eos else "length" for row in tokens],
            scores=self.best_score[:, 0].tolist(),
        )


def _rows(texts: Tensor, index: Tensor) -> Tensor:
    """Return texts[b, index[b, i]]; texts [batch, n, length], index [batch, m] → [batch, m, length]."""
    return texts.gather(1, index[..., None].expand(-1, -1, texts.shape[-1]))
