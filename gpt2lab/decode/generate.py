"""Text from a language model: prompts in, continuations out."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, overload

import torch
from torch import Tensor

from gpt2lab.base import settings
from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.progress import Progress, progress
from gpt2lab.base.registry import part
from gpt2lab.decode.interface import (
    Decoded,
    Decoder,
    ExtraInputs,
    Finish,
    Limits,
    PromptRow,
    Prompts,
)
from gpt2lab.decode.loop import StepDecoder
from gpt2lab.decode.packed import Weights, pack
from gpt2lab.decode.prompts import (
    Prompt,
    added_text,
    end_tokens,
    need_tokenizer,
    pad_token,
    prompt_row,
    suppressed_tokens,
)
from gpt2lab.decode.reading import check_prompts
from gpt2lab.decode.transcript import Transcript
from gpt2lab.model import Transformer
from gpt2lab.text.language_model import LanguageModel

Stream = Callable[[int, str], object]
"""Called as stream(index of the prompt, new piece of its text)."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A prompt and how it went on; as a string, both."""

    prompt: str
    """The prompt as it was given; of token ids their text, with the special tokens among them, empty without a tokenizer
    and for embeddings."""
    text: str
    """The new text, without special tokens."""
    tokens: list[int]
    """The new tokens, the end token included; with a stop string, up to the token that completes it."""
    finished: Finish
    """Why it ended: "eos" (an end token), "stop" (a stop string) or "length" (max_new_tokens)."""
    prompt_tokens: list[int]
    """What the model was given; empty for embeddings."""
    logprobs: list[float] | None = None
    """If asked for: log p of each new token under the model's own distribution (nats)."""
    sampling_logprobs: list[float] | None = None
    """If asked for: the same under the distribution it was drawn from."""
    score: float | None = None
    """Beam search: length-normalised log p (nats)."""

    def __str__(self) -> str:
        return self.prompt + self.text


@overload
def generate(lm: LanguageModel, prompts: str, **settings: Any) -> Generation: ...
@overload
def generate(lm: LanguageModel, prompts: Sequence[Prompt], **settings: Any) -> list[Generation]: ...
def generate(
    lm: LanguageModel,
    prompts: str | Sequence[Prompt],
    *,
    decoder: str | Decoder = "greedy",
    max_new_tokens: int = 64,
    min_new_tokens: int = 0,
    stop: str | Sequence[str] = (),
    keep_stop: bool = False,
    stop_at_eos: bool = True,
    seed: int = 0,
    batch_size: int = 16,
    stream: Stream | None = None,
    logprobs: bool = False,
    weights: Weights = "auto",
    extra_inputs: ExtraInputs = MappingProxyType({}),
    **options: object,
) -> Generation | list[Generation]:
    """Continue one prompt, or each of several; a prompt is text, token ids, or embeddings [time, d_model].

    decoder: the name of a decoder, of the floors or of a paper, made with `options` (such as top_p=0.9), or a decoder
    object. max_new_tokens, min_new_tokens: length of the continuation in tokens. stop: strings that end a text, cut
    off before them, or after
    them with keep_stop; stop_at_eos=False goes on over end tokens, so that all texts have max_new_tokens tokens.
    seed: with the index of a prompt it decides all draws, so that batch_size (prompts at a time) changes no text. In
    bfloat16 and float16 it may: logits are rounded to 8 or 11 bits after sums whose order depends on the batch, so of
    two tokens that are about equally likely the other may be chosen. batch_size 1 then gives the text of a prompt alone.
    stream: called as stream(index, piece) while the text grows. weights: see `pack`. extra_inputs: by name, an entry
    for each prompt, for architectures that read an image or the like beside it.
    An empty prompt starts from the model's bos, or its eos. LabError: no such decoder or option, an empty prompt for a
    model that has neither, more tokens than the model has positions (it says how many fit).
    """
    chosen = build_decoder(decoder, options)
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    _check(chosen, stops, batch_size=batch_size, streamed=stream is not None, logprobs=logprobs)
    given: Sequence[Prompt] = [prompts] if isinstance(prompts, str) else prompts
    rows = [prompt_row(lm, prompt) for prompt in given]
    limits = Limits(
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        eos=end_tokens(lm) if stop_at_eos else (),
        pad=pad_token(lm),
        **suppressed_tokens(lm),
    )
    if not rows:
        return []
    prompts_read = Prompts(rows, extra_inputs)
    for alike in _alike(rows):
        check_prompts(
            lm.model,
            [rows[index] for index in alike],
            limits,
            reads_last=chosen.reads_last,
            needs_tokens=chosen.needs_prompt_tokens,
        )
    job = _Job(
        lm,
        chosen,
        prompts_read,
        limits,
        given=given,
        seed=seed,
        stops=stops,
        keep_stop=keep_stop,
        stream=stream,
        logprobs=logprobs,
    )
    results = job.run(batch_size, weights)
    return results[0] if isinstance(prompts, str) else results


def build_decoder(decoder: str | Decoder, options: Mapping[str, object]) -> Decoder:
    """Make the decoder of that name. A decoder object is returned as it is.

    LabError: a name or an option that does not exist (with the nearest), options beside a decoder object, an object
    that is no decoder.
    """
    if not isinstance(decoder, str):
        if not isinstance(decoder, Decoder):
            raise LabError(f"{type(decoder).__name__} is no decoder; derive it from gpt2lab.decode.Decoder")
        if options:
            raise LabError(
                f"{', '.join(options)}: options belong to a decoder given by name; set them on the object"
            )
        return decoder
    kind = decoder_class(decoder)
    options = _in_own_words(kind, options, decoder)
    known = [option.name for option in settings.options(kind)]
    for option in options:
        if option not in known:
            raise unknown(f"option of generate with decoder {decoder}", option, [*known, *_OWN_OPTIONS])
    made: Decoder = settings.build(kind, options, f"decoder {decoder}")
    return made


def decoder_class(name: str) -> type[Decoder]:
    """Return the class of the decoder of that name. LabError if there is none, or its class is no `Decoder`."""
    kind = part("decoder", name)
    if Decoder not in kind.__mro__:
        raise LabError(
            f"decoder {name}: {kind.__name__} does not derive from gpt2lab.decode.Decoder, which declares what "
            "generate asks of a decoder"
        )
    return kind


def _in_own_words(kind: type[Decoder], options: Mapping[str, object], decoder: str) -> dict[str, object]:
    """Return options under the decoder's own names; its `other_names` says what another library calls them (None: no-op).

    LabError for one option under two names.
    """
    named: dict[str, object] = {}
    for option, value in options.items():
        name = kind.other_names.get(option, option)
        if name in named:
            raise LabError(f"decoder {decoder}: {option} and {name} are the same option; give one of them")
        if name is not None:
            named[name] = value
    return named


class _Job:
    """One call of `generate`, after everything is checked."""

    def __init__(
        self,
        lm: LanguageModel,
        decoder: Decoder,
        prompts: Prompts,
        limits: Limits,
        *,
        given: Sequence[Prompt],
        seed: int,
        stops: tuple[str, ...],
        keep_stop: bool,
        stream: Stream | None,
        logprobs: bool,
    ) -> None:
        self.lm, self.decoder, self.prompts, self.limits, self.seed = lm, decoder, prompts, limits, seed
        self.stops, self.keep_stop, self.stream, self.logprobs = stops, keep_stop, stream, logprobs
        self.given = given
        self.advance: Callable[[int], object] = lambda count: None

    def run(self, batch_size: int, weights: Weights) -> list[Generation]:
        """Decode batch by batch; results in the order of the prompts."""
        batches = []
        for order in _alike(self.prompts):
            if self.stream is None:
                order.sort(key=lambda index: -len(self.prompts[index]))  # like with like: little padding
            batches += [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        rows = len(batches[0]) * self.decoder.rows_per_prompt
        new = self.limits.max_new_tokens
        model = pack(self.lm.model, rows=rows, weights=weights, steps=new * len(batches))
        results: dict[int, Generation] = {}
        enabled = None if self.stream is None else False
        bar: Progress[None] = progress(
            total=len(self.prompts) * new, label="generate", unit="tok", enabled=enabled
        )
        with bar:
            self.advance = bar.advance
            for batch in batches:
                results.update(self.batch(model, batch))
        return [results[index] for index in range(len(self.prompts))]

    def batch(self, model: Transformer, batch: list[int]) -> dict[int, Generation]:
        """Continue some of the prompts together."""
        transcripts = [self.transcript(index) if self.stops or self.stream else None for index in batch]

        def on_token(row: int, token: int) -> bool:
            self.advance(1)
            transcript = transcripts[row]
            return transcript is not None and transcript.push(token)

        extra = {"logprobs": True} if self.logprobs else {}
        streams = self.decoder.streams
        decoded = self.decoder.decode(
            model,
            self.prompts.chosen(batch),
            self.limits,
            generator=[row_generator(self.seed, index) for index in batch],
            on_token=on_token if streams else None,
            **extra,
        )
        if not streams:
            self.advance(sum(len(tokens) for tokens in decoded))
        self.advance(sum(self.limits.max_new_tokens - len(tokens) for tokens in decoded))  # ended early
        return {
            index: self.generation(index, row, decoded, transcripts[row] if streams else None)
            for row, index in enumerate(batch)
        }

    def transcript(self, index: int) -> Transcript:
        """Start the text of one prompt's continuation."""
        stream = self.stream
        emit = None if stream is None else lambda piece: stream(index, piece)
        tokenizer = need_tokenizer(self.lm, "stop strings and streaming")
        return Transcript(
            tokenizer, self.token_ids(index), stop=self.stops, keep_stop=self.keep_stop, emit=emit
        )

    def token_ids(self, index: int) -> list[int]:
        """Return the token ids of one prompt; none of embeddings."""
        prompt = self.prompts[index]
        return [] if isinstance(prompt, Tensor) else list(prompt)

    def shown(self, index: int) -> str:
        """Return the text of one prompt."""
        prompt = self.given[index]
        if isinstance(prompt, str):
            return prompt
        if isinstance(prompt, Tensor):
            return ""
        return "" if self.lm.tokenizer is None else self.lm.tokenizer.decode(prompt, skip_special=False)

    def generation(self, index: int, row: int, decoded: Decoded, transcript: Transcript | None) -> Generation:
        """Put one row's outcome together."""
        tokens, finished = decoded.tokens[row], decoded.finished[row]
        if transcript is None and self.stops:  # beams show their tokens only now
            transcript = self.transcript(index)
            kept = next((at + 1 for at, token in enumerate(tokens) if transcript.push(token)), len(tokens))
            tokens, finished = tokens[:kept], "stop" if transcript.stopped else finished
        prompt = self.token_ids(index)
        return Generation(
            prompt=self.shown(index),
            text=transcript.close()
            if transcript is not None
            else added_text(self.lm.tokenizer, prompt, tokens),
            tokens=tokens,
            finished=finished,
            prompt_tokens=prompt,
            logprobs=decoded.logprobs[row].tolist() if decoded.logprobs else None,
            sampling_logprobs=decoded.sampling_logprobs[row].tolist() if decoded.sampling_logprobs else None,
            score=decoded.scores[row] if decoded.scores else None,
        )


def row_generator(seed: int, index: int) -> torch.Generator:
    """Return the source of randomness for prompt `index`; it depends on nothing but the two numbers."""
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def _alike(prompts: Sequence[PromptRow]) -> list[list[int]]:
    """Indices of the prompts of token ids and of those of embeddings, which are decoded apart; no empty list."""
    kinds: dict[bool, list[int]] = {}
    for index, prompt in enumerate(prompts):
        kinds.setdefault(isinstance(prompt, Tensor), []).append(index)
    return list(kinds.values())


def _check(
    decoder: Decoder, stops: tuple[str, ...], *, batch_size: int, streamed: bool, logprobs: bool
) -> None:
    name = type(decoder).__name__.lower()
    if batch_size < 1:
        raise LabError(f"batch_size must be at least 1, got {batch_size}")
    if any(not string for string in stops):
        raise LabError("a stop string is empty; it would end every text at once")
    if streamed and not decoder.streams:
        raise LabError(
            f"decoder {name} knows its text only at the end and cannot stream it; use greedy or sampling"
        )
    if logprobs and not isinstance(decoder, StepDecoder):
        raise LabError(f"decoder {name} gives no log-probabilities of single tokens; use greedy or sampling")


_OWN_OPTIONS = (
    "max_new_tokens",
    "min_new_tokens",
    "stop",
    "keep_stop",
    "stop_at_eos",
    "seed",
    "batch_size",
    "stream",
    "logprobs",
    "chat",
    "weights",
    "extra_inputs",
)
