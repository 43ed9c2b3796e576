"""The models that the study trains, and their text."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.held_out import scores_loss
from gpt2lab.measures.scoring import Row, score_rows
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families.gpt2 import gpt2_config
from gpt2lab.papers.contrastive_search.isotropy import model_sums, of_sums
from gpt2lab.papers.contrastive_search.quality import Sample, held_out_samples
from gpt2lab.papers.contrastive_search.study.settings import Settings, Shape
from gpt2lab.text import sources
from gpt2lab.text.batches import ArrayTokens, PackedBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.splits import TRAIN, HashRule, by_hash
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from gpt2lab.training import TrainSettings, train

MODELS = ("scorer", "generator", "small")
"""The models of a seed, the largest first."""
_HELD_OUT = 10  # one text in so many
_ISOTROPY_TEXTS = 200


@dataclass(frozen=True)
class Text:
    """The text of a seed."""

    tokenizer: Tokenizer
    stream: np.ndarray
    """Training tokens, each text with the end token behind it."""
    held_out: list[str]
    """In an order of the seed's own."""


def read_text(settings: Settings, seed: int) -> Text:
    """Read, split and encode the text; the tokenizer is trained on the training texts."""
    training, held_out = split(settings.data, seed)
    tokenizer = train_bpe(training, settings.vocab_size)
    stream = np.concatenate([[*ids, _end(tokenizer)] for ids in tokenizer.encode_batch(training)])
    return Text(tokenizer, stream, held_out)


def untrained(settings: Settings, text: Text, name: str, seed: int) -> Transformer:
    """Return a model with the initial weights of a seed.

    Models of one seed read the same batches; each begins elsewhere, so that the scorer is no copy of the generator.
    """
    shape: Shape = getattr(settings, name)
    end = _end(text.tokenizer)
    config = gpt2_config(
        vocab_size=text.tokenizer.vocab_size, d_model=shape.d_model, n_layers=shape.n_layers, n_heads=shape.n_heads,
        max_positions=settings.context, bos=end, eos=end,
    )  # fmt: skip
    return Transformer(config, generator=torch.Generator().manual_seed(1000 * seed + MODELS.index(name)))


def train_model(
    settings: Settings,
    text: Text,
    name: str,
    seed: int,
    device: str,
    log: Callable[..., None] | None = None,
) -> LanguageModel:
    """Train one model of a seed."""
    shape: Shape = getattr(settings, name)
    model = untrained(settings, text, name, seed).to(device)
    batches = PackedBatches(
        ArrayTokens(text.stream), batch_size=settings.batch_size, context=settings.context, seed=seed
    )
    loop = TrainSettings(
        steps=shape.steps, learning_rate=settings.learning_rate, warmup=round(0.1 * shape.steps)
    )
    train(model, batches, settings=loop, log=log, seed=seed, label=name)
    return LanguageModel(model, text.tokenizer)


def report_model(settings: Settings, text: Text, name: str, lm: LanguageModel, run: Any) -> None:
    """Report a trained model's held-out loss, and its isotropy before and after training on the same texts."""
    end = _end(text.tokenizer)
    rows = [ids[: settings.context] for ids in text.tokenizer.encode_batch(text.held_out[:_ISOTROPY_TEXTS])]
    rows = [ids for ids in rows if len(ids) > 1]
    scores = score_rows(
        lm.model, [Row(torch.tensor([end, *ids[:-1]]), len(ids) - 1) for ids in rows], label="held-out"
    )
    run.result("loss", scores_loss(scores).loss)
    run.result("unigram_loss", _unigram(text.stream, rows, text.tokenizer.vocab_size))
    sums = model_sums(lm.model, rows)
    run.result("isotropy", of_sums(sums, "pairs"))
    run.result("isotropy_by_texts", of_sums(sums, "texts"))
    before = untrained(settings, text, name, run.seed).to(lm.model.device)
    run.result("isotropy_untrained", of_sums(model_sums(before, rows), "pairs"))
    run.result("parameters", lm.model.count_parameters()["total"])


def held_out_prefixes(settings: Settings, text: Text, limit: int) -> list[Sample]:
    """Return the prefixes of a seed with their real continuations. LabError for fewer than two."""
    lengths = settings.decoding
    found = held_out_samples(
        text.held_out, text.tokenizer, prefix=lengths.prefix, new=lengths.new, limit=limit
    )
    if len(found) < 2:
        raise LabError(f"{settings.data}: one held-out text is long enough; at least 2 are needed")
    return found


def _end(tokenizer: Tokenizer) -> int:
    assert tokenizer.eos is not None
    return tokenizer.eos


def _unigram(stream: np.ndarray, rows: Sequence[Sequence[int]], vocab_size: int) -> float:
    """Return the loss of the training text's token frequencies (one added to each) on held-out rows, in nats a token."""
    counts = np.bincount(stream, minlength=vocab_size) + 1
    logp = np.log(counts / counts.sum())
    return -float(np.concatenate([logp[list(ids[:-1])] for ids in rows]).mean())


def split(data: str, seed: int) -> tuple[list[str], list[str]]:
    """Return training and held-out texts: by the hash of the text, so that no text is in both; held-out ones in an order
    of the seed's own.
    """
    texts = dict.fromkeys(sources.documents(data))
    rule = HashRule(order="big", modulus=_HELD_OUT)
    try:
        parts = by_hash(texts, {"valid": 1 / _HELD_OUT}, key=str, rule=rule)
    except LabError:
        raise LabError(f"{data}: {len(texts)} different texts are too few to hold some out") from None
    return parts[TRAIN], in_order_of(parts["valid"], seed)


def in_order_of(texts: Iterable[str], seed: int) -> list[str]:
    """Return texts in an order of the seed's own."""
    return sorted(texts, key=lambda text: HashRule(order="big").number(f"{seed}/{text}"))
