"""The special tokens that the files of a tokenizer's folder name, put together as transformers 5 does."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers

from gpt2lab.base.errors import LabError

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""What a special token can be for, in the order in which tokens that the vocabulary lacks are added to it."""

KEYS = tuple(f"{role}_token" for role in ROLES)
"""The entries of tokenizer_config.json that name them."""

_Token = str | tokenizers.AddedToken


@dataclass(kw_only=True)
class SpecialTokens:
    """Special tokens by the entry that names them, and every added token by its id."""

    named: dict[str, _Token | None] = field(default_factory=dict)
    """By entry: `eos_token`, ..., then entries of a model's own, such as `image_token`. None: said to be none."""
    extra: list[_Token] = field(default_factory=list)
    """Special tokens without an entry of their own (`extra_special_tokens`)."""
    added: dict[int, tokenizers.AddedToken] = field(default_factory=dict)
    """Tokens beside the vocabulary's own, special or not, by id."""

    def fill(self, defaults: Mapping[str, str | None]) -> None:
        """Take over those of `defaults` whose entry no file has."""
        self.named = {**{key: defaults[key] for key in defaults if key not in self.named}, **self.named}

    def add_to(self, backend: tokenizers.Tokenizer) -> None:
        """Add to a tokenizer what it lacks: added tokens in the order of their ids, then named ones, then extra ones.

        A token that is a plain word of the vocabulary keeps its id, and becomes an added token.
        """
        # Those that are there are added again: one that a file lists as plain becomes special where it has a role.
        tokens: list[_Token] = [token for _, token in sorted(self.added.items())]
        known = {token.content for token in backend.get_added_tokens_decoder().values()}
        known |= {content(token) for token in tokens}
        ordered = sorted(self.named, key=lambda key: KEYS.index(key) if key in KEYS else len(KEYS))
        for token in [*(self.named[key] for key in ordered), *self.extra]:
            if token is not None and content(token) not in known and token not in tokens:
                tokens.append(token)
        special = {content(token) for token in self.named.values() if token is not None}
        backend.add_tokens([_flagged(token, special) for token in tokens])


def _flagged(token: _Token, special: set[str]) -> tokenizers.AddedToken:
    """Return a token as it is added: one that a file names only by its text, or gives a role, is special."""
    if isinstance(token, str):
        return tokenizers.AddedToken(token, special=True)
    if token.content in special:
        token.special = True
    return token


def content(token: _Token) -> str:
    """Return how a token is written."""
    return token if isinstance(token, str) else str(token.content)


def read_special_tokens(
    config: Mapping[str, Any],
    special_map: Mapping[str, Any] | None,
    added_tokens: Mapping[str, Any] | None,
    in_tokenizer: Iterable[Any],
    where: Path,
) -> SpecialTokens:
    """Put together what tokenizer_config.json, special_tokens_map.json, added_tokens.json and tokenizer.json say.

    `in_tokenizer` are the `added_tokens` of tokenizer.json. If `config` lists added tokens itself (`added_tokens_decoder`),
    it is newer than the files beside it, which are then not looked at. LabError, beginning with `where`, for an entry
    that is no token.
    """
    found = _of_config(config, where)
    if config.get("added_tokens_decoder") is not None:
        found.added = _by_id(config["added_tokens_decoder"], where)
    else:
        extra = list(found.extra)
        if special_map is not None:
            _overrule(found, special_map, where)
            extra += [token for token in found.extra if "extra_special_tokens" in special_map]
        roles = [found.named.get(key) for key in KEYS]
        special = {content(token) for token in (*roles, *extra) if token is not None}
        found.added = _from_added_tokens(added_tokens or {}, special, where)
        for entry in in_tokenizer:
            if isinstance(entry, Mapping) and isinstance(entry.get("id"), int):
                found.added[entry["id"]] = _token(entry, f"{where}: added_tokens")
    forms = {token.content: token for token in found.added.values()}
    for key in KEYS:
        token = found.named.get(key)
        if token is not None:
            found.named[key] = forms.get(content(token), token)
    return found


def _of_config(config: Mapping[str, Any], where: Path) -> SpecialTokens:
    """Return what tokenizer_config.json alone names."""
    found = SpecialTokens()
    for key, value in config.items():
        if key in KEYS or (key.endswith("_token") and isinstance(value, str | Mapping)):
            found.named[key] = _maybe_token(value, f"{where}: {key}")
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens")
    _add_extra(found, extra, where)
    return found


def _overrule(found: SpecialTokens, special_map: Mapping[str, Any], where: Path) -> None:
    """Let special_tokens_map.json overrule what the configuration names."""
    had_extra = bool(found.extra)
    for key, value in special_map.items():
        if key.endswith("_token") and (key in KEYS or isinstance(value, str | Mapping)):
            found.named[key] = _maybe_token(value, f"{where}: {key}", special=True)
        elif key == "extra_special_tokens" or (key == "additional_special_tokens" and not had_extra):
            _add_extra(found, value, where, special=key == "extra_special_tokens")


def _add_extra(found: SpecialTokens, extra: Any, where: Path, *, special: bool = False) -> None:
    """Add a list of further special tokens, or an object that gives each a name.

    One that is written with `__type` has its own flags, unless it is `special` by where it is listed.
    """
    if isinstance(extra, Mapping):
        for key, value in extra.items():
            found.named[key] = _maybe_token(value, f"{where}: {key}")
    elif isinstance(extra, list):
        tokens = []
        for value in extra:
            flagged = isinstance(value, Mapping) and "__type" in value
            tokens.append(
                _maybe_token(value, f"{where}: extra_special_tokens", special=special or not flagged)
            )
        found.extra += [token for token in tokens if token is not None and token not in found.extra]
    elif extra is not None:
        raise LabError(f"{where}: extra_special_tokens should be a list, found {type(extra).__name__}")


def _by_id(decoder: Any, where: Path) -> dict[int, tokenizers.AddedToken]:
    where_exactly = f"{where}: added_tokens_decoder"
    if not isinstance(decoder, Mapping) or not all(str(id).isdecimal() for id in decoder):
        raise LabError(f"{where_exactly} should be an object of tokens by id")
    return {int(id): _token(entry, where_exactly) for id, entry in decoder.items()}


def _from_added_tokens(
    ids: Mapping[str, Any], special: set[str], where: Path
) -> dict[int, tokenizers.AddedToken]:
    """Read added_tokens.json, which has no flags: a token is special if it has a role."""
    for token, id in ids.items():
        if not isinstance(id, int) or isinstance(id, bool) or id < 0:
            raise LabError(f"{where}: added_tokens.json: the id of {token!r} should be a whole number from 0")
    return {
        id: tokenizers.AddedToken(token, normalized=token not in special, special=token in special)
        for token, id in ids.items()
    }


def _maybe_token(value: Any, where: str, *, special: bool = False) -> _Token | None:
    """Return a token as an entry names it: plainly, or with its flags. LabError for a list, as transformers refuses it."""
    if value is None or isinstance(value, str):
        return value or None
    return _token(value, where, special=special)


def _token(entry: Any, where: str, *, special: bool = False) -> tokenizers.AddedToken:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("content"), str):
        raise LabError(f"{where}: expected a token, found {str(entry)[:40]!r}")
    flags = {
        flag: bool(entry[flag])
        for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")
        if entry.get(flag) is not None
    }
    return tokenizers.AddedToken(entry["content"], **(flags | ({"special": True} if special else {})))
