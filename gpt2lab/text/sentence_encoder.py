"""How a folder of sentence-transformers makes a vector of a text: modules.json and the files that it names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.json_files import parse_json
from gpt2lab.model.task_heads import Pooling

_MODES: dict[str, Pooling] = {"cls_token": "first", "mean_tokens": "mean", "lasttoken": "last"}
"""Pooling of the lab by the entry `pooling_mode_...` of 1_Pooling/config.json."""


@dataclass(frozen=True, kw_only=True)
class SentenceEncoder:
    """What is done to a text before the model, and to the model's states after it."""

    pooling: Pooling
    """Which states become one vector."""
    normalize: bool
    """Vectors have length 1."""
    longest: int | None = None
    """Tokens of the longest input, special ones included; None: as many as the model has positions."""
    lower_case: bool = False
    """Texts are read in small letters."""
    prompt: str = ""
    """Stands before a text that is given none."""


def read_sentence_encoder(files: Mapping[str, bytes]) -> SentenceEncoder | None:
    """Read the side files of a folder; None for a folder that is no sentence encoder.

    LabError for a module that the lab does not compute (such as Dense), and a pooling that it does not have.
    """
    if "modules.json" not in files:
        return None
    modules = parse_json(files["modules.json"], "modules.json")
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise LabError("modules.json: expected a list of objects")
    kinds = [str(module.get("type")).rpartition(".")[2] for module in modules]
    unknown = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if unknown or kinds.count("Pooling") != 1:
        problem = f"has the module {unknown[0]}" if unknown else "does not have one module Pooling"
        raise LabError(
            f"modules.json {problem}; computed are Transformer, Pooling, Normalize: give pooling=..."
        )
    place = modules[kinds.index("Pooling")].get("path")
    pooling = _object(files, f"{place}/config.json")
    base = _object(files, "sentence_bert_config.json")
    longest = base.get("max_seq_length")
    if longest is not None and (not isinstance(longest, int) or isinstance(longest, bool) or longest < 1):
        raise LabError(
            f"sentence_bert_config.json: max_seq_length should be a number from 1, found {longest!r}"
        )
    prompt = _prompt(_object(files, "config_sentence_transformers.json"))
    if prompt and pooling.get("include_prompt") is False:
        raise LabError(
            f"{place}/config.json: pooling without the prompt's tokens is not computed: give pooling=..."
        )
    return SentenceEncoder(
        pooling=_pooling(pooling, f"{place}/config.json"),
        normalize="Normalize" in kinds,
        longest=longest,
        lower_case=bool(base.get("do_lower_case", False)),
        prompt=prompt,
    )


def _pooling(config: Mapping[str, Any], where: str) -> Pooling:
    asked = [name.removeprefix("pooling_mode_") for name, value in config.items() if value is True]
    asked = [name for name in asked if f"pooling_mode_{name}" in config]
    if isinstance(config.get("pooling_mode"), str):  # a name, in newer files
        short = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
        asked = [short.get(config["pooling_mode"], config["pooling_mode"])]
    if len(asked) != 1 or asked[0] not in _MODES:
        raise LabError(
            f"{where}: pools by {' and '.join(asked) or 'nothing'}; computed is one of {', '.join(_MODES)}: give pooling=..."
        )
    return _MODES[asked[0]]


def _prompt(config: Mapping[str, Any]) -> str:
    """Return the prompt that stands before every text unless another is given."""
    prompts, name = config.get("prompts"), config.get("default_prompt_name")
    if name is None:
        return ""
    if not isinstance(prompts, Mapping) or not isinstance(prompts.get(name), str):
        raise LabError(f"config_sentence_transformers.json: has no prompt of its default's name, {name!r}")
    return str(prompts[name])


def _object(files: Mapping[str, bytes], name: str) -> Mapping[str, Any]:
    """Return the content of a file, empty if it is missing."""
    if name not in files:
        return {}
    content = parse_json(files[name], name)
    if not isinstance(content, dict):
        raise LabError(f"{name}: expected a JSON object, found {type(content).__name__}")
    return content
