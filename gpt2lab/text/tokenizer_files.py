"""The folder layouts a tokenizer comes in, and the one it is written in.

What a folder means is what AutoTokenizer of transformers 5 makes of it; docs/guide/model-folders.md lists the exceptions.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from gpt2lab.base.errors import LabError, brief
from gpt2lab.base.files import atomic_write, user_path
from gpt2lab.base.json_files import write_json
from gpt2lab.model.checkpoints.gguf_file import GGUFFile, is_gguf
from gpt2lab.text.chat_templates import read_chat_templates, write_chat_templates
from gpt2lab.text.gguf_tokenizer import read_tokenizer
from gpt2lab.text.hub import resolve
from gpt2lab.text.reduction import REDUCTION_FILE, ReducedTokenizer, VocabularyReduction
from gpt2lab.text.special_tokens import KEYS, ROLES, SpecialTokens, content
from gpt2lab.text.tokenizer import Tokenizer, is_from_tokenizers
from gpt2lab.text.tokenizer_classes import (
    BERT,
    GPT2,
    Pieces,
    TokenizerClass,
    class_of,
    set_frame,
    unknown_class,
)
from gpt2lab.text.tokenizer_folder import TokenizerFolder, read_if_there
from gpt2lab.text.vocabulary_files import (
    check_ids,
    check_merges,
    read_bpe,
    read_lines,
    read_vocabulary,
    word_backend,
)

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "config.json",
    "generation_config.json",
    "vocabulary_reduction.json",
)
"""What is fetched from the hub for a tokenizer alone."""


def load_tokenizer(source: Path | str) -> Tokenizer:
    """Open the tokenizer of a folder, a `tokenizer.json`, a GGUF file, or of a hub id if there is no such folder.

    Understood are `tokenizer.json`, `vocab.json` with `merges.txt` (GPT-2's kind), `vocab.txt` (BERT's), a `vocab.json`
    of words. Which class of transformers a folder names decides what ids a text has, as AutoTokenizer does.
    LabError names the file and what is wrong with it.
    """
    path = user_path(source)
    if is_gguf(path):
        return gguf_tokenizer(path)
    if path.is_file():
        return _with_entries(_opened(TokenizerFolder.of(path.parent, path)), path)
    if not path.is_dir():
        path = resolve(source, files=FILES)
    found = _with_entries(_opened(TokenizerFolder.of(path, path / "tokenizer.json")), path)
    if (path / REDUCTION_FILE).is_file():
        return ReducedTokenizer(found, VocabularyReduction.load(path))
    return found


def _with_entries(found: Tokenizer, path: Path) -> Tokenizer:
    """LabError for a tokenizer to which every text is nothing."""
    if not found.backend.get_vocab_size(with_added_tokens=False):
        raise LabError(
            f"{path}: the tokenizer's vocabulary has no entries, so that every text would be empty; give another "
            "tokenizer, or train one (--tokenizer auto)"
        )
    return found


def gguf_tokenizer(path: Path) -> Tokenizer:
    """Open the tokenizer of a GGUF file. LabError if it has none, and as for `GGUFFile` and `read_tokenizer`."""
    file = GGUFFile(path)
    found = read_tokenizer(file.fields, file.where)
    if found is None:
        raise LabError(f"{path}: the file holds no tokenizer")
    return _with_entries(found, path)


def has_tokenizer(folder: Path) -> bool:
    """Tell whether a folder holds a tokenizer that `load_tokenizer` opens."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt"))


def save_tokenizer(tokenizer: Tokenizer, folder: Path | str) -> None:
    """Write the files of Hugging Face's layout; tokenizer.json comes last, and without it the folder holds no tokenizer.

    Of a reduced tokenizer the mapping is written, then its base. A token has its role in them if it is special: naming
    a plain word would change what transformers makes of a text.
    """
    folder = Path(folder)
    if isinstance(tokenizer, ReducedTokenizer):
        tokenizer.reduction.save(folder)
        tokenizer = tokenizer.base
    roles = {f"{role}_token": getattr(tokenizer, role) for role in ROLES}
    names = {key: tokenizer.token(id) for key, id in roles.items() if id in tokenizer.special_ids}
    settings = {
        "clean_up_tokenization_spaces": False,
        **tokenizer.settings,
        # The generic class reads tokenizer.json as it is; a family's class would rebuild it by its own rules.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
    }
    plain = json.dumps(json.loads(tokenizer.backend.to_str()), ensure_ascii=False)
    for replaced in ("tokenizer.json", "added_tokens.json"):  # the ids of the latter are another tokenizer's
        (folder / replaced).unlink(missing_ok=True)
    write_json(folder / "tokenizer_config.json", settings, sort_keys=False, ensure_ascii=False)
    write_json(folder / "special_tokens_map.json", names, sort_keys=False, ensure_ascii=False)
    write_chat_templates(tokenizer.files, folder)
    atomic_write(folder / "tokenizer.json", plain)


def insist(tokenizer: Tokenizer, folder: Path) -> None:
    """Have a saved folder, config.json and all, read as this tokenizer although its family's class would change it.

    transformers reads every folder of a qwen2 by its Qwen2Tokenizer, whatever class it names: another tokenizer that
    such a model was trained with would give other ids. Beside an entry `auto_map` it believes the class that is named.
    """
    path = folder / "tokenizer_config.json"
    files = TokenizerFolder.of(folder, folder / "tokenizer.json")
    kind = class_of(files.config, files.model, files.text)
    if kind is None or files.tokenizer is None:
        return
    of_its_kind = files.tokenizer["model"].get("type") == kind.model
    if not of_its_kind or _opened(files).fingerprint != tokenizer.fingerprint:
        entries = {**files.config, "auto_map": {"AutoTokenizer": [None, None]}}
        write_json(path, entries, sort_keys=False, ensure_ascii=False)


def _opened(files: TokenizerFolder) -> Tokenizer:
    """Make the tokenizer of a folder. LabError for one that is broken."""
    try:
        return _made(files)
    except BaseException as error:
        if isinstance(error, LabError) or not is_from_tokenizers(error):
            raise
        place = files.tokenizer_json if files.tokenizer is not None else files.folder
        raise LabError(f"{place}: misshapen tokenizer: {brief(error)}") from error


def _made(files: TokenizerFolder) -> Tokenizer:
    special = files.special_tokens()
    kind = class_of(files.config, files.model, files.text)
    config = dict(files.config)
    if files.tokenizer is not None:
        # What stands around a text is then said by tokenizer.json alone.
        config.pop("add_bos_token", None)
        config.pop("add_eos_token", None)
        backend, kind = _from_tokenizer_json(files, kind, special, config)
    else:
        backend, kind = _from_vocabulary(files, kind, special, config)
    _complete(backend, special, files)
    names = {key: content(token) if token is not None else None for key, token in special.named.items()}
    set_frame(backend, kind, names, config)
    if kind is not None and kind.plain:
        every = [*names.values(), *(content(token) for token in special.extra)]
        backend.add_tokens([tokenizers.AddedToken(token, special=True) for token in every if token])
    return Tokenizer(
        backend,
        settings=_kept({**(kind.settings if kind else {}), **files.stored_sides(), **files.config}, special),
        files=read_chat_templates(files.folder),
        **_ids(backend, names, files),
    )


def _from_tokenizer_json(
    files: TokenizerFolder, kind: TokenizerClass | None, special: SpecialTokens, config: Mapping[str, Any]
) -> tuple[tokenizers.Tokenizer, TokenizerClass | None]:
    """Read tokenizer.json as it is, or take from it what the class takes."""
    assert files.tokenizer is not None and files.text is not None
    model = files.tokenizer["model"]
    pieces = _pieces(files.tokenizer_json, model)
    if kind is None or pieces is None or model.get("type", kind.model) != kind.model:
        special.fill(files.stored_padding())
        return tokenizers.Tokenizer.from_str(files.text), None
    backend = _built(kind, pieces, special, config, files.rows)
    special.fill(files.stored_padding())
    # What is put around a text is made by the library: of a copy without the vocabulary, which takes long to read.
    emptied = {**model, "vocab": {}, **({"merges": []} if kind.model == "BPE" else {})}
    frame = tokenizers.Tokenizer.from_str(
        json.dumps({**files.tokenizer, "model": emptied, "added_tokens": []})
    )
    backend.post_processor = frame.post_processor
    return backend, kind


def _pieces(path: Path, model: Mapping[str, Any]) -> Pieces | None:
    """Return vocabulary and merges of the model in a tokenizer.json; None for other kinds than lists of pieces with ids."""
    vocabulary, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocabulary, dict):
        return None
    check_ids(path, vocabulary)
    if not isinstance(merges, list):
        return Pieces(vocabulary=vocabulary)
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
    check_merges(path, vocabulary, pairs, model.get("continuing_subword_prefix") or "")
    return Pieces(vocabulary=vocabulary, merges=[(left, right) for left, right in pairs])


def _from_vocabulary(
    files: TokenizerFolder, kind: TokenizerClass | None, special: SpecialTokens, config: Mapping[str, Any]
) -> tuple[tokenizers.Tokenizer, TokenizerClass | None]:
    """Open a folder without tokenizer.json, by its class if that reads the files at hand, else by what they are."""
    folder = files.folder

    def has(*names: str) -> bool:
        return all((folder / name).is_file() for name in names)

    found = next((one for one in (kind, GPT2, BERT) if one is not None and has(*one.vocabulary_files)), None)
    stranger = unknown_class(files.config, files.model)
    if stranger is not None and kind is None and (found is not None or has("vocab.json")):
        raise LabError(
            f"{folder}: a vocabulary for {brief(stranger)}, whose rule is not known here; save it once with transformers "
            "as tokenizer.json"
        )
    if found is not None:
        lines = found.vocabulary_files == BERT.vocabulary_files
        pieces = read_lines(folder / "vocab.txt") if lines else read_bpe(folder)
        if found is not kind:  # nobody says that it is one: special tokens are those that are there
            there = {key: token for key, token in found.tokens.items() if token in pieces.vocabulary}
            special.fill({key: there.get(key) for key in found.tokens})
        return _built(found, pieces, special, config, files.rows), found
    if has("vocab.json"):
        return _from_words(files, special), None
    if has("tokenizer.model"):
        raise LabError(
            f"{folder}: only a sentencepiece tokenizer.model; save it once with transformers as tokenizer.json"
        )
    raise LabError(
        f"{folder}: no tokenizer here; expected tokenizer.json, vocab.json (with merges.txt), or vocab.txt"
    )


def _built(
    kind: TokenizerClass,
    pieces: Pieces,
    special: SpecialTokens,
    config: Mapping[str, Any],
    rows: int | None,
) -> tokenizers.Tokenizer:
    """Build a tokenizer as its class does, and give the special tokens that no file names their defaults.

    A default that the vocabulary lacks is added to it, as transformers does, unless the model has no row for it.
    """
    named = {content(token) for token in special.named.values() if token is not None}
    named |= {content(token) for token in (*special.extra, *special.added.values())}
    unnamed = {key: token for key, token in kind.tokens.items() if key not in special.named}
    absent = {
        token for token in unnamed.values() if token is not None and token not in pieces.vocabulary
    } - named
    size = max(pieces.vocabulary.values(), default=-1) + 1 + len(named - set(pieces.vocabulary))
    if rows is not None and size + len(absent) > rows:
        unnamed = {key: token for key, token in unnamed.items() if token not in absent}
    special.fill(unnamed)
    unknown = special.named.get("unk_token")
    return kind.build(pieces, config, content(unknown) if unknown is not None else "[UNK]")


def _from_words(files: TokenizerFolder, special: SpecialTokens) -> tokenizers.Tokenizer:
    """Open a plain list of words with ids, a layout of small models of their own kind."""
    path = files.folder / "vocab.json"
    vocabulary = read_vocabulary(path)
    unknown = next((word for word in ("<unk>", "[UNK]", "<UNK>") if word in vocabulary), None)
    special.fill({"unk_token": unknown})
    for key, token in special.named.items():
        if token is not None and content(token) not in vocabulary:
            raise LabError(
                f"{files.folder}: {key} {content(token)!r} is not in the vocabulary of {len(vocabulary)} words"
            )
    by_id = {id: word for word, id in vocabulary.items()}
    for role, id in _named_by_id(files).items():
        if id in by_id:
            special.fill({f"{role}_token": by_id[id]})
    roles = {vocabulary[content(token)] for token in special.named.values() if token is not None}
    return word_backend(path, vocabulary, unknown, roles)


def _complete(backend: tokenizers.Tokenizer, special: SpecialTokens, files: TokenizerFolder) -> None:
    """Add the tokens that the vocabulary lacks. LabError for one that does not get the id that a file gives it."""
    special.add_to(backend)
    for id, token in special.added.items():
        if backend.token_to_id(token.content) != id:
            found = backend.token_to_id(token.content)
            raise LabError(f"{files.folder}: {token.content!r} should have id {found}, found {id}")


def _named_by_id(files: TokenizerFolder) -> dict[str, int]:
    """Return the special tokens that the model's own files name by id: config.json before generation_config.json."""
    named: dict[str, int] = {}
    for entries in (read_if_there(files.folder / "generation_config.json"), files.model):
        for role in ROLES:
            id = entries.get(f"{role}_token_id")
            if isinstance(id, list):
                id = id[0] if id else None
            if isinstance(id, int) and not isinstance(id, bool):
                named[role] = id
    return named


def _ids(
    backend: tokenizers.Tokenizer, names: Mapping[str, str | None], files: TokenizerFolder
) -> dict[str, int | None]:
    """Return the id of each role: of the token that the tokenizer's files name, else what the model's files say.

    Ids outside the vocabulary are a default that was copied (50256).
    """
    rows = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    by_id = {role: id for role, id in _named_by_id(files).items() if 0 <= id < rows}
    ids: dict[str, int | None] = {}
    for role, key in zip(ROLES, KEYS, strict=True):
        token = names.get(key)
        ids[role] = backend.token_to_id(token) if token is not None else by_id.get(role)
    return ids


def _kept(config: Mapping[str, Any], special: SpecialTokens) -> dict[str, Any]:
    """Return what of a tokenizer_config.json is kept on saving (a chat template, the longest input)."""
    dropped = {
        *KEYS,
        "added_tokens_decoder",  # tokenizer.json has them
        "auto_map",
        "backend",
        "init_inputs",
        "is_local",
        "local_files_only",
        "name_or_path",
        "special_tokens_map_file",
        "tokenizer_class",
        "tokenizer_file",
    }
    # A role that is said to be nobody's stays so: a class would have a default for it.
    kept = {
        key: value for key, value in config.items() if key not in dropped or (key in KEYS and value is None)
    }
    own = {
        key: content(token) for key, token in special.named.items() if token is not None and key not in KEYS
    }
    kept |= {key: token for key, token in own.items() if key.endswith("_token")}
    if not isinstance(kept.get("extra_special_tokens"), Mapping) and special.extra:
        # The older name is read by every transformers; those before 5 take a list under the newer one for a mistake.
        name = "extra_special_tokens" if kept.get("extra_special_tokens") else "additional_special_tokens"
        kept[name] = [content(token) for token in special.extra]
    return kept
