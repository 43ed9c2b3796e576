"""What there is: the papers, and the parts that they and the layers add. Reading it imports no part and no torch.

A layer's parts stand in the parts.toml of its folder, so that this module names no layer.
Papers are the folders below gpt2lab/papers that hold a paper.toml, and the packages that others announce under the
entry-point group `gpt2lab.papers` (a name, and the dotted path of a package that holds a paper.toml).
"""

import contextlib
import dataclasses
import functools
import importlib
import re
import sys
import tomllib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gpt2lab.base.errors import LabError, nearest, shown, unknown
from gpt2lab.base.plugins import announced
from gpt2lab.base.wording import listed

PART_KINDS = ("optimizer", "architecture", "transform", "decoder", "measure", "objective", "source")
STUDIED_KINDS = PART_KINDS[:-1]
"""Kinds that a paper can be begun with; a source has nothing that a study could compare."""
WORKS = (
    "training",
    "adaptation",
    "reasoning",
    "reinforcement",
    "generation",
    "compression",
    "interpretability",
    "safety",
    "evaluation",
)

_LARGEST = 2**20  # bytes of a paper.toml
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NUMBER = re.compile(r"[0-9]{1,4}")
_OBJECT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_PART = ("kind", "name", "object")
_NEEDED = ("slug", "title", "date", "authors", "work", "summary")


@dataclass(frozen=True)
class Part:
    """What a paper or a layer adds: an optimizer, architecture, transform, decoder, measure, objective or source."""

    kind: str
    """One of PART_KINDS."""
    name: str
    """As it is typed."""
    object: str
    """Where it is, `package.module:Name`."""
    summary: str = ""
    """What it does, in a few words."""
    paper: str | None = None
    """Slug of the paper that adds it; None for a part of a layer."""
    built: bool = True
    """Whether its code exists; a paper announces its planned parts too."""

    def load(self) -> Any:
        """Import and return the class or function.

        LabError if it is not built yet, its module lacks it, or somebody else's module cannot be imported.
        """
        if not self.built:
            raise LabError(
                f"{self.name} is not built yet: {self.paper} announces this {self.kind}, its code is not there"
            )
        module, _, name = self.object.partition(":")
        found = _imported(module, f"{self.kind} {self.name}")
        if not hasattr(found, name):
            raise LabError(f"{self.kind} {self.name}: {module} has no {name}")
        return getattr(found, name)


@dataclass(frozen=True)
class StatedClaim:
    """A claim as the paper words it."""

    words: str
    """The claim."""
    paper: str = ""
    """The paper's own figure."""
    where: str = ""
    """Its place in the paper."""
    letter: str = ""
    """The name of the claim of the study that tests it; a paper that is not built may have none."""
    planned: str = ""
    """Why no claim of the study tests it yet; empty if one does."""


@dataclass(frozen=True)
class HeadlineFigure:
    """A number for which the paper is quoted."""

    what: str
    """What was measured."""
    value: str
    """The number, with its unit."""
    where: str = ""
    """Its place in the paper."""


@dataclass(frozen=True)
class Paper:
    """One paper as its paper.toml describes it."""

    slug: str
    """Short name, as it is typed."""
    title: str
    """Full title."""
    date: str
    """Month of publication, YYYY-MM."""
    authors: int
    """Number of authors."""
    work: str
    """Family of work, one of WORKS."""
    summary: str
    """The idea in two sentences."""
    folder: Path
    """Its folder."""
    module: str
    """Its package, dotted."""
    arxiv: str = ""
    """arXiv id; empty if it is not there."""
    repo: str = ""
    """The authors' public code; empty if there is none."""
    parts: tuple[Part, ...] = ()
    """What it adds to the lab, planned parts too."""
    claims: tuple[StatedClaim, ...] = ()
    """Its claims in words."""
    figures: tuple[HeadlineFigure, ...] = ()
    """Its headline figures."""

    @property
    def built(self) -> bool:
        """Whether its study can be run."""
        return any((self.folder / file).is_file() for file in ("study.py", "study/__init__.py"))

    def study(self) -> ModuleType:
        """Import and return its study, a module. LabError if it is not built yet."""
        if not self.built:
            there = [paper.slug for paper in papers() if paper.built]
            raise LabError(
                f"{self.slug} is not built yet: its specification is known, its code is not; "
                f"built so far: {', '.join(there) or 'none'}"
            )
        return _imported(f"{self.module}.study", f"the study of {self.slug}")


@functools.cache
def papers() -> tuple[Paper, ...]:
    """Return all papers, by slug. LabError if a paper.toml of the lab is malformed or two of them share a slug.

    A package of somebody else's that cannot be read, or takes a name that is taken, is left out with a warning.
    """
    folder = Path(__file__).parents[1] / "papers"
    by_slug: dict[str, Paper] = {}
    for path in sorted(folder.glob("*/paper.toml")):
        paper = read_paper(path.parent, f"gpt2lab.papers.{path.parent.name}")
        if paper.slug in by_slug:
            raise _taken(paper, by_slug)
        by_slug[paper.slug] = paper
    for name, paper in _announced():
        if paper.slug in by_slug:
            _left_out(name, _taken(paper, by_slug))
        else:
            by_slug[paper.slug] = _with_free_names(paper, by_slug.values())
    return tuple(by_slug[slug] for slug in sorted(by_slug))


def paper(slug: str) -> Paper:
    """Return one paper. LabError with the nearest slug if there is none."""
    known = {paper.slug: paper for paper in papers()}
    wanted = slug.lower().replace("_", "-")
    if wanted not in known:
        match = nearest(wanted, known)
        raise LabError(
            f"{slug}: no such paper; "
            + (f"did you mean {match}?" if match else "`gpt2lab papers` lists them")
        )
    return known[wanted]


def parts(kind: str | None = None) -> tuple[Part, ...]:
    """Return the parts of one kind, or all: those of the layers, then those of the papers.

    LabError for a kind that does not exist.
    """
    if kind is not None and kind not in PART_KINDS:
        raise unknown("kind of part", kind, PART_KINDS)
    every = [*layer_parts(), *(part for paper in papers() for part in paper.parts)]
    return tuple(part for part in every if kind in (None, part.kind))


@functools.cache
def layer_parts() -> tuple[Part, ...]:
    """Return the parts of the layers, read from gpt2lab/*/parts.toml. LabError if one is malformed."""
    return tuple(
        _announced_part(
            _entry(row, _PART, ("summary",), f"{path}, [[parts]]"), path, f"gpt2lab.{path.parent.name}"
        )
        for path in sorted(Path(__file__).parents[1].glob("*/parts.toml"))
        for row in _tables(_toml(path).pop("parts", []), "parts", path)
    )


def part(kind: str, name: str) -> Any:
    """Import and return the part of this kind and name.

    LabError with the nearest name if there is none, and a plain word if it is announced but not built.
    """
    found = [part for part in parts(kind) if part.name == name]
    if not found:
        raise unknown(kind, name, [part.name for part in parts(kind) if part.built])
    return found[0].load()


def read_paper(folder: Path, module: str) -> Paper:
    """Read FOLDER/paper.toml; `module` is the dotted name of the package. LabError if it is malformed."""
    path = folder / "paper.toml"
    content = _toml(path)
    tables = {name: _tables(content.pop(name, []), name, path) for name in ("parts", "claims", "figures")}
    words = _entry(content, _NEEDED, ("arxiv", "repo"), str(path))
    if words["work"] not in WORKS:
        raise LabError(f"{path}: {unknown('family of work', words['work'], WORKS)}")
    if not _SLUG.fullmatch(words["slug"]):
        raise LabError(f"{path}: a slug is made of a-z, 0-9 and dashes, got {shown(words['slug'])}")
    if not _NUMBER.fullmatch(words.pop("authors")):
        raise LabError(f"{path}: authors must be their number, got {shown(content['authors'])}")

    def rows(name: str, needed: tuple[str, ...], optional: tuple[str, ...]) -> list[dict[str, str]]:
        return [_entry(row, needed, optional, f"{path}, [[{name}]]") for row in tables[name]]

    return Paper(
        **words,
        authors=int(content["authors"]),
        folder=folder,
        module=module,
        parts=tuple(
            _announced_part(row, path, module, words["slug"]) for row in rows("parts", _PART, ("summary",))
        ),
        claims=tuple(
            StatedClaim(**row) for row in rows("claims", ("words",), ("paper", "where", "letter", "planned"))
        ),
        figures=tuple(HeadlineFigure(**row) for row in rows("figures", ("what", "value"), ("where",))),
    )


def _toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file; LabError for one that cannot be read, is no TOML or is larger than a MiB."""
    try:
        if not path.is_file():
            raise LabError(f"{path}: no such file")
        if (size := path.stat().st_size) > _LARGEST:
            raise LabError(f"{path}: {size:,} bytes, more than the {_LARGEST:,} that are read")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except LabError:
        raise
    except (ValueError, OSError) as error:  # no TOML, not UTF-8, a number of too many digits
        raise LabError(f"{path}: cannot be read ({error})") from error
    except RecursionError:
        raise LabError(f"{path}: nested too deeply to be read") from None


def _tables(value: object, name: str, path: Path) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise LabError(f"{path}: {name} must be tables, each begun with [[{name}]]")
    return value


def _entry(
    entry: Mapping[str, Any], needed: Sequence[str], optional: Sequence[str], where: str
) -> dict[str, str]:
    """Return the values of one table as texts; LabError for a missing or an unknown key."""
    missing = [name for name in needed if name not in entry]
    if missing:
        raise LabError(f"{where}: {listed(missing)} missing; it needs {listed(needed)}")
    for name in entry:
        if name not in (*needed, *optional):
            raise LabError(f"{where}: {unknown('key', name, (*needed, *optional))}")
    return {name: str(value) for name, value in entry.items()}


def _announced_part(row: dict[str, str], path: Path, module: str, slug: str | None = None) -> Part:
    """Return a part of a paper or layer, with its object's full name and whether its file is there."""
    inside = row["object"].partition(":")[0]
    if row["kind"] not in PART_KINDS or not _OBJECT.fullmatch(row["object"]):
        kinds = listed(PART_KINDS, "or")
        raise LabError(f"{path}: a part's kind is {kinds} and its object `module:Name`, got {shown(row)}")
    file = path.parent.joinpath(*inside.split("."))
    built = file.with_suffix(".py").is_file() or (file / "__init__.py").is_file()
    return Part(**(row | {"object": f"{module}.{row['object']}"}), paper=slug, built=built)


def _announced() -> Iterable[tuple[str, Paper]]:
    """Yield the papers of other packages, each with the name under which it is announced."""
    for line in announced():
        try:
            yield line.name, read_paper(line.folder(), line.module)
        except Exception as error:  # a finder of somebody else's may raise anything
            _left_out(line.name, error)


def _left_out(name: str, error: Exception) -> None:
    said = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
    warnings.warn(f"the paper {name} is left out: {said}", stacklevel=4)


def _taken(paper: Paper, by_slug: Mapping[str, Paper]) -> LabError:
    return LabError(
        f"{paper.slug}: two papers of this name, in {by_slug[paper.slug].folder} and {paper.folder}"
    )


def _with_free_names(paper: Paper, others: Iterable[Paper]) -> Paper:
    """Return a paper without those of its parts whose names are taken, each with a warning."""
    owners = {(part.kind, part.name): "gpt2lab itself" for part in layer_parts()}
    owners |= {(part.kind, part.name): other.slug for other in others for part in other.parts}
    for part in paper.parts:
        owner = owners.get((part.kind, part.name))
        if owner is not None:
            warnings.warn(
                f"the {part.kind} {part.name} of {paper.slug} is left out: {owner} has one of this name",
                stacklevel=4,
            )
    free = tuple(part for part in paper.parts if (part.kind, part.name) not in owners)
    return dataclasses.replace(paper, parts=free)


def _imported(module: str, what: str) -> ModuleType:
    """Import a module. What goes wrong in somebody else's is a LabError; in ours it is a defect, and stays one.

    What somebody else's prints meanwhile goes to stderr: stdout may be the JSON of `--json`.
    """
    if module.partition(".")[0] == "gpt2lab":
        return importlib.import_module(module)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(module)
    except LabError:
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped while {module} was imported for {what}") from None
    except BaseException as error:  # SystemExit too: a package must not end the command
        raise LabError(f"{what}: {module} cannot be imported ({type(error).__name__}: {error})") from error
