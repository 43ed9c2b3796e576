"""List the papers: the parts of each, whether it is built, and the verdict of its last run. Or make a new paper.

examples:
  gpt2lab papers                        all, by family of work
  gpt2lab papers optimizer --sort date  those that match every word
  gpt2lab papers tinystories            one in full
  gpt2lab papers new my-idea --kind decoder
"""

import argparse
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gpt2lab.base.errors import LabError, nearest
from gpt2lab.base.registry import STUDIED_KINDS, WORKS, Paper, Part, papers
from gpt2lab.base.shipped import published_study, shipped_verdicts
from gpt2lab.cli.parser import Parser
from gpt2lab.cli.show import pairs, paragraph, print_json
from gpt2lab.runs.store import Row, Store

_SORTS = ("work", "date", "title", "name")


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add the words to search for and the order."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORDS",
        help="a paper's name, or words that it must match; `new NAME` writes a working paper to start from",
    )
    parser.add_argument("--sort", choices=_SORTS, help="order of the list (default: work)")
    group = parser.add_argument_group("papers new NAME")
    group.add_argument(
        "--kind", metavar="KIND", help=f"kind of its part: {', '.join(STUDIED_KINDS)} (default: optimizer)"
    )
    group.add_argument(
        "--out",
        metavar="DIR",
        help="write a separate package into this folder (default: here, or gpt2lab/papers)",
    )
    group.add_argument(
        "--package", action="store_true", help="write a separate package also inside a checkout"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the papers that match, or one in full; or write a new one."""
    if arguments.words[:1] == ["new"]:
        if arguments.sort is not None:
            raise LabError("--sort: orders the list of papers, and `papers new` prints none")
        _new(arguments)
        return
    for flag in ("kind", "out", "package"):
        if getattr(arguments, flag):
            raise LabError(f"--{flag}: goes with `gpt2lab papers new NAME`")
    words = [word.lower() for word in arguments.words]
    everything = papers()
    last = _last_studies()
    exact = [paper for paper in everything if words == [paper.slug]]
    found = exact or [paper for paper in everything if all(word in _text(paper) for word in words)]
    if not found:
        match = nearest(" ".join(words), [paper.slug for paper in everything])
        hint = f"did you mean {match}?" if match else "`gpt2lab papers` lists all"
        raise LabError(f"{' '.join(arguments.words)}: no paper holds these words; {hint}")
    if exact and arguments.sort is not None:
        raise LabError(f"--sort: orders the list of papers, and {exact[0].slug} is one")
    sort = arguments.sort or "work"
    found.sort(key=_order(sort))
    if arguments.json:
        print_json([_plain(paper, last.get(paper.slug)) for paper in found])
    elif exact:
        print(_in_full(exact[0], last.get(exact[0].slug)))
    else:
        print(_listed(found, last, by_work=sort == "work"))


def _new(arguments: argparse.Namespace) -> None:
    """Write a new paper; print its files and what to do next."""
    from gpt2lab.cli.skeleton import new_paper

    if len(arguments.words) != 2:
        raise LabError(
            "papers new takes one NAME, with hyphens between its words: gpt2lab papers new my-idea"
        )
    made = new_paper(
        arguments.words[1], kind=arguments.kind or "optimizer", out=arguments.out, package=arguments.package
    )
    if arguments.json:
        print_json({**asdict(made), "folder": str(made.folder), "files": [str(file) for file in made.files]})
        return
    for file in made.files:
        print(f"wrote   {os.path.relpath(file)}")
    tests = next(file.parent for file in made.files if file.name == "test_study.py")
    todo = [] if made.installed else [f"pip install -e {os.path.relpath(made.folder)}"]
    todo += [f"gpt2lab reproduce {made.slug} --scale smoke", f"pytest {os.path.relpath(tests)}"]
    todo += ["python scripts/papers_table.py"] if made.installed else []
    for number, command in enumerate(todo):
        print(f"{'next' if number == 0 else '':<8}{command}")


def _order(sort: str) -> Any:
    if sort == "work":
        return lambda paper: (WORKS.index(paper.work), paper.date, paper.slug)
    return lambda paper: (getattr(paper, {"name": "slug"}.get(sort, sort)).lower(), paper.slug)


def _text(paper: Paper) -> str:
    """Return everything a search looks at."""
    pieces = [
        paper.slug,
        paper.title,
        paper.date,
        paper.work,
        paper.summary,
        paper.arxiv,
        _state(paper, None),
    ]
    pieces += [f"{part.kind} {part.name} {part.summary}" for part in paper.parts]
    pieces += [claim.words for claim in paper.claims]
    return " ".join(pieces).lower()


def _last_studies() -> Mapping[str, Row]:
    """Return the newest finished study of each paper, one at smoke scale only if there is no other."""
    last: dict[str, Row] = {}
    try:
        for row in Store().rows(kind="study", status="finished"):
            before = last.setdefault(row.paper or "", row)
            if before.scale == "smoke" and row.scale != "smoke":
                last[row.paper or ""] = row
    except LabError as error:
        warnings.warn(f"the papers' last runs are not known: {error}", stacklevel=2)
    return last


def _state(paper: Paper, row: Row | None) -> str:
    if not paper.built:
        return "not built yet"
    shipped = shipped_verdicts(paper)
    # A smoke study settles nothing: its verdicts would hide those that come with the package.
    if row is not None and not (row.scale == "smoke" and shipped):
        return f"built, {row.message or 'run'} ({row.id})"
    return f"built, {shipped} (published, {shipped.scale} scale)" if shipped else "built, not run yet"


def _listed(found: Sequence[Paper], last: Mapping[str, Row], by_work: bool) -> str:
    """Return two lines a paper: name, month and state; then title and what it adds."""
    width = max(len(paper.slug) for paper in found)
    lines: list[str] = []
    work = ""
    for paper in found:
        if by_work and paper.work != work:
            work = paper.work
            lines += ["", work] if lines else [work]
        lines.append(f"  {paper.slug:<{width}}  {paper.date}  {_state(paper, last.get(paper.slug))}")
        adds = "; ".join(f"{part.kind} {part.name}" for part in paper.parts)
        lines.append(paragraph(f"{paper.title} [{adds}]" if adds else paper.title, indent=6))
    built = sum(paper.built for paper in found)
    lines += ["", f"{len(found)} papers, {built} built. `gpt2lab papers NAME` shows one in full."]
    return "\n".join(lines)


def _in_full(paper: Paper, row: Row | None) -> str:
    """Return everything known of one paper."""
    facts = [
        ("name", paper.slug),
        ("date", paper.date),
        ("authors", paper.authors),
        ("work", paper.work),
        ("arXiv", paper.arxiv or "none"),
        ("code", paper.repo or "none public"),
        ("state", _state(paper, row)),
    ]
    lines = [paper.title, "", paragraph(" ".join(paper.summary.split()), indent=2), "", pairs(facts)]
    if paper.parts:
        lines += ["", "adds"]
        lines += [paragraph(_part(part), indent=2) for part in paper.parts]
    if paper.claims:
        lines += ["", "claims"]
        for claim in paper.claims:
            letter = f"{claim.letter}  " if claim.letter else ""
            planned = f" (not built: {claim.planned})" if claim.planned else ""
            lines.append(paragraph(f"{letter}{claim.words}{planned}", indent=2))
            if claim.paper or claim.where:
                source = f" ({claim.where})" if claim.where else ""
                lines.append(paragraph(f"the paper: {claim.paper or 'no figure'}{source}", indent=6))
    if paper.figures:
        lines += ["", "headline figures"]
        lines += [
            paragraph(f"{f.what}: {f.value} ({f.where})".replace(" ()", ""), indent=2) for f in paper.figures
        ]
    if paper.built:
        lines += ["", *_published(paper), f"gpt2lab reproduce {paper.slug} --scale laptop"]
    return "\n".join(lines)


def _published(paper: Paper) -> list[str]:
    """Return what was found, the verdicts that come with the package, and where a checkout has the pages."""
    shipped = shipped_verdicts(paper)
    if shipped is None:
        return []
    lines = [
        "what was found",
        paragraph(shipped.found, indent=2),
        "",
        f"published verdicts, {published_study(shipped)}",
    ]
    lines += [f"  {name}  {verdict}" for name, verdict in shipped.verdicts.items()]
    return [*lines, f"read    docs/papers/{paper.slug}.md, docs/results/{paper.slug}.md", ""]


def _part(part: Part) -> str:
    planned = "" if part.built else " (planned)"
    return f"{part.kind} {part.name}{planned}" + (f": {part.summary}" if part.summary else "")


def _plain(paper: Paper, row: Row | None) -> dict[str, Any]:
    fields = asdict(paper)
    del fields["folder"], fields["module"]
    for entry, part in zip(fields["parts"], paper.parts, strict=True):
        entry["built"] = part.built
    return {
        **fields,
        "built": paper.built,
        "last_run": row.id if row else None,
        "verdict": row.message if row else None,
        "published": asdict(shipped) if (shipped := shipped_verdicts(paper)) else None,
    }
