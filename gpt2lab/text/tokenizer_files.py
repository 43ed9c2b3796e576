"""The folder layouts a tokenizer comes in, and the one it is written in."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write
from gpt2lab.base.json_files import read_object
from gpt2lab.text.reduction import REDUCTION_FILE, ReducedTokenizer, VocabularyReduction
from gpt2lab.text.tokenizer import END_OF_TEXT, Tokenizer

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "vocabulary_reduction.json",
)
"""What is fetched from the hub for a tokenizer alone."""

_MASKS = ("[MASK]", "<mask>")
_SPECIAL = ("bos", "eos", "pad", "unk", "mask")


def load(source: Path | str) -> Tokenizer:
    """Open the tokenizer of a folder, a `tokenizer.json`, or a hub id; LabError says what is missing."""
    path = Path(source).expanduser()
    if path.is_file():
        return _from_tokenizer_json(path, {})
    if not path.is_dir():
        from gpt2lab.model.hub import resolve  # late: the model floor imports torch

        path = resolve(source, files=FILES)
    found = _of_folder(path)
    if (path / REDUCTION_FILE).is_file():
        return ReducedTokenizer(found, VocabularyReduction.load(path))
    return found


def _of_folder(path: Path) -> Tokenizer:
    config = _settings(path)
    if (path / "tokenizer.json").is_file():
        return _from_tokenizer_json(path / "tokenizer.json", config)
    if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
        return _from_merges(path, config)
    if (path / "vocab.json").is_file():
        return _from_words(path / "vocab.json", config)
    if (path / "tokenizer.model").is_file():
        raise LabError(
            f"{path}: only a sentencepiece tokenizer.model; save it once with transformers as tokenizer.json"
        )
    raise LabError(f"{path}: no tokenizer here; expected tokenizer.json, or vocab.json (with merges.txt)")


def has_tokenizer(folder: Path) -> bool:
    """Tell whether a folder holds a tokenizer that `load` opens."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the three files of Hugging Face's layout, each whole or not at all."""
    names = {f"{name}_token": _text(tokenizer, getattr(tokenizer, name)) for name in _SPECIAL}
    names = {key: token for key, token in names.items() if token is not None}
    settings = {key: value for key, value in tokenizer.settings.items() if not key.endswith("_token")}
    settings |= {
        "clean_up_tokenization_spaces": False,
        # The generic class reads tokenizer.json as it is; a family's class would rebuild it by its own rules.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
    }
    content = json.dumps(json.loads(tokenizer.backend.to_str()), ensure_ascii=False)
    atomic_write(folder / "tokenizer.json", content)
    atomic_write(folder / "tokenizer_config.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    atomic_write(folder / "special_tokens_map.json", json.dumps(names, indent=2, ensure_ascii=False) + "\n")


def _text(tokenizer: Tokenizer, id: int | None) -> str | None:
    return None if id is None else tokenizer.token(id)


def _settings(folder: Path) -> dict[str, Any]:
    """Return the tokenizer's settings, special tokens as str (or id, where only a model's config tells)."""
    merged: dict[str, Any] = {}
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            content = read_object(folder / name)
            merged |= {
                f"{k}_token": content[f"{k}_token_id"]
                for k in _SPECIAL
                if content.get(f"{k}_token_id") is not None
            }
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            content = read_object(folder / name)
            content.pop("added_tokens_decoder", None)  # tokenizer.json has them
            merged |= {key: value for key, value in content.items() if value is not None}
    return merged


def _special_ids(
    backend: tokenizers.Tokenizer, config: Mapping[str, Any], where: Path
) -> dict[str, int | None]:
    """Return the ids of bos, eos, pad, unk and mask; a token named in the tokenizer's own files must exist."""
    rows = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    ids: dict[str, int | None] = {}
    for name in _SPECIAL:
        token = config.get(f"{name}_token")
        if name == "mask" and token is None:  # the first BERT's files do not name it
            token = next((usual for usual in _MASKS if backend.token_to_id(usual) is not None), None)
        if isinstance(token, Mapping):
            token = token.get("content")
        if isinstance(token, list):  # some configs list several ends; the first is the tokenizer's own
            token = token[0] if token else None
        if isinstance(token, str):
            id = backend.token_to_id(token)
            if id is None:
                raise LabError(f"{where}: {name}_token {token!r} is not in the vocabulary of {rows} ids")
            ids[name] = id
        else:  # an id of a model's config; those outside the vocabulary are a copied default (50256)
            ids[name] = token if isinstance(token, int) and 0 <= token < rows else None
    return ids


def _kept(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a tokenizer_config.json is kept on saving (a chat template, the longest input)."""
    dropped = {
        "tokenizer_class",
        "auto_map",
        "tokenizer_file",
        "name_or_path",
        "special_tokens_map_file",
        "backend",
    }
    return {key: value for key, value in config.items() if key not in dropped and not key.endswith("_token")}


def _from_tokenizer_json(path: Path, config: Mapping[str, Any]) -> Tokenizer:
    content = read_object(path)
    if not isinstance(content.get("model"), dict):
        raise LabError(f'{path}: no tokenizer: the entry "model" is missing')
    model = content["model"]
    try:
        if isinstance(model.get("merges"), list) and isinstance(model.get("vocab"), dict):
            merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
            _check_merges(path, model["vocab"], merges, model.get("continuing_subword_prefix") or "")
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    except LabError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        raise LabError(f"{path}: misshapen tokenizer: {error}") from error
    if not config:
        config = _settings(path.parent)
    return Tokenizer(backend, settings=_kept(config), **_special_ids(backend, config, path.parent))


def _from_merges(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """Open GPT-2's own layout, byte-level BPE; the end of text is bos, eos and unk by default."""
    vocabulary = _vocabulary(folder / "vocab.json")
    merges = _merges(folder / "merges.txt")
    _check_merges(folder / "merges.txt", vocabulary, merges)
    model = tokenizers.models.BPE(vocab=vocabulary, merges=merges)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=bool(config.get("add_prefix_space", False))
    )
    backend.decoder = tokenizers.decoders.ByteLevel()
    _add_tokens(folder / "added_tokens.json", backend)
    defaults = (
        {f"{name}_token": END_OF_TEXT for name in ("bos", "eos", "unk")} if END_OF_TEXT in vocabulary else {}
    )
    ids = _special_ids(backend, defaults | dict(config), folder)
    _declare_special(backend, ids)
    return Tokenizer(backend, settings=_kept(config), **ids)


def _add_tokens(path: Path, backend: tokenizers.Tokenizer) -> None:
    """Add the tokens that a fine-tuned GPT-2 has beside its vocabulary, with the ids they were given."""
    if not path.is_file():
        return
    for token, id in sorted(_vocabulary(path).items(), key=lambda item: item[1]):
        backend.add_tokens([tokenizers.AddedToken(token, normalized=False)])
        if backend.token_to_id(token) != id:
            raise LabError(f"{path}: {token!r} should have id {backend.token_to_id(token)}, found {id}")


def _merges(path: Path) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(parts):
            raise LabError(
                f"{path}, line {number}: expected two pieces with one blank between, found {line[:40]!r}"
            )
        pairs.append((parts[0], parts[1]))
    return pairs


def _check_merges(
    path: Path, vocabulary: Mapping[str, int], merges: Iterable[Sequence[str]], prefix: str = ""
) -> None:
    """LabError if a merge leaves the vocabulary; checked here because the library aborts on it."""
    for left, right in merges:
        for piece in (left, right, left + right.removeprefix(prefix)):
            if piece not in vocabulary:
                raise LabError(
                    f"{path}: merges {left!r} and {right!r}, but {piece!r} is not in the vocabulary"
                )


def _from_words(path: Path, config: Mapping[str, Any]) -> Tokenizer:
    """Open a plain list of words with ids: words are separated by blanks, but may hold blanks themselves.

    A vocabulary of single characters splits at every character instead.
    """
    vocabulary = _vocabulary(path)
    if any("Ġ" in word for word in vocabulary):
        raise LabError(f"{path}: a byte-level vocabulary without its merges.txt")
    unknown = next((word for word in ("<unk>", "[UNK]", "<UNK>") if word in vocabulary), None)
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=unknown or "<unk>"))
    ids = _special_ids(backend, ({"unk_token": unknown} if unknown else {}) | dict(config), path.parent)
    words = [word for word, id in vocabulary.items() if id not in ids.values()]
    if all(len(word) == 1 for word in words):
        pattern = r"[\s\S]"
        backend.decoder = tokenizers.decoders.Fuse()
    else:
        spaced = sorted((word for word in words if re.search(r"\s", word)), key=len, reverse=True)
        pattern = "|".join([*(re.escape(word) + r"(?=\s|$)" for word in spaced), r"\S+"])
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "removed", invert=True)
    _declare_special(backend, ids)
    return Tokenizer(backend, settings=_kept(config), **ids)


def _vocabulary(path: Path) -> dict[str, int]:
    vocabulary = read_object(path)
    for word, id in vocabulary.items():
        if not isinstance(id, int) or isinstance(id, bool) or id < 0:
            raise LabError(f"{path}: the id of {word!r} should be a whole number from 0, found {id!r}")
    if len(set(vocabulary.values())) < len(vocabulary):
        raise LabError(f"{path}: two words share an id")
    if not vocabulary:
        raise LabError(f"{path}: the vocabulary is empty")
    return vocabulary


def _declare_special(backend: tokenizers.Tokenizer, ids: Mapping[str, int | None]) -> None:
    tokens = [backend.id_to_token(id) for id in dict.fromkeys(ids.values()) if id is not None]
    backend.add_special_tokens(
        [tokenizers.AddedToken(t, special=True, normalized=False) for t in tokens if t]
    )
