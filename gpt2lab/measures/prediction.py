"""What a model's heads say of texts: classes with probabilities, numbers, labels of words, vectors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import Progress, progress
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.measures.scoring import check_batch_size
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.finite import all_finite
from gpt2lab.model.task_heads import Head, Pooling, find_head, heads, pooled, read_states
from gpt2lab.text.encoding import Encoder, Side, TokenRow, token_batch
from gpt2lab.text.sentence_encoder import SentenceEncoder
from gpt2lab.text.spans import Span, from_bio, to_characters, units

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

_UNBOUND = 1 << 20  # tokens, of a model without positions of its own


@dataclass(frozen=True)
class Prediction:
    """What a head says of one text."""

    labels: tuple[str, ...]
    """The class; multilabel: all labels of probability 0.5 or more; tokens: one for each word; regression: none."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Probability of each label, or the numbers of a regression by their names."""
    words: tuple[str, ...] = ()
    """The words that labels of tokens belong to."""

    @property
    def label(self) -> str:
        """The class. LabError if there is not exactly one."""
        if len(self.labels) != 1:
            raise LabError(f"this prediction has {len(self.labels)} labels; read .labels or .scores")
        return self.labels[0]

    @property
    def value(self) -> float:
        """The number of a regression. LabError if there is not exactly one."""
        if self.labels or len(self.scores) != 1:
            raise LabError("this prediction is no single number; read .labels or .scores")
        return next(iter(self.scores.values()))


def predict(
    lm: "LanguageModel",
    texts: Sequence[str] | Sequence[Sequence[str]],
    *,
    pairs: Sequence[str] | None = None,
    head: str | None = None,
    batch_size: int = 32,
    truncate: Side = "right",
    separator: str = "",
) -> list[Prediction]:
    """Return what a head says of each text, in their order; the only head, or the one named.

    texts: strings; for a head of tokens also lists of words (a string is split at blanks). pairs: the second text of
    each pair. Texts longer than the model are cut on the side `truncate`. LabError: no such head, an embedding head
    (see `embed`), as many pairs as texts.
    """
    _several(texts)
    spec = find_head(lm.model, head, ("classification", "multilabel", "regression", "tokens"))
    if pairs is not None and len(pairs) != len(texts):
        raise LabError(f"{len(texts)} texts and {len(pairs)} second texts of pairs; give as many")
    encoder = encoder_for(lm, truncate=truncate, separator=separator)
    words: list[tuple[str, ...]] = []
    if pairs is not None and spec.kind == "tokens":
        raise LabError(f"head {spec.name} labels the words of one text, and takes no second texts of pairs")
    if spec.kind == "tokens":
        words = [tuple(text.split() if isinstance(text, str) else text) for text in texts]
        rows = [encoder.words(one) for one in words]
    else:
        seconds: Sequence[str | None] = pairs if pairs is not None else [None] * len(texts)
        rows = [encoder.text(_string(text), pair) for text, pair in zip(texts, seconds, strict=True)]
    said = head_outputs(lm.model, rows, (spec.name,), batch_size=batch_size)[spec.name]
    if spec.kind == "tokens":
        return [
            Prediction(tuple(word_labels(spec, row, one)), words=own)
            for row, one, own in zip(rows, said, words, strict=True)
        ]
    return [_prediction(spec, one) for one in said]


def predict_spans(
    lm: "LanguageModel",
    texts: Sequence[str],
    *,
    head: str | None = None,
    batch_size: int = 32,
    truncate: Side = "right",
) -> list[list[Span]]:
    """Return the labelled spans of each text, in characters, from a head of tokens that was trained on spans.

    LabError: no such head, labels that are no BIO labels.
    """
    _several(texts)
    spec = find_head(lm.model, head, ("tokens",))
    encoder = encoder_for(lm, truncate=truncate)
    ranges = [units(_string(text))[0] for text in texts]
    rows = [encoder.pieces(text, own) for text, own in zip(texts, ranges, strict=True)]
    said = head_outputs(lm.model, rows, (spec.name,), batch_size=batch_size)[spec.name]
    return [
        to_characters(text, from_bio(word_labels(spec, row, one)), own)
        for text, own, row, one in zip(texts, ranges, rows, said, strict=True)
    ]


def _several(texts: object) -> None:
    """LabError for one text in the place of a list: its characters would be read as texts."""
    if isinstance(texts, str):
        raise LabError(f"texts are a list, got one text; give [{texts[:40]!r}]")


def _string(text: object) -> str:
    if not isinstance(text, str):
        raise LabError(f"this head reads texts, got {type(text).__name__}; give each text as one string")
    return text


def _prediction(spec: Head, said: Tensor) -> Prediction:
    values = dict(zip(spec.label_names, head_probabilities(spec, said).tolist(), strict=True))
    if spec.kind == "regression":
        return Prediction((), values)
    if spec.kind == "multilabel":
        return Prediction(tuple(name for name, value in values.items() if value >= 0.5), values)
    return Prediction((spec.label_names[int(said.argmax())],), values)


def word_labels(spec: Head, row: TokenRow, said: Tensor, outside: str = "O") -> list[str]:
    """Return the label of each word: that of its first token; `outside` (or the first label) for a word cut off.

    said [time, outputs].
    """
    names = spec.label_names
    missing = outside if outside in names else names[0]
    best = said.argmax(-1).tolist()
    return [names[best[places[0]]] if places else missing for places in row.places]


def head_probabilities(spec: Head, said: Tensor) -> Tensor:
    """Return probabilities for the outputs of a head [..., outputs] in float64; of a regression the numbers as they are."""
    said = said.double()
    if spec.kind == "multilabel":
        return said.sigmoid()
    return said if spec.kind == "regression" else said.softmax(-1)


def encoder_for(
    lm: "LanguageModel", *, truncate: Side = "right", separator: str = "", longest: int | None = None
) -> Encoder:
    """Return an encoder that cuts at the model's length, or at `longest` tokens if that is less.

    LabError for a model without a tokenizer.
    """
    limit = min(_longest(lm.model), longest or _UNBOUND)
    return Encoder(need_tokenizer(lm, "a head"), limit, truncate=truncate, separator=separator)


def _longest(model: Transformer) -> int:
    return _UNBOUND if model.config.positions == "none" else model.context


def head_outputs(
    model: Transformer, rows: Sequence[TokenRow], names: tuple[str, ...], *, batch_size: int = 32
) -> dict[str, list[Tensor]]:
    """Return what each head says of each row, in their order: [outputs], of tokens [time, outputs]; float32, on the CPU.

    Rows of similar length share a batch. LabError for numbers that are not finite.
    """
    specs = {name: find_head(model, name) for name in names}
    found: dict[str, list[Tensor]] = {name: [torch.empty(0)] * len(rows) for name in names}
    with evaluating(model), torch.no_grad():
        for picked, batch, hidden in _states(model, rows, batch_size):
            for name, said in read_states(model, hidden, batch["attention_mask"], names).items():
                values = said.float().cpu()
                if not all_finite(values):
                    raise LabError(
                        f"head {name}: what it says is NaN or infinite; look at the model's weights"
                    )
                for place, value in zip(picked, values, strict=True):
                    # Rows are padded on the right, so that a row's own states come first.
                    whole = specs[name].kind != "tokens"
                    found[name][place] = value if whole else value[: len(rows[place].ids)]
    return found


def embed(
    lm: "LanguageModel",
    texts: Sequence[str],
    *,
    head: str | None = None,
    pooling: Pooling | None = None,
    prefix: str = "",
    batch_size: int = 32,
    truncate: Side = "right",
) -> Tensor:
    """Return a vector for each text, [texts, width] float32 on the CPU, in their order.

    It is what the embedding head says. Without one, a folder of sentence-transformers (modules.json) says what is done:
    pooling, length 1 or not, longest input, small letters, prompt. `pooling` instead takes the pooled states
    themselves, scaled to length 1, which any model has. `prefix` stands before every text (e5: "query: ", "passage: ").
    LabError without any of these.
    """
    _several(texts)
    how = None if pooling is None else SentenceEncoder(pooling=pooling, normalize=True)
    if pooling is None and head is None and not _has_embedding(lm.model):
        how = lm.sentence_encoder
    spec = find_head(lm.model, head, ("embedding",)) if how is None else None
    encoder = encoder_for(lm, truncate=truncate, longest=how.longest if how is not None else None)
    rows = [encoder.text(_as_read(_string(text), prefix, how)) for text in texts]
    if how is not None:
        return pooled_states(lm.model, rows, how, batch_size)
    assert spec is not None
    said = head_outputs(lm.model, rows, (spec.name,), batch_size=batch_size)[spec.name]
    return torch.stack(said) if said else torch.empty(0, spec.outputs or lm.config.d_model)


def _has_embedding(model: Transformer) -> bool:
    return any(head.kind == "embedding" for head in heads(model).values())


def _as_read(text: str, prefix: str, how: SentenceEncoder | None) -> str:
    """Return a text with what stands before it, in small letters if the model reads those."""
    if how is None:
        return prefix + text
    whole = (prefix or how.prompt) + text
    return whole.lower() if how.lower_case else whole


def pooled_states(
    model: Transformer, rows: Sequence[TokenRow], how: SentenceEncoder, batch_size: int
) -> Tensor:
    """Return the pooled states of each row, [rows, d_model] float32 on the CPU. LabError for numbers that are not finite."""
    found = torch.empty(len(rows), model.config.d_model)
    with evaluating(model), torch.no_grad():
        for picked, batch, hidden in _states(model, rows, batch_size):
            mask = batch["attention_mask"]
            states = (
                model.pooled(hidden, mask) if how.pooling == "pooler" else pooled(hidden, mask, how.pooling)
            )
            states = states.float()
            found[picked] = (F.normalize(states, dim=-1) if how.normalize else states).cpu()
    if not all_finite(found):
        raise LabError("the model's states are NaN or infinite; look at its weights")
    return found


def _states(
    model: Transformer, rows: Sequence[TokenRow], batch_size: int
) -> Iterator[tuple[list[int], dict[str, Tensor], Tensor]]:
    """Yield (places of the rows, batch on the device, last states [batch, time, d_model]), the longest rows first."""
    check_batch_size(batch_size)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))
    bar: Progress[int] = progress(total=len(rows), label="reading", unit="texts")
    with bar:
        for start in range(0, len(rows), batch_size):
            picked = order[start : start + batch_size]
            made = token_batch([rows[i] for i in picked], 0)
            batch = {name: tensor.to(model.device) for name, tensor in made.items()}
            yield picked, batch, model.hidden_of(batch)
            bar.advance(len(picked))
