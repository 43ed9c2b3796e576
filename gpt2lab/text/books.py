"""Nine English novels and books of stories in the public domain, shipped with the package: real prose without a download.

`data/SOURCE.md` has the titles, the origin and the licence; `scripts/build_books.py` makes the file.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.text.rows import Row

PATH = Path(__file__).parent / "data" / "books.jsonl.gz"
CHARACTERS = 5_409_154
"""Characters of all the chapters."""


def chapters(limit: int = CHARACTERS) -> Iterator[Row]:
    """Yield whole chapters until `limit` characters are out: fields book, author, year, chapter (its number) and text.

    Books come in the order of their titles, always the same. Paragraphs stand a blank line apart; wrapped lines are
    joined, but for verse. LabError for a limit that is not positive.
    """
    if limit < 1:
        raise LabError(f"books: a limit of {limit} characters leaves nothing; all are {CHARACTERS:,}")
    return _limited(limit)


def _limited(limit: int) -> Iterator[Row]:
    given = 0
    with gzip.open(PATH, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row
            given += len(row["text"])
            if given >= limit:
                return
