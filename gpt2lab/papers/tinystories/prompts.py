"""Measure `short-prompts`: facts, reasoning and context by prompts of one sentence, answered at temperature 0.

As in figures 9 to 11 of Eldan and Li 2023, with accepted beginnings of an answer in place of a reader's eye. The
prompts that come with the lab are its own; a file in the same form takes their place.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lab.base.errors import LabError
from gpt2lab.decode.generate import generate
from gpt2lab.measures.measurement import Measurement
from gpt2lab.papers.tinystories.lexicon import DATA

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

GROUPS = ("factual", "reasoning", "context")
_SKIPPED = re.compile(r"(?:a|an|the|her|his)\s+")
_LEADING = " \t\n\"'“”‘’"


@dataclass(frozen=True)
class ShortPrompt:
    """A prompt and the beginnings that count as a right answer, in lower case."""

    prompt: str
    accepted: tuple[str, ...]

    def accepts(self, completion: str) -> bool:
        """Tell whether a completion begins with an accepted answer, as whole words.

        Case, leading quotation marks and blanks, and one article (a, an, the, her, his) do not matter. "no" does
        not accept "now".
        """
        text = completion.lower().lstrip(_LEADING)
        candidates = (text, _SKIPPED.sub("", text, count=1) if _SKIPPED.match(text) else text)
        return any(
            re.match(rf"{re.escape(answer)}(?![^\W\d_])", candidate)
            for answer in self.accepted
            for candidate in candidates
        )


def read_prompts(path: Path | str = DATA / "short_prompts.json") -> dict[str, list[ShortPrompt]]:
    """Read prompts by group from JSON: {group: [{"prompt", "accepted_prefixes_lowercase"}]}.

    LabError for another form, an empty prompt, and a prompt without accepted answers.
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
        groups = {
            group: [
                ShortPrompt(item["prompt"], tuple(item["accepted_prefixes_lowercase"]))
                for item in content[group]
            ]
            for group in GROUPS
        }
    except FileNotFoundError:
        raise LabError(f"{path}: no such file of prompts") from None
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"{path}: not a file of prompts ({error}); it holds factual, reasoning, context, each a list of "
            '{"prompt": …, "accepted_prefixes_lowercase": […]}'
        ) from error
    for group, prompts in groups.items():
        for number, item in enumerate(prompts, 1):
            if not item.prompt.strip() or not item.accepted:
                raise LabError(f"{path}: {group} prompt {number} is empty or has no accepted answer")
    return groups


def score(
    prompts: Mapping[str, Sequence[ShortPrompt]], completions: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Return the share of right answers by group; nan for an empty group."""
    shares = {}
    for group, items in prompts.items():
        right = [item.accepts(text) for item, text in zip(items, completions[group], strict=True)]
        shares[group] = sum(right) / len(right) if right else float("nan")
    return shares


@dataclass(frozen=True, kw_only=True)
class ShortPrompts:
    """Measure `short-prompts`: share of facts, inferences and references to context that the model gets right."""

    prompts: str = ""
    """A JSON file of prompts; empty uses the built-in prompts."""
    max_new_tokens: int = 12
    """Length of an answer; only its beginning counts."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model; LabError for a broken file and for a prompt longer than the context."""
        groups = read_prompts(self.prompts) if self.prompts else read_prompts()
        rows: list[dict[str, object]] = []
        completions: dict[str, list[str]] = {}
        for group, items in groups.items():
            # trailing blanks would be a token of their own, after which no story goes on
            made = generate(lm, [item.prompt.rstrip() for item in items], max_new_tokens=self.max_new_tokens)
            completions[group] = [generation.text for generation in made]
            rows += [
                {"group": group, "prompt": item.prompt, "answer": text.strip(), "right": item.accepts(text)}
                for item, text in zip(items, completions[group], strict=True)
            ]
        return Measurement(
            name="short-prompts",
            numbers=score(groups, completions),
            tables={"answers": rows},
            about={"prompts": len(rows), "decoding": "greedy (temperature 0)"},
        )
