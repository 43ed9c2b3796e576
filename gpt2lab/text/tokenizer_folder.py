"""The files that a tokenizer's folder holds, read and checked one by one; what they mean together is told elsewhere."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.json_files import read_object
from gpt2lab.base.patterns import check_pattern
from gpt2lab.text.special_tokens import SpecialTokens, read_special_tokens


@dataclass(frozen=True)
class TokenizerFolder:
    """The contents of a folder that a tokenizer is made of; an object that is missing is empty."""

    folder: Path
    tokenizer_json: Path
    tokenizer: Mapping[str, Any] | None
    """Content of tokenizer.json."""
    text: str | None
    """The same as it is written."""
    config: Mapping[str, Any]
    """tokenizer_config.json."""
    model: Mapping[str, Any]
    """config.json."""

    @staticmethod
    def of(folder: Path, tokenizer_json: Path) -> "TokenizerFolder":
        """Read them. LabError for one that is broken."""
        tokenizer = read_object(tokenizer_json) if tokenizer_json.is_file() else None
        if tokenizer is not None and not isinstance(tokenizer.get("model"), dict):
            raise LabError(f'{tokenizer_json}: no tokenizer: the entry "model" is missing')
        check_patterns(tokenizer, str(tokenizer_json))
        return TokenizerFolder(
            folder,
            tokenizer_json,
            tokenizer,
            json.dumps(tokenizer) if tokenizer is not None else None,
            read_if_there(folder / "tokenizer_config.json"),
            read_if_there(folder / "config.json"),
        )

    def special_tokens(self) -> SpecialTokens:
        """Put together the special tokens that the files name."""
        in_tokenizer = (self.tokenizer or {}).get("added_tokens") or []
        return read_special_tokens(
            self.config,
            read_if_there(self.folder / "special_tokens_map.json"),
            read_if_there(self.folder / "added_tokens.json"),
            in_tokenizer if isinstance(in_tokenizer, list) else [],
            self.folder,
        )

    def stored_padding(self) -> dict[str, str | None]:
        """Return the padding token that tokenizer.json pads with, which counts where no other file names one."""
        padding = (self.tokenizer or {}).get("padding")
        return {"pad_token": padding.get("pad_token")} if isinstance(padding, Mapping) else {}

    def stored_sides(self) -> dict[str, str]:
        """Return the sides on which tokenizer.json pads and cuts, as entries of tokenizer_config.json."""
        stored = {name: (self.tokenizer or {}).get(name) for name in ("padding", "truncation")}
        return {
            f"{name}_side": str(value.get("direction", "right")).lower()
            for name, value in stored.items()
            if isinstance(value, Mapping)
        }

    @property
    def rows(self) -> int | None:
        """Rows of the model's embedding beside the tokenizer, None if no file says."""
        rows = self.model.get("vocab_size")
        return rows if isinstance(rows, int) else None


def check_patterns(content: Any, where: str) -> None:
    """LabError for a regular expression of a tokenizer.json that can take for ever."""
    for pattern in _patterns(content):
        check_pattern(pattern, where)


def _patterns(content: Any) -> Iterator[str]:
    """Yield the regular expressions of a tokenizer.json."""
    if isinstance(content, dict):
        if isinstance(content.get("Regex"), str):
            yield content["Regex"]
        for key, item in content.items():
            if key not in ("vocab", "merges", "added_tokens"):
                yield from _patterns(item)
    elif isinstance(content, list):
        for item in content:
            yield from _patterns(item)


def read_if_there(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file, an empty one if it is missing."""
    return read_object(path) if path.is_file() else {}
