"""Split notes for a classifier, `python -m gpt2lab.papers.er_triage NOTES --out DIR`.

The folder gets unlabelled.jsonl (for pre-training), labelled.jsonl, test.jsonl and manifest.json, which says what was left
out: copies of a text, and texts whose copies have different labels. No test note is in one of the other files.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpt2lab.base.errors import LabError, system_error
from gpt2lab.base.files import atomic_write
from gpt2lab.base.settings import add_arguments, build, given

PROGRAM = "python -m gpt2lab.papers.er_triage"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is read, and how it is split."""

    out: str
    """Folder that is written; it must not exist yet."""
    field: str = "text"
    """Field of the text."""
    label: str = "label"
    """Field of the label, 0 or 1, empty where it is not known."""
    positive: str | None = None
    """The label that counts as 1, if the labels are other than 0 and 1; all others count as 0."""
    id: str | None = None
    """Field of the id."""
    date: str | None = None
    """Field of the day."""
    by: Literal["text", "id", "date"] = "text"
    """Which notes are the test part: by the hash of the text or of the id, or the latest by date."""
    test: float = 0.2
    """Share (below 1) or number of the labelled notes that are the test part."""
    labelled: int | None = None
    """Labelled notes that are kept as such; the labels of the others are left out. None: all."""
    without_contacts: bool = False
    """Replace addresses, dates, long numbers and titled names first; this does not make notes anonymous."""


def main(words: Sequence[str] | None = None) -> int:
    """Write the folder and print its manifest as JSON; returns the exit status: 0, or 2 for a mistake."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, allow_abbrev=False, description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("notes", nargs="+", help="files (csv, jsonl, parquet), hub:ID or a built-in source")
    add_arguments(parser, Options)
    arguments = parser.parse_args(words)
    try:
        manifest = written(arguments.notes, build(Options, given(arguments, Options), PROGRAM))
    except (LabError, OSError) as error:
        said = system_error(error) if isinstance(error, OSError) else " ".join(str(error).split())
        print(f"er_triage: {said}", file=sys.stderr)  # noqa: T201  # a command line of its own
        return 2
    print(json.dumps(manifest, indent=2, ensure_ascii=False))  # noqa: T201  # a command line of its own
    return 0


def written(notes: Sequence[str], options: Options) -> dict[str, Any]:
    """Write the three files and the manifest, and return the latter. LabError as `read_notes` and `split_notes`."""
    from gpt2lab.papers.er_triage.notes import read_notes, refuse_leaks, split_notes
    from gpt2lab.text.labelled_documents import without_contacts

    folder = Path(options.out).expanduser()
    if folder.exists():
        raise LabError(f"--out {options.out}: it exists already; give another folder")
    read, copies = read_notes(
        list(notes),
        field=options.field,
        label=options.label,
        positive=options.positive,
        id=options.id,
        date=options.date,
        rewrite=without_contacts if options.without_contacts else None,
    )
    size = options.test if options.test < 1 else int(options.test)
    parts = split_notes(read, test=size, labelled=options.labelled, by=options.by, copies=copies)
    refuse_leaks(parts)
    folder.mkdir(parents=True)
    files = {"unlabelled": parts.unlabelled, "labelled": parts.labelled, "test": parts.test}
    for name, own in files.items():
        rows = [{**one.row(), "label": one.label} for one in own]
        for row in rows:
            if name == "unlabelled":
                row.pop("label")
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        atomic_write(folder / f"{name}.jsonl", text)
    manifest = {
        "notes": {name: len(own) for name, own in files.items()},
        "class 1": {name: sum(one.label == "1" for one in files[name]) for name in ("labelled", "test")},
        "copies left out": parts.copies.copies,
        "contradicting labels left out": parts.copies.contradicting,
        "split by": options.by,
    }
    atomic_write(folder / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return manifest


if __name__ == "__main__":
    sys.exit(main())
