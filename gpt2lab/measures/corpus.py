"""The text a likelihood measure works on: documents of a source, or all of it as one stream of tokens."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lab.base.errors import LabError
from gpt2lab.measures.detokenize import Style, detokenize
from gpt2lab.text import readers, sources
from gpt2lab.text.bounded import guarded, open_file
from gpt2lab.text.data_read import noted
from gpt2lab.text.pieces import beginning, bytes_of
from gpt2lab.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

_SEPARATOR_LINE = re.compile(rb"^<\|endoftext\|>[ \t]*\r?$", re.MULTILINE)


@dataclass(frozen=True)
class Passage:
    """Tokens to be scored as one sequence. The first is context only: a start token, or the text's first."""

    ids: list[int]
    n_bytes: int
    """UTF-8 bytes of the text that is scored."""
    n_words: int
    """Pieces between single blanks in the text as it was stored (megatron's To)."""


def need_tokenizer(lm: "LanguageModel", measure: str) -> Tokenizer:
    """Return the model's tokenizer; LabError if it has none."""
    tokenizer: Tokenizer | None = lm.tokenizer
    if tokenizer is None:
        raise LabError(
            f"{measure} reads text, and this model has no tokenizer; put its tokenizer.json beside it"
        )
    return tokenizer


def read_texts(data: str | Sequence[str], field: str = "text") -> Iterator[str]:
    """Yield the texts of a source; a plain text file without separator lines is one text, to the byte.

    Elsewhere a document is a text: see `gpt2lab.text.sources.documents`, whose errors these are.
    """
    for item in [data] if isinstance(data, str) else data:
        files = sources.files(item)
        if not files:
            yield from sources.documents(item, field=field)
        texts = sources.read_files(files, lambda file: _file_texts(file, field))
        yield from noted(str(item), texts) if files else texts


def read_lines(data: str | Sequence[str], field: str = "text") -> list[str]:
    """Return the texts of a source, of a plain text file each line that is not blank. Errors as `read_texts`.

    LabError if there is none.
    """
    found: list[str] = []
    for item in [data] if isinstance(data, str) else data:
        plain = any(readers.format_of(file) == "txt" for file in sources.files(item))
        for text in read_texts(item, field):
            found += [line for line in re.split(r"\r?\n", text) if line.strip()] if plain else [text]
    if not found:
        raise LabError(f"{data if isinstance(data, str) else ' '.join(data)}: holds no text")
    return found


def _file_texts(file: Path, field: str) -> Iterator[str]:
    pieces = readers.read(file, field)
    if readers.format_of(file) == "txt" and not _has_separators(file):
        yield "".join(pieces)
    else:
        yield from (piece for piece in pieces if piece)


def stream(
    texts: Iterator[str],
    tokenizer: Tokenizer,
    *,
    style: Style = "none",
    bos: bool = False,
    limit: int | None = None,
) -> Passage:
    """Return all texts as one sequence, the tokenizer's eos between them; `limit` is the most tokens scored.

    Those eos tokens are scored as well. With `bos` the first token is scored too, after a start token.
    LabError for less than two tokens.
    """
    ids = [start_token(tokenizer)] if bos else []
    n_bytes = n_words = 0
    for number, (text, natural, tokens) in enumerate(_encoded(texts, tokenizer, style, limit)):
        if number and tokenizer.eos is not None:
            ids.append(tokenizer.eos)
        kept = tokens if limit is None else tokens[: max(limit + 1 - len(ids), 0)]
        unscored = 0 if ids else 1  # a first token with nothing before it
        n_bytes += _bytes(tokenizer, natural, unscored, None if len(kept) == len(tokens) else len(kept))
        n_words += count_words(text)
        ids += kept
        if limit is not None and len(ids) > limit:
            del ids[limit + 1 :]
            break
    if len(ids) < 2:
        raise LabError(
            f"there is too little text to score: {len(ids)} tokens, and the first has nothing before it"
        )
    return Passage(ids, n_bytes, n_words)


def passages(
    texts: Iterator[str],
    tokenizer: Tokenizer,
    *,
    style: Style = "none",
    bos: bool = True,
    limit: int | None = None,
) -> list[Passage]:
    """Return each text as a sequence of its own, after a start token if `bos`; `limit` is for all of them.

    Without a start token a text of one token has nothing to score and is left out. LabError if none is left.
    """
    found: list[Passage] = []
    left = limit
    for text, natural, tokens in _encoded(texts, tokenizer, style, limit):
        ids = [start_token(tokenizer), *tokens] if bos else tokens
        kept = None
        if left is not None and len(ids) - 1 > left:
            ids = ids[: left + 1]
            kept = len(ids) - bos
        if len(ids) > 1:
            found.append(Passage(ids, _bytes(tokenizer, natural, 0 if bos else 1, kept), count_words(text)))
            left = None if left is None else left - len(ids) + 1
        if left == 0:
            break
    if not found:
        raise LabError("there is too little text to score: no document has two tokens")
    return found


def start_token(tokenizer: Tokenizer) -> int:
    """Return what stands before a text: the bos token, else the eos token. LabError if there is neither."""
    token = tokenizer.bos if tokenizer.bos is not None else tokenizer.eos
    if token is None:
        raise LabError("this tokenizer has no bos or eos token to stand before a text; set bos=false")
    return token


def count_words(text: str) -> int:
    """Return the number of pieces between single blanks, as the public evaluation of Megatron-LM counts words."""
    return len(text.strip().split(" "))


def _encoded(
    texts: Iterator[str], tokenizer: Tokenizer, style: Style, limit: int | None
) -> Iterator[tuple[str, str, list[int]]]:
    """Yield each text as stored, as natural text, and as tokens: with a limit perhaps only its first, but more than it."""
    if limit is not None:
        for text in texts:
            natural = detokenize(text, style)
            yield text, natural, beginning(tokenizer, natural, limit + 2)[0]
        return
    while some := list(itertools.islice(texts, 64)):
        naturals = [detokenize(text, style) for text in some]
        yield from zip(some, naturals, tokenizer.encode_batch(naturals), strict=True)


def _bytes(tokenizer: Tokenizer, text: str, first: int, last: int | None) -> int:
    """Return the UTF-8 bytes of a text that its tokens first … last - 1 stand for; None: all after the first."""
    whole = len(text.encode("utf-8", "surrogatepass"))
    if first == 0 and last is None:
        return whole
    spans = beginning(tokenizer, text, (last or first) + 1)[1]
    return (whole if last is None else bytes_of(text, spans, last)) - bytes_of(text, spans, first)


def _has_separators(file: Path) -> bool:
    """Tell whether a text file's first MiB holds a separator line, as the reader of documents does."""
    with open_file(file) as handle:
        return bool(_SEPARATOR_LINE.search(guarded(file, lambda: handle.read(1 << 20))))
