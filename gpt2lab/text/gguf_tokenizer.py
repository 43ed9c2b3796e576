"""The tokenizer of a GGUF file: what llama.cpp makes of its fields, as an ordinary tokenizer, chat template included."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from gpt2lab.base.errors import LabError, brief, shown
from gpt2lab.text.generation_config import GENERATION_CONFIG
from gpt2lab.text.tokenizer import Tokenizer, is_from_tokenizers
from gpt2lab.text.tokenizer_classes import QWEN2_RULE, framing
from gpt2lab.text.tokenizer_folder import check_patterns
from gpt2lab.text.vocabulary_files import check_merges

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""GGUF's kinds of tokens."""

HUGGING_FACE = "tokenizer.huggingface.json"
"""The field that holds a whole tokenizer.json, which counts before the others."""

LLAMA3_RULE = QWEN2_RULE.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
TEKKEN_RULE = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """How llama.cpp, and the tokenizer.json of the models that it names the rule after, cut text."""

    names: tuple[str, ...]
    """`tokenizer.ggml.pre`."""
    expression: str | None = None
    """What cuts the text; None: GPT-2's, which the library has itself."""
    digits: bool = False
    """Every digit is cut off first."""
    whole_words: bool = False
    """A word that is a token is one, whatever the merges say."""
    bos: bool = False
    """A bos is put in front unless the file says otherwise."""


_RULES = (
    _Rule(
        names=(
            "gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "mellum",
            "a.x-4.0", "modern-bert", "jina-es", "jina-de",
        ),
    ),
    _Rule(
        names=("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), digits=True
    ),
    _Rule(
        names=("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        expression=LLAMA3_RULE,
        whole_words=True,
        bos=True,
    ),
    _Rule(names=("dbrx", "smaug-bpe", "chatglm-bpe", "glm4"), expression=LLAMA3_RULE),
    _Rule(
        names=("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "kormo"),
        expression=QWEN2_RULE,
    ),
    _Rule(names=("tekken",), expression=TEKKEN_RULE, whole_words=True, bos=True),
)  # fmt: skip

_ROLES = {
    "bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "sep": "seperator", "mask": "mask", "cls": "cls",
}  # fmt: skip
"""Ours → GGUF's, spelt as it spells them."""


def read_tokenizer(fields: Mapping[str, Any], where: str) -> Tokenizer | None:
    """Make the tokenizer that a file's metadata describes; None if it has none.

    LabError: a kind of tokenizer other than byte-level BPE and sentencepiece, a rule for cutting text that is not known
    here, a vocabulary without merges or scores, fields of a wrong form.
    """
    model = fields.get("tokenizer.ggml.model")
    if HUGGING_FACE not in fields and model in (None, "none", "no_vocab"):
        return None
    try:
        return _Fields(fields, where).tokenizer()
    except BaseException as error:
        if isinstance(error, LabError) or not is_from_tokenizers(error):
            raise
        raise LabError(f"{where}: misshapen tokenizer: {brief(error)}") from error


def read_generation_files(fields: Mapping[str, Any]) -> dict[str, bytes]:
    """Return a generation_config.json by name where the file has further ends of text beside its eos; else nothing."""
    ids = [fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    ends = list(dict.fromkeys(id for id in ids if isinstance(id, int)))
    if len(ends) < 2:
        return {}
    return {GENERATION_CONFIG: json.dumps({"eos_token_id": ends}, indent=2).encode() + b"\n"}


class _Fields:
    """The fields of a tokenizer, checked."""

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        self.fields, self.where = fields, where
        self.tokens: list[str] = self._list("tokens", str)
        self.kinds: list[int] = self._list("token_type", int) or [NORMAL] * len(self.tokens)
        if len(self.kinds) != len(self.tokens):
            raise LabError(
                f"{where}: {len(self.tokens):,} tokens and {len(self.kinds):,} kinds of tokens; a kind for each is needed"
            )
        self.vocabulary = {
            token: id for id, token in enumerate(self.tokens) if not self._fills(id, token, self.kinds[id])
        }
        self.sentencepiece = fields.get("tokenizer.ggml.model") == "llama"

    def tokenizer(self) -> Tokenizer:
        """Return the whole tokenizer."""
        given = self.fields.get(HUGGING_FACE)
        files = self._templates()
        if given is not None:
            backend = self._given(given)
            return Tokenizer(backend, **self._ids(backend.get_vocab_size()), files=files)
        if self.sentencepiece:
            backend, framed = self._sentencepiece(), True
        else:
            rule = self._rule()
            backend, framed = self._byte_level(rule), rule.bos
        ids = self._ids(len(self.tokens))
        self._add_tokens(backend, ids)
        ends = {}
        for role, usual in (("bos", framed), ("eos", False)):
            asked = self.fields.get(f"tokenizer.ggml.add_{role}_token", usual)
            ends[role] = self.tokens[ids[role]] if asked and role in ids else None
        backend.post_processor = framing(backend, ends["bos"], ends["eos"])
        return Tokenizer(backend, **ids, files=files)

    def _given(self, text: Any) -> tokenizers.Tokenizer:
        """Return the tokenizer of a tokenizer.json that the file holds."""
        try:
            check_patterns(json.loads(text), f"{self.where}: {HUGGING_FACE}")
        except (TypeError, ValueError, RecursionError) as error:
            raise (
                error
                if isinstance(error, LabError)
                else LabError(f"{self.where}: {HUGGING_FACE} is no JSON ({brief(error)})")
            ) from None
        return tokenizers.Tokenizer.from_str(text)

    def _rule(self) -> _Rule:
        """Return the rule that cuts text."""
        if self.fields.get("tokenizer.ggml.model") != "gpt2":
            raise LabError(
                f"{self.where}: a tokenizer of the kind {shown(self.fields.get('tokenizer.ggml.model'))} is not "
                "supported, only gpt2 (byte-level BPE) and llama (sentencepiece)"
            )
        name = self.fields.get("tokenizer.ggml.pre")
        for rule in _RULES:
            if name in rule.names:
                return rule
        if name is None:
            raise LabError(
                f"{self.where}: tokenizer.ggml.pre, which says how text is cut, is missing, as in files of before May "
                "2024; add it: python -m gguf.scripts.gguf_new_metadata --pre-tokenizer NAME IN OUT (gpt-2, llama-bpe, "
                "qwen2, ...)"
            )
        known = ", ".join(rule.names[0] for rule in _RULES)
        raise LabError(
            f"{self.where}: the rule {shown(name)} for cutting text is not known here; known: {known}"
        )

    def _byte_level(self, rule: _Rule) -> tokenizers.Tokenizer:
        merges = self._list("merges", str)
        if not merges:
            raise LabError(f"{self.where}: a vocabulary of {len(self.tokens):,} tokens without its merges")
        pairs = [tuple(pair.split(" ")) for pair in merges]
        if wrong := next((pair for pair in pairs if len(pair) != 2), None):
            raise LabError(
                f"{self.where}: a merge is two pieces with a blank between, found {shown(' '.join(wrong))}"
            )
        check_merges(Path(self.where), self.vocabulary, pairs)
        backend = tokenizers.Tokenizer(
            models.BPE(
                vocab=self.vocabulary,
                merges=[(left, right) for left, right in pairs],
                ignore_merges=rule.whole_words,
            )
        )
        steps: list[Any] = [
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rule.expression is None)
        ]
        if rule.expression is not None:
            steps.insert(0, pre_tokenizers.Split(Regex(rule.expression), behavior="isolated", invert=False))
        if rule.digits:
            steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
        backend.decoder = decoders.ByteLevel()
        return backend

    def _sentencepiece(self) -> tokenizers.Tokenizer:
        scores = self._list("scores", float)
        if len(scores) != len(self.tokens):
            raise LabError(
                f"{self.where}: a sentencepiece vocabulary of {len(self.tokens):,} tokens with {len(scores):,} scores"
            )
        pieces = {token: id for token, id in self.vocabulary.items() if self.kinds[id] == NORMAL}
        unknown = next(
            (token for token, kind in zip(self.tokens, self.kinds, strict=True) if kind == UNKNOWN), None
        )
        backend = tokenizers.Tokenizer(
            models.BPE(
                vocab=self.vocabulary,
                merges=_merges(pieces, scores),
                unk_token=unknown,
                fuse_unk=True,
                byte_fallback=True,
            )
        )
        blank = bool(self.fields.get("tokenizer.ggml.add_space_prefix", True))
        front = [normalizers.Prepend("▁")] if blank else []
        backend.normalizer = normalizers.Sequence([*front, normalizers.Replace(" ", "▁")])
        steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        backend.decoder = decoders.Sequence(steps + ([decoders.Strip(content=" ", left=1)] if blank else []))
        return backend

    def _add_tokens(self, backend: tokenizers.Tokenizer, ids: Mapping[str, int]) -> None:
        """Have tokens that are no pieces of text found whole: special are control tokens and those with a role."""
        special = {id for id, kind in enumerate(self.kinds) if kind in (CONTROL, UNKNOWN)} | set(ids.values())
        added = special | {id for id, kind in enumerate(self.kinds) if kind == USER_DEFINED}
        backend.add_tokens(
            [
                AddedToken(self.tokens[id], special=id in special, normalized=False)
                for id in sorted(added)
                if self.tokens[id]
            ]
        )

    def _ids(self, rows: int) -> dict[str, Any]:
        """Return the ids of the roles; one outside the vocabulary is a default that was copied."""
        usual = {"bos": 1, "eos": 2, "unk": 0} if self.sentencepiece else {}  # llama.cpp's own
        ids = {
            ours: self.fields.get(f"tokenizer.ggml.{name}_token_id", usual.get(ours))
            for ours, name in _ROLES.items()
        }
        return {ours: id for ours, id in ids.items() if isinstance(id, int) and 0 <= id < rows}

    def _templates(self) -> dict[str, str]:
        """Return chat templates by the file of a folder that holds them."""
        found = {}
        if isinstance(template := self.fields.get("tokenizer.chat_template"), str):
            found["chat_template.jinja"] = template
        for key, template in self.fields.items():
            name = key.removeprefix("tokenizer.chat_template.")
            if name != key and re.fullmatch(r"\w[\w.-]*", name) and isinstance(template, str):
                found[f"additional_chat_templates/{name}.jinja"] = template
        return found

    def _fills(self, id: int, token: str, kind: int) -> bool:
        """Tell whether a token only fills a row that the model's tokenizer has no token for."""
        return kind == UNUSED and token == f"[PAD{id}]"

    def _list(self, name: str, kind: type) -> list[Any]:
        values = self.fields.get(f"tokenizer.ggml.{name}", [])
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise LabError(f"{self.where}: tokenizer.ggml.{name} should be a list of {kind.__name__}")
        return values


def _merges(pieces: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Return every pair of pieces that makes a piece, that of the highest score first: what sentencepiece joins."""
    found = []
    for token, id in pieces.items():
        for at in range(1, len(token)):
            left, right = token[:at], token[at:]
            if left in pieces and right in pieces:
                found.append((-scores[id], id, pieces[left], pieces[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]
