"""Log-probability of a text that continues another, for cloze tests, multiple choice and coherence."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.corpus import start_token
from gpt2lab.measures.scoring import Row, RowScore, score_rows
from gpt2lab.model import Transformer
from gpt2lab.text.pieces import split_text
from gpt2lab.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Continuation:
    """Tokens to be scored, given the tokens before them."""

    context: list[int]
    tokens: list[int]


def split_continuation(tokenizer: Tokenizer, context: str, text: str, *, bos: bool = False) -> Continuation:
    """Encode `context` + `text` together and cut at the border, as `gpt2lab.text.pieces.split_text` does.

    If a token lies across the border (it happens in scripts without blanks, or where the context ends in a blank), the
    cut is before it, so that the model reads the tokens it would meet in running text. With `bos`, or if nothing
    else stands before the cut, a start token opens the context. LabError for a text without tokens.
    """
    return split_continuations(tokenizer, context, [text], bos=bos)[0]


def split_continuations(
    tokenizer: Tokenizer, context: str, texts: Sequence[str], *, bos: bool = False
) -> list[Continuation]:
    """Cut several texts that may continue one context as `split_continuation` does, all at the same token.

    If a token lies across the border in one of them, all are scored from before it, so that the log-probabilities are
    those of the same characters and can be compared. LabError for a text without tokens.
    """
    split = [split_text(tokenizer, context, text) for text in texts]
    for text, (_, after) in zip(texts, split, strict=True):
        if not after:
            raise LabError(f"a continuation needs text, got {text!r}")
    shared = min((len(before) for before, _ in split), default=0)
    while any(before[:shared] != split[0][0][:shared] for before, _ in split):
        shared -= 1
    wholes = [before + after for before, after in split]
    return [opened(tokenizer, whole[:shared], whole[shared:], bos=bos) for whole in wholes]


def opened(
    tokenizer: Tokenizer, context: Sequence[int], tokens: Sequence[int], *, bos: bool = False
) -> Continuation:
    """Return a continuation whose context begins with a start token if `bos`, or if it would be empty."""
    start = [start_token(tokenizer)] if bos or not context else []
    return Continuation([*start, *context], list(tokens))


def score_continuations(
    model: Transformer,
    continuations: Sequence[Continuation],
    *,
    batch_size: int = 16,
    keep: int = 0,
    label: str = "scoring",
) -> list[RowScore]:
    """Score the tokens of each continuation with teacher forcing, in the order given.

    A context that does not fit the model's positions loses its beginning, but for its first `keep` tokens (a start
    token). LabError: an empty context or continuation, a continuation longer than the positions, and the errors
    of `score_rows`.
    """
    rows = []
    for item in continuations:
        if not item.tokens or not item.context:
            raise LabError("a continuation needs at least one token, and one before it")
        room = room_for(model, item)
        if room < 1 + (keep if len(item.context) > keep else 0):
            raise LabError(
                f"a continuation of {len(item.tokens)} tokens leaves no room for its context in the model's "
                f"{model.context} positions"
            )
        context = item.context
        if len(context) > room:
            context = context[:keep] + context[len(context) - room + keep :]
        rows.append(Row(torch.tensor([*context, *item.tokens]), len(item.tokens)))
    return score_rows(model, rows, batch_size=batch_size, label=label)


def room_for(model: Transformer, item: Continuation) -> int:
    """Return how many context tokens fit before a continuation, whose last token is not read."""
    return model.context - (len(item.tokens) - 1)
