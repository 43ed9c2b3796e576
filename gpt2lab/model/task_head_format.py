"""Heads in Hugging Face's layout: the classes `...ForSequenceClassification` and `...ForTokenClassification`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError, shown
from gpt2lab.model.checkpoints.families import FAMILIES, Weight
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.task_heads import MOST_OUTPUTS, Head, Kind

if TYPE_CHECKING:
    from gpt2lab.model.transformer import Transformer

_SEQUENCE, _TOKEN = "ForSequenceClassification", "ForTokenClassification"
_ENDINGS = ("LMHeadModel", "ForCausalLM", "ForMaskedLM")
_PROBLEMS: dict[str, Kind] = {
    "single_label_classification": "classification",
    "multi_label_classification": "multilabel",
    "regression": "regression",
}


@dataclass(frozen=True)
class _Form:
    """What one of Hugging Face's classes has, and the names of its weights."""

    fields: Mapping[str, Any]
    """Fields of Head that are as they are."""
    output: str
    """Its last linear map."""
    dense: str = ""
    """The linear map before, where there is one."""
    dropout: tuple[str, ...] = ()
    """Entries of config.json that hold its dropout, the first that is there counts."""
    dense_in_body: bool = False
    """The name of the linear map before follows the family's prefix."""


_DECODERS = ("gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "mixtral", "qwen2")
_LAST = {"pooling": "last", "bias": False, "dense": "none"}
_EACH = {"bias": True, "dense": "none"}
_HELD = ("classifier_dropout", "hidden_dropout_prob")
_FORMS: dict[tuple[str, str], list[_Form]] = {
    **{(family, _SEQUENCE): [_Form(_LAST, "score")] for family in _DECODERS},
    **{
        (family, _TOKEN): [_Form(_EACH, "classifier", dropout=("classifier_dropout",))]
        for family in _DECODERS[:3]
    },
    **{
        (family, _TOKEN): [_Form(_EACH, "score", dropout=("classifier_dropout",))] for family in _DECODERS[3:]
    },
    ("bert", _SEQUENCE): [
        _Form({"pooling": "pooler", "bias": True, "dense": "none"}, "classifier", dropout=_HELD),
        _Form(
            {"pooling": "first", "bias": True, "dense": "tanh"},
            "classifier",
            "pooler.dense",
            dropout=_HELD,
            dense_in_body=True,
        ),
    ],
    ("roberta", _SEQUENCE): [
        _Form(
            {"pooling": "first", "bias": True, "dense": "tanh"},
            "classifier.out_proj",
            "classifier.dense",
            dropout=_HELD,
        )
    ],
    ("distilbert", _SEQUENCE): [
        _Form(
            {"pooling": "first", "bias": True, "dense": "relu"},
            "classifier",
            "pre_classifier",
            dropout=("seq_classif_dropout",),
        )
    ],
    ("bert", _TOKEN): [_Form(_EACH, "classifier", dropout=_HELD)],
    ("roberta", _TOKEN): [_Form(_EACH, "classifier", dropout=_HELD)],
    ("distilbert", _TOKEN): [_Form(_EACH, "classifier", dropout=("dropout",))],
}


def read_head(entries: Mapping[str, Any], where: str) -> Head | None:
    """Return the head of a classification checkpoint from its config.json, None for any other checkpoint.

    LabError for a class of Hugging Face whose head we do not have, and for labels of another form.
    """
    names = entries.get("architectures") or [""]
    if not isinstance(names, list) or not isinstance(names[0], str):
        raise LabError(f"{where}: architectures must be a list of names of classes, got {shown(names)}")
    name = names[0]
    ending = next((ending for ending in (_SEQUENCE, _TOKEN) if name.endswith(ending)), None)
    if ending is None:
        return None
    forms = _FORMS.get((entries["model_type"], ending))
    if forms is None:
        raise LabError(f"{where}: {name} is not supported; its backbone alone is, saved as a language model")
    problem = entries.get("problem_type")
    labels = _labels(entries, where)
    kind: Kind = "regression" if len(labels) == 1 else "classification"
    if ending == _TOKEN:
        kind = "tokens"
    elif problem is not None:
        if not isinstance(problem, str) or problem not in _PROBLEMS:
            raise LabError(
                f"{where}: problem_type {shown(problem)} is not supported; supported: {', '.join(_PROBLEMS)}"
            )
        kind = _PROBLEMS[problem]
    numbered = labels == tuple(f"LABEL_{i}" for i in range(len(labels)))
    own_name = entries.get("head_name", "label")
    if not isinstance(own_name, str):
        raise LabError(f"{where}: head_name must be a name, got {shown(own_name)}")
    return Head(
        name=own_name,
        kind=kind,
        outputs=len(labels),
        labels=() if numbered else labels,
        dropout=_dropout(entries, forms[0], where),
        **forms[0].fields,
    )


def _labels(entries: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Names of the outputs by number; two without names where nothing is said, as transformers has it."""
    named = entries.get("id2label")
    if named is None:
        number = entries.get("num_labels") or 2
        if not isinstance(number, int) or not 0 < number <= MOST_OUTPUTS:
            raise LabError(
                f"{where}: num_labels must lie between 1 and {MOST_OUTPUTS:,}, got {shown(number)}"
            )
        return tuple(f"LABEL_{i}" for i in range(number))
    try:
        by_number = {int(number): str(label) for number, label in named.items()}
        return tuple(by_number[i] for i in range(len(by_number)))
    except (AttributeError, ValueError, KeyError):
        raise LabError(
            f"{where}: id2label should name the outputs 0, 1, 2, …, found {shown(named)}"
        ) from None


def _dropout(entries: Mapping[str, Any], form: _Form, where: str = "config.json") -> float:
    for name in ("head_dropout", *form.dropout):
        if entries.get(name) is not None:
            try:
                return float(entries[name])
            except (TypeError, ValueError, OverflowError):
                raise LabError(f"{where}: {name} must be a number, got {shown(entries[name])}") from None
    return 0.1 if form.dropout else 0.0


def the_head(model: "Transformer") -> Head | None:
    """Return the only architecture of a model if it is a head that could be in Hugging Face's layout, else None."""
    attached = model.architectures
    return attached[0] if len(attached) == 1 and isinstance(attached[0], Head) else None


def _form(head: Head, config: TransformerConfig) -> _Form:
    """Return the form that a head has in its family's layout. LabError, with the reason, if it has none."""
    family = FAMILIES[config.family]
    if head.kind == "embedding":
        raise LabError(f"Hugging Face's {family.name} has no class for an embedding head")
    if head.language_head:
        raise LabError(
            f"Hugging Face's {family.name} with a classification head has no language head beside it"
        )
    ending = _TOKEN if head.kind == "tokens" else _SEQUENCE
    forms = _FORMS.get((config.family, ending), [])
    for form in forms:
        fits = all(getattr(head, name) == value for name, value in form.fields.items())
        if fits and not (form.dense_in_body and config.pooler):
            return form
    need = " or ".join(", ".join(f"{name}={value}" for name, value in form.fields.items()) for form in forms)
    raise LabError(
        f"Hugging Face's {family.name}{ending} has {need or 'no such class'}; head {head.name} has not"
    )


def head_rows(head: Head, config: TransformerConfig) -> list[Weight]:
    """Return the rows of weight names for a head. LabError if the layout cannot express it."""
    form = _form(head, config)
    ours = f"heads.{head.name}"
    kinds = ("weight", "bias")
    rows = [
        Weight(f"{ours}.output.{kind}", (f"{form.output}.{kind}",), outside=True)
        for kind in (kinds if head.bias else kinds[:1])
    ]
    if form.dense:
        rows += [
            Weight(f"{ours}.dense.{kind}", (f"{form.dense}.{kind}",), outside=not form.dense_in_body)
            for kind in kinds
        ]
    return rows


def written_head(head: Head, config: TransformerConfig) -> dict[str, Any]:
    """Return the entries of config.json that describe a head: the reverse of `read_head`. LabError as `head_rows`."""
    form = _form(head, config)
    stem = FAMILIES[config.family].architecture
    for ending in _ENDINGS:
        stem = stem.removesuffix(ending)
    labels = head.labels or tuple(f"LABEL_{i}" for i in range(head.outputs))
    entries: dict[str, Any] = {
        "architectures": [stem + (_TOKEN if head.kind == "tokens" else _SEQUENCE)],
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }
    if head.kind != "tokens":
        entries["problem_type"] = next(name for name, kind in _PROBLEMS.items() if kind == head.kind)
    if head.name != "label":
        entries["head_name"] = head.name
    if _dropout(config.extra, form) != head.dropout:
        entries[form.dropout[0] if form.dropout and form.dropout[0] != "dropout" else "head_dropout"] = (
            head.dropout
        )
    return entries
