"""Prompts as the model reads them: checked, and padded on the left where they are no token ids."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.decode.interface import Limits, PromptRow, Prompts
from gpt2lab.model import Transformer


def check_prompts(
    model: Transformer,
    prompts: Sequence[PromptRow],
    limits: Limits,
    *,
    reads_last: bool = False,
    needs_tokens: bool = False,
) -> None:
    """Raise LabError unless there are prompts that a causal model has room for: none empty, with their new tokens.

    The last new token needs no position, because it is not fed to the model, unless the decoder reads_last.
    Prompts are all token ids or all embeddings [time, d_model], and token ids for a decoder that needs_tokens.
    """
    if not prompts:
        raise LabError("no prompts to continue")
    config = model.config
    config.require_causal("decoding")
    for index, prompt in enumerate(prompts):
        if isinstance(prompt, Tensor) != isinstance(prompts[0], Tensor):
            raise LabError(
                "some prompts are token ids and some embeddings; decode them apart, or embed all with model.embed"
            )
        if isinstance(prompt, Tensor):
            _check_embeddings(prompt, index, config.d_model, needs_tokens)
        if len(prompt) == 0:
            raise LabError(f"prompt {index} is empty; a model continues at least one token")
        fits = model.context - len(prompt) + (not reads_last)
        if config.positions != "none" and limits.max_new_tokens > fits:
            raise LabError(
                f"prompt {index} has {len(prompt)} tokens and the model {model.context} positions: "
                f"{max(fits, 0)} new tokens fit, not {limits.max_new_tokens}"
                f"{' (this decoder reads the last one too)' if reads_last else ''}"
            )


def _check_embeddings(prompt: Tensor, index: int, d_model: int, needs_tokens: bool) -> None:
    if prompt.dim() != 2 or prompt.shape[1] != d_model or not prompt.is_floating_point():
        raise LabError(
            f"prompt {index}: embeddings are real numbers [time, {d_model}], got {prompt.dtype} "
            f"{list(prompt.shape)}; token ids are a list"
        )
    if needs_tokens:
        raise LabError(
            "this decoder reads the token ids of its prompts, as a repetition penalty does, and embeddings have none; "
            "leave that option out"
        )


def padded_embeddings(model: Transformer, prompts: Sequence[PromptRow], width: int) -> Tensor | None:
    """Return prompts of embeddings as [batch, width, d_model], zeros at padding; None for prompts of token ids."""
    rows = [prompt.to(model.device, model.dtype) for prompt in prompts if isinstance(prompt, Tensor)]
    if not rows:
        return None
    return torch.stack([F.pad(row, (0, 0, width - len(row), 0)) for row in rows])


def padded_inputs(model: Transformer, prompts: Sequence[PromptRow], width: int) -> dict[str, Tensor]:
    """Return what stands beside the prompts as the model reads it: [batch, ...], or [batch, width, ...], 0 at padding.

    LabError for entries of unequal shape, and for one by token that has not the length of its prompt.
    """
    if not isinstance(prompts, Prompts):
        return {}
    reads, found = model.extra_inputs_read(), {}
    for name, entries in prompts.extra_inputs.items():
        rows = [entry.to(model.device) for entry in entries]
        if name in reads and reads[name].by_token:
            for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
                if not row.dim() or len(row) != len(prompt):
                    raise LabError(
                        f"extra input {name}: prompt {index} has {len(prompt)} tokens, its entry is {list(row.shape)}"
                    )
            rows = [F.pad(row, (*[0, 0] * (row.dim() - 1), width - len(row), 0)) for row in rows]
        if len({row.shape for row in rows}) > 1:
            raise LabError(f"extra input {name}: entries of different shapes cannot be read together")
        found[name] = torch.stack(rows)
    return found
