"""A tokenizer of another's kind, trained on other text: same algorithm, same splitting of words, same special tokens."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import tokenizers

from gpt2lab.base.errors import LabError, brief
from gpt2lab.base.interruptible import interruptible
from gpt2lab.base.progress import Waiting
from gpt2lab.text.long_words import with_bounded_words
from gpt2lab.text.special_tokens import ROLES
from gpt2lab.text.tokenizer import Tokenizer, is_from_tokenizers

_TRAINERS = {
    "BPE": tokenizers.trainers.BpeTrainer,
    "WordPiece": tokenizers.trainers.WordPieceTrainer,
    "Unigram": tokenizers.trainers.UnigramTrainer,
    "WordLevel": tokenizers.trainers.WordLevelTrainer,
}
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""How a BPE that falls back on bytes spells them."""


def trained_like(tokenizer: Tokenizer, documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a tokenizer of the kind of `tokenizer` on documents, with `vocab_size` ids at most.

    The trainers of WordPiece and Unigram give other ids each time; the others always the same.
    Its special tokens come first, in the order of their old ids; whatever it puts around a text stays. A small text may give
    fewer ids. LabError for a vocabulary that special tokens and bytes alone fill, no text, and a tokenizer of another kind.
    """
    content = json.loads(tokenizer.backend.to_str())
    kind = content["model"].get("type", "")
    if kind not in _TRAINERS:
        raise LabError(
            f"a tokenizer of kind {kind or 'unknown'} cannot be trained anew; give one with tokenizer=FOLDER"
        )
    special = [
        tokenizers.AddedToken(tokenizer.token(id), special=True, normalized=False)
        for id in sorted(tokenizer.special_ids)
    ]
    forced = _BYTES if content["model"].get("byte_fallback") else ()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet() if _is_byte_level(content) else []
    least = len(special) + len(forced) + len(alphabet)
    if vocab_size <= least:
        raise LabError(
            f"vocab_size {vocab_size}: {least} ids are bytes and special tokens; give more than that"
        )
    backend = tokenizers.Tokenizer.from_str(json.dumps(_emptied(content)))
    options: dict[str, Any] = {
        "vocab_size": vocab_size - len(forced),
        "special_tokens": special,
        "show_progress": False,
    }
    if kind in ("BPE", "WordPiece"):
        options["initial_alphabet"] = sorted(alphabet)
        for name in ("continuing_subword_prefix", "end_of_word_suffix"):
            if content["model"].get(name):
                options[name] = content["model"][name]
    if kind == "Unigram":
        options["unk_token"] = _unknown(content["model"])
    splitter = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    with Waiting(f"tokenizer ({kind}, {vocab_size:,} ids at most)") as waiting:
        texts = (piece for document in _some(documents) for piece in with_bounded_words(document, splitter))
        trainer = _TRAINERS[kind](**options)
        try:
            interruptible(
                lambda pieces: backend.train_from_iterator(pieces, trainer), texts, afterwards=waiting.show
            )
        except BaseException as error:
            if not is_from_tokenizers(error) or isinstance(error, LabError):
                raise
            raise LabError(f"no {kind} tokenizer can be trained on this text: {brief(error)}") from error
    made = json.loads(backend.to_str())
    if forced:
        _add_bytes(made, len(special))
    _set_frame(made, content["post_processor"])
    return _with_roles(tokenizers.Tokenizer.from_str(json.dumps(made)), tokenizer)


def _emptied(content: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a tokenizer without a vocabulary and without what stands around a text."""
    model = dict(content["model"])
    if model["type"] == "Unigram":
        unknown = _unknown(model)
        model |= {
            "vocab": [] if unknown is None else [[unknown, 0.0]],
            "unk_id": None if unknown is None else 0,
        }
    else:
        model["vocab"] = {}
    if "merges" in model:
        model["merges"] = []
    return content | {"model": model, "added_tokens": [], "post_processor": None}


def _unknown(model: dict[str, Any]) -> str | None:
    """Return the unknown token of a Unigram model."""
    return None if model.get("unk_id") is None else str(model["vocab"][model["unk_id"]][0])


def _is_byte_level(content: dict[str, Any]) -> bool:
    """Whether a text is cut into bytes before the model sees it."""
    return any('"ByteLevel"' in json.dumps(content.get(part)) for part in ("pre_tokenizer", "normalizer"))


def _some(documents: Iterable[str]) -> Iterator[str]:
    empty = True
    for document in documents:
        empty = empty and not document.strip()
        yield document
    if empty:
        raise LabError("no text to train a tokenizer on: the documents are empty")


def _add_bytes(content: dict[str, Any], first: int) -> None:
    """Put the tokens of the 256 bytes behind the special ones of a BPE."""
    ordered = sorted(content["model"]["vocab"], key=content["model"]["vocab"].__getitem__)
    ordered[first:first] = [byte for byte in _BYTES if byte not in content["model"]["vocab"]]
    content["model"]["vocab"] = {token: id for id, token in enumerate(ordered)}


def _set_frame(content: dict[str, Any], frame: Any) -> None:
    """Give a tokenizer what another puts around a text, with the new ids of the special tokens."""
    ids = {token["content"]: token["id"] for token in content["added_tokens"]}
    content["post_processor"] = _renumbered(frame, ids)


def _renumbered(frame: Any, ids: dict[str, int]) -> Any:
    """Return a post-processor with other ids: {"id": "<s>", "ids": [...], "tokens": [...]}, and pairs ["</s>", 2]."""
    if isinstance(frame, dict):
        if "ids" in frame and "tokens" in frame:
            return frame | {"ids": [ids[token] for token in frame["tokens"]]}
        return {name: _renumbered(value, ids) for name, value in frame.items()}
    if isinstance(frame, list):
        if len(frame) == 2 and isinstance(frame[0], str) and isinstance(frame[1], int) and frame[0] in ids:
            return [frame[0], ids[frame[0]]]
        return [_renumbered(value, ids) for value in frame]
    return frame


def _with_roles(backend: tokenizers.Tokenizer, old: Tokenizer) -> Tokenizer:
    roles = {name: getattr(old, name) for name in ROLES}
    found = {name: None if id is None else backend.token_to_id(old.token(id)) for name, id in roles.items()}
    return Tokenizer(backend, **found, settings=old.settings, files=old.files)
