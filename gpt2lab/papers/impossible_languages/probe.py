"""A probe of constituents: which kind of phrase a span of tokens is, read off the pooled states of one block.

Phrases come from bracketed parses. A logistic regression is fitted to four fifths of them and judged on the rest.
Kallini et al. 2024, appendix D.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.linear_probe import probe
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.text.pieces import split_text
from gpt2lab.text.tokenizer import Tokenizer

LABELS = ("NP", "VP", "ADJP", "ADVP", "PP")
"""Kinds of phrases that are told apart."""
Pool = Literal["mean", "max"]
_WRITTEN = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "``": '"', "''": '"'}
"""How a treebank spells what its brackets would swallow."""


@dataclass(frozen=True)
class Span:
    """A phrase as tokens of a sentence."""

    ids: tuple[int, ...]
    """The sentence."""
    start: int
    """Its first token."""
    stop: int
    """Behind its last one."""
    label: str
    """One of LABELS."""

    def reversed(self) -> "Span":
        """Return the same phrase in the sentence read backwards: [n - stop, n - start)."""
        n = len(self.ids)
        return Span(self.ids[::-1], n - self.stop, n - self.start, self.label)  # FullReverse


def phrases(parse: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return label and words of every phrase of more than one word in a bracketed parse; functions (NP-SBJ) are cut off.

    LabError for brackets that do not match.
    """
    found: list[tuple[str, tuple[str, ...]]] = []
    open_nodes: list[tuple[str, int]] = []
    words: list[str] = []
    pieces = parse.replace("(", " ( ").replace(")", " ) ").split()
    for place, piece in enumerate(pieces):
        if piece == "(":
            name = pieces[place + 1] if place + 1 < len(pieces) else ""
            open_nodes.append(("" if name in "()" else name.partition("-")[0], len(words)))
        elif piece == ")":
            if not open_nodes:
                raise LabError(f"a parse closes more brackets than it opens: {parse[:60]!r}")
            label, start = open_nodes.pop()
            if label in LABELS and len(words) - start > 1:
                found.append((label, tuple(words[start:])))
        elif pieces[place - 1] != "(" or not place:
            words.append(_WRITTEN.get(piece, piece))
    if open_nodes:
        raise LabError(f"a parse opens more brackets than it closes: {parse[:60]!r}")
    return found


def find_span(ids: Sequence[int], text: str, label: str, tokenizer: Tokenizer) -> Span | None:
    """Return the first place of a phrase's tokens in a sentence, at its beginning or after a blank; None if it has none."""
    for wanted in (tokenizer.encode(text), split_text(tokenizer, "so", " " + text)[1]):
        size = len(wanted)
        for start in range(len(ids) - size + 1):
            if size and list(ids[start : start + size]) == wanted:
                return Span(tuple(ids), start, start + size, label)
    return None


def balanced(spans: Sequence[Span], size: int, *, seed: int) -> list[Span]:
    """Return at most `size` spans of each label, drawn by a seed, in the order of LABELS."""
    generator = np.random.default_rng(seed)
    found: list[Span] = []
    for label in LABELS:
        own = [span for span in spans if span.label == label]
        picked = sorted(generator.permutation(len(own))[:size].tolist())
        found += [own[i] for i in picked]
    return found


@torch.no_grad()
def span_states(
    model: Transformer, spans: Sequence[Span], *, pool: Pool = "mean", batch_size: int = 32
) -> dict[str, Tensor]:
    """Return the pooled states of each span, [spans, d_model] float64 on the CPU, by place in the model.

    Places: embed, the number of each block, and last4, the mean of the last four blocks' states (of all, if there are
    fewer). LabError for a sentence that is longer than the model's positions.
    """
    model.config.require_causal("span probe")
    blocks = [f"blocks.{i}.hook_resid_post" for i in range(model.config.n_layers)]
    names = [*(["blocks.0.hook_resid_pre"] if blocks else []), *blocks]
    found: dict[str, list[Tensor]] = {}
    with evaluating(model):
        for start in range(0, len(spans), batch_size):
            batch = spans[start : start + batch_size]
            tokens = torch.zeros(len(batch), max(len(span.ids) for span in batch), dtype=torch.int64)
            for row, span in enumerate(batch):
                tokens[row, : len(span.ids)] = torch.tensor(
                    span.ids
                )  # padding on the right is seen by nobody
            with model.tap(read=names) as tap:
                model.hidden(tokens.to(model.device))
            states = {"embed" if i == 0 else str(i - 1): tap[name].double() for i, name in enumerate(names)}
            last = [states[str(i)] for i in range(max(0, len(blocks) - 4), len(blocks))]
            states["last4"] = torch.stack(last).mean(0)
            for place, x in states.items():
                rows = [x[row, span.start : span.stop] for row, span in enumerate(batch)]
                pooled = [row.mean(0) if pool == "mean" else row.amax(0) for row in rows]
                found.setdefault(place, []).append(torch.stack(pooled).cpu())
    return {place: torch.cat(parts) for place, parts in found.items()}


def parts_of(labels: Sequence[str], *, seed: int) -> tuple[Tensor, Tensor]:
    """Return which examples are fitted and which are judged, a fifth of each label: bool masks [examples].

    LabError unless there are two labels of at least five examples each.
    """
    judged = torch.zeros(len(labels), dtype=torch.bool)
    generator = np.random.default_rng(seed)
    counts = {label: labels.count(label) for label in dict.fromkeys(labels)}
    if len(counts) < 2 or min(counts.values()) < 5:
        raise LabError(
            f"span probe: two kinds of phrases with at least five examples each are needed, got {counts or 'none'}"
        )
    for label in counts:
        own = np.array([i for i, one in enumerate(labels) if one == label])
        judged[torch.from_numpy(generator.permutation(own)[: len(own) // 5])] = True
    return ~judged, judged


def fit_and_judge(states: Tensor, labels: Sequence[str], *, seed: int) -> Tensor:
    """Fit a logistic regression to four fifths and tell which of the others it gets right: bool [judged].

    states [examples, d_model] float64. LabError as for `parts_of` and `gpt2lab.measures.linear_probe.probe`.
    """
    fitted, _ = parts_of(labels, seed=seed)
    return probe(states, labels, fitted)
