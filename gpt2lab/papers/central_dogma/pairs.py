"""Pairs of texts with a label: the reader for PAWS-X and the like, and what an audit of a set finds."""

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.papers.central_dogma.rules import translated
from gpt2lab.text import readers, rows, sources
from gpt2lab.text.generators.sequence_pairs import MATCH, Pair
from gpt2lab.text.genetic_code import clean_dna, clean_protein
from gpt2lab.text.records import records

STRETCH = 5
"""Residues of a stretch by which an audit finds a protein in its DNA."""
_LABELS = {"1": 1, "0": 0}


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Where a row keeps a pair."""

    first: str = "sentence1"
    """Field of the first text (DNA)."""
    second: str = "sentence2"
    """Field of the second text (protein)."""
    label: str = "label"
    """Field of the label, 1 for a match and 0 for none."""
    type: str = "type"
    """Field of the pair's type; rows may lack it."""


def read_pairs(data: Sequence[str], fields: Fields = Fields(), *, limit: int | None = None) -> list[Pair]:
    """Read pairs of any source with rows; a .tsv is read as PAWS-X writes it, where a quotation mark is a letter.

    A row without a type is a `match` or `negative` by its label. LabError, with the place, for a label that is not 0 or
    1, an empty text, a missing field, and no rows.
    """
    found = list[Pair]()
    for where, row in _rows(data, fields):
        if limit is not None and len(found) >= limit:
            break
        said = rows.named(row[fields.label], where, fields.label)
        if said not in _LABELS:
            raise LabError(f"{where}: label {said!r} is neither 1, a match, nor 0")
        first, second = (rows.text(row[name], where, name) for name in (fields.first, fields.second))
        kind = rows.known(row, fields.type, where) or (MATCH if said == "1" else "negative")
        found.append(Pair(first, second, _LABELS[said], kind))
    if not found:
        raise LabError(f"{', '.join(data) or 'pairs'}: no pairs there")
    return found


def _rows(data: Sequence[str], fields: Fields) -> Iterator[tuple[str, dict[str, Any]]]:
    wanted = (fields.first, fields.second, fields.label)
    for item in data:
        files = sources.files(item)
        if not files:
            yield from records(item, *wanted)
        for path in files:
            yield from _tsv(path, wanted) if ".tsv" in path.name.lower() else records(path, *wanted)


def _tsv(path: Path, wanted: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.reader(readers.text_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    header: list[str] = []
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        if not header:
            header = row
            rows.require(header, wanted, where)
        elif len(row) != len(header):
            raise LabError(f"{where}: {len(row)} of {len(header)} columns")
        else:
            yield where, dict(zip(header, row, strict=True))


def require_sequences(pairs: Sequence[Pair], what: str = "pair") -> None:
    """LabError, with the pair's number from 1, for letters that are not DNA's or a protein's, and DNA below a codon."""
    for number, pair in enumerate(pairs, start=1):
        clean_dna(pair.first, f"{what} {number}, DNA")
        clean_protein(pair.second, f"{what} {number}, protein")
        if len(pair.first) < 3:
            raise LabError(
                f"{what} {number}: DNA of {len(pair.first)} bases holds no codon; give three or more"
            )


def refuse_shared(pairs: Sequence[Pair], training: Sequence[Pair]) -> None:
    """LabError if pairs that are judged occur in fine-tuning, small letters and blanks around them aside."""
    seen = {_key(pair) for pair in training}
    shared = [number for number, pair in enumerate(pairs, start=1) if _key(pair) in seen]
    if shared:
        raise LabError(
            f"{len(shared)} of {len(pairs)} pairs were fine-tuned on, the first of them pair {shared[0]}; judge on others"
        )


def unseen(pairs: Sequence[Pair], training: Sequence[Pair]) -> list[Pair]:
    """Return the pairs that `refuse_shared` does not refuse."""
    seen = {_key(pair) for pair in training}
    return [pair for pair in pairs if _key(pair) not in seen]


def _key(pair: Pair) -> tuple[str, str]:
    return pair.first.strip().casefold(), pair.second.strip().casefold()


@dataclass(frozen=True)
class Audit:
    """What makes a set of pairs of DNA and protein easy, impossible or wrong, before any model is judged on it."""

    pairs: int
    """Pairs."""
    matches: int
    """Of label 1."""
    repeated: int
    """Pairs that occur before, with either label."""
    contradictory: int
    """Different pairs that occur with both labels."""
    both_labels: int
    """Second texts that occur in pairs of both labels; others give their label away by themselves."""
    exact: tuple[float, float]
    """Share of the matches, and of the others, whose protein is the frame-0 translation."""
    found: tuple[float, float]
    """Share of either that has a stretch of five residues of the protein in one of the six frames."""
    three_times: tuple[float, float]
    """Share of either whose DNA has three bases a residue, a stop codon aside."""
    starts: tuple[float, float]
    """Share of either whose DNA begins with ATG."""

    def table(self) -> list[dict[str, Any]]:
        """Return rows for a report."""
        shares = {
            "protein is the frame-0 translation": self.exact,
            f"{STRETCH} residues of it in one of six frames": self.found,
            "three bases a residue": self.three_times,
            "DNA begins with ATG": self.starts,
        }
        return [{"share of pairs": name, "matches": a, "others": b} for name, (a, b) in shares.items()]


def audit(pairs: Sequence[Pair]) -> Audit:
    """Count what an audit asks for. LabError for letters that are not DNA's or a protein's, and for one label only."""
    require_sequences(pairs)
    labels, seen, repeated = defaultdict[str, set[int]](set), defaultdict[tuple[str, str], set[int]](set), 0
    for pair in pairs:
        repeated += _key(pair) in seen
        seen[_key(pair)].add(pair.label)
        labels[pair.second].add(pair.label)
    facts: tuple[list[tuple[bool, ...]], list[tuple[bool, ...]]] = ([], [])
    for pair in pairs:
        said = translated(pair.first, pair.second)
        residues = len(pair.second.removesuffix("*"))
        facts[1 - pair.label].append(
            (
                said.exact,
                said.stretch >= STRETCH,
                len(pair.first) - 3 * residues in (0, 3),
                clean_dna(pair.first).startswith("ATG"),
            )
        )
    if not facts[0] or not facts[1]:
        raise LabError("audit: the pairs have one label only; give matches and others")

    def shares(place: int) -> tuple[float, float]:
        matches, others = (sum(fact[place] for fact in side) / len(side) for side in facts)
        return matches, others

    return Audit(
        pairs=len(pairs),
        matches=len(facts[0]),
        repeated=repeated,
        contradictory=sum(len(own) == 2 for own in seen.values()),
        both_labels=sum(len(own) == 2 for own in labels.values()),
        exact=shares(0),
        found=shares(1),
        three_times=shares(2),
        starts=shares(3),
    )
