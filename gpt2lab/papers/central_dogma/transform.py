"""Transform `pair-judge`: fine-tune a two-class head on pairs of texts, for use on pairs of anything."""

import contextlib
import copy
import hashlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.index import model_fingerprint
from gpt2lab.model import Transformer, attach
from gpt2lab.model.task_heads import Head, heads
from gpt2lab.papers.central_dogma.measure import judge
from gpt2lab.papers.central_dogma.pairs import Fields, read_pairs
from gpt2lab.text.encoding import Encoder
from gpt2lab.text.generators.sequence_pairs import Pair
from gpt2lab.text.labelled import SHARES, Example
from gpt2lab.text.labelled_batches import LabelledBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.splits import TRAIN, by_hash
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.supervised import HeadLoss, Supervised
from gpt2lab.training.transform import Journal, TrainingTransform, refuse_other_work

HEAD = "label"
"""Name of the head."""


@dataclass(frozen=True, kw_only=True)
class PairJudge(TrainingTransform):
    """Fine-tune a head that judges whether two texts match, on paraphrases or any other pairs; the whole model learns."""

    data: tuple[str, ...] = ("paraphrases:6000",)
    """Pairs with labels 1 and 0: files (PAWS-X's tsv too), hub:ID or a built-in source of pairs."""
    first: str = "sentence1"
    """Field of the first text."""
    second: str = "sentence2"
    """Field of the second text."""
    label: str = "label"
    """Field of the label."""
    separator: str = ""
    """Text between the two; the paper's tokenizer puts nothing there."""
    valid: tuple[str, ...] = ()
    """Pairs on which the best weights are chosen; none takes `valid_fraction` of the data."""
    valid_fraction: float = 0.05
    """Share of the data that is held out for it, by the hash of the pairs."""
    epochs: float = 4.0
    """Passes over the data."""
    steps: int | None = None
    """Updates, instead of epochs."""
    evaluations: int = 4
    """Evaluations on the way, evenly apart; the weights of the lowest validation loss are kept. 0 keeps the last."""
    learning_rate: float = 1e-5
    """After the warm-up constant; the paper's is for GPT-2 small."""
    warmup: float = 0.1
    """Share of the updates in which the learning rate rises."""
    weight_decay: float = 0.0
    """Decoupled decay of matrices and embeddings."""
    batch_size: int = 20
    """Pairs of an update."""
    precision: Literal["float32", "bf16", "auto"] = "auto"
    """Arithmetic of the passes; auto is bf16 on GPUs that have it."""
    seed: int = 0
    """Seed of the head's weights, the order of the pairs and dropout."""

    def __post_init__(self) -> None:
        if self.steps is None and not self.epochs > 0:
            raise LabError(f"pair-judge: epochs must be above 0, got {self.epochs}")
        if self.batch_size < 1 or self.evaluations < 0 or not 0 <= self.warmup < 1:
            raise LabError(
                "pair-judge: batch_size must be at least 1, evaluations at least 0 and warmup a share in [0, 1)"
            )

    def train(self, lm: LanguageModel, journal: Journal | None) -> LanguageModel:
        """Return the judge; `lm` stays as it is.

        The journal gets the loss of the updates, validation loss and accuracy, and how many pairs had to be cut. LabError
        for labels other than 0 and 1, pairs that leave nothing to validate, and a model without a tokenizer.
        """
        if lm.tokenizer is None:
            raise LabError(
                "pair-judge reads text, and this model has no tokenizer; put its tokenizer.json beside it"
            )
        training, validation = self._pairs()
        model = copy.deepcopy(lm.model).float().requires_grad_(True)
        judge_of = LanguageModel(model, lm.tokenizer)
        spec = self._head(model)
        if model.config.pad is None:
            # Hugging Face's classes find the last token by the padding's id.
            pad = lm.tokenizer.pad if lm.tokenizer.pad is not None else lm.tokenizer.eos
            model.config = model.config.replace(pad=pad)
        if journal is not None:
            content = hashlib.sha256(repr((training, validation)).encode()).hexdigest()
            refuse_other_work(journal, model=model_fingerprint(lm, "pair-judge"), data=content)
        encoder = Encoder(lm.tokenizer, model.context, separator=self.separator)
        batches = LabelledBatches(
            examples(training), [spec], encoder, batch_size=self.batch_size, seed=self.seed
        )
        steps = (
            self.steps
            if self.steps is not None
            else max(1, math.ceil(self.epochs * len(training) / self.batch_size))
        )
        evaluate = _evaluation(judge_of, validation, self.separator)
        with contextlib.ExitStack() as kept:
            # The best weights are kept in a checkpoint, also where no journal keeps those.
            folder = (
                Path(kept.enter_context(tempfile.TemporaryDirectory()))
                if journal is None
                else journal.checkpoints
            )
            done = train(
                model,
                batches,
                settings=self._training(steps),
                objective=Supervised({HEAD: HeadLoss()}),
                evaluate=evaluate,
                log=journal.log if journal is not None else None,
                checkpoints=folder,
                resume=True,
                seed=self.seed,
                label="pair-judge",
            )
        if journal is not None:
            for name, value in {
                **done.validation,
                "pairs": len(training),
                "truncated": encoder.truncated,
            }.items():
                journal.result(name, value)
            if done.kept is not None:
                journal.note(
                    f"the weights after update {done.kept} have the lowest validation loss and are kept"
                )
        return LanguageModel(model.to(lm.model.dtype).eval(), lm.tokenizer)

    def _pairs(self) -> tuple[list[Pair], list[Pair]]:
        fields = Fields(first=self.first, second=self.second, label=self.label)
        found = read_pairs(self.data, fields)
        if self.valid:
            return found, read_pairs(self.valid, fields)
        if not 0 < self.valid_fraction < 1:
            raise LabError(f"pair-judge: valid_fraction must lie between 0 and 1, got {self.valid_fraction}")
        parts = by_hash(
            found,
            {"valid": self.valid_fraction},
            key=lambda pair: f"{pair.first}\0{pair.second}",
            rule=SHARES,
        )
        return parts[TRAIN], parts["valid"]

    def _head(self, model: Transformer) -> Head:
        """Return the head that is trained: a new one, or the model's own of this name, which learns on. LabError."""
        known = heads(model).get(HEAD)
        if known is not None:
            if known.kind != "classification" or set(known.label_names) != {"0", "1"}:
                raise LabError(f"pair-judge: the model has a head {HEAD} of other classes than 0 and 1")
            return known
        config = model.config
        pooling: Literal["last", "pooler", "first"] = (
            "last" if config.causal else "pooler" if config.pooler else "first"
        )
        spec = Head(
            name=HEAD,
            outputs=2,
            labels=("0", "1"),
            pooling=pooling,
            bias=not config.causal,
            language_head=True,
        )
        attach(model, spec, generator=torch.Generator().manual_seed(self.seed))
        return spec

    def _training(self, steps: int) -> TrainSettings:
        every = max(1, steps // self.evaluations) if self.evaluations else 0
        return TrainSettings(
            steps=steps,
            learning_rate=self.learning_rate,
            schedule="constant",
            warmup=int(self.warmup * steps),
            weight_decay=self.weight_decay,
            betas=(0.9, 0.999),
            precision=self.precision,
            evaluate_every=every,
            keep="best" if 0 < every < steps else "last",
            log_every=max(1, steps // 100),
        )


def examples(pairs: Sequence[Pair]) -> list[Example]:
    """Return pairs as labelled texts for batches; the label of the head is "1" for a match, "0" for none."""
    return [
        Example(text=pair.first, pair=pair.second, values={HEAD: str(pair.label)}, where=f"pair {number}")
        for number, pair in enumerate(pairs, start=1)
    ]


def _evaluation(lm: LanguageModel, pairs: Sequence[Pair], separator: str) -> Callable[[], dict[str, float]]:
    def evaluate() -> dict[str, float]:
        """Mean negative log-likelihood of the labels (nats) and the accuracy."""
        judged, _ = judge(lm, pairs, head=HEAD, separator=separator)
        right = [
            score if label else 1 - score for score, label in zip(judged.scores, judged.labels, strict=True)
        ]
        loss = -sum(math.log(max(value, 1e-12)) for value in right) / len(right)
        return {"validation_loss": loss, "accuracy": judged.right / len(right)}

    return evaluate
