"""Batches of labelled texts by number: batch i is a pure function of the data, the seed and i."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.loss import IGNORE, is_labelled
from gpt2lab.model.task_heads import Head
from gpt2lab.text.batches import EpochBatches, Epochs
from gpt2lab.text.encoding import Encoder, Side, TokenRow, pad_id, padded, token_batch
from gpt2lab.text.labelled import Example, Value, label_index

Align = Literal["first", "last", "all"]
"""Which tokens of a word carry its label."""


def encoded(examples: Sequence[Example], encoder: Encoder) -> list[TokenRow]:
    """Return the examples as a model reads them: of those with token labels their words, with the places of their tokens."""
    rows = []
    for example in examples:
        if example.ranges:
            rows.append(encoder.pieces(example.text, example.ranges))
        elif example.words:
            rows.append(encoder.words(example.words))
        else:
            rows.append(encoder.text(example.text, example.pair))
    return rows


class LabelledBatches(EpochBatches):
    """Examples for supervised heads.

    batches[i] is {"tokens" int64, "attention_mask" bool} [batch_size / world, time] (of pairs also "token_types", the
    text that a token belongs to) and for each head "labels.NAME":
    classification int64 [batch], multilabel float32 [batch, classes], regression float32 [batch, numbers], tokens
    int64 [batch, time]. A missing label is -100, or NaN among numbers. "targets" is -100 where an example (for token
    labels: a token) has no label at all, so that micro-batches can be weighed by how many labels they hold.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        heads: Sequence[Head],
        encoder: Encoder,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        align: Align = "first",
        side: Side = "right",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Encode all examples; padding stands on `side`. LabError for a label that its head does not know."""
        if not examples:
            raise LabError("no examples to make batches of")
        tagged = [head.kind == "tokens" for head in heads]
        if any(tagged) and not all(tagged):
            raise LabError("a head for tokens reads words, the others read texts; train them apart")
        self.heads, self.pad, self.side = tuple(heads), pad_id(encoder.tokenizer), side
        self.rows = encoded(examples, encoder)
        self.labels = [
            [
                token_labels(example, head, row, align)
                if head.kind == "tokens"
                else label_tensor(example.values[head.name], head, example.where)
                for head in heads
            ]
            for example, row in zip(examples, self.rows, strict=True)
        ]
        self._epochs = Epochs(len(self.rows), batch_size, seed, shuffle, rank, world)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.gather([item for _, item in self._epochs.rows(index)])

    def gather(self, items: Sequence[int]) -> dict[str, Tensor]:
        """Return the batch of these examples, in this order."""
        batch = token_batch([self.rows[item] for item in items], self.pad, self.side)
        labelled: Tensor | None = None
        for place, head in enumerate(self.heads):
            rows = [self.labels[item][place] for item in items]
            if head.kind == "tokens":
                labels = padded([row.tolist() for row in rows], IGNORE, self.side)[0]
            else:
                labels = torch.stack(rows)
            batch[f"labels.{head.name}"] = labels
            here = is_labelled(labels)
            if labels.is_floating_point():  # several numbers of one example
                here = here.any(1)
            labelled = here if labelled is None else labelled | here
        if labelled is not None:
            batch["targets"] = torch.where(labelled, 0, IGNORE)
        return batch


class PairBatches(EpochBatches):
    """Queries, their positives and hard negatives, for contrastive learning.

    batches[i] is {"tokens", "attention_mask"} [batch, time] of the queries, the same of the positives under
    "positive_tokens" and "positive_mask" (left out if examples have no pair: see `SimCSE`), of the negatives
    [batch, negatives, time] under "negative_tokens" and "negative_mask" with "negative_there" [batch, negatives], and
    "group" [batch]: rows of one number are no negatives of each other. Examples that name no group share one where
    they share their query or their positive.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        encoder: Encoder,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        query_prefix: str = "",
        passage_prefix: str = "",
        side: Side = "right",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Encode all examples; the prefixes stand before queries and before positives and negatives (e5's convention).

        LabError if some examples have a positive and others none.
        """
        if not examples:
            raise LabError("no examples to make batches of")
        paired = [example.pair is not None for example in examples]
        if any(paired) and not all(paired):
            raise LabError(
                f"{examples[paired.index(False)].where}: no positive, although other examples have one"
            )
        self.pad, self.side = pad_id(encoder.tokenizer), side
        self.queries = [encoder.text(query_prefix + example.text).ids for example in examples]
        self.positives = [encoder.text(passage_prefix + e.pair).ids for e in examples if e.pair is not None]
        self.negatives = [[encoder.text(passage_prefix + text).ids for text in e.negatives] for e in examples]
        self.most = max(len(row) for row in self.negatives)
        self.filler = encoder.text("").ids if self.most else []
        self.groups = _groups(examples)
        self._epochs = Epochs(len(examples), batch_size, seed, shuffle, rank, world)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        items = [item for _, item in self._epochs.rows(index)]
        tokens, mask = padded([self.queries[item] for item in items], self.pad, self.side)
        batch = {
            "tokens": tokens,
            "attention_mask": mask,
            "group": torch.tensor([self.groups[i] for i in items]),
        }
        if self.positives:
            batch["positive_tokens"], batch["positive_mask"] = padded(
                [self.positives[item] for item in items], self.pad, self.side
            )
        if self.most:
            rows = [self.negatives[i] + [self.filler] * (self.most - len(self.negatives[i])) for i in items]
            tokens, mask = padded([row for own in rows for row in own], self.pad, self.side)
            batch["negative_tokens"] = tokens.unflatten(0, (len(items), self.most))
            batch["negative_mask"] = mask.unflatten(0, (len(items), self.most))
            counts = torch.tensor([len(self.negatives[item]) for item in items])
            batch["negative_there"] = torch.arange(self.most) < counts[:, None]
        return batch


def _groups(examples: Sequence[Example]) -> list[int]:
    """Number the groups: named ones by name, others by equal query or equal positive (joined transitively)."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    firsts = []
    for example in examples:
        keys = [f"group {example.group}"] if example.group else [f"text {example.text}"]
        if not example.group and example.pair is not None:
            keys.append(f"text {example.pair}")
        for key in keys[1:]:
            parent[root(key)] = root(keys[0])
        firsts.append(keys[0])
    numbers: dict[str, int] = {}
    return [numbers.setdefault(root(key), len(numbers)) for key in firsts]


def label_tensor(value: Value, head: Head, where: str = "") -> Tensor:
    """Return an answer as its head's loss reads it: a class number, or numbers [outputs]. LabError for an unknown label."""
    if head.kind == "classification":
        known = IGNORE if value is None else label_index(str(value), head.label_names, where)
        return torch.tensor(known)
    if value is None:
        return torch.full((head.outputs,), math.nan)
    if all(isinstance(item, float) for item in value) and value:
        if len(value) != head.outputs:
            raise LabError(
                f"{where}: {len(value)} numbers for head {head.name}, which has {head.outputs} outputs"
            )
        row = torch.tensor(value, dtype=torch.float32)
        if head.kind == "multilabel" and not bool(((row == 0) | (row == 1) | row.isnan()).all()):
            raise LabError(
                f"{where}: head {head.name} learns 0, 1 or nothing for each label, got {list(value)}"
            )
        return row
    row = torch.zeros(head.outputs)
    for label in value:
        row[label_index(str(label), head.label_names, where)] = 1.0
    return row


def token_labels(example: Example, head: Head, row: TokenRow, align: Align) -> Tensor:
    """Return a label for each token, int64 [length]; -100 at tokens that carry none."""
    labels = torch.full((len(row.ids),), IGNORE)
    for value, tokens in zip(example.values[head.name] or (), row.places, strict=False):
        known = label_index(str(value), head.label_names, example.where)
        if tokens:
            labels[tokens if align == "all" else tokens[0 if align == "first" else -1]] = known
    return labels
