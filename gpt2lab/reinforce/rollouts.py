"""Texts that a policy has written, and what a model says of their tokens.

A batch is laid out once: prompts padded on the left, so that all new tokens begin in one column, and new tokens padded
on the right. Everything about new tokens is [rows, steps], and `mask` is true up to the token that ended the text,
itself included.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.decode.generate import Generation, row_generator
from gpt2lab.decode.interface import Decoded, Finish, Limits
from gpt2lab.decode.loop import StepDecoder, hold_back
from gpt2lab.decode.packed import pack
from gpt2lab.decode.prompts import added_text
from gpt2lab.decode.reading import check_prompts
from gpt2lab.decode.sampling import Sampling
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.text.encoding import padded
from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Continuations:
    """Prompts and the tokens after them, as a model reads them."""

    tokens: Tensor
    """[rows, start + steps] int64."""
    attention_mask: Tensor
    """[rows, start + steps] bool, true at real tokens."""
    mask: Tensor
    """[rows, steps] bool, true at real new tokens."""

    @property
    def start(self) -> int:
        """The column of the first new token."""
        return self.tokens.shape[1] - self.mask.shape[1]

    @property
    def new_tokens(self) -> Tensor:
        """[rows, steps] int64, the pad id where the mask is false."""
        return self.tokens[:, self.start :]

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, rows: Tensor) -> Self:
        """Return some of the rows, in this order, at the same width; rows [n] int64."""
        chosen = rows.to(self.tokens.device)
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: x[chosen] for name, x in every.items() if isinstance(x, Tensor)})


def continuations(
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    *,
    pad: int = 0,
    device: torch.device | str = "cpu",
) -> Continuations:
    """Lay out prompts and what follows each, both token ids. LabError for an empty prompt, or unequal numbers of both."""
    if len(prompts) != len(texts):
        raise LabError(f"{len(prompts)} prompts for {len(texts)} texts; give each its own")
    for index, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise LabError(f"prompt {index} is empty; a model continues at least one token")
    before, real = padded(prompts, pad, "left")
    after, mask = padded(texts, pad, "right")
    return Continuations(
        tokens=torch.cat([before, after], 1).to(device),
        attention_mask=torch.cat([real, mask], 1).to(device),
        mask=mask.to(device),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollouts(Continuations):
    """Continuations that a policy has drawn. `dataclasses.replace` sets masks of one's own."""

    groups: Tensor
    """[rows] int64; rows of one number continue the same prompt."""
    logprobs: Tensor
    """[rows, steps] float32: log p of each token as recorded, under the model's own softmax; 0 where the mask is false."""
    sampling_logprobs: Tensor
    """The same under the distribution that the token was drawn from."""
    update_mask: Tensor
    """[rows, steps] bool: tokens that the policy learns from; all of `mask` unless another policy wrote some."""
    value_mask: Tensor
    """[rows, steps] bool: tokens that the critic learns from."""
    finished: tuple[Finish, ...]
    """Why each text ended."""
    decoder: StepDecoder
    """What chose the tokens."""
    limits: Limits
    """Within which limits."""

    def select(self, rows: Tensor) -> Self:
        """Return some of the rows, in this order, at the same width; rows [n] int64."""
        return replace(super().select(rows), finished=tuple(self.finished[row] for row in rows.tolist()))

    def generations(self, lm: LanguageModel) -> list[Generation]:
        """Return the rows as prompts and texts, as `generate` does; texts are empty if `lm` has no tokenizer."""
        rows = []
        for row, finished in enumerate(self.finished):
            prompt = self.tokens[row, : self.start][self.attention_mask[row, : self.start]].tolist()
            tokens = self.new_tokens[row][self.mask[row]].tolist()
            before = "" if lm.tokenizer is None else lm.tokenizer.decode(prompt, skip_special=False)
            rows.append(
                Generation(
                    prompt=before,
                    text=added_text(lm.tokenizer, prompt, tokens),
                    tokens=tokens,
                    finished=finished,
                    prompt_tokens=prompt,
                    logprobs=self.logprobs[row][self.mask[row]].tolist(),
                    sampling_logprobs=self.sampling_logprobs[row][self.mask[row]].tolist(),
                )
            )
        return rows


def rollouts(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    limits: Limits,
    *,
    samples: int = 1,
    decoder: StepDecoder | None = None,
    forced: Sequence[Sequence[int]] | None = None,
    seed: int = 0,
    first: int = 0,
    batch_size: int = 64,
) -> Rollouts:
    """Continue each prompt (token ids) `samples` times; rows of one prompt stand next to each other.

    decoder: default `Sampling()`, the model's own distribution. forced: for each row tokens that are said first, whatever
    the policy would choose (roll-ins; see `rolled_in`). Row r draws from a source of its own, made of `seed` and first + r,
    so that batch_size (rows at a time) changes no text. The model is left as it was found.
    LabError: an empty prompt, more tokens than the model has positions, samples below 1.
    """
    if samples < 1 or batch_size < 1:
        raise LabError(f"samples and batch_size must be at least 1, got {samples} and {batch_size}")
    check_prompts(model, prompts, limits)
    decoder = decoder if decoder is not None else Sampling()
    every = [list(prompt) for prompt in prompts for _ in range(samples)]
    if forced is not None and len(forced) != len(every):
        raise LabError(
            f"forced has {len(forced)} rows for {len(every)}; give each row its own, perhaps empty"
        )
    packed = pack(model, rows=min(batch_size, len(every)), weights="auto", steps=limits.max_new_tokens)
    found: list[Decoded] = []
    for begin in range(0, len(every), batch_size):
        part = slice(begin, begin + batch_size)
        found.append(
            decoder.decode(
                packed,
                every[part],
                limits,
                generator=[row_generator(seed, first + begin + i) for i in range(len(every[part]))],
                forced=None if forced is None else forced[part],
                logprobs=True,
            )
        )
    texts = [row for decoded in found for row in decoded.tokens]
    laid = continuations(every, texts, pad=limits.pad, device=model.device)
    return Rollouts(
        tokens=laid.tokens,
        attention_mask=laid.attention_mask,
        mask=laid.mask,
        groups=torch.arange(len(prompts), device=model.device).repeat_interleave(samples),
        logprobs=_recorded([row for one in found for row in one.logprobs or ()], laid),
        sampling_logprobs=_recorded([row for one in found for row in one.sampling_logprobs or ()], laid),
        update_mask=laid.mask,
        value_mask=laid.mask,
        finished=tuple(reason for decoded in found for reason in decoded.finished),
        decoder=decoder,
        limits=limits,
    )


def _recorded(rows: Sequence[Tensor], laid: Continuations) -> Tensor:
    """Recorded numbers, one tensor a row, in the layout of the batch; [rows, steps]."""
    table = torch.zeros(laid.mask.shape, dtype=torch.float32)
    for row, numbers in enumerate(rows):
        table[row, : len(numbers)] = numbers
    return table.to(laid.mask.device)


def rolled_in(first: Rollouts, switches: Sequence[int]) -> list[list[int]]:
    """Return the first `switches[row]` new tokens of each row, as `forced` of the rollouts that continue them.

    Whoever wrote them, the tokens before a row's switch are `where_rolled_in` of the result. LabError for a switch behind
    the end of its row.
    """
    lengths = first.mask.sum(1).tolist()
    if len(switches) != len(lengths) or any(not 0 <= h <= n for h, n in zip(switches, lengths, strict=False)):
        raise LabError("a switch for each row, between 0 and the length of its text, is needed")
    return [row[:switch] for row, switch in zip(first.new_tokens.tolist(), switches, strict=True)]


def where_rolled_in(made: Rollouts, switches: Sequence[int]) -> Tensor:
    """Return where tokens stand that were forced, bool [rows, steps]; the others of `mask` are the policy's own."""
    steps = torch.arange(made.mask.shape[1], device=made.mask.device)
    return made.mask & (steps < torch.tensor(list(switches), device=made.mask.device)[:, None])


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenScores:
    """What a model says of the new tokens of a batch; differentiable where gradients are on."""

    logprobs: Tensor
    """log p of each under the model's own softmax, [rows, steps], at least float32; 0 where the mask is false."""
    sampling: Tensor | None
    """The same after the processors and limits of the decoder that drew them; None if it was not asked for."""
    entropy: Tensor | None
    """H of that distribution, or else of the model's own (nats), [rows, steps]; None if it was not asked for."""
    states: Tensor
    """Last states of the places before each token, which a value head reads; [rows, steps, d_model]."""


def score_tokens(
    model: Transformer, batch: Continuations, *, sampling: bool = False, entropy: bool = False
) -> TokenScores:
    """Return log-probabilities of a batch's new tokens, each given all before it, from one forward pass.

    sampling: under the distribution that they were drawn from too, exactly what `rollouts` records; a token that this
    model would never draw has -inf. LabError: sampling of texts that no decoder has drawn, a model that is not causal,
    log-probabilities that are NaN.
    """
    model.config.require_causal("scoring continuations")
    hidden = model.hidden(batch.tokens, attention_mask=batch.attention_mask)
    states = hidden[:, batch.start - 1 : -1]  # [rows, steps, d_model]: the places before the new tokens
    if sampling and not isinstance(batch, Rollouts):
        raise LabError("only rollouts have a sampling distribution; score other texts without it")
    drawn: Tensor | None = None
    spread: Tensor | None = None
    if sampling and isinstance(batch, Rollouts) and not _is_plain(batch):
        logprobs, drawn, spread = _processed(model, states, batch)
    elif entropy:
        logprobs, spread = _whole(model, states, batch)
    else:
        targets = batch.new_tokens[batch.mask]
        losses = model.cross_entropy(states[batch.mask], targets, reduction="none")
        logprobs = _placed(-losses, batch.mask)
    if bool(logprobs.isnan().any()):
        raise LabError(
            "the model's log-probabilities are not numbers (NaN); its weights hold some, or training diverged"
        )
    return TokenScores(
        logprobs=logprobs,
        sampling=(logprobs if drawn is None else drawn) if sampling else None,
        entropy=spread if entropy else None,
        states=states,
    )


def _is_plain(batch: Rollouts) -> bool:
    """Whether texts were drawn from the model's own distribution, nothing held back."""
    limits = batch.limits
    held = (limits.min_new_tokens and limits.eos) or limits.suppressed or limits.suppressed_first
    return batch.decoder == Sampling() and not held


def _whole(model: Transformer, states: Tensor, batch: Continuations) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies under the model's own softmax, [rows, steps]."""
    logits = model.unembed(states[batch.mask])  # [tokens, vocab]
    chosen, entropy = _chosen(_wide(logits), batch.new_tokens[batch.mask])
    return _placed(chosen, batch.mask), _placed(entropy, batch.mask)


def _processed(model: Transformer, states: Tensor, batch: Rollouts) -> tuple[Tensor, Tensor, Tensor]:
    """log p under the model's softmax and after the decoder's processors, and the latter's entropy; each [rows, steps].

    The processors are given what they were given when the token was drawn: the logits of one step, and all before it.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in range(batch.mask.shape[1]):
        end = batch.start + step
        raw, tokens = _wide(model.unembed(states[:, step])), batch.tokens[:, end]
        held = hold_back(raw, step, batch.limits)
        ready = batch.decoder.process(held, batch.tokens[:, :end], batch.attention_mask[:, :end])
        found.append((_chosen(raw, tokens)[0], *_chosen(ready, tokens)))
    plain, drawn, entropy = (
        torch.where(batch.mask, torch.stack(column, 1), 0.0) for column in zip(*found, strict=True)
    )
    return plain, drawn, entropy


def _chosen(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """log p of the tokens and H = -Σ p log p of the rows; logits [n, vocab] → both [n]."""
    logp = logits.log_softmax(-1)
    terms = torch.where(
        logp.isfinite(), logp, 0.0
    )  # p log p of an impossible token is 0, and so is its gradient
    return logp.gather(-1, tokens[:, None])[:, 0], -(logp.exp() * terms).sum(-1)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _placed(values: Tensor, mask: Tensor) -> Tensor:
    """Put the values of real tokens [tokens] at their places in [rows, steps]."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)


@torch.no_grad()
def sequence_logprobs(model: Transformer, batch: Continuations, *, average: bool = False) -> Tensor:
    """Return Σ_t log p(y_t | x, y_<t) of each row in evaluation mode, [rows]; with `average` over its number of tokens."""
    with evaluating(model):
        return summed(score_tokens(model, batch).logprobs, batch.mask, average=average)


def summed(logprobs: Tensor, mask: Tensor, *, average: bool = False) -> Tensor:
    """Return the sum of each row, or its mean over the places of the mask; [rows, steps] → [rows], 0 without any."""
    total = torch.where(mask, logprobs, 0.0).sum(1)
    return total / mask.sum(1).clamp_min(1) if average else total
