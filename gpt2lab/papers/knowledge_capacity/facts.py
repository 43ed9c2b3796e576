"""The sources whose facts can be counted, by the names under which text of theirs is data."""

import dataclasses
from typing import Any

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.text.built_in import built_in_arguments
from gpt2lab.text.generators.biographies import Biographies
from gpt2lab.text.generators.fact_text import FactSource
from gpt2lab.text.generators.random_facts import RandomFacts
from gpt2lab.text.tokenizer import Tokenizer, word_level

NAMES = ("bios", "bios-simple", "bior", "biod", "biod-symbols")
"""Built-in sources of facts."""


def fact_source(name: str, **shape: int | None) -> FactSource:
    """Return the people behind `NAME[:PEOPLE[:SEED[:EXPOSURES]]]`, as `--data` takes it; exposures do not matter here.

    shape: other numbers of `RandomFacts` than the source's own, for biod and biod-symbols; None is the source's own.
    LabError for another source, and for a shape of biographies.
    """
    if name.split(":")[0] not in NAMES:
        raise unknown("source of facts", name.split(":")[0], NAMES)
    _, arguments = built_in_arguments(name)
    given: dict[str, Any] = {
        "people": arguments.pop("size"),
        **{key: value for key, value in arguments.items() if key != "exposures"},
    }
    changed = {key: value for key, value in shape.items() if value is not None}
    if not name.startswith("biod"):
        if changed:
            raise LabError(
                f"{', '.join(changed)}: the shape of random facts (biod, biod-symbols); {name} has none"
            )
        return Biographies(**given)
    known = {field.name for field in dataclasses.fields(RandomFacts)}
    if missing := set(changed) - known:
        raise unknown("number of random facts", min(missing), sorted(known))
    return RandomFacts(**{**given, **changed})


def symbol_tokenizer(source: RandomFacts, *further: str) -> Tokenizer:
    """Return the tokenizer of the style `symbols`: an id for every word that the source can say, and the end token.

    `further` words get the last ids. LabError for a source of sentences.
    """
    return word_level([" ".join([*source.symbols(), *further])], punctuation=False, unk=None)
