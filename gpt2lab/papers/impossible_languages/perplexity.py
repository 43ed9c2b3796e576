"""Perplexity of sentences: of each by itself, their geometric mean, and samples of several files drawn by one generator."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.scoring import Row, score_rows
from gpt2lab.model import Transformer

Numbers = npt.NDArray[np.float64]


def sentence_losses(
    model: Transformer, sentences: Sequence[Sequence[int]], *, batch_size: int = 32, label: str = "perplexity"
) -> Numbers:
    """Return for each sentence the mean of -log p over its tokens but the first, in nats: float64 [sentences].

    Nothing stands before the first token, which is therefore never predicted. LabError for no sentence, one of fewer than
    two tokens, ids outside the vocabulary, a sentence longer than the model's positions, NaN logits.
    """
    if not sentences:
        raise LabError(f"{label}: no sentence to score; the test set is empty")
    rows = [Row(torch.tensor(list(ids), dtype=torch.int64), len(ids) - 1) for ids in sentences]
    scores = score_rows(model, rows, batch_size=batch_size, label=label)
    return np.array([float(score.losses.double().mean()) for score in scores])  # -log p, tokens 2 ... n


def sentence_perplexity(
    model: Transformer, sentences: Sequence[Sequence[int]], *, batch_size: int = 32
) -> Numbers:
    """Return the perplexity of each sentence, float64 [sentences]; as `sentence_losses`, whose exponential it is."""
    return np.exp(sentence_losses(model, sentences, batch_size=batch_size))


def geometric_mean(perplexities: Sequence[float] | Numbers) -> float:
    """Return exp of the mean logarithm, which counts every sentence alike. LabError for none, or one that is not above 0."""
    values = np.asarray(perplexities, dtype=np.float64)
    if not len(values) or not (values > 0).all():
        raise LabError("a geometric mean needs at least one value, all above 0")
    return float(np.exp(np.log(values).mean()))  # geometric mean over sentences


def sampled(files: Sequence[Sequence[list[int]]], size: int, *, seed: int) -> list[list[int]]:
    """Return `size` sentences of each file, drawn without replacement by one generator through all files in their order.

    As the authors draw them: `default_rng(seed).choice(list(range(n)), size, replace=False)`. LabError for a sample that
    is larger than a file.
    """
    generator = np.random.default_rng(seed)
    found: list[list[int]] = []
    for number, sentences in enumerate(files):
        if size > len(sentences):
            raise LabError(
                f"a sample of {size} is larger than file {number}, which holds {len(sentences)} sentences"
            )
        if size < 1:
            raise LabError(f"a sample holds at least one sentence, got {size}")
        found += [sentences[i] for i in generator.choice(list(range(len(sentences))), size, replace=False)]
    return found
