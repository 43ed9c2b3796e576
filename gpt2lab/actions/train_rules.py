"""Which settings of `train` apply to which training: one that would be ignored is refused, and not listed as used.

It reads a `TrainingSettings`, or the outline of one (`gpt2lab.base.outline`), so that no mistake waits for torch.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from gpt2lab.base.errors import LabError

SUPERVISED = ("classification", "multilabel", "regression", "tokens")
"""Kinds of tasks that read labels."""
VECTORS = ("contrastive", "simcse")
"""Kinds of tasks that learn vectors."""
_TASK_ONLY = ("task.valid", "task.pooling", "task.dropout", "task.language_head", "task.truncate")
_LOOP_OF_ADAMW = ("train.betas", "train.eps")


@dataclass(frozen=True)
class Rule:
    """Settings that only some trainings read."""

    names: tuple[str, ...]
    """Dotted names; a name stands for all below it too."""
    applies: Callable[[Any], bool]
    """Whether a training reads them."""
    needs: str
    """What is so where they are not read, and what would be right."""


def _kinds(settings: Any) -> set[str]:
    """Return the kinds of all heads that a task trains, and the task's own."""
    return {settings.task.kind, *settings.task.others.values()}


def _supervised(settings: Any) -> bool:
    kind: str = settings.task.kind
    return kind in SUPERVISED


def _reads_rows(settings: Any) -> bool:
    """Whether a named objective reads rows of its own instead of text."""
    if settings.objective is None:
        return False
    from gpt2lab.actions.parts import chosen_objective  # torch, of which all other rules need none
    from gpt2lab.training.rows import ReadsRows

    return isinstance(chosen_objective(settings.objective, settings.objective_options), ReadsRows)


RULES = (
    Rule(
        (
            *("family", "d_model", "n_layers", "n_heads", "tokenizer", "vocab_size"),
            *("experts", "experts_per_token", "balance", "expert_capacity"),
        ),
        lambda s: s.model is None,
        "a given model has its own; leave this out, or leave out --model for a new model",
    ),
    Rule(
        ("experts_per_token", "balance", "expert_capacity"),
        lambda s: s.experts > 0 or s.family == "mixtral",
        "this model has no experts; say how many with --experts, or choose --family mixtral",
    ),
    Rule(
        ("vocab_size",),
        lambda s: s.tokenizer in ("auto", "unsplit", "words"),
        "this tokenizer has its own size; only auto, unsplit and words are made from the data",
    ),
    Rule(
        ("evaluation_tokens", "samples"),
        lambda s: s.task.kind == "language",
        "only a language model is validated on tokens and writes samples; this training has a task",
    ),
    Rule(
        ("field", "evaluation_tokens", "samples"),
        lambda s: not _reads_rows(s),
        "this objective reads rows with fields of its own and is validated on them; see its options",
    ),
    Rule(
        ("valid_fraction",),
        lambda s: not s.task.valid,
        "task.valid names the validation rows; give one of the two",
    ),
    Rule(
        _LOOP_OF_ADAMW,
        lambda s: s.optimizer == "adamw",
        "read by adamw only; another optimizer takes its own as optimizer_options.NAME=VALUE",
    ),
    Rule(
        ("train.final_fraction", "train.laid_out"),
        lambda s: s.train.schedule != "constant",
        "a constant learning rate does not come down; choose another --schedule",
    ),
    Rule(
        ("train.clip",),
        lambda s: s.train.privacy is None,
        "the gradient of each row is clipped; give train.privacy.clip_norm",
    ),
    Rule(
        ("train.decay_fraction",),
        lambda s: s.train.schedule == "warmup-stable-decay",
        "read by --schedule warmup-stable-decay only",
    ),
    Rule(_TASK_ONLY, lambda s: s.task.kind != "language", "name the task first, such as task.kind=classification"),
    Rule(
        ("task.pair", "task.separator"),
        lambda s: s.task.kind == "contrastive" or _supervised(s),
        "only supervised tasks and contrastive read a second text",
    ),
    Rule(
        ("task.separator",), lambda s: s.task.pair is not None, "it stands between two texts; name the second with task.pair"
    ),
    Rule(
        ("task.weights", "task.others", "task.label"),
        _supervised,
        "only supervised tasks have labels; choose task.kind=classification, regression, …",
    ),
    Rule(("task.language",), _supervised, "only supervised tasks add the language-modelling loss"),
    Rule(
        ("task.class_weights",),
        lambda s: "classification" in _kinds(s),
        "only classes have weights; choose task.kind=classification",
    ),
    Rule(
        ("task.smoothing",),
        lambda s: bool(_kinds(s) & {"classification", "multilabel", "tokens"}),
        "only labels are smoothed; choose task.kind=classification, multilabel or tokens",
    ),
    Rule(("task.align",), lambda s: "tokens" in _kinds(s), "only task.kind=tokens labels words"),
    Rule(
        ("task.projection", "task.temperature", "task.query_prefix"),
        lambda s: s.task.kind in VECTORS,
        "only vectors have it; choose task.kind=contrastive or simcse",
    ),
    Rule(
        ("task.negatives", "task.group", "task.symmetric", "task.passage_prefix"),
        lambda s: s.task.kind == "contrastive",
        "read by task.kind=contrastive only",
    ),
)  # fmt: skip


def unused(settings: Any) -> dict[str, str]:
    """Return the settings that this training does not read, by dotted name, each with what is so and would be right."""
    return {name: rule.needs for rule in reversed(RULES) if not rule.applies(settings) for name in rule.names}


def refuse_unused(settings: Any, given: Iterable[str]) -> None:
    """LabError for the first of the `given` names that this training would ignore."""
    idle = unused(settings)
    for name in given:
        for known, needs in idle.items():
            if name == known or name.startswith(f"{known}."):
                raise LabError(f"train: {name} would be ignored: {needs}")


def refuse_no_data(settings: Any) -> None:
    """LabError if there is nothing to train on."""
    if not settings.data:
        raise LabError(
            "data: nothing to train on; give files, folders, hub:ID or a built-in name such as docstrings"
        )
