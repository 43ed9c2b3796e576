"""Sentences whose words carry a lemma and features, and the files that hold them: CoNLL-U, and the authors' JSON."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError, shown
from gpt2lab.base.files import user_path
from gpt2lab.base.json_files import read_json
from gpt2lab.text.bounded import LONGEST_ROW, guarded, json_rows, not_utf8, open_file

CLITICS = frozenset({"n't", "'ll", "'s", "'re", "'ve", "'m"})
"""Words that are written together with the word before them."""
FORMATS = (".conllu", ".conll", ".json", ".jsonl")
"""Endings of annotated files; each may be packed as .gz, but for .json."""
_COLUMNS = 10
_LARGEST_JSON = 1 << 31  # bytes; the annotated genres of BabyLM are lists of up to a GB


@dataclass(frozen=True, slots=True)
class Word:
    """A syntactic word: `doesn't` is two of them."""

    text: str
    """As it is written."""
    lemma: str | None = None
    """Its base form; None where the annotation has none."""
    features: tuple[tuple[str, str], ...] = ()
    """Universal features by name, such as ("Number", "Sing")."""
    tag: str = ""
    """Universal part of speech."""

    def feature(self, name: str) -> str | None:
        """Return the value of a feature, None where the word has none of this name."""
        return next((value for known, value in self.features if known == name), None)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence as its annotation gives it; plain text has no words, and ids alone have no text."""

    text: str = ""
    """As it is written."""
    words: tuple[Word, ...] = ()
    """Its words; empty where nothing is annotated."""
    parsed: bool = True
    """False where the annotation says that the parser of constituents failed: such a sentence counts as unaffected."""
    parse: str = ""
    """The constituents in brackets, `(ROOT (S ...))`; empty where there are none."""
    ids: tuple[int, ...] | None = None
    """Its token ids where they are given instead of text."""


def features(text: str, where: str = "features") -> tuple[tuple[str, str], ...]:
    """Read `Number=Sing|Person=3`; an empty text and `_` have none. LabError for a feature without a value."""
    if text in ("", "_"):
        return ()
    found = []
    for pair in text.split("|"):
        name, sign, value = pair.partition("=")
        if not (name and sign and value):
            raise LabError(f"{where}: features are Name=Value|Name=Value, got {shown(text)}")
        found.append((name, value))
    return tuple(found)


def annotated_sentences(path: Path | str) -> Iterator[Sentence]:
    """Yield the sentences of an annotated file in their order: .conllu (.gz), .json, .jsonl (.gz).

    LabError, with the line or the entry, for a file of another kind, a missing field, or no sentence at all.
    """
    file = user_path(path)
    ending = Path(file.name.lower().removesuffix(".gz")).suffix
    if ending not in FORMATS:
        raise LabError(
            f"{file}: an annotated file ends in {', '.join(FORMATS)}, not in {ending or 'nothing'}"
        )
    if not file.exists():
        raise LabError(f"{file}: no such file")
    if ending in (".conllu", ".conll"):
        found = _conllu(file)
    elif ending == ".jsonl":
        found = (one for where, row in json_rows(file) for one in _of_row(row, where))
    else:
        found = _of_list(file)
    first = next(found, None)
    if first is None:
        raise LabError(f"{file}: holds no sentence")
    return itertools.chain([first], found)


def _conllu(path: Path) -> Iterator[Sentence]:
    """Read CoNLL-U; multiword tokens (1-2) and empty nodes (8.1) are no words."""
    text, rows = "", list[tuple[Word, bool]]()
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        if not line:
            if rows:
                yield _sentence(text, rows)
            text, rows = "", []
        elif line.startswith("#"):
            name, sign, value = line[1:].partition("=")
            text = value.strip() if sign and name.strip() == "text" else text
        else:
            word = _row(line, where)
            if word is not None:
                rows.append(word)
    if rows:
        yield _sentence(text, rows)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with open_file(path) as handle:
        for number in itertools.count(1):
            line = guarded(path, lambda: handle.readline(LONGEST_ROW + 1))
            if not line:
                return
            if len(line) > LONGEST_ROW:
                raise LabError(f"{path}, line {number}: longer than {LONGEST_ROW:,} bytes")
            try:
                yield number, line.decode("utf-8").strip("\r\n")
            except UnicodeDecodeError as error:
                raise not_utf8(path, f"line {number}", line[error.start]) from error


def _row(line: str, where: str) -> tuple[Word, bool] | None:
    """Return a word and whether a blank follows it."""
    columns = line.split("\t")
    if len(columns) != _COLUMNS:
        raise LabError(f"{where}: a word of CoNLL-U has {_COLUMNS} columns between tabs, got {len(columns)}")
    number, form, lemma, tag, _, feats, *_, misc = columns
    if "-" in number or "." in number:
        return None
    if not number.isdecimal():
        raise LabError(f"{where}: the first column numbers the word, got {shown(number)}")
    known = None if lemma == "_" and form != "_" else lemma
    word = Word(form, known, features(feats, where), "" if tag == "_" else tag)
    return word, "SpaceAfter=No" not in misc.split("|")


def _sentence(text: str, rows: list[tuple[Word, bool]]) -> Sentence:
    if not text:
        text = "".join(word.text + " " * blank for word, blank in rows).strip()
    return Sentence(text, tuple(word for word, _ in rows))


def _of_list(path: Path) -> Iterator[Sentence]:
    content = read_json(path, largest=_LARGEST_JSON)
    if not isinstance(content, list):
        raise LabError(f"{path}: expected a JSON list of lines, found {type(content).__name__}")
    for number, row in enumerate(content):
        yield from _of_row(row, f"{path}, entry {number}")


def _of_row(row: Any, where: str) -> Iterator[Sentence]:
    """Yield the sentences of one line of the authors' files, {"sent_annotations": [...]}, or of a sentence by itself."""
    if not isinstance(row, Mapping):
        raise LabError(f"{where}: expected an object, found {type(row).__name__}")
    many = row.get("sent_annotations", [row])
    if not isinstance(many, list):
        raise LabError(f"{where}: sent_annotations should be a list of sentences")
    for one in many:
        words = one.get("word_annotations") if isinstance(one, Mapping) else None
        if not isinstance(words, list) or not isinstance(one.get("sent_text"), str):
            raise LabError(f"{where}: a sentence has sent_text and the list word_annotations")
        parse = one.get("constituency_parse", "")
        yield Sentence(
            one["sent_text"],
            tuple(_word(word, where) for word in words),
            parsed=parse is not None,
            parse=parse if isinstance(parse, str) else "",
        )


def _word(word: Any, where: str) -> Word:
    if not isinstance(word, Mapping) or not isinstance(word.get("text"), str):
        raise LabError(f"{where}: a word is an object with a text, got {shown(word)}")
    values = {name: word.get(name) for name in ("lemma", "feats", "upos")}
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            raise LabError(f"{where}: {name} of {shown(word['text'])} should be text, got {shown(value)}")
    return Word(word["text"], values["lemma"], features(values["feats"] or "", where), values["upos"] or "")
