"""Word vectors with character n-grams, trained by skip-gram or CBOW with negative sampling (Bojanowski et al. 2017)."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import Progress
from gpt2lab.text.vector_files import SubwordVectors

_Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SkipgramOptions:
    """How vectors are trained. Windows, n-grams and negatives are fastText's; a batch of pairs makes one Adagrad update."""

    objective: Literal["skipgram", "cbow"] = "skipgram"
    """skipgram: a word predicts each word of its window. cbow: the words of its window together predict a word."""
    dimensions: int = 100
    """Numbers of a vector."""
    window: int = 5
    """Most words on either side; each occurrence draws its own width from 1 to this."""
    least: int = 5
    """A word is kept if it occurs so often; others are removed before windows are cut."""
    shortest: int = 3
    """Characters of the shortest n-gram, < and > around the word counted."""
    longest: int = 6
    """Characters of the longest n-gram; 0 is none, a vector for each kept word alone."""
    buckets: int = 50_000
    """Rows that the n-grams are hashed to; fastText's default is 2,000,000."""
    negatives: int = 5
    """Words drawn against each that is predicted, in proportion to the square root of their counts."""
    subsample: float = 1e-3
    """t: an occurrence of a word of frequency f stays with probability √(t / f) + t / f; 0 keeps all. fastText: 1e-4."""
    epochs: int = 5
    """Passes over the text."""
    batch_size: int = 2048
    """Predictions of an update."""
    learning_rate: float = 0.1
    """Adagrad's, falling linearly to 0."""
    seed: int = 0
    """Of first vectors, windows, subsampling, negatives and order."""

    def __post_init__(self) -> None:
        whole = ("dimensions", "window", "least", "negatives", "epochs", "batch_size")
        if small := [name for name in whole if getattr(self, name) < 1]:
            raise LabError(f"skip-gram: {small[0]} must be at least 1, got {getattr(self, small[0])}")
        if self.longest and not 1 <= self.shortest <= self.longest:
            raise LabError(f"skip-gram: n-grams of {self.shortest} to {self.longest} characters are none")
        if self.longest and self.buckets < 1:
            raise LabError("skip-gram: n-grams need at least 1 bucket; longest=0 leaves them out")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.subsample <= 1:
            raise LabError("skip-gram: learning_rate must be above 0, subsample in [0, 1]")


def train_skipgram(
    sentences: Iterable[Sequence[str]], options: SkipgramOptions = SkipgramOptions()
) -> SubwordVectors:
    """Train vectors of words and of their n-grams. LabError if fewer than two words are frequent enough, or none meet."""
    kept = [list(sentence) for sentence in sentences]
    counts = Counter(word for sentence in kept for word in sentence)
    words = sorted(
        (w for w, count in counts.items() if count >= options.least), key=lambda w: (-counts[w], w)
    )
    if len(words) < 2:
        raise LabError(f"{len(words)} words occur {options.least} times; give more text, or a lower count")
    return _Training(kept, words, [counts[word] for word in words], options).vectors()


def negative_sampling_loss(inputs: Tensor, predicted: Tensor, noise: Tensor, drawn: Tensor) -> Tensor:
    """Return log(1 + exp(-s(w, c))) + Σ_n log(1 + exp(s(w, n))) of each prediction, [batch], s being the scalar product.

    inputs, predicted [batch, dimensions]; noise [batch, negatives, dimensions]; drawn [batch, negatives] is False where a
    negative is the predicted word itself, which then does not count. Bojanowski et al. 2017, section 3.1.
    """
    right = F.softplus(-(inputs * predicted).sum(-1))
    wrong = F.softplus(torch.einsum("bd,bnd->bn", inputs, noise))
    return right + (wrong * drawn).sum(-1)


class _Table:
    """A table of vectors of which each batch reads and updates a few rows, by Adagrad (Duchi et al. 2011)."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.squares = torch.zeros_like(rows)
        self._taken: tuple[Tensor, Tensor] | None = None

    def take(self, ids: _Ids) -> tuple[Tensor, Tensor]:
        """Return the rows that `ids` name, each once, as a leaf of the gradient, and the place there of each id."""
        once, where = np.unique(ids, return_inverse=True)
        places = torch.from_numpy(once)
        self._taken = places, self.rows[places].requires_grad_()
        return self._taken[1], torch.from_numpy(where.reshape(ids.shape))

    def update(self, learning_rate: float) -> None:
        """Update the rows that were taken last by their gradient."""
        assert self._taken is not None
        places, taken = self._taken
        assert taken.grad is not None
        self.squares[places] += taken.grad.square()
        self.rows[places] -= learning_rate * taken.grad / (self.squares[places].sqrt() + 1e-10)


class _Training:
    """The state of one training."""

    def __init__(
        self,
        sentences: Sequence[Sequence[str]],
        words: Sequence[str],
        counts: Sequence[int],
        options: SkipgramOptions,
    ) -> None:
        self.words, self.options = tuple(words), options
        self.counts = np.array(counts, dtype=np.int64)
        buckets = options.buckets if options.longest else 0
        shape = SubwordVectors(
            self.words, np.zeros((0, 0)), buckets, options.shortest, options.longest, tuple(counts)
        )
        rows = [shape.rows_of(word) for word in self.words]
        self.row_counts = np.array([len(some) for some in rows], dtype=np.int64)
        self.row_starts = np.cumsum([0, *self.row_counts[:-1]])
        self.row_ids = np.array([row for some in rows for row in some], dtype=np.int64)
        place = {word: number for number, word in enumerate(self.words)}
        lines = [[place[word] for word in sentence if word in place] for sentence in sentences]
        self.ids = np.array([word for line in lines for word in line], dtype=np.int64)
        self.lines = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
        self.draw = np.random.default_rng(options.seed)
        d = options.dimensions
        first = self.draw.uniform(-1 / d, 1 / d, (len(self.words) + buckets, d)).astype(np.float32)
        self.inputs = _Table(torch.from_numpy(first))
        self.outputs = _Table(torch.zeros(len(self.words), d))
        noise = np.sqrt(self.counts.astype(np.float64))
        self.noise = np.cumsum(noise / noise.sum())

    def vectors(self) -> SubwordVectors:
        """Train and return the vectors."""
        options, any_made = self.options, False
        with Progress[None](
            total=options.epochs, label=f"word vectors ({options.objective})", unit="epoch"
        ) as bar:
            for epoch in range(options.epochs):
                batches = list(self._batches())
                for number, (words, lengths, predicted) in enumerate(batches):
                    left = 1 - (epoch + number / len(batches)) / options.epochs
                    self._loss(words, lengths, predicted).sum().backward()
                    for table in (self.inputs, self.outputs):
                        table.update(options.learning_rate * left)
                    any_made = True
                bar.advance()
        if not any_made:
            raise LabError("no two kept words stand near each other; give longer sentences")
        rows = self.inputs.rows.numpy()
        buckets = len(rows) - len(self.words)
        counts = tuple(self.counts.tolist())
        return SubwordVectors(self.words, rows, buckets, options.shortest, options.longest, counts)

    def _loss(self, words: _Ids, lengths: _Ids, predicted: _Ids) -> Tensor:
        """Return the loss of each prediction; words: those that predict, `lengths` of them at a time."""
        drawn = np.searchsorted(self.noise, self.draw.random((len(predicted), self.options.negatives)))
        drawn = np.minimum(drawn, len(self.words) - 1)  # the last sum may fall short of 1
        other = torch.from_numpy(drawn != predicted[:, None])
        outputs, where = self.outputs.take(np.concatenate([predicted[:, None], drawn], axis=1))
        both = outputs[where]  # [batch, 1 + negatives, dimensions]
        return negative_sampling_loss(self._means(words, lengths), both[:, 0], both[:, 1:], other)

    def _means(self, words: _Ids, lengths: _Ids) -> Tensor:
        """Return the means over all rows of the words that predict together, [predictions, dimensions]."""
        if len(words) == len(lengths):  # one word each: those of many predictions are looked up once
            once, again = np.unique(words, return_inverse=True)
            return self._bags(once, np.ones_like(once))[torch.from_numpy(again)]
        return self._bags(words, lengths)

    def _bags(self, words: _Ids, lengths: _Ids) -> Tensor:
        sizes = self.row_counts[words]
        starts = np.repeat(self.row_starts[words] - np.cumsum(sizes) + sizes, sizes)
        rows = self.row_ids[starts + np.arange(sizes.sum())]
        ends = np.cumsum(sizes)[np.cumsum(lengths) - 1]
        offsets = torch.from_numpy(np.concatenate([[0], ends[:-1]]))
        taken, where = self.inputs.take(rows)
        return F.embedding_bag(where, taken, offsets, mode="mean")

    def _batches(self) -> Iterator[tuple[_Ids, _Ids, _Ids]]:
        """Yield an epoch's predictions in a drawn order: words that predict, how many at a time, predicted words."""
        ids, lines = self._subsampled()
        centres, contexts = _pairs(
            lines, self.draw.integers(1, self.options.window + 1, len(ids)), self.options.window
        )
        if self.options.objective == "skipgram":
            order = self.draw.permutation(len(centres))
            for part in _parts(order, self.options.batch_size):
                yield ids[centres[part]], np.ones(len(part), dtype=np.int64), ids[contexts[part]]
            return
        by_centre = np.argsort(centres, kind="stable")
        centres, contexts = centres[by_centre], contexts[by_centre]
        where, starts, lengths = np.unique(centres, return_index=True, return_counts=True)
        for part in _parts(self.draw.permutation(len(where)), self.options.batch_size):
            some = np.concatenate([contexts[starts[i] : starts[i] + lengths[i]] for i in part])
            yield ids[some], lengths[part], ids[where[part]]

    def _subsampled(self) -> tuple[_Ids, _Ids]:
        if not self.options.subsample:
            return self.ids, self.lines
        ratio = self.options.subsample * self.counts.sum() / self.counts
        stays = self.draw.random(len(self.ids)) < (np.sqrt(ratio) + ratio)[self.ids]
        return self.ids[stays], self.lines[stays]


def _pairs(lines: _Ids, widths: _Ids, window: int) -> tuple[_Ids, _Ids]:
    """Return the places of every centre and every word within its width in the same line, [pairs] twice."""
    centres, contexts = list[_Ids](), list[_Ids]()
    for apart in range(1, min(window, len(lines) - 1) + 1):
        left = np.flatnonzero(lines[:-apart] == lines[apart:])
        for centre, context in ((left, left + apart), (left + apart, left)):
            inside = widths[centre] >= apart
            centres.append(centre[inside])
            contexts.append(context[inside])
    if not centres:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.concatenate(centres), np.concatenate(contexts)


def _parts(order: _Ids, size: int) -> Iterator[_Ids]:
    return (order[start : start + size] for start in range(0, len(order), size))
