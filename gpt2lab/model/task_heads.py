"""Heads on a transformer: classes, numbers, labels of tokens, or one vector for a text.

A head is an architecture part: attached to a model it trains, saves and loads with it, and several can stand on one
backbone. It reads the states after the final norm, pools them over the real tokens, and goes on with a linear map.
"""

from dataclasses import dataclass
from typing import Literal, TypedDict, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.base.errors import LabError, shown, unknown
from gpt2lab.model.backbone import Backbone
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.transformer import Transformer

Kind = Literal["classification", "multilabel", "regression", "tokens", "embedding"]
Pooling = Literal["last", "mean", "first", "pooler"]


MOST_OUTPUTS = 1_000_000
"""Classes or numbers that a head reads out."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """A read-out of a model's states; attach it with `attach_head`, or as the architecture `head`."""

    name: str = "label"
    """What is read out; the heads of one model have different names."""
    kind: Kind = "classification"
    """One of several classes, any of several classes, numbers, one class for each token, or a vector."""
    outputs: int = 2
    """Classes or numbers; for an embedding the width of a projection, 0 for none."""
    labels: tuple[str, ...] = ()
    """Names of the outputs, in order; empty for 0, 1, 2, …"""
    pooling: Pooling = "last"
    """State that stands for the text: the last real token's, the mean over real tokens, the first's, or BERT's pooler."""
    bias: bool = False
    """The linear map has a bias."""
    dense: Literal["none", "tanh", "relu"] = "none"
    """A square linear map with a bias and this activation comes first (BERT: tanh, DistilBERT: relu)."""
    dropout: float = 0.0
    """Dropout in training, before the linear map."""
    normalize: bool = True
    """An embedding has length 1."""
    language_head: bool = False
    """Keep a language head that has weights of its own; else it is dropped, as Hugging Face does."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise LabError(
                f"head {shown(self.name)}: a head's name has letters, digits and underscores and no digit first"
            )
        least = 0 if self.kind == "embedding" else 1
        if not least <= self.outputs <= MOST_OUTPUTS:
            limits = f"at least {least}" if self.outputs < least else f"at most {MOST_OUTPUTS:,}"
            raise LabError(f"head {self.name}: outputs must be {limits}, got {self.outputs}")
        if self.kind in ("classification", "tokens") and self.outputs < 2:
            raise LabError(f"head {self.name}: {self.kind} needs at least two classes, got {self.outputs}")
        if self.labels and len(self.labels) != self.outputs:
            raise LabError(
                f"head {self.name}: {len(self.labels)} labels for {self.outputs} outputs; give as many"
            )
        if len(set(self.labels)) != len(self.labels):
            raise LabError(f"head {self.name}: two of its labels are the same")
        if not 0.0 <= self.dropout < 1.0:
            raise LabError(f"head {self.name}: dropout must lie in [0, 1), got {self.dropout}")

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the outputs, numbers where none were given."""
        return self.labels or tuple(str(i) for i in range(self.outputs))

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        """Add this head to the model, in place. Weights N(0, init_std), biases 0, drawn from `generator` (or seed 0).

        LabError if the model has a head of this name.
        """
        if self.name in model.heads:
            raise LabError(f"head {self.name}: the model has a head of this name already")
        if self.pooling == "pooler" and not model.config.pooler:
            raise LabError(
                f"head {self.name}: this model has no pooler; pooling=first with dense=tanh and bias=true begins one"
            )
        made = ReadOut(
            self, model.config.d_model, model.config.init_std, generator, like=model.embedding.weight
        )
        model.heads[self.name] = made.train(model.training)
        if not self.language_head:
            _drop_language_head(model)


class ReadOut(nn.Module):
    """The weights of one head: pooling, then dense and its activation if any, dropout, and the linear map."""

    def __init__(
        self,
        spec: Head,
        d_model: int,
        init_std: float,
        generator: torch.Generator | None,
        *,
        like: Tensor,
    ) -> None:
        super().__init__()
        self.spec = spec
        with torch.random.fork_rng(devices=[]):  # torch's modules draw from the global generator
            self.dense = nn.Linear(d_model, d_model) if spec.dense != "none" else None
            self.output = nn.Linear(d_model, spec.outputs, bias=spec.bias) if spec.outputs else None
        self.to(device=like.device, dtype=like.dtype)
        if like.device.type != "meta":
            self._draw(init_std, generator if generator is not None else torch.Generator().manual_seed(0))

    @torch.no_grad()
    def _draw(self, std: float, generator: torch.Generator) -> None:
        for parameter in self.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))
            else:
                parameter.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Read out a pooled state [batch, d_model] → [batch, outputs], or all states of a head for tokens.

        An embedding has unit length if so configured.
        """
        if self.dense is not None:
            x = self.dense(x).tanh() if self.spec.dense == "tanh" else self.dense(x).relu()
        if self.training and self.spec.dropout:
            x = F.dropout(x, self.spec.dropout)
        x = self.output(x) if self.output is not None else x
        return (
            F.normalize(x.to(_wide(x)), dim=-1)
            if self.spec.kind == "embedding" and self.spec.normalize
            else x
        )


class NoLanguageHead(nn.Module):
    """Stands where the output head was dropped; it has no weights and refuses to be read."""

    bias = None

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = torch.empty(0, d_model, device="cpu")
        """[0, d_model], so that counting weights finds none."""

    def forward(self, *states: object) -> Tensor:
        """Raise LabError: there are no logits of tokens."""
        raise LabError("this model has lost its language head to a classification head; it cannot write text")


def _drop_language_head(model: Backbone) -> None:
    """Take away a language head that has weights of its own; one that is the embedding table costs nothing."""
    config = model.config
    if config.head == "transform":
        model.add_module("head_transform", NoLanguageHead(config.d_model))
    if config.head == "transform" or (config.head == "linear" and not config.tied_head):
        model.add_module("head", NoLanguageHead(config.d_model))


def pooled(hidden: Tensor, attention_mask: Tensor | None, pooling: Pooling) -> Tensor:
    """Return one state for each row, [batch, time, d_model] → [batch, d_model], whichever side the padding is on.

    LabError for a row without a real token.
    """
    if attention_mask is None:
        if not hidden.shape[1]:
            raise LabError("a text of no tokens has no state to read; put a start token before it")
        if pooling == "mean":
            return hidden.mean(1, dtype=_wide(hidden)).to(hidden.dtype)
        return hidden[:, -1 if pooling == "last" else 0]
    real = attention_mask.bool()
    if not bool(real.any(1).all()):
        row = int((~real.any(1)).int().argmax())
        raise LabError(
            f"row {row} of the batch has no real token to read; put a start token before empty text"
        )
    if pooling == "mean":
        weights = real.to(_wide(hidden))[..., None]
        return ((hidden * weights).sum(1) / weights.sum(1)).to(hidden.dtype)
    places = torch.arange(real.shape[1], device=hidden.device)
    chosen = (
        places.where(real, -1).amax(1) if pooling == "last" else places.where(real, real.shape[1]).amin(1)
    )
    return hidden[torch.arange(len(hidden), device=hidden.device), chosen]


class HeadForm(TypedDict):
    """The fields of a `Head` that Hugging Face's classes for a family fix."""

    pooling: Pooling
    dense: Literal["none", "tanh", "relu"]
    bias: bool


def usual_form(config: TransformerConfig, kind: Kind) -> HeadForm:
    """Return the form that a new head on a model has in Hugging Face's classes: `Head(..., **usual_form(config, kind))`.

    A causal model: the last token, no bias. An encoder: its pooler, or the first token through a dense layer.
    """
    pooling: Pooling = "last" if config.causal else "pooler" if config.pooler else "first"
    dense: Literal["none", "tanh", "relu"] = "none"
    if pooling == "first" and kind != "tokens":
        dense = "relu" if config.family == "distilbert" else "tanh"
    return {"pooling": pooling, "dense": dense, "bias": kind == "tokens" or not config.causal}


def _wide(hidden: Tensor) -> torch.dtype:
    return torch.promote_types(hidden.dtype, torch.float32)


def heads(model: Backbone) -> dict[str, Head]:
    """Return what is attached to a model, by name, in the order of attachment."""
    return {name: cast(ReadOut, module).spec for name, module in model.heads.items()}


def find_head(model: Backbone, name: str | None = None, kinds: tuple[str, ...] = ()) -> Head:
    """Return the head of this name, or the only one of these kinds.

    LabError if there is none, if it is of another kind, or if several could be meant.
    """
    known = heads(model)
    if name is not None:
        if name not in known:
            raise unknown("head of this model", name, known) if known else _headless(kinds)
        if kinds and known[name].kind not in kinds:
            raise LabError(f"head {name} reads out {known[name].kind}; asked for is {' or '.join(kinds)}")
        return known[name]
    fitting = [head for head in known.values() if not kinds or head.kind in kinds]
    if not fitting:
        raise _headless(kinds)
    if len(fitting) > 1:
        raise LabError(
            f"this model has several heads: {', '.join(h.name for h in fitting)}; name one of them"
        )
    return fitting[0]


def _headless(kinds: tuple[str, ...]) -> LabError:
    kind = kinds[0] if kinds else "classification"
    task = "task.kind=simcse" if kind == "embedding" else f"task.kind={kind} --set task.label=FIELD"
    return LabError(
        f"this model has no head for {' or '.join(kinds) or 'anything but text'}; "
        f"train one: gpt2lab train --model MODEL --data FILE --set {task}"
    )


def read_out(
    model: Transformer,
    names: tuple[str, ...],
    tokens: Tensor | None = None,
    *,
    embeddings: Tensor | None = None,
    attention_mask: Tensor | None = None,
    token_types: Tensor | None = None,
) -> dict[str, Tensor]:
    """Run the backbone once and return what each named head says: [batch, outputs], of tokens [batch, time, outputs].

    token_types are passed on to models that have more than one.
    """
    types = token_types if model.config.token_types > 1 else None
    hidden = model.hidden(tokens, embeddings=embeddings, attention_mask=attention_mask, token_types=types)
    return read_states(model, hidden, attention_mask, names)


def read_states(
    model: Transformer, hidden: Tensor, attention_mask: Tensor | None, names: tuple[str, ...]
) -> dict[str, Tensor]:
    """Return what each named head says of states [batch, time, d_model] after the final norm."""
    said = {}
    for name in names:
        spec = find_head(model, name)
        if spec.kind == "tokens":
            state = hidden
        elif spec.pooling == "pooler":
            state = model.pooled(hidden, attention_mask)
        else:
            state = pooled(hidden, attention_mask, spec.pooling)
        said[name] = model.heads[name](state)
    return said


def has_dropout(model: Backbone) -> bool:
    """Tell whether any dropout acts in training: of the backbone or of a head."""
    config = model.config
    rates = [config.embedding_dropout, config.attention_dropout, config.residual_dropout]
    return max([*rates, *(head.dropout for head in heads(model).values())]) > 0
