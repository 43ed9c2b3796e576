"""The generation loop: prompts padded on the left, a static cache, one forward pass per new token."""

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.decode.interface import Decoded, Finish, Generators, Limits, OnToken, row_generators
from gpt2lab.model import KeyValueCache, Transformer


@dataclass(frozen=True, kw_only=True)
class StepDecoder(ABC):
    """A decoder that chooses each token from the logits of its own step."""

    @abstractmethod
    def process(self, logits: Tensor, tokens: Tensor, real: Tensor) -> Tensor:
        """Return the logits to choose from, leaving the given ones as they are.

        logits [batch, vocab] float32; tokens [batch, length] is all so far, prompt included; real is False at padding.
        """

    @abstractmethod
    def pick(self, logits: Tensor, draws: "Draws") -> Tensor:
        """Choose a token for each row, [batch] int64; logits [batch, vocab] are processed."""

    def decode(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        limits: Limits,
        *,
        generator: Generators = None,
        on_token: OnToken | None = None,
        forced: Sequence[Sequence[int]] | None = None,
        logprobs: bool = False,
    ) -> Decoded:
        """Continue each prompt as `Decoder.decode` says.

        forced: tokens per row that are said first, whatever the decoder would choose; they count as new tokens and get
        log-probabilities. logprobs: return log p of every new token under the model and under the processed logits.
        """
        rows = Rows(len(prompts), limits, on_token)
        record = Record() if logprobs else None
        with deciding(model):
            text = Continuation(model, prompts, limits)
            draws = Draws(row_generators(generator, len(prompts)), text.device)
            force = _forced(forced, len(prompts), limits, text.device)
            logits = text.start()
            while True:
                raw = logits.float()
                ready = self.process(hold_back(raw, rows.step, limits), *text.so_far())
                chosen = force(rows.step, self.pick(ready, draws))
                refuse_nan(raw, chosen)
                if record is not None:
                    record.add(raw, ready, chosen)
                rows.take(chosen.tolist())
                if not rows.running:
                    break
                logits = text.step(rows.padded(chosen))
        return rows.decoded(record)


class Continuation:
    """Prompts of unequal length, padded on the left, and the cache that continues them all at once.

    `tokens` [batch, capacity] holds prompts and new tokens, `real` is False at padding, `length` counts the columns in
    use, `hidden` [batch, time, d_model] are the states of the latest forward pass. LabError: an empty prompt, or
    one that with its new tokens has more tokens than the model has positions.
    """

    def __init__(self, model: Transformer, prompts: Sequence[Sequence[int]], limits: Limits) -> None:
        check_prompts(model, prompts, limits)
        self.model, self.device = model, model.device
        self.width = max(len(prompt) for prompt in prompts)
        capacity = self.width + limits.max_new_tokens
        rows = [[limits.pad] * (self.width - len(prompt)) + list(prompt) for prompt in prompts]
        known = [[False] * (self.width - len(prompt)) + [True] * len(prompt) for prompt in prompts]
        self.tokens = torch.full((len(prompts), capacity), limits.pad, dtype=torch.int64, device=self.device)
        self.tokens[:, : self.width] = torch.tensor(rows, device=self.device)
        self.real = torch.ones(len(prompts), capacity, dtype=torch.bool, device=self.device)
        self.real[:, : self.width] = torch.tensor(known, device=self.device)
        self.padded = any(len(prompt) < self.width for prompt in prompts)
        self.length = self.width
        self.cache = new_cache(model, batch=len(prompts), length=capacity - 1)  # the last token is never fed
        self.hidden = torch.empty(0)

    def start(self) -> Tensor:
        """Read the prompts and return the logits of the first new token, [batch, vocab]."""
        mask = self.real[:, : self.width] if self.padded else None
        self.hidden = self.model.hidden(self.tokens[:, : self.width], attention_mask=mask, cache=self.cache)
        return self.model.unembed(self.hidden[:, -1:])[:, 0]

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to every row, [batch] int64, and return the logits of the next, [batch, vocab]."""
        self.tokens[:, self.length] = tokens
        self.length += 1
        self.hidden = self.model.hidden(tokens[:, None], cache=self.cache)
        return self.model.unembed(self.hidden)[:, 0]

    def so_far(self) -> tuple[Tensor, Tensor]:
        """Return all tokens and where they are real, both [batch, length]."""
        return self.tokens[:, : self.length], self.real[:, : self.length]

    def repeat(self, times: int) -> None:
        """Let each row become `times` neighbouring rows (beams); the prompt's keys and values are copied."""
        rows = torch.arange(self.tokens.shape[0], device=self.device).repeat_interleave(times)
        self.tokens, self.real = self.tokens[rows], self.real[rows]
        self.cache = repeated(self.cache, rows)

    def reorder(self, rows: Tensor) -> None:
        """Let row r go on from what was row rows[r]."""
        self.tokens[:, : self.length] = self.tokens[:, : self.length].index_select(0, rows)
        if self.padded:
            self.real[:, : self.width] = self.real[:, : self.width].index_select(0, rows)
        self.cache.reorder(rows)


class Rows:
    """Which rows still run, what each has said and why it ended."""

    def __init__(self, batch: int, limits: Limits, on_token: OnToken | None = None) -> None:
        self.limits, self.on_token, self.step = limits, on_token, 0
        self.tokens: list[list[int]] = [[] for _ in range(batch)]
        self.finished: list[Finish] = ["length"] * batch
        self.running = list(range(batch))
        """Rows that have not ended, in order."""
        self._ended: Tensor | None = None
        self._eos = frozenset(limits.eos)

    def take(self, tokens: Sequence[int]) -> None:
        """Give every running row its next token, tokens[row]; those of ended rows are not looked at."""
        self.step += 1
        ended = self.step >= self.limits.max_new_tokens
        still = []
        for row in self.running:
            token = tokens[row]
            self.tokens[row].append(token)
            stopped = self.on_token is not None and self.on_token(row, token)
            if token in self._eos:
                self.finished[row] = "eos"
            elif stopped:
                self.finished[row] = "stop"
            elif not ended:
                still.append(row)
        if len(still) < len(self.running):
            self._ended = None
        self.running = still

    def padded(self, tokens: Tensor) -> Tensor:
        """Return tokens [batch] with the pad id in rows that have ended."""
        if len(self.running) == len(self.tokens):
            return tokens
        if self._ended is None:
            running = set(self.running)
            self._ended = torch.tensor(
                [row not in running for row in range(len(self.tokens))], device=tokens.device
            )
        return tokens.masked_fill(self._ended, self.limits.pad)

    def decoded(self, record: "Record | None" = None) -> Decoded:
        """Return the outcome, with log-probabilities if they were recorded."""
        if record is None:
            return Decoded(tokens=self.tokens, finished=self.finished)
        lengths = [len(tokens) for tokens in self.tokens]
        return Decoded(
            tokens=self.tokens,
            finished=self.finished,
            logprobs=record.rows(record.model, lengths),
            sampling_logprobs=record.rows(record.processed, lengths),
        )


class Record:
    """Log-probabilities of the chosen tokens, step by step."""

    def __init__(self) -> None:
        self.model: list[Tensor] = []
        self.processed: list[Tensor] = []

    def add(self, raw: Tensor, processed: Tensor, chosen: Tensor) -> None:
        """Keep log p of `chosen` [batch] under both logits, each [batch, vocab]."""
        for kept, logits in ((self.model, raw), (self.processed, processed)):
            picked = logits.gather(1, chosen[:, None])[:, 0]
            kept.append(picked - logits.logsumexp(-1))

    def rows(self, steps: list[Tensor], lengths: Sequence[int]) -> list[Tensor]:
        """Return one tensor [new tokens] per row, as ordinary tensors that may enter a loss."""
        table = torch.stack(steps, dim=1).clone()  # [batch, steps]; a copy made outside inference mode
        return [table[row, :length] for row, length in enumerate(lengths)]


class Draws:
    """Uniform random numbers, each row's from its own generator.

    They are drawn on the CPU in float64 and in blocks of a fixed size, so that a row's n-th number depends on nothing
    but its generator and n.
    """

    BLOCK = 64

    def __init__(self, generators: Sequence[torch.Generator], device: torch.device) -> None:
        self.generators, self.device = generators, device
        self._block = torch.empty(0)
        self._next = self.BLOCK

    def uniform(self) -> Tensor:
        """Return a number in [0, 1) for each row, [batch, 1] float64."""
        if self._next == self.BLOCK:
            drawn = [torch.rand(self.BLOCK, generator=one, dtype=torch.float64) for one in self.generators]
            self._block, self._next = torch.stack(drawn).to(self.device), 0
        self._next += 1
        return self._block[:, self._next - 1 : self._next]


@contextlib.contextmanager
def deciding(model: Transformer) -> Iterator[None]:
    """Switch off dropout and gradients; afterwards every module trains or not as before."""
    training = [module for module in model.modules() if module.training]
    # Values that a tap keeps may later enter a loss, which tensors made in inference mode cannot.
    mode = torch.inference_mode() if model.open_tap is None else torch.no_grad()
    for module in training:
        module.training = False
    try:
        with mode:
            yield
    finally:
        for module in training:
            module.training = True


def check_prompts(model: Transformer, prompts: Sequence[Sequence[int]], limits: Limits) -> None:
    """Raise LabError unless there are prompts, none is empty and all fit the model's positions with their new tokens."""
    if not prompts:
        raise LabError("no prompts to continue")
    config = model.config
    for index, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise LabError(f"prompt {index} is empty; a model continues at least one token")
        # The last new token is never fed to the model, so it needs no position.
        fits = config.max_positions - len(prompt) + 1
        if config.positions != "none" and limits.max_new_tokens > fits:
            raise LabError(
                f"prompt {index} has {len(prompt)} tokens and the model {config.max_positions} positions: "
                f"{max(fits, 0)} new tokens fit, not {limits.max_new_tokens}"
            )


def new_cache(model: Transformer, *, batch: int, length: int) -> KeyValueCache:
    """Return an empty cache: the model's own kind (`model.new_cache`) where it has one, else a `KeyValueCache`."""
    make = getattr(model, "new_cache", None)
    if make is None:
        return KeyValueCache(model.config, batch=batch, length=length, device=model.device, dtype=model.dtype)
    cache: KeyValueCache = make(batch=batch, length=length)
    return cache


def repeated(cache: KeyValueCache, rows: Tensor) -> KeyValueCache:
    """Return a cache whose row r is a copy of row rows[r]; there may be more rows than before."""
    new = copy.copy(cache)
    new.keys = [tensor.index_select(0, rows) for tensor in cache.keys]
    new.values = [tensor.index_select(0, rows) for tensor in cache.values]
    new.attention = cache.attention.index_select(0, rows)
    return new


def hold_back(logits: Tensor, step: int, limits: Limits) -> Tensor:
    """Make end tokens impossible while a row has fewer than min_new_tokens; logits [batch, vocab]."""
    if step >= limits.min_new_tokens or not limits.eos:
        return logits
    return logits.index_fill(1, torch.tensor(limits.eos, device=logits.device), float("-inf"))


def refuse_nan(logits: Tensor, chosen: Tensor) -> None:
    """Raise LabError if a chosen token's logit is not a number; argmax and sampling choose one if there is any."""
    if bool(logits.gather(1, chosen[:, None]).isnan().any()):
        raise LabError(
            "the model's logits are not numbers (NaN); its weights or the tokens' embeddings hold some"
        )


def _forced(
    forced: Sequence[Sequence[int]] | None, rows: int, limits: Limits, device: torch.device
) -> Callable[[int, Tensor], Tensor]:
    """Return a function (step, chosen) → chosen, with the forced tokens of that step in place."""
    if forced is None:
        return lambda step, chosen: chosen
    if len(forced) != rows:
        raise LabError(
            f"forced has {len(forced)} rows for {rows} prompts; give each prompt its own, perhaps empty"
        )
    longest = max(len(row) for row in forced)
    if longest > limits.max_new_tokens:
        raise LabError(f"{longest} forced tokens are more than max_new_tokens, {limits.max_new_tokens}")
    table = torch.tensor(
        [[*row, *[-1] * (longest - len(row))] for row in forced], device=device, dtype=torch.int64
    )

    def force(step: int, chosen: Tensor) -> Tensor:
        return torch.where(table[:, step] >= 0, table[:, step], chosen) if step < longest else chosen

    return force
