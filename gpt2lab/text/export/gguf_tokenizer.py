"""A tokenizer as GGUF's fields: of a byte-level BPE tokens, merges, and the name of the rule that cuts text before."""

import json
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.text.export import gguf_sentencepiece as sentencepiece
from gpt2lab.text.gguf_tokenizer import (
    BYTE,
    CONTROL,
    LLAMA3_RULE,
    NORMAL,
    TEKKEN_RULE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from gpt2lab.text.special_tokens import ROLES
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.text.tokenizer_classes import QWEN2_RULE

_RULES = {QWEN2_RULE: "qwen2", LLAMA3_RULE: "llama-bpe", TEKKEN_RULE: "tekken"}
"""Regular expression that cuts the text → llama.cpp's name of it."""

Fields = list[tuple[str, Any]]


def tokenizer_fields(tokenizer: Tokenizer | None, rows: int) -> Fields:
    """Return (name, value) for the writer's add_NAME; `rows` is the model's vocabulary, padded with unused tokens.

    LabError for a tokenizer that GGUF cannot carry: another model than byte-level BPE or sentencepiece, a rule or a
    normaliser that llama.cpp does not know. Unicode normalisation (NFC) is left out, as llama.cpp does for every model.
    """
    if tokenizer is None:
        return [("tokenizer_model", "no_vocab")]
    content = json.loads(tokenizer.backend.to_str())
    tokens, kinds = _tokens(tokenizer, content, rows)
    fields: Fields = [("token_list", tokens), ("token_types", kinds)]
    if sentencepiece.is_sentencepiece(content):
        fields += [("tokenizer_model", "llama"), ("tokenizer_pre", "default")]
        fields.append(("add_space_prefix", sentencepiece.adds_blank(content)))
        fields.append(("token_scores", sentencepiece.scores(content, tokens)))
    else:
        fields += [("tokenizer_model", "gpt2"), ("tokenizer_pre", _rule(content))]
        fields.append(("token_merges", _merges(content)))
    for name in ("bos", "eos", "unk", "pad", "sep", "mask"):
        if (id := getattr(tokenizer, name)) is not None:
            fields.append((f"{name}_token_id", id))
    plain, framed = tokenizer.encode("a"), tokenizer.encode("a", special=True)
    added = framed != plain
    fields.append(("add_bos_token", added and framed[0] == tokenizer.bos))
    fields.append(("add_eos_token", added and framed[-1] == tokenizer.eos))
    if templates := tokenizer.chat_templates:
        listed = [{"name": name, "template": text} for name, text in templates.items()]
        fields.append(("chat_template", listed))
    return fields


def same_ids(read: Tokenizer | None, tokenizer: Tokenizer) -> bool:
    """Tell whether a tokenizer made of GGUF's fields gives every text the ids, and ids the text, of this one."""
    return read is not None and _essence(read) == _essence(tokenizer)


def _essence(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what decides ids and texts; whether an added token is in the model's vocabulary too does not."""
    content = json.loads(tokenizer.backend.to_str())
    kept = {name: content[name] for name in ("normalizer", "pre_tokenizer", "decoder", "added_tokens")}
    model = {**content["model"], "vocab": tokenizer.vocabulary}
    cutter = kept["pre_tokenizer"] or {}
    for step in cutter.get("pretokenizers", [cutter]):
        step.pop("trim_offsets", None)
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        model[affix] = model.get(affix) or ""
    if (kept["decoder"] or {}).get("type") == "ByteLevel":
        kept["decoder"] = "ByteLevel"
    roles = {role: getattr(tokenizer, role) for role in ROLES if role != "cls"}
    return {**kept, "model": model, "roles": roles, "framed": tokenizer.encode("a", special=True)}


def _merges(content: dict[str, Any]) -> list[str]:
    model = content["model"]
    if model.get("type") != "BPE":
        raise LabError(
            f"GGUF: only byte-level BPE and sentencepiece tokenizers are written, this one is {model.get('type')}"
        )
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    if not merges:
        raise LabError("GGUF: this tokenizer has no merges, and llama.cpp reads no BPE without")
    return merges


def _rule(content: dict[str, Any]) -> str:
    """Return llama.cpp's name of the rule that cuts the text."""
    _merges(content)  # says first that it is no BPE at all
    normalizer = content.get("normalizer")
    if normalizer is not None and normalizer.get("type") != "NFC":
        raise LabError(f"GGUF: the normaliser {normalizer.get('type')} of this tokenizer cannot be written")
    cutter = content.get("pre_tokenizer") or {}
    steps = cutter.get("pretokenizers", [cutter])
    last = steps[-1]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        raise LabError("GGUF: only byte-level BPE tokenizers that add no blank in front are written")
    if len(steps) == 1 and last.get("use_regex", True):
        return "gpt-2"
    if len(steps) == 2 and steps[0].get("type") == "Split" and not last.get("use_regex", True):
        expression = steps[0].get("pattern", {}).get("Regex", "")
        if expression in _RULES and steps[0].get("behavior") == "Isolated" and not steps[0].get("invert"):
            return _RULES[expression]
    if len(steps) == 2 and steps[0] == {"type": "Digits", "individual_digits": True}:
        return "smollm"
    raise LabError("GGUF: llama.cpp has no name for the rule by which this tokenizer cuts text")


def _tokens(tokenizer: Tokenizer, content: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Spelling and kind of every row of the model's vocabulary."""
    special = {entry["id"]: entry["special"] for entry in content.get("added_tokens", [])}
    spelt = {id: token for token, id in tokenizer.vocabulary.items()}
    tokens = [spelt.get(id, f"[PAD{id}]") for id in range(rows)]
    pieces = sentencepiece.is_sentencepiece(content)
    unknown = content["model"].get("unk_token") if pieces else None

    def kind(id: int, token: str) -> int:
        if id not in spelt:
            return UNUSED
        if token == unknown:
            return UNKNOWN
        if id in special:
            return CONTROL if special[id] else USER_DEFINED
        return BYTE if pieces and sentencepiece.is_byte(token) else NORMAL

    return tokens, [kind(id, token) for id, token in enumerate(tokens)]
