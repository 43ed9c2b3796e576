"""What measures of single prompts share: tokens with their texts, answers that are one token, and a look at the logits."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.model.finite import all_finite
from gpt2lab.text.pieces import frame, piece_text, split_text

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel
    from gpt2lab.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """A text as the model reads it."""

    ids: Tensor
    """[1, time] int64, on the model's device."""
    pieces: list[str]
    """The text of each token."""


def read_prompt(lm: "LanguageModel", text: str, measure: str, name: str = "prompt") -> Prompt:
    """Encode a prompt; a causal model reads it as in `generate`, after what the tokenizer puts before a text (a bos).

    LabError: it is empty, or longer than the model's positions.
    """
    tokenizer = need_tokenizer(lm, measure)
    ids = tokenizer.encode(text)
    if not ids:
        raise LabError(f"{measure}: the {name} is empty; give a text with --{name}")
    if lm.config.causal:
        ids = [*frame(tokenizer, text)[0], *ids]
    longest = lm.config.max_positions
    if len(ids) > longest and lm.config.positions == "learned":
        raise LabError(f"{measure}: the {name} has {len(ids)} tokens, the model {longest} positions")
    return Prompt(torch.tensor([ids], device=lm.model.device), [piece_text(tokenizer, i) for i in ids])


def one_token(tokenizer: "Tokenizer", context: str, text: str, measure: str, name: str) -> int:
    """Return the id of an answer, by itself or after its context, for a tokenizer that puts a blank before every text.

    LabError unless it is a single token, with the tokens it falls into.
    """
    alone = tokenizer.encode(text)
    for ids in (alone, split_text(tokenizer, context, text)[1]):
        if len(ids) == 1:
            return ids[0]
    pieces = ", ".join(repr(tokenizer.decode([i])) for i in alone) or "none"
    raise LabError(
        f"{measure}: {name} {text!r} must be one token, it is {len(alone)} ({pieces}); after a word most tokenizers "
        "want a blank in front"
    )


def refuse_nan(logits: Tensor) -> Tensor:
    """Return the logits; LabError if any is not a number."""
    if not all_finite(logits):
        raise LabError("the model's logits are NaN; look at its weights, or load it in float32")
    return logits


def answers(
    tokenizer: "Tokenizer",
    logits: Tensor,
    other: Tensor,
    target: str,
    against: str,
    measure: str,
    *,
    context: str,
) -> tuple[int, int]:
    """Return the ids of two answers; where none is given, the likeliest by `logits` and by `other`, each [vocab].

    context: the text that the answers follow. Should both be the same, the second likeliest by `other` is taken.
    LabError if both given ones are the same.
    """
    first = one_token(tokenizer, context, target, measure, "target") if target else int(logits.argmax())
    if not against:
        return first, next(int(i) for i in other.topk(2).indices if int(i) != first)
    second = one_token(tokenizer, context, against, measure, "against")
    if second == first:
        raise LabError(f"{measure}: target and against are the same token, {tokenizer.decode([first])!r}")
    return first, second
