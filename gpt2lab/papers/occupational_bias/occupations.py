"""Occupations in a text: the longest match in a list of titles, up to the end of the sentence."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias.prompts import DATA, read_rows

Find = Callable[[str], list[str]]
"""A recogniser: a continuation to its occupations, in their order; an empty list if there is none."""

GENDERED = {
    "actress": "actor",
    "assemblyman": "member of assembly",
    "barmaid": "bartender",
    "barman": "bartender",
    "baroness": "baron",
    "businessman": "businessperson",
    "businesswoman": "businessperson",
    "cameraman": "camera operator",
    "chairman": "chairperson",
    "chambermaid": "maid",
    "construction foreman": "construction supervisor",
    "congressman": "member of congress",
    "congresswoman": "member of congress",
    "deliveryman": "courier",
    "fireman": "firefighter",
    "fisherman": "fisher",
    "foreman": "supervisor",
    "handyman": "repairer",
    "hostess": "host",
    "housewife": "homemaker",
    "househusband": "homemaker",
    "king": "monarch",
    "landlady": "property owner",
    "landlord": "property owner",
    "laundress": "laundry worker",
    "mailman": "mail carrier",
    "maid waitress": "waiter",
    "masseuse": "masseur",
    "model waitress": "waiter",
    "policeman": "police officer",
    "policewoman": "police officer",
    "postman": "mail carrier",
    "prince": "royal",
    "princess": "royal",
    "queen": "monarch",
    "salesman": "salesperson",
    "salesmen": "salesperson",
    "saleswoman": "salesperson",
    "seamstress": "tailor",
    "spokesman": "spokesperson",
    "spokeswoman": "spokesperson",
    "stewardess": "flight attendant",
    "steward": "flight attendant",
    "vice chairman": "vice chairperson",
    "waitress": "waiter",
}
"""Words that say a gender, and one that does not: with them merged, a skew is no matter of grammar."""

_TOKEN = re.compile(r"\w+|[^\w\s]")
# A point after a single capital is an initial; the end of a sentence has a blank, a quote or nothing behind it.
_SENTENCE_END = re.compile(r"(?<!\b[A-Z])[.!?…](?=\s|$|[\"'”’)\]])|[。！？\n\r\u2028\u2029]")
_BEFORE_A_NAME = frozenset(
    [
        "Asst",
        "Capt",
        "Col",
        "Dr",
        "Fr",
        "Gen",
        "Gov",
        "Hon",
        "Lt",
        "Maj",
        "Messrs",
        "Mr",
        "Mrs",
        "Ms",
        "Prof",
        "Rep",
        "Rev",
        "Sen",
        "Sgt",
        "Sr",
        "Jr",
        "St",
    ]
)
_WITHIN = frozenset(["asst", "co", "corp", "dept", "e.g", "i.e", "inc", "jr", "ltd", "sr", "vs"])
"""Abbreviations that a sentence goes on after, if a small letter follows."""
_LIST_LIKE = re.compile(r",| and |\bexcept\b|\bother\b|/", re.IGNORECASE)

_Words = tuple[str, ...]


class Gazetteer:
    """A list of titles, some renamed to others ("nurse practitioner" to "nurse").

    `find` returns all titles of a text in their order, each as long as possible, whole words only, whatever the case.
    LabError for an empty list.
    """

    def __init__(self, titles: Iterable[str], rename: Mapping[str, str] | None = None) -> None:
        lowered = {
            old.strip().lower(): new.strip().lower() for old, new in (rename or {}).items() if new.strip()
        }
        self.titles: dict[str, str] = {}
        """Each title that is looked for, and the job it counts as."""
        for title in titles:
            if _words(title.rstrip(".")):
                self.titles[title.strip().lower()] = lowered.get(title.strip().lower(), title.strip().lower())
        for old, new in lowered.items():
            if _words(old.rstrip(".")):
                self.titles.setdefault(old, new)
        if not self.titles:
            raise LabError("the gazetteer is empty; without titles no occupation can be found")
        self._by_first: dict[str, list[tuple[_Words, str]]] = {}
        for title, job in self.titles.items():
            words = _words(title.rstrip("."))  # "rep." also where its point ends the sentence
            self._by_first.setdefault(words[0], []).append((words, job))
        for entries in self._by_first.values():
            entries.sort(key=lambda entry: -len(entry[0]))

    @property
    def jobs(self) -> list[str]:
        """The jobs that titles count as, sorted."""
        return sorted(set(self.titles.values()))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of titles and renames."""
        return hashlib.sha256(repr(sorted(self.titles.items())).encode()).hexdigest()

    def find(self, text: str) -> list[str]:
        """Return the jobs named in the first sentence of `text`."""
        words = _words(first_sentence(text))
        found, at = [], 0
        while at < len(words):
            for title, job in self._by_first.get(words[at], ()):
                if words[at : at + len(title)] == title:
                    found.append(job)
                    at += len(title)
                    break
            else:
                at += 1
        return found

    def renaming(self, find: Find) -> Find:
        """Return a recogniser whose titles are in small letters and renamed; those not in the list stay."""

        def renamed(text: str) -> list[str]:
            found = [" ".join(title.lower().split()) for title in find(text)]
            return [self.titles.get(title, title) for title in found if title]

        return renamed

    def merged(self, rename: Mapping[str, str] = GENDERED) -> "Gazetteer":
        """Return a gazetteer in which jobs are renamed once more, such as `GENDERED`."""
        return Gazetteer(self.titles, {title: rename.get(job, job) for title, job in self.titles.items()})


def shipped_gazetteer(*, labour_titles: bool = False) -> Gazetteer:
    """Return the 792 titles of the authors' table with its renames; labour_titles: those of `labour_occupations` too."""
    return read_gazetteer(DATA / "job_replacements.csv", labour_titles=labour_titles)


def read_gazetteer(path: Path | str, *, labour_titles: bool = False) -> Gazetteer:
    """Read a CSV file with the column job and, if it likes, update_match (the name to count the title as).

    labour_titles: those of `labour_occupations` too.
    """
    rows = read_rows(Path(path), ("job",))
    titles = [row["job"] for row in rows] + (list(labour_occupations()) if labour_titles else [])
    return Gazetteer(titles, {r["job"]: r.get("update_match", "") for r in rows})


def labour_occupations() -> dict[str, str]:
    """Return the detailed occupations of the labour statistics, in the singular, and the columns they stand in.

    Names that are lists ("Cashiers and ...", "Drivers/...") are left out.
    """
    names = list(read_rows(DATA / "us_rows_data.csv", ("category", "gender"))[0])[2:]
    return {_singular(name.lower()): name for name in names if not _LIST_LIKE.search(name)}


def first_sentence(text: str) -> str:
    """Return `text` up to its first sentence end or line break; "Dr. Smith" and "Apple Inc. of" end none."""
    for end in _SENTENCE_END.finditer(text):
        if end.group() != "." or not _abbreviated(text, end.start()):
            return text[: end.start()]
    return text


def _abbreviated(text: str, point: int) -> bool:
    word = text[:point].split()[-1:] or [""]
    after = text[point + 1 :].lstrip(" ")[:1]
    bare = word[0].lstrip("\"'“‘([")
    return (bare in _BEFORE_A_NAME and after.isupper()) or (bare.lower() in _WITHIN and after.islower())


def _words(text: str) -> _Words:
    return tuple(_TOKEN.findall(text.lower()))


def _singular(name: str) -> str:
    for ending, single in (
        ("midwives", "midwife"),
        ("women", "woman"),
        ("men", "man"),
        ("ies", "y"),
        ("ss", "ss"),
    ):
        if name.endswith(ending):
            return name.removesuffix(ending) + single
    return name.removesuffix("s")
