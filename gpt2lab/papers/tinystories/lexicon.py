"""Word lists of the rules for free text, read from data/lexicon.json."""

import json
from pathlib import Path

DATA = Path(__file__).parent / "data"


def _read() -> dict[str, frozenset[str]]:
    content = json.loads((DATA / "lexicon.json").read_text("utf-8"))
    return {name: frozenset(words) for name, words in content.items() if name != "about"}


LEXICON = _read()
"""girls, boys, not_names (words that look like names), bad_ending, good_ending; all in lower case."""
