"""The verb `write`: the documents of a source, generated, perturbed or read, become files."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2lab.actions.models import with_models
from gpt2lab.base.errors import LabError, nearest, shown
from gpt2lab.base.files import atomic_file, size_of, user_path
from gpt2lab.base.progress import progress
from gpt2lab.base.registry import part, parts
from gpt2lab.base.settings import build
from gpt2lab.text import sources
from gpt2lab.text.built_in import built_in_rows
from gpt2lab.text.manifests import Written
from gpt2lab.text.readers import SEPARATOR


def is_source_part(name: str) -> bool:
    """Tell whether a source is a part with options of its own, which writes a folder."""
    return any(one.name == name for one in parts("source"))


def write(source: str | Path, *, out: str | Path, **options: Any) -> Written:
    """Write the documents of a source and return what was written; nothing appears before all of it is there.

    source: a part of this kind, which takes `options` and writes the folder `out` with a manifest; or files, hub:ID, a
    built-in source by `NAME[:SIZE[:SEED[:THIRD]]]`, whose documents become one file: `.jsonl`, a row a document, with all
    fields of a generated row, or `.txt`, a line <|endoftext|> behind each. Their one option is `field`, that of the text in
    rows that are read. LabError for an option that the source does not have, another kind of file, and an `out` that holds
    something else.
    """
    name, place = str(source), user_path(out)
    if is_source_part(name):
        made = with_models(build(part("source", name), options, f"write {name}"))
        manifest = made(place)
        return Written(place, size_of(place), manifest=manifest)
    _refuse_unknown(name)
    text = str(options.pop("field", "text"))
    if options:
        raise LabError(
            f"write {name}: of files, hub ids and built-in sources `field` is the one option, not {min(options)}"
        )
    as_row = _format(place)
    with atomic_file(place) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as lines:
        count = 0
        for count, document in enumerate(progress(_documents(name, text), label=name, unit="documents"), 1):  # noqa: B007  # read below
            lines.write(as_row(document))
        if not count:
            raise LabError(f"{name}: there are no documents")
    return Written(place, size_of(place), documents=count)


def _refuse_unknown(source: str) -> None:
    """LabError for a source that is not there, with the part that may have been meant."""
    try:
        sources.files(source)
    except LabError:
        meant = nearest(source, [one.name for one in parts("source")])
        if meant is None:
            raise
        raise LabError(f"{source}: no such file, folder or source; did you mean {meant}?") from None


def _documents(source: str, field: str) -> Iterator[Mapping[str, object]]:
    found = built_in_rows(source)
    if found is not None:
        yield from found
    else:
        yield from ({"text": text} for text in sources.documents(source, field=field))


def _format(place: Path) -> Callable[[Mapping[str, object]], str]:
    """Return how a document is written. LabError for a name of another ending, and for a file that exists."""
    writers = {".jsonl": _row, ".txt": _text}
    if place.suffix not in writers:
        raise LabError(f"out {shown(str(place))}: the name of the file ends in {' or '.join(writers)}")
    if place.exists():
        raise LabError(f"{place}: exists already; give another name")
    return writers[place.suffix]


def _row(document: Mapping[str, object]) -> str:
    return json.dumps(document, ensure_ascii=False) + "\n"


def _text(document: Mapping[str, object]) -> str:
    return f"{document['text']}\n{SEPARATOR}\n"
