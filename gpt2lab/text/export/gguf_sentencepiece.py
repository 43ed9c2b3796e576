"""A sentencepiece tokenizer as GGUF's fields: every token with a score, the higher the earlier it is put together.

`tokenizer.json` lists the pairs that are put together, llama.cpp puts together any neighbours whose sum is a token. The two
say the same where the list is complete, which is checked.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from gpt2lab.base.errors import LabError

_BLANK = "▁"


def is_sentencepiece(content: Mapping[str, Any]) -> bool:
    """Tell whether a tokenizer.json holds a BPE of characters that falls back on bytes."""
    model = content["model"]
    return model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def adds_blank(content: Mapping[str, Any]) -> bool:
    """Tell whether a blank is put in front of the text. LabError for another treatment of blanks."""
    prepend = {"type": "Prepend", "prepend": _BLANK}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _BLANK}
    normalizer, cutter = content.get("normalizer"), content.get("pre_tokenizer")
    if cutter is None and normalizer == {"type": "Sequence", "normalizers": [prepend, replace]}:
        return True
    if cutter is None and normalizer in (replace, {"type": "Sequence", "normalizers": [replace]}):
        return False
    rule = cutter or {}
    whole = rule.get("type") == "Metaspace" and not rule.get("split", True)
    if whole and normalizer is None and rule.get("replacement") == _BLANK:
        return bool(rule.get("prepend_scheme") != "never")
    raise LabError("GGUF: this sentencepiece tokenizer treats blanks in a way that llama.cpp does not know")


def scores(content: Mapping[str, Any], tokens: list[str]) -> list[float]:
    """Return the score of every token: minus the place in which it is put together, the pieces of all after them.

    LabError if llama.cpp would put together other neighbours, or in another order.
    """
    merges = [
        tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair)
        for pair in content["model"]["merges"]
    ]
    made = [left + right for left, right in merges]
    order = list(dict.fromkeys(made))
    if made and len(order) != 1 + sum(one != two for one, two in pairwise(made)):
        raise LabError(
            "GGUF: this sentencepiece tokenizer puts pieces together in an order that scores cannot express"
        )
    vocabulary, known = content["model"]["vocab"], set(merges)
    pieces = {token for token in vocabulary if not is_byte(token)}
    pieces -= {entry["content"] for entry in content.get("added_tokens", [])}
    for token in pieces:
        for cut in range(1, len(token)):
            pair = (token[:cut], token[cut:])
            if pair[0] in pieces and pair[1] in pieces and pair not in known:
                raise LabError(
                    f"GGUF: llama.cpp would put {pair[0]!r} and {pair[1]!r} together, which this tokenizer does not"
                )
    rank = {token: float(-place) for place, token in enumerate(order)}
    return [rank.get(token, float(-len(order) - 1) if token in pieces else 0.0) for token in tokens]


def is_byte(token: str) -> bool:
    """Tell whether a token stands for a byte that no piece covers."""
    return re.fullmatch(r"<0x[0-9A-F]{2}>", token) is not None
