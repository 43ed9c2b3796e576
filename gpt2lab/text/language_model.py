"""A language model: a transformer and the tokenizer it was trained with, in one folder."""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_folder, check_place, user_path
from gpt2lab.base.json_files import sealed, write_json
from gpt2lab.model.adapters import is_adapter, load_adapter, read_adapter_config, write_adapter
from gpt2lab.model.checkpoints.gguf_file import GGUFFile, is_gguf
from gpt2lab.model.checkpoints.gguf_model import load_gguf
from gpt2lab.model.checkpoints.huggingface import Layout, load_model, write_model
from gpt2lab.model.checkpoints.native import OWN
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.transformer import Transformer
from gpt2lab.text.generation_config import GENERATION_CONFIG, GenerationConfig, read_generation_config
from gpt2lab.text.gguf_tokenizer import read_generation_files, read_tokenizer
from gpt2lab.text.hub import MODEL_FILES, SIDE_FILES, resolve
from gpt2lab.text.sentence_encoder import SentenceEncoder, read_sentence_encoder
from gpt2lab.text.side_files import read_side_files, write_side_files
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.text.tokenizer_files import has_tokenizer, insist, load_tokenizer, save_tokenizer


@dataclass
class LanguageModel:
    """A model with its tokenizer; the tokenizer is None where a model works on ids alone.

    LabError if the tokenizer has more ids than the model has rows; fewer are fine (a padded vocabulary): an id without
    a token has no text.
    """

    model: Transformer
    tokenizer: Tokenizer | None = None
    side_files: Mapping[str, bytes] = field(default_factory=dict)
    """Contents of further files of the model's folder by path, which `save` writes as they are."""
    source: str = ""
    """The folder, the id on the hub or the run that it comes from; empty for a model that was made in memory."""

    def __post_init__(self) -> None:
        rows = self.model.config.vocab_size
        if self.tokenizer is not None and self.tokenizer.vocab_size > rows:
            raise LabError(
                f"the tokenizer has {self.tokenizer.vocab_size} ids, the model only {rows} rows; "
                "load the tokenizer this model was trained with"
            )

    @property
    def config(self) -> TransformerConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def generation(self) -> GenerationConfig:
        """What generation_config.json says. LabError if it is broken."""
        return read_generation_config(self.side_files.get(GENERATION_CONFIG))

    @property
    def sentence_encoder(self) -> SentenceEncoder | None:
        """How a folder of sentence-transformers makes vectors; None for other models. LabError as it is read."""
        return read_sentence_encoder(self.side_files)

    def inherit(self, source: "LanguageModel") -> None:
        """Take over the side files of the model that this one was made of, if it has none of its own.

        With another tokenizer the ids in generation_config.json mean other tokens: it is left out then.
        """
        if self.side_files:
            return
        ours, theirs = (one.tokenizer and one.tokenizer.fingerprint for one in (self, source))
        left = () if ours == theirs else (GENERATION_CONFIG,)
        self.side_files = {name: data for name, data in source.side_files.items() if name not in left}


def load(
    path_or_hub_id: Path | str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    stored: bool = False,
    architectures: Sequence[type] = (),
) -> LanguageModel:
    """Load a model and its tokenizer from a folder, in Hugging Face's layout or the lab's own, a GGUF file, or by hub id.

    dtype None keeps the type the weights are stored in; those of a GGUF file are dequantised to float32,
    or with `stored` kept as `load_gguf` says. A folder without a tokenizer gives `tokenizer=None`.
    architectures: classes that the model may have been saved with and that are no registered parts. A folder
    with an adapter (adapter_config.json, as PEFT writes it) gives its base with the adapter attached: the base is the
    folder that it names, as a path or beside it, else that name on the hub.
    LabError says which file is missing or broken, or what is at hand when the hub cannot be reached.
    """
    folder = resolve(path_or_hub_id)
    if is_gguf(folder):
        return _load_gguf(folder, device=device, dtype=dtype, stored=stored)
    if is_adapter(folder):
        lm = _load_with_adapter(folder, device=device, dtype=dtype, architectures=architectures)
        lm.source = _source(path_or_hub_id, folder)
        return lm
    model = load_model(folder, device=device, dtype=dtype, architectures=architectures)
    tokenizer = load_tokenizer(folder) if has_tokenizer(folder) else None
    try:
        lm = LanguageModel(model, tokenizer, read_side_files(folder), _source(path_or_hub_id, folder))
        _ = lm.generation  # broken, it should not be found after an hour of decoding
        return lm
    except LabError as error:
        raise LabError(f"{folder}: {error}") from None


def _load_gguf(
    path: Path, *, device: torch.device | str | None, dtype: torch.dtype | None, stored: bool
) -> LanguageModel:
    """Load a GGUF file: model, tokenizer with its chat templates, and further ends of text."""
    file = GGUFFile(path)
    tokenizer = read_tokenizer(file.fields, file.where)  # first: it says in no time what is wrong
    model = load_gguf(file, device=device, dtype=dtype, stored=stored)
    try:
        return LanguageModel(model, tokenizer, read_generation_files(file.fields), str(path.resolve()))
    except LabError as error:
        raise LabError(f"{path}: {error}") from None


def _source(given: Path | str, folder: Path) -> str:
    """Return what a loaded model notes as its source: the folder it was read from, or the hub id that was given."""
    return str(folder.resolve()) if user_path(given).exists() else str(given)


def _load_with_adapter(
    folder: Path,
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    architectures: Sequence[type],
) -> LanguageModel:
    """Load the base that an adapter names, then the adapter; a tokenizer beside the adapter counts before the base's."""
    base = read_adapter_config(folder).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise LabError(
            f"{folder}: adapter_config.json does not name the base model; set base_model_name_or_path"
        )
    place: Path | str = folder / base if (folder / base / "config.json").is_file() else base
    try:
        found = resolve(place)
    except LabError as error:
        raise LabError(f"{folder}: the base model of this adapter cannot be had: {error}") from None
    if is_adapter(found):
        raise LabError(
            f"{folder}: its base {base} is an adapter too; merge that one first (gpt2lab apply merge-lora)"
        )
    lm = load(found, device=device, dtype=dtype, architectures=architectures)
    load_adapter(lm.model, folder)
    tokenizer = load_tokenizer(folder) if has_tokenizer(folder) else lm.tokenizer
    return LanguageModel(lm.model, tokenizer, {**lm.side_files, **read_side_files(folder)})


def save_adapter(lm: LanguageModel, folder: Path | str, *, base: str, name: str | None = None) -> None:
    """Write one adapter of a model as PEFT does, with tokenizer and side files, so that `load` and PEFT open the folder.

    base: folder or hub id of the model below the adapter. An adapter already there is replaced. LabError as for `save`
    and `gpt2lab.model.adapters.save_adapter`.
    """
    folder = user_path(folder)
    refuse_foreign(folder)
    with atomic_folder(folder) as temporary:
        write_side_files(lm.side_files, temporary)
        write_adapter(lm.model, temporary, base=base, name=name)
        if lm.tokenizer is not None:
            save_tokenizer(lm.tokenizer, temporary)


def save(lm: LanguageModel, folder: Path | str, *, layout: Layout = "auto") -> None:
    """Write model, tokenizer and side files so that `load` opens the folder; it appears whole or not at all.

    layout as for `save_model`: transformers opens the folder if its layout can express the model; "huggingface" insists.
    A model already there is replaced. LabError if the folder holds anything else.
    """
    folder = user_path(folder)
    refuse_foreign(folder)
    with atomic_folder(folder) as temporary:
        write_side_files(lm.side_files, temporary)
        write_model(lm.model, temporary, layout=layout)
        if lm.tokenizer is not None:
            save_tokenizer(lm.tokenizer, temporary)
            _name_special_ids(temporary / "config.json", lm.tokenizer)
            insist(lm.tokenizer, temporary)


def refuse_foreign(folder: Path) -> None:
    """LabError if a model cannot be saved there, or would take the place of something that is no model."""
    if folder.is_file():
        raise LabError(f"{folder}: a file; a model is saved as a folder")
    check_place(folder)
    if not folder.is_dir():
        return
    # Documents and modules are a model's own only beside a model.
    is_model = any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
    known = MODEL_FILES if is_model else [name for name in MODEL_FILES if name not in SIDE_FILES]
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and not any(_matches(name, pattern) for pattern in known):
            raise LabError(f"{folder}: holds {name}, which saving would remove; give another folder")


def _matches(name: str, pattern: str) -> bool:
    """Tell whether a path fits a pattern, whose stars stand for no slash."""
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)


def _name_special_ids(path: Path, tokenizer: Tokenizer) -> None:
    """Fill in the special ids that config.json leaves open: transformers would assume GPT-2's own."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    own = entries["model_type"] == OWN
    named = entries[OWN]["config"] if own else entries
    for name in ("bos", "eos", "pad"):
        key = name if own else f"{name}_token_id"
        if named.get(key) is None:
            named[key] = getattr(tokenizer, name)
    if own:
        entries[OWN] = sealed(entries[OWN])
    write_json(path, entries)
