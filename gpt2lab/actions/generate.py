"""The verb `generate`: prompts continued by any decoder, kept in a run."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from gpt2lab.actions.models import loaded, with_models
from gpt2lab.actions.record import recorded
from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import parts
from gpt2lab.base.settings import to_plain
from gpt2lab.base.wording import listed

if TYPE_CHECKING:
    import torch

    from gpt2lab.decode import Decoder, Generation
    from gpt2lab.decode.interface import ExtraInputs
    from gpt2lab.decode.packed import Weights
    from gpt2lab.decode.prompts import Prompt
    from gpt2lab.runs.run import Run
    from gpt2lab.text.chats import Message
    from gpt2lab.text.language_model import LanguageModel


@overload
def generate(
    model: "str | Path | LanguageModel",
    prompts: str,
    *,
    decoder: "str | Decoder" = ...,
    max_new_tokens: int | None = ...,
    min_new_tokens: int = ...,
    stop: str | Sequence[str] = ...,
    keep_stop: bool = ...,
    stop_at_eos: bool = ...,
    seed: int = ...,
    batch_size: int = ...,
    stream: Callable[[int, str], object] | None = ...,
    logprobs: bool = ...,
    chat: bool = ...,
    weights: "Weights" = ...,
    extra_inputs: "ExtraInputs" = ...,
    device: "torch.device | str | None" = ...,
    dtype: "torch.dtype | str | None" = ...,
    keep: bool = ...,
    command: str = ...,
    **options: Any,
) -> "Generation": ...
@overload
def generate(
    model: "str | Path | LanguageModel",
    prompts: "Sequence[Prompt] | Sequence[Sequence[Message]]",
    *,
    decoder: "str | Decoder" = ...,
    max_new_tokens: int | None = ...,
    min_new_tokens: int = ...,
    stop: str | Sequence[str] = ...,
    keep_stop: bool = ...,
    stop_at_eos: bool = ...,
    seed: int = ...,
    batch_size: int = ...,
    stream: Callable[[int, str], object] | None = ...,
    logprobs: bool = ...,
    chat: bool = ...,
    weights: "Weights" = ...,
    extra_inputs: "ExtraInputs" = ...,
    device: "torch.device | str | None" = ...,
    dtype: "torch.dtype | str | None" = ...,
    keep: bool = ...,
    command: str = ...,
    **options: Any,
) -> "list[Generation]": ...
def generate(
    model: "str | Path | LanguageModel",
    prompts: "str | Sequence[Prompt] | Sequence[Sequence[Message]]",
    *,
    decoder: "str | Decoder" = "greedy",
    max_new_tokens: int | None = None,
    min_new_tokens: int = 0,
    stop: str | Sequence[str] = (),
    keep_stop: bool = False,
    stop_at_eos: bool = True,
    seed: int = 0,
    batch_size: int = 16,
    stream: Callable[[int, str], object] | None = None,
    logprobs: bool = False,
    chat: bool = False,
    weights: "Weights" = "auto",
    extra_inputs: "ExtraInputs" = MappingProxyType({}),
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
    keep: bool = True,
    command: str = "",
    **options: Any,
) -> "Generation | list[Generation]":
    """Continue a prompt, or each of several, with any decoder of the lab or of a paper.

    decoder: a name, with `options` such as top_p=0.9, or a decoder. max_new_tokens None is 64, or what the model has
    positions for. chat: a prompt is a user's message, or a list of messages with role and content, and is put into the
    model's chat template, which asks for an answer. The others are those of `gpt2lab.decode.generate`.
    keep: leave a run with the texts; command: what it notes as the command that repeats it.
    LabError before the model is loaded: no such decoder or option.
    """
    from gpt2lab import decode

    chosen = decode.build_decoder(decoder, options)
    if isinstance(decoder, str):
        chosen = with_models(chosen)
    lm = loaded(model, device, dtype)
    _refuse_silent(lm, str(model) if isinstance(model, (str, Path)) else "this model")
    if not isinstance(prompts, Iterable):
        raise LabError(f"prompts are a text or a list of prompts, got {type(prompts).__name__}")
    given: list[Any] = [prompts] if isinstance(prompts, str) else list(prompts)
    if chat:
        given = [decode.chat_tokens(lm, prompt) for prompt in given]
    limits = {"max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens, "stop": stop, "seed": seed}
    ends = {} if stop_at_eos else {"stop_at_eos": False}
    settings = {**_noted(decoder, options), "prompts": [_shown(lm, prompt) for prompt in given]}
    if extra_inputs:
        settings["extra_inputs"] = {name: f"{len(entries)} tensors" for name, entries in extra_inputs.items()}
    chats = {"chat": True} if chat else {}
    settings["options"] = {**limits, **ends, **chats, **settings["options"]}
    with recorded("generate", "generate", model, lm, settings, keep=keep, command=command, seed=seed) as run:
        results = decode.generate(
            lm,
            given,
            decoder=chosen,
            max_new_tokens=_room(lm, given) if max_new_tokens is None else max_new_tokens,
            min_new_tokens=min_new_tokens,
            stop=stop,
            keep_stop=keep_stop,
            stop_at_eos=stop_at_eos,
            seed=seed,
            batch_size=batch_size,
            stream=stream,
            logprobs=logprobs,
            weights=weights,
            extra_inputs=extra_inputs,
        )
        if run is not None:
            _report(run, results)
    return results[0] if isinstance(prompts, str) else results


def _noted(decoder: "str | Decoder", options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says of a decoder: its name and its options; of an object those that it has."""
    if isinstance(decoder, str):
        return {"decoder": decoder, "options": dict(options)}
    kind = type(decoder)
    place = f"{kind.__module__}:{kind.__qualname__}"
    name = next((one.name for one in parts("decoder") if one.object == place), kind.__name__)
    return {"decoder": name, "options": to_plain(decoder) if dataclasses.is_dataclass(decoder) else {}}


def _shown(lm: "LanguageModel", prompt: "Prompt") -> str | list[int]:
    """Return what a record says of a prompt: its text or token ids; of embeddings their shape. LabError for no prompt."""
    from torch import Tensor

    from gpt2lab.decode.prompts import prompt_tokens

    if isinstance(prompt, str):
        return prompt
    return f"embeddings {list(prompt.shape)}" if isinstance(prompt, Tensor) else prompt_tokens(lm, prompt)


def _report(run: "Run", results: "Sequence[Generation]") -> None:
    run.text("texts", "\n\n* * *\n\n".join(map(str, results)))
    run.result("texts", len(results))
    run.result("new_tokens", sum(len(result.tokens) for result in results))


def _refuse_silent(lm: "LanguageModel", called: str) -> None:
    """LabError for a model that writes no text: without a tokenizer, or trained to read out classes or vectors alone."""
    from gpt2lab.model.task_heads import heads

    if lm.tokenizer is None:
        raise LabError(f"{called}: holds no tokenizer, so it can neither read nor write text")
    found = heads(lm.model)
    if found and not any(head.language_head for head in found.values()):
        kinds = listed([f"{head.kind} ({name})" for name, head in found.items()])
        raise LabError(
            f"{called}: trained for {kinds}, not to write text; gpt2lab.predict or a measure reads it out "
            "(trained with task.language=1 it goes on writing)"
        )


def _room(lm: "LanguageModel", prompts: "Sequence[Prompt]", most: int = 64) -> int:
    """Return how many tokens fit behind the longest prompt, at most `most`; `most` if none fits."""
    from gpt2lab.decode.prompts import prompt_row

    longest = max((len(prompt_row(lm, one)) for one in prompts), default=0)
    if longest > lm.model.context:
        return most  # decoding says what is wrong
    return min(most, max(lm.model.context - longest, 1))  # some decoders read the last new token too
