"""`train` with a task: heads for the labels of the data, validation with their metrics, a report."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch.optim import Optimizer

from gpt2lab.actions.train_data import note_data, read_rows, report_validation
from gpt2lab.actions.train_settings import TaskSettings, TrainingSettings
from gpt2lab.base.errors import LabError
from gpt2lab.base.wording import listed
from gpt2lab.measures import classification_metrics as metrics
from gpt2lab.measures.labelled import confusion_plot, head_numbers, tag_numbers, truths
from gpt2lab.measures.prediction import head_outputs, word_labels
from gpt2lab.model import Transformer
from gpt2lab.model.architecture import attach
from gpt2lab.model.loss import is_labelled
from gpt2lab.model.task_heads import Head, heads, usual_form
from gpt2lab.runs.run import Run
from gpt2lab.text import sources
from gpt2lab.text.encoding import Encoder
from gpt2lab.text.labelled import Example, Target, label_names, shared_texts, stratified_split
from gpt2lab.text.labelled_batches import LabelledBatches, PairBatches, encoded, token_labels
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.training import train
from gpt2lab.training.contrastive import Contrastive, SimCSE
from gpt2lab.training.objectives import Objective
from gpt2lab.training.supervised import HeadLoss, Supervised, balanced_weights, head_loss

_DRAWN = 30  # classes up to which a confusion table is drawn


def train_task(
    run: Run,
    settings: TrainingSettings,
    lm: LanguageModel,
    optimizer: Callable[[Transformer], Optimizer],
    *,
    again: bool,
) -> None:
    """Attach the heads that the task asks for, train all that trains, and save model, results and tables in the run.

    LabError for data that do not fit the task or have changed since the run began.
    """
    task = settings.task
    assert lm.tokenizer is not None
    key = sources.cache_key([*settings.data, *task.valid], field=settings.field)
    note_data(run, f"{key} {lm.tokenizer.fingerprint}")
    training, validation = _examples(run, settings)
    specs = _attach(lm, task, training, settings.seed)
    _need_labels(specs, training, "training")
    _need_labels(specs, validation, "validation")
    encoder = Encoder(
        lm.tokenizer,
        min(settings.context, lm.model.context),
        truncate=task.truncate,
        separator=task.separator,
    )
    batches = _batches(training, specs, encoder, settings)
    evaluate = _evaluation(lm, task, specs, validation, encoder, settings)
    done = train(
        lm.model,
        batches,
        settings=settings.train,
        objective=_objective(task, specs, training),
        optimizer=optimizer(lm.model),
        evaluate=evaluate,
        log=run.log,
        checkpoints=run.checkpoints,
        resume=again,
        seed=settings.seed,
        label=run.id,
    )
    run.model(lm)
    report_validation(run, done)
    updates = done.steps * settings.train.accumulation
    if done.losses:
        run.result("loss", done.loss)
    run.result("examples", len(training))
    run.result("validation_examples", len(validation))
    run.result("epochs", batches.epoch(updates))
    run.result("truncated", encoder.truncated)
    run.note(f"{encoder.truncated} texts were cut on the {task.truncate}, to {encoder.limit} tokens")
    if isinstance(evaluate, _HeadValidation):
        evaluate.tables(run)


def _examples(run: Run, settings: TrainingSettings) -> tuple[list[Example], list[Example]]:
    """Read training and validation examples; a text in both files is noted, in one file it stays on one side."""
    task = settings.task
    examples = read_rows(task, settings.data, settings.field)
    if not task.valid:
        targets = task.targets
        return stratified_split(examples, settings.valid_fraction, targets[0] if targets else None)
    validation = read_rows(task, task.valid, settings.field)
    shared = shared_texts(examples, validation)
    if shared:
        run.note(f"warning: {shared} of {len(validation)} validation texts are training texts too")
    return examples, validation


def _attach(lm: LanguageModel, task: TaskSettings, examples: Sequence[Example], seed: int) -> list[Head]:
    """Attach the heads that the model does not have yet; a head it has goes on, with its own labels."""
    have = heads(lm.model)
    chosen = _chosen_heads(task, lm.model, examples)
    kinds = [target.kind for target in task.targets] or ["embedding"]
    for number, (spec, kind) in enumerate(zip(chosen, kinds, strict=True)):
        if spec.kind != kind:
            raise LabError(f"the model's head {spec.name} reads out {spec.kind}, the task is {kind}")
        if spec.name not in have:
            attach(lm.model, spec, generator=torch.Generator().manual_seed(seed + number))
    if lm.config.pad is None and lm.tokenizer is not None:
        # Hugging Face's classes find the last token by the padding's id, and refuse batches without one.
        pad = lm.tokenizer.pad if lm.tokenizer.pad is not None else lm.tokenizer.eos
        lm.model.config = lm.config.replace(pad=pad)
    return chosen


def _chosen_heads(task: TaskSettings, model: Transformer, examples: Iterable[Example]) -> list[Head]:
    """Return the heads to train: those that the model has by name, else new ones for the labels in `examples`.

    LabError for a single class.
    """
    known = heads(model)
    if task.contrastive:
        pooling = "mean" if task.pooling == "auto" else task.pooling
        new = Head(
            name="embedding",
            kind="embedding",
            outputs=task.projection,
            pooling=pooling,
            dropout=task.dropout,
            language_head=task.language_head,
        )
        return [known.get(new.name, new)]
    rows = list(examples)
    return [
        known.get(target.name) or _new_head(task, model, target, label_names(rows, target))
        for target in task.targets
    ]


def _new_head(task: TaskSettings, model: Transformer, target: Target, labels: tuple[str, ...]) -> Head:
    """Return one head in the form that Hugging Face's classes have, as far as the settings allow."""
    form = usual_form(model.config, target.kind)
    if task.pooling != "auto":
        form = {**form, "pooling": task.pooling, "dense": "none"}
    return Head(
        name=target.name,
        kind=target.kind,
        outputs=len(labels) or len(target.fields),
        labels=labels,
        dropout=task.dropout,
        language_head=task.language_head or bool(task.language),
        **form,
    )


def _need_labels(specs: Sequence[Head], examples: Sequence[Example], part: str) -> None:
    """LabError for a head without any label in one part of the data: its loss there would be 0."""
    for spec in specs:
        if spec.kind == "embedding":
            continue
        if spec.kind == "tokens":
            there = torch.tensor([example.values[spec.name] is not None for example in examples])[:, None]
        else:
            truth = truths(examples, spec)
            there = is_labelled(truth).reshape(len(truth), -1)
        missing = (~there.any(0)).nonzero().flatten().tolist()
        if missing:
            which = f", number {spec.label_names[missing[0]]}" if 1 < there.shape[1] != len(missing) else ""
            advice = "give more rows, or labelled ones of their own (task.valid)"
            raise LabError(
                f"head {spec.name}{which}: none of the {len(examples)} {part} rows has a label; {advice}"
            )


def _batches(
    examples: Sequence[Example], specs: Sequence[Head], encoder: Encoder, settings: TrainingSettings
) -> LabelledBatches | PairBatches:
    task = settings.task
    if task.contrastive:
        return PairBatches(
            examples,
            encoder,
            batch_size=settings.batch_size,
            seed=settings.seed,
            query_prefix=task.query_prefix,
            passage_prefix=task.passage_prefix,
        )
    return LabelledBatches(
        examples, specs, encoder, batch_size=settings.batch_size, seed=settings.seed, align=task.align
    )


def _objective(task: TaskSettings, specs: Sequence[Head], examples: Sequence[Example]) -> Objective:
    if task.kind == "contrastive":
        return Contrastive("embedding", temperature=task.temperature, symmetric=task.symmetric)
    if task.kind == "simcse":
        return SimCSE("embedding", temperature=task.temperature)
    losses = {}
    for spec in specs:
        weights = None
        if task.class_weights == "balanced" and spec.kind == "classification":
            values = [example.values[spec.name] for example in examples]
            weights = balanced_weights(
                [sum(value == label for value in values) for label in spec.label_names]
            )
        smoothing = task.smoothing if spec.kind != "regression" else 0.0
        losses[spec.name] = HeadLoss(
            weight=task.weight(spec.name), class_weights=weights, smoothing=smoothing
        )
    return Supervised(losses, language=task.language)


def _evaluation(
    lm: LanguageModel,
    task: TaskSettings,
    specs: Sequence[Head],
    examples: Sequence[Example],
    encoder: Encoder,
    settings: TrainingSettings,
) -> "Callable[[], dict[str, float]]":
    if not task.contrastive:
        return _HeadValidation(lm, task, specs, examples, encoder, settings.batch_size)
    batches = PairBatches(
        examples,
        encoder,
        batch_size=min(settings.batch_size, len(examples)),
        shuffle=False,
        query_prefix=task.query_prefix,
        passage_prefix=task.passage_prefix,
    )
    objective = _objective(task, specs, examples)

    def evaluate() -> dict[str, float]:
        """Mean over the whole batches of the validation rows, which every evaluation cuts alike."""
        whole = range(max(1, len(examples) // min(settings.batch_size, len(examples))))
        device = lm.model.device
        found = [objective(lm.model, {k: v.to(device) for k, v in batches[i].items()}) for i in whole]
        return {
            "validation_loss": float(np.mean([float(loss) for loss, _ in found])),
            "in_batch_accuracy": float(np.mean([numbers["in_batch_accuracy"] for _, numbers in found])),
        }

    return evaluate


class _HeadValidation:
    """Loss and metrics of supervised heads on the same validation examples at every call."""

    def __init__(
        self,
        lm: LanguageModel,
        task: TaskSettings,
        specs: Sequence[Head],
        examples: Sequence[Example],
        encoder: Encoder,
        batch_size: int,
    ) -> None:
        self.lm, self.task, self.specs, self.batch_size = lm, task, specs, batch_size
        self.examples = examples
        self.rows = encoded(examples, encoder)
        self.truths = {
            spec.name: torch.cat(
                [token_labels(e, spec, row, task.align) for e, row in zip(examples, self.rows, strict=True)]
            )
            if spec.kind == "tokens"
            else truths(examples, spec)
            for spec in specs
        }

    def _said(self) -> dict[str, list[torch.Tensor]]:
        names = tuple(spec.name for spec in self.specs)
        return head_outputs(self.lm.model, self.rows, names, batch_size=self.batch_size)

    def __call__(self) -> dict[str, float]:
        """Return the weighted sum of the heads' losses, and each head's metrics (under its name, if there are several)."""
        said = self._said()
        numbers: dict[str, float] = {"validation_loss": 0.0}
        for spec in self.specs:
            own, truth = said[spec.name], self.truths[spec.name]
            joined = torch.cat(own) if spec.kind == "tokens" else torch.stack(own)
            loss = float(head_loss(spec, joined, truth))
            numbers["validation_loss"] += self.task.weight(spec.name) * loss
            prefix = f"{spec.name}." if len(self.specs) > 1 else ""
            numbers |= {f"{prefix}{key}": value for key, value in self._metrics(spec, own, truth).items()}
        return numbers

    def _metrics(self, spec: Head, said: list[torch.Tensor], truth: torch.Tensor) -> dict[str, float]:
        if spec.kind == "tokens":
            tagged = [i for i, example in enumerate(self.examples) if example.values[spec.name] is not None]
            predicted = [word_labels(spec, self.rows[i], said[i]) for i in tagged]
            true = [[str(tag) for tag in self.examples[i].values[spec.name] or ()] for i in tagged]
            return tag_numbers(true, predicted)
        there = _answered(spec, truth)
        if not len(there):
            return {}
        return head_numbers(spec, truth[there], torch.stack(said)[there])

    def tables(self, run: Run) -> None:
        """Write the confusion table of each classification head, as a table and, if it is not too large, a figure."""
        said = self._said()
        for spec in self.specs:
            if spec.kind != "classification":
                continue
            truth, names = self.truths[spec.name], spec.label_names
            there = _answered(spec, truth)
            counts = metrics.confusion(
                truth[there].numpy(), torch.stack(said[spec.name]).argmax(1)[there].numpy(), spec.outputs
            )
            rows = [
                {"true": name, **{f"predicted {other}": int(counts[i, j]) for j, other in enumerate(names)}}
                for i, name in enumerate(names)
            ]
            caption = f"Validation texts by true class (rows) and predicted class; head {spec.name}: {listed(names[:6])}"
            run.table(f"confusion_{spec.name}", rows, caption)
            if len(names) <= _DRAWN:
                run.figure(f"confusion_{spec.name}", confusion_plot(counts, names)(), caption)


def _answered(spec: Head, truth: torch.Tensor) -> torch.Tensor:
    """Places of the examples that have an answer."""
    there = is_labelled(truth).reshape(len(truth), -1).any(1)
    return there.nonzero().squeeze(1)
