"""What every decoder takes and gives back."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, Protocol, overload, runtime_checkable

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer

OnToken = Callable[[int, int], object]
"""Called as on_token(row, token) for every new token of a running row, in order; a true answer ends that row."""

Finish = Literal["eos", "stop", "length"]
"""Why a row ended: it said an end token, the caller stopped it, or max_new_tokens was reached."""

PromptRow = Sequence[int] | Tensor
"""A prompt of the loop: token ids, or embeddings [time, d_model] in their place, without positions and padding."""

ExtraInputs = Mapping[str, Sequence[Tensor] | Tensor]
"""By name, what attached architectures read beside the tokens: one entry for each prompt, [...], or [its time, ...]."""

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
    """A way of choosing tokens: a frozen keyword-only dataclass that derives from this; its fields are its options.

    The members below with a value are defaults, which a decoder overrides where it differs. What most decoders need is
    in `gpt2lab.decode.loop`: one that picks from the logits of one step derives from `StepDecoder`; one with a loop of
    its own builds it from `Continuation` (padding, cache, steps) and `Rows` (who still runs).
    """

    streams: ClassVar[bool] = True
    """Whether on_token is called while the text grows; False for a decoder that knows its tokens only at the end."""
    reads_last: ClassVar[bool] = False
    """Whether the last token, too, takes a position of the model, because the decoder reads it before choosing it."""
    other_names: ClassVar[Mapping[str, str | None]] = MappingProxyType({})
    """What another library calls the options → their names here; None for one that needs nothing done."""

    @property
    def rows_per_prompt(self) -> int:
        """Rows of the model's matrices that one prompt takes."""
        return 1

    @property
    def draws(self) -> bool:
        """Whether, with these options, the seed decides the text."""
        return True

    @property
    def needs_prompt_tokens(self) -> bool:
        """Whether, with these options, a prompt's token ids decide the text; such a decoder takes no embeddings."""
        return False

    @abstractmethod
    def decode(
        self,
        model: Transformer,
        prompts: Sequence[PromptRow],
        limits: Limits,
        *,
        generator: Generators = None,
        on_token: OnToken | None = None,
    ) -> Decoded:
        """Continue each prompt by at most limits.max_new_tokens tokens.

        prompts: all are token ids, or all are embeddings [time, d_model] as `model.embed` gives them; none is empty.
        Embeddings of tokens are continued as the tokens are. `embedded_prompts` takes padding away; `Prompts` carry
        inputs beside them, for architectures that read some.
        A row's result does not depend on the other rows, but for the rounding of bfloat16 and float16.
        The model is left as it was found.
        LabError: an empty prompt, more tokens than the model has positions, logits that are not numbers, embeddings
        for a decoder that needs_prompt_tokens.
        """
        ...


@dataclass(frozen=True)
class Prompts(Sequence[PromptRow]):
    """Prompts with inputs beside them, such as an image each; a decoder hands them on to `Continuation` as they are."""

    rows: Sequence[PromptRow]
    """The prompts themselves."""
    extra_inputs: ExtraInputs
    """Read with the prompts, in the first pass over them and in no later one."""

    def __post_init__(self) -> None:
        for name, entries in self.extra_inputs.items():
            if len(entries) != len(self.rows):
                raise LabError(
                    f"extra input {name}: {len(entries)} entries for {len(self.rows)} prompts; give one for each"
                )

    @overload
    def __getitem__(self, index: int) -> PromptRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PromptRow]: ...
    def __getitem__(self, index: int | slice) -> PromptRow | Sequence[PromptRow]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def chosen(self, indices: Sequence[int]) -> "Prompts":
        """Return some of the prompts, with their inputs."""
        inputs = {name: [entries[i] for i in indices] for name, entries in self.extra_inputs.items()}
        return Prompts([self.rows[i] for i in indices], inputs)


def embedded_prompts(embeddings: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    """Return the rows of embeddings [batch, time, d_model] as prompts, each [its time, d_model], without padding.

    mask [batch, time] is true or 1 at real places; padding may lie on either side. LabError for other shapes.
    """
    if embeddings.dim() != 3 or (mask is not None and mask.shape != embeddings.shape[:2]):
        raise LabError(
            f"embeddings are [batch, time, d_model] and their mask [batch, time], got {list(embeddings.shape)}"
            f"{'' if mask is None else f' and {list(mask.shape)}'}"
        )
    if mask is None:
        return list(embeddings)
    return [row[real] for row, real in zip(embeddings, mask.bool(), strict=True)]


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
