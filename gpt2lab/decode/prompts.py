"""Between text and token ids: what a prompt gives the model, which tokens end and fill a row."""

import warnings
from collections.abc import Mapping, Sequence

from torch import Tensor

from gpt2lab.base.errors import LabError, shown
from gpt2lab.base.wording import listed
from gpt2lab.decode.interface import PromptRow
from gpt2lab.decode.transcript import CONTEXT
from gpt2lab.text.chats import ChatTemplate, Message
from gpt2lab.text.generation_config import GENERATION_CONFIG
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.pieces import frame
from gpt2lab.text.tokenizer import Tokenizer

Prompt = str | Sequence[int] | Tensor
"""Text, token ids as they are, or embeddings [time, d_model] in their place."""


def prompt_row(lm: LanguageModel, prompt: Prompt) -> PromptRow:
    """Return what the loop reads of a prompt: its token ids, or its embeddings as they are."""
    return prompt if isinstance(prompt, Tensor) else prompt_tokens(lm, prompt)


def prompt_tokens(lm: LanguageModel, prompt: str | Sequence[int]) -> list[int]:
    """Return the ids that a prompt gives the model: with what its tokenizer puts before a text (a bos) and not after it.

    An empty prompt becomes the bos, or the eos. LabError if the model has neither, for text without a tokenizer, and
    for what is neither text nor ids.
    """
    if isinstance(prompt, str):
        tokenizer = need_tokenizer(lm, "a prompt in words")
        plain = tokenizer.encode(prompt)
        ids = [*frame(tokenizer, prompt)[0], *plain]
        if not plain and ids[-1:] == [tokenizer.eos]:
            ids = ids[:-1]
    elif isinstance(prompt, Sequence):
        ids = [int(token) for token in prompt]
    else:
        raise LabError(
            f"a prompt is text, a list of token ids or a tensor of embeddings, got {prompt!r}; several are a list of those"
        )
    if ids:
        return ids
    starts = (lm.tokenizer.bos if lm.tokenizer is not None else None, lm.config.bos, *end_tokens(lm))
    for start in starts:
        if start is not None and start < lm.config.vocab_size:
            return [start]
    raise LabError(
        "empty prompt: this model has no bos or eos token to start from; give it at least one token"
    )


def chat_tokens(lm: LanguageModel, prompt: str | Sequence[Message]) -> list[int]:
    """Return the ids of a chat in the model's chat template, with the prompt for an answer; a text is a user's message.

    The template writes all special tokens itself. LabError if the model has no tokenizer or no template, and for a chat
    that the template refuses.
    """
    tokenizer = need_tokenizer(lm, "chats")
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(messages, Sequence) or not all(isinstance(one, Mapping) for one in messages):
        raise LabError(
            f"a prompt of a chat is a text or a list of messages with role and content, got {shown(prompt)}"
        )
    return tokenizer.encode(ChatTemplate.of(tokenizer).render(messages, add_generation_prompt=True))


def end_tokens(lm: LanguageModel) -> tuple[int, ...]:
    """Return the ids that end a text: all that generation_config.json names, else the configuration's, else the tokenizer's.

    A configuration whose file lists several has them all.
    """
    eos: Sequence[int | None] = lm.generation.eos
    if not eos:
        several = lm.config.extra.get("eos_token_id")  # its first is config.eos
        eos = several if isinstance(several, list) and several[:1] == [lm.config.eos] else [lm.config.eos]
        if lm.config.eos is None and lm.tokenizer is not None:
            eos = [lm.tokenizer.eos]
    return tuple(id for id in eos if id is not None and id < lm.config.vocab_size)


def suppressed_tokens(lm: LanguageModel) -> dict[str, tuple[int, ...]]:
    """Return the ids that no text has, as fields of `Limits`: those without a token, and generation_config.json's.

    Rows of a padded vocabulary have no token; one that ends a text may still be said. Warns of what else that file
    asks for.
    """
    said = lm.generation
    if said.not_followed:
        warnings.warn(
            f"{GENERATION_CONFIG} of this model asks for {listed(said.not_followed)}, which decoders follow only as options "
            "of their own",
            stacklevel=3,
        )
    rows = lm.config.vocab_size
    silent = () if lm.tokenizer is None else (*lm.tokenizer.holes, *range(lm.tokenizer.vocab_size, rows))
    ends = end_tokens(lm)
    return {
        "suppressed": tuple(
            id for id in {*said.suppressed, *(id for id in silent if id not in ends)} if id < rows
        ),
        "suppressed_first": tuple(id for id in said.suppressed_first if id < rows),
    }


def pad_token(lm: LanguageModel) -> int:
    """Return an id to fill rows with; any will do, because no real token ever looks at it."""
    for token in (lm.config.pad, lm.tokenizer.pad if lm.tokenizer is not None else None, *end_tokens(lm)):
        if token is not None and 0 <= token < lm.config.vocab_size:
            return token
    return 0


def added_text(tokenizer: Tokenizer | None, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    """Return the text that `tokens` add to the prompt's, without special tokens; empty without a tokenizer.

    A character that the prompt's tokens leave incomplete is a part of it.
    """
    if tokenizer is None:
        return ""
    before = tokenizer.decode(prompt[-CONTEXT:])
    whole = tokenizer.decode([*prompt[-CONTEXT:], *tokens])
    shared = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
    return whole[shared:]


def need_tokenizer(lm: LanguageModel, what: str) -> Tokenizer:
    """Return the model's tokenizer; LabError if it has none, saying what needs it."""
    if lm.tokenizer is None:
        raise LabError(
            f"{what} need a tokenizer, and this model has none; give prompts as lists of token ids"
        )
    return lm.tokenizer
