"""What every decoder takes and gives back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, overload, runtime_checkable

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer

OnToken = Callable[[int, int], object]
"""Called as on_token(row, token) for every new token of a running row, in order; a true answer ends that row."""

Finish = Literal["eos", "stop", "length"]
"""Why a row ended: it said an end token, the caller stopped it, or max_new_tokens was reached."""

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One source of randomness for all rows, or one for each; None stands for one with seed 0."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a row ends, whatever the decoder."""

    max_new_tokens: int = 64
    """Most tokens to add to a prompt."""
    min_new_tokens: int = 0
    """End tokens are impossible before this many new tokens."""
    eos: tuple[int, ...] = ()
    """Ids that end a row; the one that did stays in its tokens. Empty: every row gets max_new_tokens."""
    suppressed: tuple[int, ...] = ()
    """Ids that are impossible everywhere."""
    suppressed_first: tuple[int, ...] = ()
    """Ids that are impossible as the first new token."""
    pad: int = 0
    """Id that fills rows on the left of short prompts and after their end; never seen by the model's real tokens."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise LabError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise LabError(
                f"min_new_tokens must lie between 0 and max_new_tokens ({self.max_new_tokens}), "
                f"got {self.min_new_tokens}"
            )
        if any(token < 0 for token in (*self.eos, self.pad)):
            raise LabError(f"eos and pad are token ids from 0, got eos {self.eos} and pad {self.pad}")


@dataclass(frozen=True, kw_only=True)
class Decoded(Sequence[list[int]]):
    """What a decoder made of each prompt; read as a sequence it is the rows' new tokens."""

    tokens: list[list[int]]
    """New tokens of each row, the end token included."""
    finished: list[Finish]
    """Why each row ended."""
    logprobs: list[Tensor] | None = None
    """If asked for: per row [new tokens], log p of each token under the model's own softmax (nats, float32)."""
    sampling_logprobs: list[Tensor] | None = None
    """If asked for: the same after the decoder's processors, the distribution the token was drawn from."""
    scores: list[float] | None = None
    """Beam search: log p of the row divided by its length to the power of length_penalty (nats)."""

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        return self.tokens[index]

    def __len__(self) -> int:
        return len(self.tokens)


@runtime_checkable
class Decoder(Protocol):
    """A way of choosing tokens: a frozen keyword-only dataclass whose fields are its options.

    What most need is in `gpt2lab.decode.loop`: a decoder that picks from the logits of one step derives from
    `StepDecoder`; one with a loop of its own builds it from `Continuation` (padding, cache, steps) and `Rows`
    (who still runs).
    """

    def decode(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        limits: Limits,
        *,
        generator: Generators = None,
        on_token: OnToken | None = None,
    ) -> Decoded:
        """Continue each prompt (token ids, none empty) by at most limits.max_new_tokens tokens.

        A row's result does not depend on the other rows, but for the rounding of bfloat16 and float16.
        The model is left as it was found.
        LabError: an empty prompt, more tokens than the model has positions, logits that are not numbers.
        """
        ...


def row_generators(generator: Generators, rows: int) -> list[torch.Generator]:
    """Return one source of randomness for each row, so that no row's draws depend on its neighbours.

    A single generator gives each row a seed of its own, drawn in the order of the rows. LabError if there are
    generators for another number of rows, or on another device than the CPU.
    """
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    if isinstance(generator, torch.Generator):
        seeds = torch.randint(2**62, (rows,), generator=generator, device=generator.device).tolist()
        return [torch.Generator().manual_seed(seed) for seed in seeds]
    if len(generator) != rows:
        raise LabError(f"{len(generator)} generators for {rows} prompts; give one, or one for each")
    if any(one.device.type != "cpu" for one in generator):
        raise LabError(
            "decoding draws on the CPU, so that every device gives the same text; use torch.Generator()"
        )
    return list(generator)
