"""The meta-token in a tokenizer and in the table of a model."""

import tokenizers
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.text.tokenizer import Tokenizer

META = "<|meta|>"
"""How the meta-token is written unless another spelling is chosen."""


def meta_id(tokenizer: Tokenizer | None, text: str = META) -> int:
    """Return the id of the meta-token. LabError for a tokenizer that lacks it, or without a tokenizer."""
    found = None if tokenizer is None else tokenizer.id(text)
    if found is None:
        raise LabError(
            f"meta-tokens: the tokenizer has no token {text}; `gpt2lab apply add-meta-token MODEL --out DIR` adds it"
        )
    return found


def with_token(tokenizer: Tokenizer, text: str) -> tuple[Tokenizer, int]:
    """Return the tokenizer with a special token more, or as it is if it has that one, and the token's id.

    All other ids stay. LabError for a tokenizer of reduced vocabulary, one whose ids have gaps, and an empty spelling.
    """
    if not text.strip():
        raise LabError("add-meta-token: the token must be spelt with more than blanks")
    known = tokenizer.id(text)
    if known is not None:
        if known not in tokenizer.special_ids:
            raise LabError(
                f"add-meta-token: {text} is an ordinary token of this tokenizer; choose another spelling"
            )
        return tokenizer, known
    if type(tokenizer) is not Tokenizer:
        raise LabError(
            "add-meta-token: a tokenizer of reduced vocabulary takes no further tokens; add first, then reduce"
        )
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False)])
    new = backend.token_to_id(text)
    if new is None or new < tokenizer.vocab_size:
        raise LabError(
            "add-meta-token: the ids of this tokenizer have gaps, so that a new token would share one"
        )
    names = ("bos", "eos", "pad", "unk", "mask", "cls", "sep")
    ids = {name: getattr(tokenizer, name) for name in names}
    made = Tokenizer(backend, **ids, settings=tokenizer.settings, files=tokenizer.files)
    return made, new


@torch.no_grad()
def with_row(model: Transformer, token: int, *, fresh: bool = True) -> Transformer:
    """Return a copy of a plain model whose table has a row for a token: the mean of the others, a free head's too.

    fresh: a row that the table holds already, as padding, is set anew; otherwise it is the token's own and stays. LabError
    for a model with architectures attached.
    """
    if model.architectures:
        raise LabError(
            "add-meta-token works on a model without architectures; add the token first, then attach"
        )
    old = model.config.vocab_size
    size = max(old, token + 1)
    made = Transformer(model.config.replace(vocab_size=size)).to(device=model.device, dtype=model.dtype)
    state = model.state_dict()
    tables = [name for name in ("embedding.weight", "head.weight", "head.bias") if name in state]
    for name in tables:
        rows = state[name]
        known = torch.arange(size, device=rows.device) < old
        known[token] &= not fresh
        grown = rows.new_empty(size, *rows.shape[1:])
        grown[:old] = rows
        # Rows between the table's end and the token (there are none unless the tokenizer has more ids than rows) too.
        grown[~known] = (
            rows[known[:old]].to(torch.promote_types(rows.dtype, torch.float32)).mean(0).to(rows.dtype)
        )
        state[name] = grown
    made.load_state_dict(state)
    made.tie_head()
    for new, given in zip(made.parameters(), model.parameters(), strict=True):
        new.requires_grad_(given.requires_grad)
    return made.eval()
