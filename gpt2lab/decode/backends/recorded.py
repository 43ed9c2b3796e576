"""Answers kept in a file: a measure on a server is repeated to the digit without the server."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write
from gpt2lab.base.settings import from_plain
from gpt2lab.decode.backend import Completion, Score, TextBackend, check_groups
from gpt2lab.text.bounded import json_rows

_FORMAT = "gpt2lab answers"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Recorder(TextBackend):
    """Another back end, whose answers are kept in a file; what the file holds already stays in it."""

    backend: TextBackend
    """Who answers."""
    path: Path
    """A jsonl file: first who answered, then a request and its answer in each line."""
    _known: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known: dict[str, Any] = {}
        if self.path.exists():
            name, known = _read(self.path)
            if name != self.backend.name:
                raise LabError(
                    f"{self.path}: holds answers of {name}, not of {self.backend.name}; give another file"
                )
        object.__setattr__(self, "_known", known)

    @property
    def name(self) -> str:
        """That of who answers."""
        return self.backend.name

    def generate(self, prompts: Sequence[str], **settings: Any) -> list[list[Completion]]:
        """Ask, and keep the answers."""
        found = self.backend.generate(prompts, **settings)
        for key, texts in zip(_generate_keys(prompts, settings), found, strict=True):
            self._known[key] = [asdict(text) for text in texts]
        self._write()
        return found

    def score(self, contexts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[list[Score]]:
        """Ask, and keep the answers."""
        found = self.backend.score(contexts, continuations)
        for context, texts, scores in zip(contexts, continuations, found, strict=True):
            self._known[_score_key(context, texts)] = [asdict(score) for score in scores]
        self._write()
        return found

    def _write(self) -> None:
        head = {"format": _FORMAT, "version": _VERSION, "name": self.name}
        lines = [head, *({"request": json.loads(key), "answer": known} for key, known in self._known.items())]
        text = "".join(json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n" for line in lines)
        atomic_write(self.path, text)


@dataclass(frozen=True, kw_only=True)
class Recorded(TextBackend):
    """The answers of a file; a request that is not there is refused."""

    path: Path
    """What a `Recorder` wrote."""
    _found: tuple[str, Mapping[str, Any]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_found", _read(self.path))

    @property
    def name(self) -> str:
        """Who answered when the file was written."""
        return self._found[0]

    def generate(self, prompts: Sequence[str], **settings: Any) -> list[list[Completion]]:
        """Return the texts that were written then. LabError for a request that was not made then."""
        keys = _generate_keys(prompts, settings)
        return [
            [_made(Completion, one, self.path) for one in self._answer(key, f"the prompt {prompt!r}")]
            for key, prompt in zip(keys, prompts, strict=True)
        ]

    def score(self, contexts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[list[Score]]:
        """Return the scores that were given then. LabError for a request that was not made then."""
        check_groups(contexts, continuations)
        found = []
        for context, texts in zip(contexts, continuations, strict=True):
            answer = self._answer(_score_key(context, texts), f"the context {context!r}")
            if len(answer) != len(texts):
                raise LabError(f"{self.path}: {len(answer)} scores for {len(texts)} continuations; damaged")
            found.append([_made(Score, one, self.path) for one in answer])
        return found

    def _answer(self, key: str, what: str) -> list[Any]:
        if key not in self._found[1]:
            raise LabError(
                f"{self.path}: no answer to {what[:80]} with these settings; record it, or use the same settings"
            )
        answer = self._found[1][key]
        if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
            raise LabError(f"{self.path}: the answer to {what[:80]} is damaged")
        return answer


_DEFAULTS: dict[str, Any] = {
    "stop": (), "temperature": 1.0, "top_p": 1.0, "seed": 0, "n": 1, "logprobs": False,
}  # fmt: skip


def _generate_keys(prompts: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """A key for each prompt; equal ones are told apart by counting, because their draws differ."""
    times: Counter[str] = Counter()
    keys = []
    for prompt in prompts:
        plain = {**_DEFAULTS, **settings, "prompt": prompt, "time": times[prompt]}
        plain |= {
            "stop": list(plain["stop"]),
            "temperature": float(plain["temperature"]),
            "top_p": float(plain["top_p"]),
        }
        keys.append(json.dumps({"generate": plain}, sort_keys=True))
        times[prompt] += 1
    return keys


def _score_key(context: str, texts: Sequence[str]) -> str:
    return json.dumps({"score": {"context": context, "continuations": list(texts)}}, sort_keys=True)


def _made(kind: type[Any], plain: dict[str, Any], path: Path) -> Any:
    """Return an answer in its own type; LabError for one that is damaged."""
    values = {**plain, "logprobs": tuple(plain["logprobs"])} if plain.get("logprobs") else plain
    return from_plain(kind, values, f"{path}: an answer")


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """Who answered, and the answer to each request."""
    rows = [row for _, row in json_rows(path)]
    head = rows[0] if rows and isinstance(rows[0], dict) else {}
    if head.get("format") != _FORMAT or not isinstance(head.get("name"), str):
        raise LabError(f"{path}: holds no recorded answers of gpt2lab")
    if head.get("version") != _VERSION:
        raise LabError(
            f"{path}: recorded answers of version {head.get('version')}, and {_VERSION} is known here"
        )
    known = {}
    for row in rows[1:]:
        if not isinstance(row, dict) or not row.keys() >= {"request", "answer"}:
            raise LabError(f"{path}: a line without request and answer")
        known[json.dumps(row["request"], sort_keys=True)] = row["answer"]
    return head["name"], known
