"""Built-in sources of text: made on this machine, named as `NAME[:SIZE[:SEED[:THIRD]]]` wherever data are."""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.text import books, docstrings, rows


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """A source that is made on this machine."""

    function: str
    """`module:function`, imported when first used; it returns the documents, or rows with a field `text`."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the function is called with."""
    size: str
    """The argument that SIZE of `NAME:SIZE` sets."""
    third: str | None = None
    """The argument that a number behind SIZE and SEED sets."""
    has_fields: bool = False
    """Whether the function returns rows."""
    in_characters: bool = False
    """Whether that size counts characters, of which nearly all are one byte."""
    summary: str
    """One line for people; says whether the text is generated."""


BUILT_IN: dict[str, BuiltIn] = {
    "docstrings": BuiltIn(
        function="gpt2lab.text.docstrings:documents",
        arguments={"limit": docstrings.LIMIT, "show": False},  # who reads a source shows how far he is
        size="limit",
        in_characters=True,
        summary="documentation strings of the standard library and the installed packages; SIZE in characters",
    ),
    "books": BuiltIn(
        function="gpt2lab.text.books:chapters",
        arguments={"limit": books.CHARACTERS},
        size="limit",
        has_fields=True,
        in_characters=True,
        summary="nine English novels and books of stories, 1800 to 1914, a chapter a document; SIZE in characters",
    ),
    "tinyworld": BuiltIn(
        function="gpt2lab.text.generators.stories:documents",
        arguments={"seed": 0, "size": 12_000},
        size="size",
        summary="generated: short stories about a lost toy; SIZE in stories",
    ),
    "tinyworld-binding": BuiltIn(
        function="gpt2lab.text.generators.stories:documents",
        arguments={"seed": 0, "size": 12_000, "variant": "binding"},
        size="size",
        summary="generated: short stories that name who belongs where; SIZE in stories",
    ),
    "tinyworld-nested": BuiltIn(
        function="gpt2lab.text.generators.stories:documents",
        arguments={"seed": 0, "size": 12_000, "variant": "nested"},
        size="size",
        summary="generated: short stories whose verbs agree over clauses; SIZE in stories",
    ),
    "bios": BuiltIn(
        function="gpt2lab.text.generators.biographies:rows",
        arguments={"seed": 0, "size": 1000, "exposures": 1},
        size="size",
        third="exposures",
        has_fields=True,
        summary="generated: biographies of invented people, reworded at every exposure; SIZE in people",
    ),
    "bios-simple": BuiltIn(
        function="gpt2lab.text.generators.biographies:rows",
        arguments={"seed": 0, "size": 1000, "exposures": 1, "variant": "fixed"},
        size="size",
        third="exposures",
        has_fields=True,
        summary="generated: the same, one text a person; SIZE in people",
    ),
    "bior": BuiltIn(
        function="gpt2lab.text.generators.biographies:rows",
        arguments={"seed": 0, "size": 1000, "exposures": 1, "variant": "varied"},
        size="size",
        third="exposures",
        has_fields=True,
        summary="generated: the same, forty texts a person with sentences between that hold no facts; SIZE in people",
    ),
    "biod": BuiltIn(
        function="gpt2lab.text.generators.random_facts:rows",
        arguments={
            "seed": 0,
            "size": 1000,
            "exposures": 1,
            "style": "sentences",
            "diversity": 1000,
            "length": 4,
            "alphabet": 26,
        },
        size="size",
        third="exposures",
        has_fields=True,
        summary="generated: people and random strings, in sentences; SIZE in people",
    ),
    "biod-symbols": BuiltIn(
        function="gpt2lab.text.generators.random_facts:rows",
        arguments={"seed": 0, "size": 800, "exposures": 1},
        size="size",
        third="exposures",
        has_fields=True,
        summary="generated: people and random symbols, each a word; SIZE in people",
    ),
    "sentences": BuiltIn(
        function="gpt2lab.text.generators.paraphrases:documents",
        arguments={"seed": 0, "size": 12_000, "languages": 1},
        size="size",
        third="languages",
        summary="generated: sentences of a template English, and of word ciphers of it; SIZE in sentences",
    ),
    "retold": BuiltIn(
        function="gpt2lab.text.generators.paraphrases:retold",
        arguments={"seed": 0, "size": 12_000, "languages": 1},
        size="size",
        third="languages",
        summary="generated: such a sentence, and the same in other words; SIZE in documents",
    ),
    "paraphrases": BuiltIn(
        function="gpt2lab.text.generators.paraphrases:rows",
        arguments={"seed": 0, "size": 6000, "languages": 1},
        size="size",
        third="languages",
        has_fields=True,
        summary="generated: pairs of such sentences that say the same or do not; SIZE in pairs",
    ),
    "proteins": BuiltIn(
        function="gpt2lab.text.generators.genes:proteins",
        arguments={"seed": 0, "size": 12_000, "residues": 0},
        size="size",
        third="residues",
        summary="generated: proteins of natural residue frequencies; SIZE in proteins",
    ),
    "coding-dna": BuiltIn(
        function="gpt2lab.text.generators.genes:coding",
        arguments={"seed": 0, "size": 12_000, "residues": 0},
        size="size",
        third="residues",
        summary="generated: DNA that codes for such proteins; SIZE in genes",
    ),
    "genes": BuiltIn(
        function="gpt2lab.text.generators.genes:documents",
        arguments={"seed": 0, "size": 12_000, "parallel": 0},
        size="size",
        third="parallel",
        summary="generated: DNA and proteins of different genes in turn; a third number is the percentage that pairs them",
    ),
    "dna-protein": BuiltIn(
        function="gpt2lab.text.generators.sequence_pairs:translation_rows",
        arguments={"seed": 0, "size": 6000, "residues": 12},
        size="size",
        third="residues",
        has_fields=True,
        summary="generated: DNA with its protein or a random one of the same length; SIZE in pairs",
    ),
    "dna-protein-shuffled": BuiltIn(
        function="gpt2lab.text.generators.sequence_pairs:translation_rows",
        arguments={"seed": 0, "size": 6000, "residues": 12, "negatives": ("shuffled_composition",)},
        size="size",
        third="residues",
        has_fields=True,
        summary="generated: DNA with its protein or the same residues in another order; SIZE in pairs",
    ),
    "dna-protein-typed": BuiltIn(
        function="gpt2lab.text.generators.sequence_pairs:translation_rows",
        arguments={
            "seed": 0,
            "size": 6000,
            "residues": 12,
            "negatives": (
                "random_same_length",
                "random_any_length",
                "shuffled_composition",
                "one_substitution",
                "frame_shift",
                "reverse_complement",
                "other_gene",
                "sister_species",
            ),
        },
        size="size",
        third="residues",
        has_fields=True,
        summary="generated: the same with negatives of eight kinds; SIZE in pairs",
    ),
    "dna-pairs": BuiltIn(
        function="gpt2lab.text.generators.sequence_pairs:similarity_rows",
        arguments={"seed": 0, "size": 6000, "residues": 12},
        size="size",
        third="residues",
        has_fields=True,
        summary="generated: DNA with a mutated copy or other DNA; SIZE in pairs",
    ),
    "protein-pairs": BuiltIn(
        function="gpt2lab.text.generators.sequence_pairs:similarity_rows",
        arguments={"seed": 0, "size": 6000, "residues": 12, "protein": True},
        size="size",
        third="residues",
        has_fields=True,
        summary="generated: a protein with a mutated copy or another one; SIZE in pairs",
    ),
    "clinical-notes": BuiltIn(
        function="gpt2lab.text.generators.clinical_notes:rows",
        arguments={"seed": 0, "size": 12_000, "world": 0},
        size="size",
        third="world",
        has_fields=True,
        summary="generated: emergency-room notes of invented words with a class (label 1 or 0); SIZE in notes",
    ),
    "clinical-notes-easy": BuiltIn(
        function="gpt2lab.text.generators.clinical_notes:rows",
        arguments={"seed": 0, "size": 12_000, "world": 0, "level": "easy"},
        size="size",
        third="world",
        has_fields=True,
        summary="generated: the same with fewer misleading words; SIZE in notes",
    ),
    "clinical-notes-hard": BuiltIn(
        function="gpt2lab.text.generators.clinical_notes:rows",
        arguments={"seed": 0, "size": 12_000, "world": 0, "level": "hard"},
        size="size",
        third="world",
        has_fields=True,
        summary="generated: the same with more misleading words; SIZE in notes",
    ),
    "clinical-notes-unaligned": BuiltIn(
        function="gpt2lab.text.generators.clinical_notes:rows",
        arguments={"seed": 0, "size": 12_000, "world": 0, "align": 0.0, "causes": 60},
        size="size",
        third="world",
        has_fields=True,
        summary="generated: the negative control, notes whose text without labels says nothing of the class",
    ),
    "french-notes": BuiltIn(
        function="gpt2lab.text.generators.french_notes:rows",
        arguments={"seed": 0, "size": 12_000},
        size="size",
        has_fields=True,
        summary="generated: emergency-room notes in telegraphic French (label 1: traumatic); SIZE in notes",
    ),
}


def built_in_rows(item: str) -> Iterator[rows.Row] | None:
    """Return the rows of a built-in source whose documents have fields, None for any other source."""
    source = BUILT_IN.get(item.split(":")[0])
    return built_in_documents(item) if source is not None and source.has_fields else None


def built_in_documents(item: str) -> Iterator[Any]:
    """Yield the documents of a built-in source, or its rows if they have fields. LabError as `built_in_arguments`."""
    name, arguments = built_in_arguments(item)
    module, function = BUILT_IN[name].function.split(":")
    return iter(getattr(importlib.import_module(module), function)(**arguments))


def built_in_arguments(item: str) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of a source by `NAME[:SIZE[:SEED[:THIRD]]]`. LabError for another name, or no numbers."""
    name, *numbers = item.split(":")
    if name not in BUILT_IN:
        raise unknown("built-in source", name, BUILT_IN)
    source = BUILT_IN[name]
    keys = [source.size, *(["seed"] if "seed" in source.arguments else [])]
    keys += [source.third] if source.third is not None else []
    if len(numbers) > len(keys) or not all(number.isdecimal() and len(number) < 19 for number in numbers):
        form = f"{name}:SIZE" + "".join(f"[:{key.upper()}" for key in keys[1:]) + "]" * (len(keys) - 1)
        raise LabError(f"{item}: expected {form} with whole numbers ({source.summary})")
    given = {key: int(number) for key, number in zip(keys, numbers, strict=False)}
    return name, {**source.arguments, **given}
