"""What generation_config.json of a model's folder says about the tokens of a text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.json_files import parse_json

GENERATION_CONFIG = "generation_config.json"

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "bad_words_ids": (None, []),
    "exponential_decay_length_penalty": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "guidance_scale": (None, 1),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "no_repeat_ngram_size": (None, 0),
    "repetition_penalty": (None, 1),
    "sequence_bias": (None, [], {}),
    "stop_strings": (None, [], ""),
}
"""Entries by which transformers changes texts whatever the decoder, with the values that change nothing."""


@dataclass(frozen=True)
class GenerationConfig:
    """Its entries about single tokens, which every decoder follows, and the names of those that none follows."""

    eos: tuple[int, ...] = ()
    """Ids that end a text."""
    suppressed: tuple[int, ...] = ()
    """Ids that are never said (`suppress_tokens`)."""
    suppressed_first: tuple[int, ...] = ()
    """Ids that are not said first (`begin_suppress_tokens`)."""
    not_followed: tuple[str, ...] = ()
    """Entries that would change a text and are not followed."""


def read_generation_config(data: bytes | None) -> GenerationConfig:
    """Read the file's content, None if there is none. LabError for what is no JSON object, or no ids where ids stand."""
    if data is None:
        return GenerationConfig()
    entries = parse_json(data, GENERATION_CONFIG)
    if not isinstance(entries, dict):
        raise LabError(f"{GENERATION_CONFIG}: expected a JSON object, found {type(entries).__name__}")
    return GenerationConfig(
        _ids(entries, "eos_token_id"),
        _ids(entries, "suppress_tokens"),
        _ids(entries, "begin_suppress_tokens"),
        tuple(name for name, neutral in _NEUTRAL.items() if entries.get(name) not in neutral),
    )


def _ids(entries: Mapping[str, Any], name: str) -> tuple[int, ...]:
    value = entries.get(name)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(id, int) and not isinstance(id, bool) for id in ids):
        raise LabError(
            f"{GENERATION_CONFIG}: {name} should be an id or a list of ids, found {str(value)[:40]}"
        )
    return tuple(dict.fromkeys(id for id in ids if id >= 0))  # -1 stands for none in old files
