"""A model's name becomes a local folder: a path as it is, a hub id through the hub's cache."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from gpt2lab.base.errors import LabError, nearest
from gpt2lab.base.files import restore, user_path

SIDE_FILES = (
    "generation_config.json",
    "README*",
    "LICEN[SC]E*",
    "NOTICE*",
    "USE_POLICY*",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "[1-9]_*/config.json",
    "[1-9]_*/model.safetensors",
)
"""What belongs to a model beside configuration, weights and tokenizer: kept as it is when the model is saved."""

MODEL_FILES = (
    "config.json",
    "adapter_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "vocabulary_reduction.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    *SIDE_FILES,
)
"""What is fetched of a model: configuration, safetensors, tokenizer and side files; never a pickle."""

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_FILE = re.compile(r"(?!\.)([\w.-]+/[\w.-]+)/(?!\.)([\w./-]+\.gguf)", re.IGNORECASE)
"""A file of a repository, as its page spells it."""


def resolve(path_or_hub_id: Path | str, *, files: Sequence[str] = MODEL_FILES) -> Path:
    """Return the local folder of a model, or its GGUF file.

    An existing folder or file is returned as it is, without asking the network. Of a hub id (`EleutherAI/pythia-70m`)
    the names that match `files` are fetched, or taken from the hub's cache when the hub cannot be reached.
    LabError if there is neither, with what is at hand.
    """
    path = user_path(path_or_hub_id)
    restore(path)  # a process may have died while it replaced the folder
    if path.is_dir():
        return path
    name = str(path_or_hub_id)
    if path.is_file():
        from gpt2lab.model.checkpoints.gguf_file import (
            is_gguf,
        )  # torch, of which a name that is no file need not wait

        if is_gguf(path):
            return path
        raise LabError(
            f"{name}: a file; a model is a folder with config.json and *.safetensors, or a .gguf file"
        )
    if file := _HUB_FILE.fullmatch(name):
        raise LabError(
            f"{name}: no such file here, and of the hub no single file is read; fetch it (hf download {file[1]} {file[2]}) "
            "and give its path"
        )
    if isinstance(path_or_hub_id, Path) or not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise LabError(f"{name}: no such folder{_neighbours(path)}")
    return _fetch(name, files)


def _fetch(name: str, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except GatedRepoError as error:
        raise LabError(
            f"{name}: the hub asks you to accept its terms and log in first (hf auth login)"
        ) from error
    except RepositoryNotFoundError as error:
        raise LabError(f"{name}: neither a local folder nor a model on the hub{_at_hand(name)}") from error
    except HFValidationError as error:
        raise LabError(f"{name}: neither a local folder nor a hub id{_at_hand(name)}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise LabError(
            f"{name}: no such folder here, and the hub cannot be reached{_at_hand(name)}"
        ) from error


def cached_models() -> list[str]:
    """Return the ids of the models in the hub's cache on this machine, sorted."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir() if entry.name.startswith("models--")]
    complete = [name for name in names if any((folder / name / "snapshots").glob("*/config.json"))]
    return sorted(name.removeprefix("models--").replace("--", "/") for name in complete)


def local_models(folder: Path) -> list[Path]:
    """Return the folders directly in `folder` that hold a model or a tokenizer, sorted."""
    if not folder.is_dir():
        return []
    marks = ("config.json", "tokenizer.json", "vocab.json", "vocab.txt")
    try:
        return sorted(
            p for p in folder.iterdir() if p.is_dir() and any((p / mark).is_file() for mark in marks)
        )
    except OSError:
        return []


def _at_hand(name: str) -> str:
    """Say what can be used instead of a hub id."""
    cached = cached_models()
    here = [os.path.join(".", p.name) for p in local_models(Path("."))]
    choices = cached + here
    if not choices:
        return "; give a folder with config.json, *.safetensors and tokenizer.json"
    match = nearest(name, choices)
    shown = [match] if match else choices[:4]
    return f"; on this machine: {', '.join(shown)}"


def _neighbours(path: Path) -> str:
    """Say which folders lie where a missing one was looked for."""
    found = {p.name: p for p in local_models(path.parent)}
    if not found:
        return "" if path.parent.is_dir() else f" ({path.parent} does not exist either)"
    match = nearest(path.name, found)
    if match:
        return f"; did you mean {found[match]}?"
    return f"; {path.parent} holds {', '.join(sorted(found)[:5])}"
