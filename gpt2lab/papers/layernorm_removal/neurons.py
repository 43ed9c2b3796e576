"""Confidence (entropy) neurons of the last block, and what ablating them does with and without a norm behind them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.measures.measurement import Measurement
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.forward import Seen
from gpt2lab.model.interpret import as_read, neuron_table, output_vectors, processed_unembed
from gpt2lab.papers.layernorm_removal.measure import read_rows

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

_UNSEEN = Seen(tap=None)
_ELEMENTS = 1 << 25
"""Logits held at a time."""


@dataclass(frozen=True)
class Effects:
    """What ablating neurons changes, token by token."""

    loss: Tensor
    """|change of the cross entropy|, [ablations, tokens], nats."""
    entropy: Tensor
    """|change of the output's entropy|, alike."""

    def medians(self) -> tuple[float, float]:
        """Return the medians over all ablations and tokens."""
        return float(self.loss.median()), float(self.entropy.median())


def confidence_neurons(model: Transformer, top: int = 3) -> list[int]:
    """Return the neurons of the last block with the largest ||w|| / variance of cos(w, W_U) (Baroni et al. 2025)."""
    return neuron_table(model, model.config.n_layers - 1, by_score=True).neurons[:top].tolist()


@torch.no_grad()
def ablation_effects(
    model: Transformer, rows: Tensor, neurons: list[int], *, cumulative: bool = False, batch_size: int = 16
) -> Effects:
    """Replace neurons of the last block by their means over all tokens; rows [samples, length + 1] int64.

    One after another, or (cumulative) the first, the first two, ... at once. Exact: what a neuron of the last feed-forward
    writes reaches the logits through the final norm only. LabError without a last dense feed-forward, and for bad numbers.
    """
    layer = model.config.n_layers - 1
    vectors = output_vectors(model, layer)
    if not neurons or not all(0 <= n < len(vectors) for n in neurons):
        raise LabError(f"neurons of layer {layer} are 0 to {len(vectors) - 1}, got {neurons}")
    written = vectors[torch.tensor(neurons, device=vectors.device)]  # [n, d_model]
    sites = [f"blocks.{layer}.hook_resid_post", f"blocks.{layer}.mlp.hook_post"]
    states, posts = list[Tensor](), list[Tensor]()
    with evaluating(model):
        for part in rows.split(batch_size):
            with model.tap(read=sites) as tap:
                model.hidden(part[:, :-1].to(model.device))
            states.append(tap[sites[0]].flatten(0, 1))
            posts.append(tap[sites[1]][..., neurons].flatten(0, 1))  # [tokens, n]
        targets = rows[:, 1:].flatten().to(model.device)
        change = torch.cat(posts).mean(0) - torch.cat(posts)  # mean - own, [tokens, n]
        size = max(1, _ELEMENTS // model.config.vocab_size)
        found = [
            _read_out(model, part, moved, right, written, cumulative)
            for part, moved, right in zip(
                torch.cat(states).split(size), change.split(size), targets.split(size), strict=True
            )
        ]
    return Effects(*(torch.cat(kind, 1).cpu() for kind in zip(*found, strict=True)))


def _read_out(
    model: Transformer, states: Tensor, change: Tensor, targets: Tensor, written: Tensor, cumulative: bool
) -> tuple[Tensor, Tensor]:
    """Changes of loss and entropy of some tokens, both [n, tokens]."""
    before = _loss_and_entropy(model, states, targets)
    moves = change.T[..., None] * written[:, None]  # [n, tokens, d_model]
    moves = moves.cumsum(0) if cumulative else moves
    after = [_loss_and_entropy(model, states + move, targets) for move in moves]
    loss, entropy = (torch.stack([(now[i] - before[i]).abs() for now in after]) for i in (0, 1))
    return loss, entropy


def _loss_and_entropy(model: Transformer, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = model.unembed(model.final_norm(states[None], _UNSEEN))[0].float()
    log = logits.log_softmax(-1)
    return F.nll_loss(log, targets, reduction="none"), -(log.exp() * log).sum(-1)


def null_space_share(model: Transformer, neurons: list[int], directions: int) -> Tensor:
    """Return which share of w² lies in the `directions` input directions that W_U reads least, [neurons]."""
    unembedding = processed_unembed(model)
    head = unembedding.weight.double()
    # The eigenvectors of W_Uᵀ W_U [d_model, d_model], least first: an SVD of W_U would make a matrix [vocab, vocab].
    _, axes = torch.linalg.eigh(head.T @ head)
    written = output_vectors(model, model.config.n_layers - 1)[torch.tensor(neurons)].double()
    written = as_read(model, written, unembedding)
    return ((written @ axes[:, :directions]).square().sum(1) / written.square().sum(1)).cpu()


@dataclass(frozen=True, kw_only=True)
class ConfidenceNeurons:
    """What ablating the last block's confidence neurons changes; without a norm behind them, little."""

    data: tuple[str, ...] = ("docstrings",)
    """Text to read: files, folders, hub:ID or names of built-in sources."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    top: int = 3
    """Number of neurons, by descending score."""
    neurons: tuple[int, ...] = ()
    """These neurons of the last block instead (GPT-2 small: 584 2123 2870; medium: 3144 1083 1108)."""
    samples: int = 32
    """Pieces of text."""
    length: int = 64
    """Tokens of a piece, at most the model's positions."""
    batch_size: int = 16
    """Pieces in one pass; changes speed and memory, not the numbers."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model. LabError for post-norm models, experts, a neuron that is not there, too little text, and NaN."""
        rows = read_rows(lm, self.data, self.field, self.samples, self.length, "confidence-neurons")
        neurons = list(self.neurons) or confidence_neurons(lm.model, self.top)
        effects = ablation_effects(lm.model, rows, neurons, batch_size=self.batch_size)
        together = ablation_effects(lm.model, rows, neurons, cumulative=True, batch_size=self.batch_size)
        if not bool(effects.loss.isfinite().all()):
            raise LabError(
                "confidence-neurons: losses are not finite; the model gives NaN or infinite logits"
            )
        loss, entropy = effects.medians()
        share = null_space_share(lm.model, neurons, max(1, lm.config.d_model // 50))
        return Measurement(
            name="confidence-neurons",
            numbers={"loss_change": loss, "entropy_change": entropy, "together": float(together.loss[-1].median())},
            units={
                "loss_change": "nats, median over neurons and tokens of |change|", "entropy_change": "nats, alike",
                "together": f"nats, median of |change of the loss|, all {len(neurons)} at once",
            },
            tables={"neurons": [_row(lm, n, i, effects, together, float(share[i])) for i, n in enumerate(neurons)]},
            about={"tokens": effects.loss.shape[1], "layer": lm.config.n_layers - 1},
        )  # fmt: skip


def _row(
    lm: "LanguageModel", neuron: int, i: int, effects: Effects, together: Effects, share: float
) -> dict[str, Any]:
    low, middle, high = effects.loss[i].quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return {
        **neuron_table(lm.model, lm.config.n_layers - 1, [neuron]).rows(_shown(lm))[0],
        "null space": share,
        "loss, quartile 1": low,
        "loss, median": middle,
        "loss, quartile 3": high,
        "entropy, median": float(effects.entropy[i].median()),
        "with those above": float(together.loss[i].median()),
    }


def _shown(lm: "LanguageModel") -> Any:
    tokenizer = lm.tokenizer
    return str if tokenizer is None else lambda token: tokenizer.decode([token], skip_special=False)
