"""Reports: what a run found, for people to read, from what lies in its folder."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write
from gpt2lab.base.json_files import read_text
from gpt2lab.base.json_numbers import flat
from gpt2lab.base.progress import duration
from gpt2lab.base.registry import Paper, paper
from gpt2lab.base.settings import show
from gpt2lab.base.wording import count, listed, printable
from gpt2lab.runs.kinds import WORDS
from gpt2lab.runs.report.claims import claim_sections
from gpt2lab.runs.report.curves import curves_of_run, curves_of_runs, curves_of_study
from gpt2lab.runs.report.document import (
    Block,
    Command,
    DataTable,
    Document,
    Fact,
    Facts,
    Passage,
    Picture,
    Prose,
    Section,
)
from gpt2lab.runs.report.exports import write_figures, write_tables
from gpt2lab.runs.report.head import head_blocks
from gpt2lab.runs.report.html import to_html
from gpt2lab.runs.report.lineage_section import lineage_sections
from gpt2lab.runs.report.markdown import to_markdown
from gpt2lab.runs.report.provenance_section import provenance_section
from gpt2lab.runs.report.side_by_side import apart, comparison_rows, side_by_side, verdict_rows
from gpt2lab.runs.report.trial import trial_section
from gpt2lab.runs.run_record import RunRecord, record
from gpt2lab.runs.store import Row, Store
from gpt2lab.runs.trial import TUNING_SEED, seed_name

_FEW = 10  # settings without known defaults that are not folded
_OTHER_TOKENS = (
    "These runs may cut text into different tokens: compare their bits per byte, not their losses per token."
)


def write_report(
    name: str,
    *,
    figures: Sequence[str] = (),
    tables: Sequence[str] = (),
    home: Path | str | None = None,
) -> Path:
    """Write report.html and report.md into a run's folder; return the path of the first.

    name: id, name or beginning of an id. figures: `pdf`, `png`, of every figure beside its SVG. tables: `latex`, of every
    table beside its CSV. LabError if there is no such run, its files are damaged, its folder is gone or cannot be
    written, or what draws is missing.
    """
    store = Store(home)
    row = store.find(name)
    if row.status in ("missing", "damaged"):
        raise LabError(f"{row.id}: {row.message}")
    run = record(row, store.home)
    with _written_to(run.folder):
        if row.kind == "study":
            document = _study(row, run, store)
        elif row.parent is not None:
            document = _single(row, run, Prose(f"A piece of the study `{row.id.partition('/')[0]}`."))
        else:
            document = _single(row, run, *lineage_sections(row, store))
        path = _write(document, run.folder, "report")
        write_figures(run, figures)
        write_tables(run, tables)
        return path


def write_comparison(
    names: Sequence[str], *, home: Path | str | None = None, out: Path | str | None = None
) -> Path:
    """Write comparison.html and comparison.md of several runs into `out`.

    By default they go to the home folder, named after the runs: `comparison-train-1-train-2.html`.

    LabError if there are fewer than two runs, or one of them does not exist.
    """
    store = Store(home)
    rows = list({row.id: row for row in (store.find(name) for name in names)}.values())
    if len(rows) < 2:
        raise LabError(
            f"compare takes at least two different runs, got {listed([row.id for row in rows]) or 'none'}"
        )
    folder = Path(out) if out is not None else store.home
    with _written_to(folder):
        name = "comparison" if out is not None else _comparison_name(rows)
        return _write(_comparison(rows, store, folder), folder, name)


def _comparison_name(rows: Sequence[Row]) -> str:
    """Return the name of a comparison's files: the runs, or of many the first and how many, with their fingerprint."""
    names = [row.id.replace("/", "-") for row in rows]
    name = "-".join(["comparison", *names])
    if len(name) <= 100:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"comparison-{names[0][:60]}-and-{len(names) - 1}-more-{mark}"


# What the documents hold.


def _study(row: Row, run: RunRecord, store: Store) -> Document:
    about = run.json("settings.json")
    described = _described(row.paper)
    pieces = [record(piece, store.home) for piece in store.pieces(row.id)]
    seeds = [piece for piece in pieces if piece.arm is None]
    pictures = [_picture(run, name, path) for name, path in run.figures.items()]
    summary = str(about.get("summary", ""))
    blocks: list[Block | Section] = [
        *_trouble(row),
        *head_blocks(run.verdicts, run.head, row.scale or "", summary, pictures, run.folder),
    ]
    if described is not None:
        blocks.append(Section("The paper", [Prose(described.summary)]))
    elif summary:
        blocks.append(Section("The comparison", [Prose(summary)]))
    if row.paper is not None:
        blocks += claim_sections(run.verdicts, run.folder)
        if run.verdicts:
            blocks.append(trial_section(run.verdicts, run.trial, pieces, run.earlier_verdicts))
    blocks += _reported(run, but=run.head.figure)
    if not run.figures and (curves := list(curves_of_study(pieces, run.folder))):
        blocks.append(Section("Training", curves))
    blocks.append(Section("Seeds and arms", list(_pieces(pieces, seeds))))
    blocks.append(
        _settings(about.get("settings", {}), about.get("preset", {}), about.get("help", {}), "the preset")
    )
    blocks += [provenance_section(run, pieces), _again(row)]
    finished = sum(seed.status == "finished" for seed in seeds)
    byline = [
        *([f"{described.authors} authors, {described.date}"] if described is not None else []),
        f"{row.scale} scale",
        f"{finished} of {count(len(about.get('seeds', ())), 'seed')}",
        *_when(row),
    ]
    title = described.title if described is not None else row.id
    if "comparison" in about:
        title = f"{about['comparison'].rpartition('.')[2].capitalize()} side by side"
    return Document(title, byline, blocks, _links(described))


def _single(row: Row, run: RunRecord, *first: Block | Section) -> Document:
    """Return the report of one run: curves, results, what it reported, settings."""
    blocks: list[Block | Section] = [*first, *_trouble(row)]
    if run.results:
        rows = [{"result": name, "value": value} for name, value in run.results.items()]
        blocks.append(Section("Results", [DataTable("", rows)]))
    curves = list(curves_of_run(run))
    if curves:
        blocks.append(Section("Training", curves))
    blocks += _reported(run)
    usual = run.json("defaults.json")
    blocks.append(
        _settings(run.json("settings.json"), usual.get("values", {}), usual.get("help", {}), "the defaults")
    )
    blocks += [provenance_section(run), _again(row)]
    named = seed_name(row.seed)
    what = {"train": "training", "seed": named, "arm": f"{named}, arm {row.arm}"}.get(row.kind, row.kind)
    return Document(row.id, [what, row.status, *_when(row)], blocks)


def _comparison(rows: Sequence[Row], store: Store, folder: Path) -> Document:
    sides = comparison_rows(rows, store.home)
    runs = {row.id: record(row, store.home) for row in rows}
    facts = [
        {"run": row.id, "status": row.status, "began": row.created[:16].replace("T", " "), "took": _took(row)}
        for row in rows
    ]
    blocks: list[Block | Section] = [
        DataTable("", facts),
        *([Prose(_OTHER_TOKENS)] if _differ(sides["settings"], "tokenizer", "vocab_size", "model") else []),
        *(
            Section(WORDS[kind].title, [Prose(WORDS[kind].meaning), DataTable("", lines)])
            for kind, lines in verdict_rows(rows, store.home).items()
        ),
        Section("Results", [DataTable("", sides["results"])]),
        Section(
            "Training", list(curves_of_runs(runs, folder)) or [Prose("The runs logged no number in common.")]
        ),
        Section("Settings that differ", apart(sides["settings"])),
    ]
    return Document(f"{listed(list(runs))} compared", [count(len(rows), "run")], blocks)


def _differ(settings: Sequence[Mapping[str, Any]], *names: str) -> bool:
    """Tell whether one of these settings is among those that differ."""
    return any(row["name"] in names for row in settings)


def _trouble(row: Row) -> list[Block]:
    """Say what kept a run from finishing."""
    if row.status not in ("failed", "interrupted"):
        return []
    again = f" `gpt2lab resume {row.id}` goes on with it." if row.kind in ("study", "train") else ""
    return [
        Prose(
            f"This run {'has failed' if row.status == 'failed' else 'was interrupted'}: {row.message}.{again}",
            strong=True,
        )
    ]


def _reported(run: RunRecord, *, but: str = "") -> list[Section]:
    """Return the figures, tables, texts, arrays and files of a run, each kind a section; `but` a figure shown elsewhere."""
    figures = [_picture(run, name, path) for name, path in run.figures.items() if name != but]
    tables = [DataTable(run.captions("tables")[name] or name, rows) for name, rows in run.tables.items()]
    texts = [Passage(run.captions("texts")[name] or name, text) for name, text in run.texts.items()]
    kinds: list[tuple[str, Sequence[Block]]] = [
        ("Figures", figures),
        ("Tables", tables),
        ("Texts", texts),
        ("Arrays and files", _stored(run)),
    ]
    return [Section(title, blocks) for title, blocks in kinds if blocks]


def _stored(run: RunRecord) -> list[Block]:
    """Return a table of what lies beside the run as arrays (`numpy.load` opens them) and as other files."""
    rows: list[dict[str, Any]] = [
        {
            "file": f"arrays/{name}.npy",
            "shape": " × ".join(map(str, array.shape)) or "one number",
            "type": str(array.dtype),
            "about": run.captions("arrays")[name],
        }
        for name, array in run.arrays.items()
    ]
    rows += [
        {"file": f"files/{name}", "about": run.captions("files")[name]} for name, path in run.files.items()
    ]
    return [DataTable("", rows)] if rows else []


def _picture(run: RunRecord, name: str, path: Path) -> Picture:
    return Picture(name, run.captions("figures")[name], read_text(path), path)


def _pieces(pieces: Sequence[RunRecord], seeds: Sequence[RunRecord]) -> Iterator[Block | Section]:
    """Yield a table of the pieces, then what every seed and arm reported, folded."""
    rows = [
        {
            "seed": "tuning" if piece.seed == TUNING_SEED else piece.seed,
            "arm": piece.arm or "",
            "status": piece.status,
            "time": duration(piece.seconds) if piece.seconds is not None else "",
            "note": piece.message,
        }
        for piece in pieces
    ]
    used = [name for name in rows[0] if any(row[name] not in ("", None) for row in rows)] if rows else []
    yield DataTable("", [{name: row[name] for name in used} for row in rows])
    results = {f"seed {seed.seed}": seed.results for seed in seeds if seed.results}
    if results:
        yield Section(
            "Results of every seed", [DataTable("", side_by_side(results, name="result"))], folded=True
        )
    for number in dict.fromkeys(piece.seed for piece in pieces):
        inner: list[Block | Section] = []
        for piece in pieces:
            if piece.seed == number and (reported := _reported(piece)):
                inner += [Section(piece.arm, reported, folded=True)] if piece.arm else reported
        if inner:
            yield Section(seed_name(number).capitalize(), inner, folded=True)


def _settings(
    settings: Mapping[str, Any], usual: Mapping[str, Any], docs: Mapping[str, str], whose: str
) -> Section:
    """Return the settings: those that differ from the usual ones, then the others, folded."""
    before = flat(usual)
    facts = [
        Fact(name, show(value) or "–", docs.get(name, ""), _usual(name, value, before))
        for name, value in flat(settings).items()
    ]
    changed = [fact for fact in facts if fact.changed_from is not None]
    others = [fact for fact in facts if fact.changed_from is None]
    if not facts:
        return Section("Settings", [Prose("None.")])
    if not before and len(facts) <= _FEW:
        return Section("Settings", [Facts("", facts)])
    blocks: list[Block | Section] = []
    if changed:
        differs = count(len(changed), "setting differs", "settings differ")
        blocks.append(Facts(f"{differs} from {whose}", changed))
    elif before:
        blocks.append(Prose(f"{whose.capitalize()}, unchanged."))
    if others:
        title = f"{'The other ' if changed else 'All '}{count(len(others), 'setting')}"
        blocks.append(Section(title, [Facts("", others)], folded=True))
    return Section("Settings", blocks)


def _usual(name: str, value: Any, before: Mapping[str, Any]) -> str | None:
    """Write the usual value of a setting; None if this is it, or if no usual ones are known."""
    if not before or (name in before and before[name] == value):
        return None
    return show(before.get(name, "")) or "nothing"


def _again(row: Row) -> Section:
    return Section(
        "Run it again", [Command(row.command)] if row.command else [Prose("Its command was not kept.")]
    )


def _when(row: Row) -> list[str]:
    began = datetime.fromisoformat(row.created).strftime("%-d %B %Y") if row.created else ""
    return [text for text in (_took(row), began) if text]


def _took(row: Row) -> str:
    return duration(row.seconds) if row.seconds is not None else ""


def _links(described: Paper | None) -> dict[str, str]:
    if described is None:
        return {}
    links = (
        {f"arXiv {described.arxiv}": f"https://arxiv.org/abs/{described.arxiv}"} if described.arxiv else {}
    )
    if described.repo.startswith(("https://", "http://")):  # a plug-in may name anything
        links["the authors' code"] = described.repo
    return links


def _described(slug: str | None) -> Paper | None:
    """Return a paper, None if it is not installed any more."""
    try:
        return paper(slug) if slug else None
    except LabError:
        return None


def _write(document: Document, folder: Path, name: str) -> Path:
    atomic_write(folder / f"{name}.md", printable(to_markdown(document, folder)))
    path = folder / f"{name}.html"
    atomic_write(path, printable(to_html(document)))
    return path


@contextlib.contextmanager
def _written_to(folder: Path) -> Iterator[None]:
    """Say where a report cannot be written."""
    try:
        yield
    except OSError as error:
        raise LabError(f"{folder}: the report cannot be written there ({error.strerror})") from error
