"""What a model answers: sampled completions, resumable prompt by prompt, and exact probabilities of all titles."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write, user_path
from gpt2lab.base.json_files import write_json
from gpt2lab.base.progress import Progress, progress
from gpt2lab.decode import generate
from gpt2lab.measures.continuation import Continuation, split_continuations
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.measures.index import model_fingerprint
from gpt2lab.papers.occupational_bias.frequency import GAZETTEER, Counts, Which, expected, tally
from gpt2lab.papers.occupational_bias.occupations import Find, Gazetteer
from gpt2lab.papers.occupational_bias.prompts import Cell, Prompt
from gpt2lab.papers.occupational_bias.scoring import log_probabilities
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.pieces import frame

COMPLETIONS = "completions"
"""Folder, within the measure's own, of the completions."""
_NOTE = "settings.json"


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How completions are drawn; Hugging Face's text generation of the time by default."""

    temperature: float = 1.0
    """Divides the logits."""
    top_k: int | None = 50
    """Sample only from this many most probable tokens; none: all."""
    top_p: float = 1.0
    """Nucleus; 1 is all."""
    max_new_tokens: int = 10
    """Length of a completion in tokens."""
    seed: int = 0
    """With a prompt's id it decides all its draws."""
    batch_size: int = 256
    """Completions at a time; changes no text."""


@dataclass(frozen=True)
class Answers:
    """All completions of one prompt."""

    prompt: Prompt
    completions: list[str]
    titles: list[list[str]]
    """The occupations in each; empty where there is none."""
    recogniser: str = GAZETTEER
    """What found them, in words."""


def sample(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    n: int | Callable[[Prompt], int],
    gazetteer: Gazetteer,
    drawing: Drawing,
    *,
    find: Find | None = None,
    folder: Path | str | None = None,
) -> list[Answers]:
    """Draw `n` completions of each prompt and find the occupations in them.

    find: another recogniser than the gazetteer (a named-entity tagger, say); its titles are brought to small letters and
    renamed as the gazetteer renames, titles that it does not have stay as they are. folder: each prompt's completions are
    written there as PROMPT.jsonl when they are complete, and read again instead of drawn (the first n, if there are
    more; all stay in the file); the folder that the measure wrote with `--out` will do. LabError if the folder holds those
    of another model or other settings, or a file that cannot be read, and for a recogniser that fails. n < 1 is refused.
    """
    sizes = [n(prompt) if callable(n) else n for prompt in prompts]
    if not prompts or min(sizes) < 1:
        raise LabError(f"n must be at least 1 completion a prompt, got {min(sizes, default=0)}")
    need_tokenizer(lm, "sampling occupations")
    look, name = _recogniser(gazetteer, find)
    place = None if folder is None else _completions(folder)
    if place is not None:
        _claim(place, lm, drawing)
    found = []
    bar: Progress[None] = progress(total=sum(sizes), label="completions", unit="texts")
    with bar:
        for prompt, size in zip(prompts, sizes, strict=True):
            file = None if place is None else place / f"{prompt.id}.jsonl"
            texts = _kept(file, prompt, size)
            if texts is None:
                texts = _drawn(lm, prompt, size, drawing)
            answers = Answers(prompt, texts, [look(text) for text in texts], name)
            if file is not None:
                _keep(file, answers)
            found.append(Answers(prompt, texts[:size], answers.titles[:size], name))
            bar.advance(size)
    return found


def count_answers(
    answers: Sequence[Answers], *, which: Which = "first", compat_duplicates: bool = False
) -> Counts:
    """Count the jobs of all answers by cell (see `tally`)."""
    rows = ((a.prompt.cell, titles, 1) for a in answers for titles in a.titles)
    counts = tally(rows, which=which, compat_duplicates=compat_duplicates)
    return replace(counts, recogniser=answers[0].recogniser)


def read_answers(folder: Path | str, gazetteer: Gazetteer, find: Find | None = None) -> list[Answers]:
    """Read the completions that `sample` has written, and find occupations anew. LabError if there are none."""
    look, name = _recogniser(gazetteer, find)
    found = []
    for file in sorted(_completions(folder).glob("*.jsonl")):
        rows = _rows(file)
        cell = Cell(rows[0]["intersection"], rows[0]["category"], rows[0]["gender"])
        texts = [row["completion"] for row in rows]
        prompt = Prompt(rows[0]["prompt"], rows[0]["text"], cell)
        found.append(Answers(prompt, texts, [look(text) for text in texts], name))
    if not found:
        raise LabError(f"{folder}: no completions in it; sample with --out first")
    return found


def _completions(folder: Path | str) -> Path:
    """Return where completions are: the folder itself, or `completions` in one that the measure wrote with `--out`."""
    place = user_path(folder)
    inside = place / COMPLETIONS
    return inside if (inside / _NOTE).is_file() and not (place / _NOTE).is_file() else place


def _recogniser(gazetteer: Gazetteer, find: Find | None) -> tuple[Find, str]:
    """Return what finds titles, and its name in messages. What it raises becomes a LabError with the text."""
    if find is None:
        return gazetteer.find, GAZETTEER
    name = getattr(find, "__name__", type(find).__name__)
    renamed = gazetteer.renaming(find)

    def look(text: str) -> list[str]:
        try:
            return renamed(text)
        except LabError:
            raise
        except Exception as error:
            raise LabError(
                f"the recogniser {name} failed on {text!r}: {type(error).__name__}: {error}; it takes a text and returns "
                "a list of titles"
            ) from error

    return look, f"the recogniser {name}"


def _drawn(lm: LanguageModel, prompt: Prompt, size: int, drawing: Drawing) -> list[str]:
    digest = hashlib.blake2b(f"{drawing.seed}/{prompt.id}/{prompt.text}".encode(), digest_size=7).digest()
    results = generate(
        lm,
        [prompt.text] * size,
        decoder="sampling",
        max_new_tokens=drawing.max_new_tokens,
        seed=int.from_bytes(digest, "big"),
        batch_size=drawing.batch_size,
        temperature=drawing.temperature,
        top_k=drawing.top_k,
        top_p=drawing.top_p,
    )
    return [result.text for result in results]


def _claim(place: Path, lm: LanguageModel, drawing: Drawing) -> None:
    """Note whose completions the folder holds; LabError if they are somebody else's."""
    own: dict[str, Any] = {key: value for key, value in asdict(drawing).items() if key != "batch_size"}
    own["model"] = model_fingerprint(lm)
    note = place / _NOTE
    if note.is_file():
        there = _settings(note)
        other = [key for key in own if there.get(key) != own[key]]
        if other:
            raise LabError(
                f"{place}: holds completions with another {', '.join(other)}; give another folder, or the same settings"
            )
    else:
        write_json(note, own, sort_keys=False)


def _settings(note: Path) -> Mapping[str, Any]:
    try:
        there = json.loads(note.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LabError(f"{note}: not readable ({error}); give another folder") from None
    return there if isinstance(there, dict) else {}


def _kept(file: Path | None, prompt: Prompt, size: int) -> list[str] | None:
    """Return all completions of an earlier call; None if there are none or they are fewer or of another text."""
    if file is None or not file.is_file():
        return None
    rows = _rows(file)
    if len(rows) < size or rows[0]["text"] != prompt.text:
        return None
    return [row["completion"] for row in rows]


def _rows(file: Path) -> list[dict[str, Any]]:
    """Read the lines of a file of completions. LabError for one that is broken or empty."""
    try:
        # not splitlines: a completion may hold other line separators, which JSON does not escape
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        whole = bool(rows) and all(
            isinstance(row[key], str)
            for row in rows
            for key in ("prompt", "text", "intersection", "category", "gender", "completion")
        )
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise LabError(f"{file}: these completions cannot be read; delete the file and they are drawn again")
    return rows


def _keep(file: Path, answers: Answers) -> None:
    """Write all completions with their titles, unless the file says the same already."""
    content = "".join(_lines(answers))
    if not file.is_file() or file.read_text(encoding="utf-8") != content:
        atomic_write(file, content)


def _lines(answers: Answers) -> Iterator[str]:
    cell = answers.prompt.cell
    head = {
        "prompt": answers.prompt.id,
        "text": answers.prompt.text,
        "intersection": cell.intersection,
        "category": cell.category,
        "gender": cell.gender,
    }
    for text, titles in zip(answers.completions, answers.titles, strict=True):
        yield json.dumps({**head, "completion": text, "titles": titles}, ensure_ascii=False) + "\n"


# Without sampling.


@dataclass(frozen=True)
class Exact:
    """P(job | prompt) of every job of the gazetteer."""

    counts: Counts
    """n times P(job | prompt, some title of the list), summed by cell."""
    mass: dict[Cell, float]
    """Σ P(title | prompt) over the list: how much of what the model says begins with a title."""
    unsayable: tuple[str, ...]
    """Titles with a word that the tokenizer does not know; they are left out."""


def exact(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    n: int | Callable[[Prompt], int],
    gazetteer: Gazetteer,
    *,
    batch_size: int = 256,
) -> Exact:
    """Score every title right after every prompt: Π p(token) of " title", as shares of the list.

    The probability of a longer title that begins with the same tokens is taken off the shorter one, so that each
    continuation counts for its longest title, as in `sample`. Temperature 1, no cut. LabError if the model can say no
    title.
    """
    tokenizer = need_tokenizer(lm, "scoring occupations")
    sayable = [title for title in gazetteer.titles if tokenizer.unk not in tokenizer.encode(" " + title)]
    unsayable = tuple(title for title in gazetteer.titles if title not in set(sayable))
    if not sayable:
        raise LabError(
            "the model's tokenizer knows no title of the gazetteer; give a gazetteer of words it knows"
        )
    texts = list(dict.fromkeys(prompt.text for prompt in prompts))
    opening = frame(tokenizer, texts[0])[0] if texts else []  # what `sample` has before a prompt
    said = [f" {title}" for title in sayable]
    rows = [[_after(opening, item) for item in split_continuations(tokenizer, text, said)] for text in texts]
    scores = log_probabilities(lm.model, [item for row in rows for item in row], batch_size=batch_size)
    by_text: dict[str, dict[str, float]] = {}
    for at, text in enumerate(texts):
        whole = [math.exp(score) for score in scores[at * len(sayable) : (at + 1) * len(sayable)]]
        by_text[text] = _by_job(sayable, exclusive(rows[at], whole), gazetteer)
    return _exact_counts(prompts, by_text, n, unsayable)


def _after(opening: Sequence[int], item: Continuation) -> Continuation:
    return Continuation([*opening, *item.context], item.tokens) if opening else item


def exclusive(items: Sequence[Continuation], probabilities: Sequence[float]) -> list[float]:
    """Take from each title's probability that of the longer titles which begin with its tokens.

    Of titles with the same tokens (a tokenizer that drops hyphens or accents) the first has it all.
    """
    keys = [(*item.context, *item.tokens) for item in items]
    own = dict(zip(keys, probabilities, strict=True))
    left = dict(own)
    for key in sorted(own, key=len, reverse=True):
        for length in range(len(key) - 1, 0, -1):
            if key[:length] in own:  # the longest title below this one; it hands the rest down itself
                left[key[:length]] -= own[key]
                break
    return [max(left.pop(key, 0.0), 0.0) for key in keys]


def _by_job(titles: Sequence[str], probabilities: Sequence[float], gazetteer: Gazetteer) -> dict[str, float]:
    found: dict[str, float] = {}
    for title, p in zip(titles, probabilities, strict=True):
        job = gazetteer.titles[title]
        found[job] = found.get(job, 0.0) + p
    return found


def _exact_counts(
    prompts: Sequence[Prompt],
    by_text: dict[str, dict[str, float]],
    n: int | Callable[[Prompt], int],
    unsayable: tuple[str, ...],
) -> Exact:
    """Average the prompts of each cell, each normalised over the list."""
    shares: dict[Cell, dict[str, float]] = {}
    sizes: dict[Cell, int] = {}
    mass: dict[Cell, list[float]] = {}
    for prompt in prompts:
        own = by_text[prompt.text]
        total = sum(own.values())
        if not total > 0:
            raise LabError(
                f"{prompt.text!r}: every title has probability 0 after it; the exact mode has nothing to share"
            )
        size = n(prompt) if callable(n) else n
        if size < 1:
            raise LabError(f"n must be at least 1 completion a prompt, got {size}")
        sizes[prompt.cell] = sizes.get(prompt.cell, 0) + size
        mass.setdefault(prompt.cell, []).append(total)
        cell = shares.setdefault(prompt.cell, {})
        for job, p in own.items():
            cell[job] = cell.get(job, 0.0) + size * p / total
    for cell_name, row in shares.items():
        for job in row:
            row[job] /= sizes[cell_name]
    return Exact(expected(shares, sizes), {c: sum(m) / len(m) for c, m in mass.items()}, unsayable)
