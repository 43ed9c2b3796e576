"""The notes of a seed, generated or your own, as files of a unit; its tokenizer; its pre-training."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.loss import is_labelled
from gpt2lab.papers.er_triage.label_word import LabelWord
from gpt2lab.papers.er_triage.notes import read_notes, require_classes
from gpt2lab.papers.er_triage.study.settings import CONTROL, Settings
from gpt2lab.papers.er_triage.training import note_rows, pretrain
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.runs.trial import TUNING_SEED
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.generators.clinical_notes import ClinicalNotes
from gpt2lab.text.labelled_documents import Document, read_documents, without_contacts
from gpt2lab.text.labelled_splits import Parts, refuse_leaks, split_documents
from gpt2lab.text.language_model import LanguageModel, load
from gpt2lab.text.tokenizer import Tokenizer, train_bpe, word_level
from gpt2lab.training import TrainSettings

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run

TEST, TUNING = "test notes of each seed", "tuning notes"
"""What reports call the two kinds of held-out notes."""
_FILES = ("unlabelled", "labelled", "test")
_VALID = 500
"""Notes for pre-training that are held out for its loss, at most a tenth."""


def parts_of(settings: Settings, seed: int, *, control: bool = False) -> Parts:
    """Return the notes of a seed; of the tuning seed others than those that are judged.

    Generated: each seed has a world of its own, the tuning seed too. Your own: the test part is the same for all seeds, and
    the tuning seed takes a part of the rest in its place. LabError as `read_notes`, `split_documents` and `refuse_leaks`.
    """
    parts = _own(settings, seed) if settings.data else _generated(settings, seed, control)
    refuse_leaks(parts)
    require_classes(parts.test, "the test part")
    return parts


def _generated(settings: Settings, seed: int, control: bool) -> Parts:
    world: dict[str, Any] = CONTROL if control else {}
    notes = ClinicalNotes(level=settings.level, world=seed, **world)
    counts = (settings.unlabelled, settings.pool, settings.test)
    found, seen = list[list[Document]](), set[str]()
    for part, size in enumerate(counts):
        own = list[Document]()
        for note in notes.notes(size, seed=part):
            if note.text not in seen:  # two notes may be drawn alike
                seen.add(note.text)
                own.append(Document(note.id, note.text, str(note.label), note.date))
        found.append(own)
    unlabelled, labelled, test = found
    return Parts(unlabelled, labelled, test)


def _own(settings: Settings, seed: int) -> Parts:
    rewrite = without_contacts if settings.without_contacts else None
    notes, copies = read_notes(
        list(settings.data),
        field=settings.field,
        label=settings.label,
        positive=settings.positive,
        id=settings.id,
        date=settings.date,
        rewrite=rewrite,
    )
    known = sum(one.label is not None for one in notes)
    held_out = min(settings.test, max(1, known // 5))
    parts = split_documents(notes, test=held_out, by=settings.split_by, copies=copies)
    if seed == TUNING_SEED:
        tuning = split_documents(parts.labelled, test=held_out, salt="tuning")
        parts = replace(parts, labelled=tuning.labelled, test=tuning.test)
    if len(parts.labelled) < max(settings.long, settings.budgets[-1]):
        raise LabError(
            f"a budget of {max(settings.long, settings.budgets[-1])} labels, but {len(parts.labelled)} of your notes are "
            "left beside the judged ones; set budgets and long (16 times one of them) lower"
        )
    # Notes of the pool are read without their labels, too.
    return replace(parts, unlabelled=[*parts.unlabelled, *parts.labelled])


def prepare(settings: Settings, run: "Run", *, control: bool = False) -> None:
    """Write the notes of a seed, make the tokenizer of those without labels, and pre-train on them."""
    parts = parts_of(settings, run.seed, control=control)
    for name in _FILES:
        notes = getattr(parts, name)
        text = "".join(json.dumps(one.row(), ensure_ascii=False) + "\n" for one in notes)
        run.file(f"{name}.jsonl", text.encode(), f"{len(notes)} notes")
    texts = [one.text for one in parts.unlabelled]
    held_out = max(1, min(_VALID, len(texts) // 10))
    tokenizer = _tokenizer(settings, texts)
    config = gpt2_config(
        vocab_size=tokenizer.vocab_size,
        d_model=settings.d_model,
        n_layers=settings.n_layers,
        n_heads=settings.n_heads,
        max_positions=settings.context,
        eos=tokenizer.eos,
    )
    model = Transformer(config, generator=torch.Generator().manual_seed(run.seed)).to(run.device)
    lm = LanguageModel(model, tokenizer)
    valid, training = texts[:held_out], texts[held_out:]
    rows, _ = note_rows(lm, training, settings.context)
    judged, _ = note_rows(lm, valid, settings.context)
    steps = settings.pretraining_steps
    cut = pretrain(
        lm,
        training,
        TrainSettings(
            steps=steps,
            learning_rate=settings.pretraining_rate,
            warmup=steps // 20,
            evaluate_every=max(1, steps // 20),
            log_every=max(1, steps // 50),
        ),
        batch_size=settings.pretraining_batch,
        context=settings.context,
        seed=run.seed,
        log=run.log,
        evaluate=lambda: {"validation_loss": _loss(model, judged)},
        checkpoints=run.checkpoints / "pretraining",
        label="control" if control else "pre-training",
    )
    run.result("loss", _loss(model, judged))
    run.result("unigram_loss", _unigram(rows, judged, tokenizer.vocab_size))
    run.result("truncated", cut)
    run.result("parameters", model.count_parameters()["total"])
    run.result("copies", parts.copies.copies)
    run.result("contradicting", parts.copies.contradicting)
    for name in _FILES:
        run.result(f"notes.{name}", len(getattr(parts, name)))
    run.model(lm)


def read_parts(record: RunRecord) -> Parts:
    """Return the notes with labels that a unit has written; those without are not read again."""
    labelled, test = (
        read_documents(str(record.files[f"{name}.jsonl"]), label="label", id="id")
        for name in ("labelled", "test")
    )
    return Parts([], labelled, test)


def pretrained(record: RunRecord, device: str) -> LanguageModel:
    """Return the model that a unit has pre-trained."""
    return load(Path(record.folder) / "model", device=device)


def _tokenizer(settings: Settings, texts: Iterable[str]) -> Tokenizer:
    how = settings.fine_tuning
    if settings.tokenizer == "bpe":
        return train_bpe(texts, settings.vocab_size)
    spoken = how.label_word if how.read_out == "label-word" else LabelWord(words=("", ""), separator="")
    special = [word.strip() for word in (*spoken.words, spoken.separator) if word.strip()]
    return word_level(texts, vocab_size=settings.vocab_size, special=special)


@torch.no_grad()
def _loss(model: Transformer, rows: list[list[int]]) -> float:
    """Mean next-token loss of notes, every token alike, in nats."""
    total, count = 0.0, 0
    with evaluating(model):
        for start in range(0, len(rows), 64):
            own = rows[start : start + 64]
            (made,) = SequenceBatches(own, batch_size=len(own), shuffle=False)
            batch = {name: tensor.to(model.device) for name, tensor in made.items()}
            total += float(model.cross_entropy(model.hidden_of(batch), batch["targets"], reduction="sum"))
            count += int(is_labelled(batch["targets"]).sum())
    return total / max(count, 1)


def _unigram(rows: list[list[int]], judged: list[list[int]], vocabulary: int) -> float:
    """Mean loss of notes under the frequencies of the training tokens, in nats; none is impossible."""
    counts = Counter(token for row in rows for token in row[1:])
    total = counts.total() + vocabulary
    losses = [-math.log((counts[token] + 1) / total) for row in judged for token in row[1:]]
    return sum(losses) / max(len(losses), 1)
