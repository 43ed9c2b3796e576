"""The verb `split`: labelled rows become files for pre-training, fine-tuning and a test that share no text."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_folder, sha256, size_of, user_path
from gpt2lab.base.json_files import write_json
from gpt2lab.base.settings import build
from gpt2lab.text.labelled_documents import Document
from gpt2lab.text.labelled_splits import SplitSettings, labelled_parts
from gpt2lab.text.manifests import MANIFEST, Written
from gpt2lab.text.sources import SourceLike


def split(source: SourceLike, *, out: str | Path, **options: Any) -> Written:
    """Split rows into `unlabelled.jsonl`, `labelled.jsonl`, `test.jsonl` of a new folder, and return what was written.

    source: csv, jsonl or parquet files, hub:ID or a built-in source with fields, or a list of these. options: the fields of
    `SplitSettings`. A row of the files has id, text, the date if its field is named, and the label except in `unlabelled`.
    `manifest.json` has the options, the documents of each file and label, what was left out, checksums. Nothing appears
    before all of it is there. LabError for an `out` that exists, an option that there is not, and as `labelled_parts`.
    """
    settings, place = build(SplitSettings, options, "split"), user_path(out)
    if place.exists():
        raise LabError(f"{place}: exists already; give another name")
    named = [str(one) for one in ([source] if isinstance(source, str | Path) else source)]
    parts = labelled_parts(named, settings)
    files = {"unlabelled": parts.unlabelled, "labelled": parts.labelled, "test": parts.test}
    manifest: dict[str, object] = {
        "source": named,
        **asdict(settings),
        "documents": {name: len(documents) for name, documents in files.items()},
        "labels": {name: _labels(files[name]) for name in ("labelled", "test")},
        "copies_left_out": parts.copies.copies,
        "contradicting_left_out": parts.copies.contradicting,
    }
    with atomic_folder(place) as temporary:
        for name, documents in files.items():
            lines = "".join(_row(one, labelled=name != "unlabelled") for one in documents)
            (temporary / f"{name}.jsonl").write_text(lines, encoding="utf-8", newline="\n")
        manifest["sha256"] = {name: sha256(temporary / f"{name}.jsonl") for name in files}
        write_json(temporary / MANIFEST, manifest)
    return Written(place, size_of(place), manifest=manifest)


def _labels(documents: Sequence[Document]) -> dict[str, int]:
    """Return how many documents have each label, in the order of the labels."""
    return dict(sorted(Counter(str(one.label) for one in documents).items()))


def _row(one: Document, *, labelled: bool) -> str:
    row = {name: value for name, value in one.row().items() if labelled or name != "label"}
    return json.dumps(row, ensure_ascii=False) + "\n"
