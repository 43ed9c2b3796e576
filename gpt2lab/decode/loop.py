"""The generation loop: prompts padded on the left, a static cache, one forward pass per new token."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.decode.interface import (
    Decoded,
    Decoder,
    Finish,
    Generators,
    Limits,
    OnToken,
    PromptRow,
    row_generators,
)
from gpt2lab.decode.reading import check_prompts, padded_embeddings, padded_inputs
from gpt2lab.model import Transformer


@dataclass(frozen=True, kw_only=True)
class StepDecoder(Decoder, ABC):
    """A decoder that chooses each token from the logits of its own step."""

    @abstractmethod
    def process(self, logits: Tensor, tokens: Tensor, real: Tensor) -> Tensor:
        """Return the logits to choose from, leaving the given ones as they are.

        logits [batch, vocab] float32, of a float64 model float64; tokens [batch, length] is all so far, prompt included;
        real is False at padding, and where a prompt of embeddings has no token.
        """

    @abstractmethod
    def pick(self, logits: Tensor, draws: "Draws") -> Tensor:
        """Choose a token for each row, [batch] int64; logits [batch, vocab] are processed."""

    def decode(
        self,
        model: Transformer,
        prompts: Sequence[PromptRow],
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
        record = Record(len(prompts)) if logprobs else None
        with deciding(model):
            text = Continuation(model, prompts, limits, needs_tokens=self.needs_prompt_tokens)
            draws = Draws(row_generators(generator, len(prompts)), text.device)
            force = _Forced(forced, len(prompts), limits, text.device)
            logits = text.start()
            while True:
                raw = logits.to(torch.promote_types(logits.dtype, torch.float32))
                ready = self.process(hold_back(raw, rows.step, limits), *text.so_far())
                chosen = force.at(rows.step, self.pick(ready, draws))
                refuse_nan(raw, chosen)
                if record is not None:
                    record.add(rows.batch, raw, ready, chosen)
                rows.take(chosen.tolist())
                if not rows.running:
                    break
                chosen = rows.padded(chosen)
                # Half of the work is for rows that have ended; but a tap joins what it reads over all steps.
                if 2 * len(rows.running) <= len(rows.batch) and model.open_tap is None:
                    kept = rows.drop_ended(text.device)
                    chosen = chosen[kept]
                    for part in (text, draws, force):
                        part.select(kept)
                logits = text.step(chosen)
        return rows.decoded(record)


class Continuation:
    """Prompts of unequal length, padded on the left, and the cache that continues them all at once.

    `tokens` [batch, capacity] holds prompts and new tokens, `real` is False at padding, `length` counts the columns in
    use, `hidden` [batch, time, d_model] are the states of the latest forward pass. A prompt of embeddings has the
    pad id in place of its tokens. LabError: see `reading.check_prompts`.
    A decoder that looks at several candidates in one pass asks for `spare` slots of the cache, and rewinds it.
    """

    def __init__(
        self,
        model: Transformer,
        prompts: Sequence[PromptRow],
        limits: Limits,
        *,
        spare: int = 0,
        needs_tokens: bool = False,
    ) -> None:
        check_prompts(model, prompts, limits, reads_last=spare > 0, needs_tokens=needs_tokens)
        self.model, self.device = model, model.device
        self.width = max(len(prompt) for prompt in prompts)
        capacity = self.width + limits.max_new_tokens
        known = [[False] * (self.width - len(prompt)) + [True] * len(prompt) for prompt in prompts]
        self.tokens = torch.full((len(prompts), capacity), limits.pad, dtype=torch.int64, device=self.device)
        self.embeddings = padded_embeddings(model, prompts, self.width)
        self.extra_inputs = padded_inputs(model, prompts, self.width)
        if self.embeddings is None:
            rows = [[limits.pad] * (self.width - len(prompt)) + list(prompt) for prompt in prompts]
            self.tokens[:, : self.width] = torch.tensor(rows, device=self.device)
        self.real = torch.ones(len(prompts), capacity, dtype=torch.bool, device=self.device)
        self.real[:, : self.width] = torch.tensor(known, device=self.device)
        self.padded = any(len(prompt) < self.width for prompt in prompts)
        self.length = self.width
        # The last token is never fed to the model, so it needs no slot.
        self.cache = model.new_cache(batch=len(prompts), length=capacity - 1 + spare)
        self.hidden = torch.empty(0)

    def start(self) -> Tensor:
        """Read the prompts and return the logits of the first new token, [batch, vocab]."""
        mask = self.real[:, : self.width] if self.padded else None
        tokens = self.tokens[:, : self.width] if self.embeddings is None else None
        self.hidden = self.model.hidden(
            tokens,
            embeddings=self.embeddings,
            attention_mask=mask,
            extra_inputs=self.extra_inputs,
            cache=self.cache,
        )
        return self.model.unembed(self.hidden[:, -1:])[:, 0]

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to every row, [batch] int64, and return the logits of the next, [batch, vocab]."""
        self.append(tokens)
        self.hidden = self.model.hidden(tokens[:, None], cache=self.cache)
        return self.model.unembed(self.hidden)[:, 0]

    def append(self, tokens: Tensor) -> None:
        """Append one token to every row, [batch] int64, that the model has read already."""
        self.tokens[:, self.length] = tokens
        self.length += 1

    def so_far(self) -> tuple[Tensor, Tensor]:
        """Return all tokens and where there are any, both [batch, length]: not at padding, not in embeddings."""
        real = self.real[:, : self.length]
        if self.embeddings is not None:
            real = real & (torch.arange(self.length, device=self.device) >= self.width)
        return self.tokens[:, : self.length], real

    def select(self, rows: Tensor) -> None:
        """Let row r be a copy of what was row rows[r]; there may be more rows than before (beams) or fewer."""
        self.tokens, self.real = self.tokens[rows], self.real[rows]
        self.cache = self.cache.select(rows)

    def reorder(self, rows: Tensor) -> None:
        """Let row r go on from what was row rows[r]: `select` in place, for as many rows as before."""
        self.tokens[:, : self.length] = self.tokens[:, : self.length].index_select(0, rows)
        if self.padded:
            self.real[:, : self.width] = self.real[:, : self.width].index_select(0, rows)
        self.cache.reorder(rows)


class Rows:
    """Which rows still run, what each has said and why it ended.

    `batch` lists the rows that the model still computes, `running` those of them that have not ended.
    """

    def __init__(self, rows: int, limits: Limits, on_token: OnToken | None = None) -> None:
        self.limits, self.on_token, self.step = limits, on_token, 0
        self.tokens: list[list[int]] = [[] for _ in range(rows)]
        self.finished: list[Finish] = ["length"] * rows
        self.batch = list(range(rows))
        self.running = list(range(rows))
        self._eos = frozenset(limits.eos)

    def take(self, tokens: Sequence[int]) -> None:
        """Give every running row its next token; tokens[i] is that of row batch[i]."""
        self.step += 1
        full = self.step >= self.limits.max_new_tokens
        said = dict(zip(self.batch, tokens, strict=True))
        still = []
        for row in self.running:
            token = said[row]
            self.tokens[row].append(token)
            stopped = self.on_token is not None and self.on_token(row, token)
            if token in self._eos:
                self.finished[row] = "eos"
            elif stopped:
                self.finished[row] = "stop"
            elif not full:
                still.append(row)
        self.running = still

    def padded(self, tokens: Tensor) -> Tensor:
        """Return tokens [batch] with the pad id in rows that have ended."""
        if len(self.running) == len(self.batch):
            return tokens
        running = set(self.running)
        ended = torch.tensor([row not in running for row in self.batch], device=tokens.device)
        return tokens.masked_fill(ended, self.limits.pad)

    def drop_ended(self, device: torch.device) -> Tensor:
        """Take the rows that have ended out of the batch; return where the others stood in it, [running] int64."""
        place = {row: index for index, row in enumerate(self.batch)}
        self.batch = list(self.running)
        return torch.tensor([place[row] for row in self.running], device=device)

    def decoded(self, record: "Record | None" = None) -> Decoded:
        """Return the outcome, with log-probabilities if they were recorded."""
        if record is None:
            return Decoded(tokens=self.tokens, finished=self.finished)
        lengths = [len(tokens) for tokens in self.tokens]
        return Decoded(
            tokens=self.tokens,
            finished=self.finished,
            logprobs=_per_row(record.model, lengths),
            sampling_logprobs=_per_row(record.processed, lengths),
        )


class Record:
    """Log-probabilities of the chosen tokens, row by row."""

    def __init__(self, rows: int) -> None:
        self.model: list[list[float]] = [[] for _ in range(rows)]
        self.processed: list[list[float]] = [[] for _ in range(rows)]

    def add(self, batch: Sequence[int], raw: Tensor, processed: Tensor, chosen: Tensor) -> None:
        """Keep log p of `chosen` [batch] under both logits, each [batch, vocab]; batch names the rows."""
        for kept, logits in ((self.model, raw), (self.processed, processed)):
            picked = logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
            for row, value in zip(batch, picked.tolist(), strict=True):
                kept[row].append(value)


def _per_row(values: list[list[float]], lengths: Sequence[int]) -> list[Tensor]:
    """One tensor [new tokens] per row; what was recorded after a row's end is cut."""
    return [torch.tensor(row[:length]) for row, length in zip(values, lengths, strict=True)]


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

    def select(self, rows: Tensor) -> None:
        """Go on with some of the rows only."""
        self.generators = [self.generators[row] for row in rows.tolist()]
        self._block = self._block[rows] if self._next < self.BLOCK else self._block


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


def hold_back(logits: Tensor, step: int, limits: Limits) -> Tensor:
    """Make suppressed tokens impossible, and end tokens while a row has fewer than min_new_tokens; logits [batch, vocab]."""
    impossible = [*limits.suppressed, *(limits.suppressed_first if step == 0 else ())]
    if step < limits.min_new_tokens:
        impossible += limits.eos
    if not impossible:
        return logits
    return logits.index_fill(1, torch.tensor(impossible, device=logits.device), float("-inf"))


def refuse_nan(logits: Tensor, chosen: Tensor) -> None:
    """Raise LabError if a chosen token's logit is not a number; argmax and sampling choose one if there is any."""
    if bool(logits.gather(1, chosen[:, None]).isnan().any()):
        raise LabError(
            "the model's logits are not numbers (NaN); its weights or the tokens' embeddings hold some"
        )


class _Forced:
    """Tokens that rows say before they choose any."""

    def __init__(
        self, forced: Sequence[Sequence[int]] | None, rows: int, limits: Limits, device: torch.device
    ) -> None:
        forced = [[]] * rows if forced is None else forced
        if len(forced) != rows:
            raise LabError(
                f"forced has {len(forced)} rows for {rows} prompts; give each prompt its own, perhaps empty"
            )
        self.longest = max((len(row) for row in forced), default=0)
        if self.longest > limits.max_new_tokens:
            raise LabError(
                f"{self.longest} forced tokens are more than max_new_tokens, {limits.max_new_tokens}"
            )
        table = [[*row, *[-1] * (self.longest - len(row))] for row in forced]
        self.table = torch.tensor(table, dtype=torch.int64, device=device)

    def at(self, step: int, chosen: Tensor) -> Tensor:
        """Return the tokens of that step [batch]: forced ones where there are, else the chosen ones."""
        if step >= self.longest:
            return chosen
        return torch.where(self.table[:, step] >= 0, self.table[:, step], chosen)

    def select(self, rows: Tensor) -> None:
        """Go on with some of the rows only."""
        self.table = self.table[rows]
