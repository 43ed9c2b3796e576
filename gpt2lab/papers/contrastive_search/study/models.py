"""The study's text and models: trained on the spot, or pretrained ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.measures.held_out import scores_loss
from gpt2lab.measures.scoring import Row, score_rows
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families.gpt2 import gpt2_config
from gpt2lab.papers.contrastive_search.isotropy import model_sums, of_sums
from gpt2lab.papers.contrastive_search.quality import Sample, held_out_samples
from gpt2lab.papers.contrastive_search.study.settings import Settings, Shape
from gpt2lab.text import sources
from gpt2lab.text.batches import ArrayTokens, PackedBatches
from gpt2lab.text.language_model import LanguageModel, load
from gpt2lab.text.pieces import beginning
from gpt2lab.text.splits import TRAIN, HashRule, by_hash
from gpt2lab.text.tokenizer import train_bpe
from gpt2lab.training import TrainSettings, train

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run

_HELD_OUT = 10  # one text in so many
_ISOTROPY_TEXTS = 200


@dataclass(frozen=True)
class Setup:
    """What the decoders are compared with."""

    generator: LanguageModel
    scorers: dict[str, LanguageModel]
    people: list[Sample]
    """Held-out prefixes with their real continuations."""


def train_one(settings: Settings, arm: str, run: "Run") -> None:
    """Train the model of an arm on the text, and report its loss and isotropy."""
    shape: Shape = getattr(settings, arm)
    training, held_out = split(settings.data, run.seed)
    tokenizer = train_bpe(training, settings.vocab_size)
    eos = tokenizer.eos
    assert eos is not None
    stream = np.concatenate([[*ids, eos] for ids in tokenizer.encode_batch(training)])
    config = gpt2_config(
        vocab_size=tokenizer.vocab_size, d_model=shape.d_model, n_layers=shape.n_layers, n_heads=shape.n_heads,
        max_positions=settings.context, bos=eos, eos=eos,
    )  # fmt: skip
    # Models of one seed read the same batches; the scorer begins elsewhere, so that it is no copy of the generator.
    generator = torch.Generator().manual_seed(1000 * run.seed + ("scorer", "generator", "small").index(arm))
    lm = LanguageModel(Transformer(config, generator=generator).to(run.device), tokenizer)
    result = train(
        lm.model,
        PackedBatches(
            ArrayTokens(stream), batch_size=settings.batch_size, context=settings.context, seed=run.seed
        ),
        settings=TrainSettings(
            steps=shape.steps,
            learning_rate=settings.learning_rate,
            warmup=round(0.1 * shape.steps),
        ),
        log=run.log,
        seed=run.seed,
        label=run.id,
    )
    rows = [ids[: settings.context] for ids in tokenizer.encode_batch(held_out[:_ISOTROPY_TEXTS])]
    rows = [ids for ids in rows if len(ids) > 1]
    scores = score_rows(
        lm.model, [Row(torch.tensor([eos, *ids[:-1]]), len(ids) - 1) for ids in rows], label="held-out"
    )
    run.result("loss", scores_loss(scores).loss)
    run.result("unigram_loss", _unigram(stream, rows, tokenizer.vocab_size))
    sums = model_sums(lm.model, rows)
    run.result("isotropy", of_sums(sums, "pairs"))
    run.result("isotropy_by_texts", of_sums(sums, "texts"))
    run.result("parameters", lm.model.count_parameters()["total"])
    run.result("tokens_per_second", result.tokens_per_second)
    run.model(lm)


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
    return parts[TRAIN], _in_order_of(parts["valid"], seed)


def _in_order_of(texts: Iterable[str], seed: int) -> list[str]:
    return sorted(texts, key=lambda text: HashRule(order="big").number(f"{seed}/{text}"))


def prepared(settings: Settings, run: "Run") -> Setup:
    """Return models and prefixes of a seed; report what is known of the models."""
    if settings.given:
        generator = load(settings.given, device=run.device)
        scorers = {_word(name): load(name, device=run.device) for name in settings.given_scorers}
        texts = _in_order_of(sources.documents(settings.data), run.seed)
        _given_isotropy(settings, texts, run)
    else:
        generator, scorer = (
            load(run.arms[arm].folder / "model", device=run.device) for arm in ("generator", "scorer")
        )
        scorers = {"scorer": scorer}
        texts = split(settings.data, run.seed)[1]
        found = {arm: record.results for arm, record in run.arms.items()}
        run.result("isotropy.lowest", min(results["isotropy"] for results in found.values()))
        run.result("learnt", min(results["unigram_loss"] - results["loss"] for results in found.values()))
        rows = [
            {"model": arm, **{key: results[key] for key in
             ("parameters", "loss", "unigram_loss", "isotropy", "isotropy_by_texts")}}
            for arm, results in found.items()
        ]  # fmt: skip
        run.table("models", rows, "The models of this seed: held-out loss in nats a token, and isotropy")
    tokenizer = need_tokenizer(generator, "contrastive-search")
    people = held_out_samples(
        texts, tokenizer, prefix=settings.prefix, new=settings.new, limit=settings.texts
    )
    if len(people) < 4:
        raise LabError(
            f"{settings.data}: {len(people)} held-out texts are long enough; at least 4 are needed"
        )
    return Setup(generator, scorers, people)


def _given_isotropy(settings: Settings, texts: Sequence[str], run: "Run") -> None:
    rows = list[dict[str, object]]()
    for name in settings.given_isotropy:
        lm = load(name, device=run.device)
        tokenizer = need_tokenizer(lm, "isotropy")
        ids = [
            beginning(tokenizer, text, 256)[0][: min(256, lm.model.context)]
            for text in texts[:2000]
            if len(text) >= 2
        ]
        sums = model_sums(lm.model, [row for row in ids if row])
        found = {"isotropy": of_sums(sums, "pairs"), "by texts": of_sums(sums, "texts")}
        rows.append({"model": name, **found})
        run.result(f"isotropy.{_word(name)}", found["isotropy"])
    if rows:
        run.table("models", rows, "Isotropy of pretrained models")


def _word(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.rsplit("/", 1)[-1])
