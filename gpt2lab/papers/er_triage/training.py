"""Pre-training on notes without labels, fine-tuning on few with labels, and the probability of class 1."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.measures.classification_metrics import (
    auroc,
    classification_metrics,
    confusion,
    per_class,
    resampled,
)
from gpt2lab.measures.prediction import encoder_for, head_outputs
from gpt2lab.model import attach
from gpt2lab.model.finite import all_finite
from gpt2lab.model.quantization.quantized import refuse_full_training
from gpt2lab.model.task_heads import Head, usual_form
from gpt2lab.papers.er_triage.label_word import (
    LabelWord,
    label_word_batches,
    label_word_loss,
    label_word_scores,
)
from gpt2lab.papers.er_triage.notes import CLASSES, HEAD, examples_of, require_classes
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.encoding import Encoder
from gpt2lab.text.labelled_batches import LabelledBatches
from gpt2lab.text.labelled_documents import Document
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.supervised import HeadLoss, Supervised

Floats = npt.NDArray[np.float64]
Evaluate = Callable[[LanguageModel], Mapping[str, float]]
SHORTEST = 8
"""Tokens that a note may have at least."""


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How a model learns a class from labelled notes; the same for every strategy."""

    epochs: float = 4.0
    """Times that each labelled note is seen, within the bounds below."""
    least_steps: int = 100
    """Updates at least: with few labels all strategies make as many."""
    most_steps: int = 2000
    """Updates at most."""
    batch_size: int = 32
    """Notes in an update; all of them where there are fewer."""
    warmup: float = 0.1
    """Share of the updates in which the learning rate rises."""
    weight_decay: float = 0.1
    """Of matrices and embeddings."""
    language: float = 0.0
    """λ in L = cross entropy + λ · L_LM, the next-token loss of the labelled notes; the paper's is not established."""
    read_out: Literal["head", "label-word"] = "head"
    """A linear head on the last token's state, or the class as a written word."""
    label_word: LabelWord = field(default_factory=LabelWord)
    """How the class is written."""
    context: int | None = None
    """Tokens of a note that are read, 8 or more; none is the model's context. Longer notes are cut on the right."""

    def __post_init__(self) -> None:
        if self.read_out not in ("head", "label-word"):
            raise unknown("read-out", self.read_out, ("head", "label-word"))
        if not self.epochs > 0 or not 1 <= self.least_steps <= self.most_steps or self.batch_size < 1:
            raise LabError(
                "epochs and batch_size must be positive and least_steps between 1 and most_steps, got "
                f"{self.epochs}, {self.batch_size}, {self.least_steps} and {self.most_steps}"
            )
        if not 0 <= self.warmup < 1 or not self.language >= 0:
            raise LabError(
                f"warmup must lie in [0, 1) and language not be negative, got {self.warmup}, {self.language}"
            )
        if self.context is not None and self.context < SHORTEST:
            raise LabError(f"context must be at least {SHORTEST} tokens, got {self.context}")

    def steps(self, labels: int) -> int:
        """Return the updates for so many labelled notes."""
        return min(max(round(self.epochs * labels / self.batch_size), self.least_steps), self.most_steps)


def context_of(lm: LanguageModel, how: FineTuning) -> int:
    """Return how many tokens of a note are read. LabError for fewer than 8."""
    own = lm.model.context if lm.config.positions != "none" else (how.context or 1024)
    found = min(own, how.context or own)
    if found < SHORTEST:
        raise LabError(f"this model reads {found} tokens; notes need {SHORTEST} or more")
    return found


def redrawn(lm: LanguageModel, seed: int) -> LanguageModel:
    """Return a model of the same shape and tokenizer with all weights drawn anew: the strategy without pre-training.

    LabError for a quantised model, whose weights cannot be trained.
    """
    refuse_full_training(lm.model)
    model = copy.deepcopy(lm.model).float()
    model.reset_parameters(torch.Generator().manual_seed(seed))
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return LanguageModel(model.eval(), lm.tokenizer)


def note_rows(lm: LanguageModel, texts: Sequence[str], context: int) -> tuple[list[list[int]], int]:
    """Return notes as tokens, each with an end token behind it where there is room, and how many were cut."""
    encoder = encoder_for(lm, longest=context)
    rows = [encoder.text(text).ids for text in texts]
    assert lm.tokenizer is not None
    end = [lm.tokenizer.eos] if lm.tokenizer.eos is not None else []
    return [[*row, *end][: context + 1] for row in rows], encoder.truncated


def pretrain(
    lm: LanguageModel,
    texts: Sequence[str],
    settings: TrainSettings,
    *,
    batch_size: int,
    context: int,
    seed: int,
    log: Callable[..., None] | None = None,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    checkpoints: Path | None = None,
    label: str = "pre-training",
) -> int:
    """Train a causal model in place on notes by next-token prediction; return how many notes were cut.

    L_LM is the mean cross entropy over the real next tokens of a batch, one note a row. LabError for notes of fewer than two
    tokens, and for a bidirectional model.
    """
    lm.config.require_causal("pre-training on notes by next-token prediction")
    rows, cut = note_rows(lm, texts, context)
    batches = SequenceBatches(rows, batch_size=batch_size, seed=seed)  # L_LM: padding has no target
    train(
        lm.model,
        batches,
        settings=settings,
        log=log,
        evaluate=evaluate,
        checkpoints=checkpoints,
        resume=True,
        seed=seed,
        label=label,
    )
    return cut


def fine_tune(
    lm: LanguageModel,
    notes: Sequence[Document],
    how: FineTuning,
    *,
    learning_rate: float,
    seed: int,
    evaluate: Evaluate | None = None,
    every: int = 0,
    log: Callable[..., None] | None = None,
    checkpoints: Path | None = None,
    label: str = "fine-tuning",
) -> LanguageModel:
    """Return a copy of a model that has learnt the class of labelled notes; the one that is given stays as it is.

    evaluate: numbers of the model every `every` updates, for `log`. LabError for notes of one class, a model without a
    tokenizer, a quantised one, numbers that are not finite.
    """
    require_classes(notes, "a labelled subset")
    refuse_full_training(lm.model)
    if not all(all_finite(parameter) for parameter in lm.model.parameters()):
        raise LabError("the model's weights hold NaN or infinity; it cannot be fine-tuned")
    context, steps = context_of(lm, how), how.steps(len(notes))
    tuned = LanguageModel(copy.deepcopy(lm.model).float(), lm.tokenizer)
    batch_size = min(how.batch_size, len(notes))
    if how.read_out == "head":
        head = Head(
            name=HEAD,
            outputs=2,
            labels=CLASSES,
            language_head=bool(how.language),
            **usual_form(lm.config, "classification"),
        )
        attach(tuned.model, head, generator=torch.Generator().manual_seed(seed))  # logits = W h_T
        encoder = encoder_for(tuned, longest=context)
        batches: LabelledBatches | SequenceBatches = LabelledBatches(
            examples_of(notes), [head], encoder, batch_size=batch_size, seed=seed
        )
        objective: object = Supervised({HEAD: HeadLoss()}, language=how.language)  # L = CE + λ L_LM
    else:
        assert lm.tokenizer is not None
        batches = label_word_batches(
            [one.text for one in notes],
            [int(one.label == "1") for one in notes],
            lm.tokenizer,
            how.label_word,
            context=context,
            batch_size=batch_size,
            seed=seed,
        )
        objective = label_word_loss(how.language)
    train(
        tuned.model,
        batches,
        settings=TrainSettings(
            steps=steps,
            learning_rate=learning_rate,
            warmup=math.ceil(how.warmup * steps),
            weight_decay=how.weight_decay,
            evaluate_every=every,
            log_every=max(1, steps // 20),
        ),
        objective=objective,  # type: ignore[arg-type]  # one of two, each an objective
        evaluate=None if evaluate is None else lambda: evaluate(tuned),
        log=log,
        checkpoints=checkpoints,
        resume=checkpoints is not None,
        seed=seed,
        label=label,
    )
    return tuned


def scores_of(
    lm: LanguageModel, texts: Sequence[str], how: FineTuning, *, batch_size: int = 64
) -> tuple[Floats, int]:
    """Return the probability of class 1 of each text, float64 [texts], and how many texts were cut."""
    context = context_of(lm, how)
    if how.read_out == "label-word":
        assert lm.tokenizer is not None
        _, cut = how.label_word.rows(texts, lm.tokenizer, context)
        found = label_word_scores(
            lm.model, texts, lm.tokenizer, how.label_word, context=context, batch_size=batch_size
        )
        return found.numpy(), cut
    encoder: Encoder = encoder_for(lm, longest=context)
    rows = [encoder.text(text) for text in texts]
    said = torch.stack(head_outputs(lm.model, rows, (HEAD,), batch_size=batch_size)[HEAD])
    return said.double().softmax(-1)[:, 1].numpy(), encoder.truncated


def rung_numbers(truth: npt.NDArray[np.int64], scores: Floats, *, resamples: int = 1000) -> dict[str, float]:
    """Return what is reported of a classifier: auc, f1 (at 0.5), f1_best, ap, brier, calibration_error, and 95 % ends.

    truth and scores [n]; auc_low to f1_high are a percentile bootstrap over the notes (resamples 0: none).
    """
    shares = np.stack([1 - scores, scores], axis=1)
    found = classification_metrics(truth, shares)
    numbers = {
        "auc": found["auroc"],
        "f1": _f1(truth, scores),
        "f1_best": found["f1_best"],
        "ap": found["average_precision"],
        "brier": found["brier"],
        "calibration_error": found["calibration_error"],
    }
    if resamples:
        drawn = resampled(
            len(truth),
            lambda items: {"auc": auroc(truth[items], scores[items]), "f1": _f1(truth[items], scores[items])},
            resamples=resamples,
        )
        for name, interval in drawn.items():
            numbers |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return numbers


def _f1(truth: npt.NDArray[np.int64], scores: Floats) -> float:
    """F1 of class 1 where a score of 0.5 or more counts as 1."""
    return float(per_class(confusion(truth, scores >= 0.5, 2))["f1"][1])
