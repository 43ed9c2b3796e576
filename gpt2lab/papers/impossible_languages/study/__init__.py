"""Fifteen languages, each learnt by the same small GPT-2: perplexity, surprisal of markers, interchange interventions.

Models of one family read the same sentences in the same order and begin with the same weights. Each language chooses its
learning rate once for all seeds, on sentences that are not judged, in the same number of trials.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch

from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.papers.impossible_languages.corpus import joined, shuffled
from gpt2lab.papers.impossible_languages.interchange import Examples, interchange_accuracy
from gpt2lab.papers.impossible_languages.languages import language
from gpt2lab.papers.impossible_languages.perplexity import sentence_losses
from gpt2lab.papers.impossible_languages.perturbing import perturb
from gpt2lab.papers.impossible_languages.study import comparison, pictures
from gpt2lab.papers.impossible_languages.study import material as texts
from gpt2lab.papers.impossible_languages.study.claims import CLAIMS
from gpt2lab.papers.impossible_languages.study.material import Material
from gpt2lab.papers.impossible_languages.study.settings import PRESETS, Settings
from gpt2lab.papers.impossible_languages.surprisal import marker_surprisals
from gpt2lab.runs.home import checkpoint_name
from gpt2lab.studies.graph import UnitSpec
from gpt2lab.studies.race import FURTHER
from gpt2lab.studies.sweep import best_on_grid
from gpt2lab.text.batches import ArrayTokens, PackedBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.callbacks import Callback
from gpt2lab.training.loop import NotFinite

__all__ = ["CLAIMS", "PRESETS", "Settings", "learn", "run", "summarise", "tune", "units"]

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

CROSS = ("shuffle_deterministic57", "shuffle_deterministic84", "shuffle_nondeterministic")
"""Languages on which a model of the shuffle of seed 21 is also judged."""


def units(settings: Settings) -> list[UnitSpec]:
    """Return the text, the tuning of every language, and the languages."""
    return [
        UnitSpec(texts.UNIT, texts.prepare, shared=True),
        *(
            UnitSpec(_tuning(name), partial(tune, name=name), needs=(texts.UNIT,), tuning=True)
            for name in settings.languages
        ),
        *(
            UnitSpec(name, partial(learn, name=name), needs=(texts.UNIT, _tuning(name)))
            for name in settings.languages
        ),
    ]


def _tuning(name: str) -> str:
    return f"tuning_{name}"


@dataclass(frozen=True)
class Corpus:
    """A language's sentences as ids."""

    settings: Settings
    name: str
    material: Material

    @cached_property
    def training(self) -> list[list[int]]:
        """Return all sentences of the training part, unaffected ones too."""
        return perturb(self.name, self.material.tokenizer).corpus(self.material.sentences["train"]).training()

    def held_out(self, part: str, name: str = "") -> list[list[int]]:
        """Return affected sentences of a held-out part, in this language or in another of its family."""
        rule = perturb(name or self.name, self.material.tokenizer)
        most = {"test": self.settings.test, "tuning": self.settings.tuning}[part]
        return rule.corpus(self.material.sentences[part]).evaluation()[:most]

    def batches(self, seed: int) -> PackedBatches:
        """Return training batches in the order of a seed."""
        eos = self.material.tokenizer.eos
        assert eos is not None, "a tokenizer that was trained here has an end token"
        stream = ArrayTokens(joined(shuffled(self.training, seed), eos))
        return PackedBatches(
            stream, batch_size=self.settings.batch_size, context=self.settings.context, seed=seed
        )


def model_of(settings: Settings, vocab_size: int, seed: int) -> Transformer:
    """Return the model with the initial weights of a seed; those of equal vocabularies are equal."""
    d_head = settings.d_model // settings.n_heads
    scales = tuple(d_head**-0.5 / (layer + 1) for layer in range(settings.n_layers))
    config = gpt2_config(
        vocab_size=vocab_size,
        d_model=settings.d_model,
        n_layers=settings.n_layers,
        n_heads=settings.n_heads,
        max_positions=settings.context,
        **({"attention_scale": scales} if settings.scale_by_layer else {}),
    ).replace(
        positions=settings.positions, embedding_dropout=0.0, attention_dropout=0.0, residual_dropout=0.0
    )
    return Transformer(config, generator=torch.Generator().manual_seed(seed))


def tune(settings: Settings, run: "Run", *, name: str) -> None:
    """Choose a language's learning rate by the perplexity of the tuning sentences after short trials."""
    run.chooses("learning rate", on=texts.TUNING)
    corpus = _corpus(settings, run, name)
    held_out = corpus.held_out("tuning")
    batches, steps = corpus.batches(run.seed), max(1, round(settings.trial * settings.updates(name)))
    tried: list[dict[str, float]] = []

    def loss_of(rate: float) -> float:
        model = model_of(settings, corpus.material.tokenizer.vocab_size, run.seed).to(run.device)
        try:
            _train(settings, run, name, model, batches, rate, steps, place=f"trial_{len(tried)}")
            loss = float(sentence_losses(model, held_out).mean())
        except NotFinite:
            loss = math.inf
        tried.append({"learning_rate": rate, "loss": loss})
        run.share(len(tried) / (len(settings.rates) + FURTHER))
        return loss

    best, loss, at_edge = best_on_grid(settings.rates, loss_of, further=FURTHER)
    run.table("sweep", tried, f"Loss on the tuning sentences after {steps} updates, of every learning rate")
    run.result("learning_rate", best)
    run.result("loss", loss)
    run.result("at_edge", at_edge)
    run.result("trials", len(tried))


def learn(settings: Settings, run: "Run", *, name: str) -> None:
    """Train a language's model at the rate that its tuning chose, and evaluate it at every checkpoint."""
    run.judges("perplexity, surprisal and interchange accuracy", on=texts.JUDGED)
    corpus, chosen = _corpus(settings, run, name), run.needed[_tuning(name)].results
    model = model_of(settings, corpus.material.tokenizer.vocab_size, run.seed).to(run.device)
    evaluate = evaluation(settings, corpus, model)
    kept = [Kept(run, corpus.material.tokenizer)] if settings.keep_checkpoints else []
    seconds = _train(
        settings, run, name, model, corpus.batches(run.seed), chosen["learning_rate"], settings.updates(name),
        evaluate=evaluate, callbacks=kept,
    )  # fmt: skip
    final = evaluate()
    for key, value in final.items():
        run.result(key, value)
    for key in ("learning_rate", "at_edge"):
        run.result(key, chosen[key])
    run.result("perplexity", math.exp(final["log_perplexity"]))
    run.result("parameters", model.count_parameters()["total"])
    run.result("seconds", seconds)
    run.table("checkpoints", _checkpoints(run, final), "Every evaluation while training")
    if name == "shuffle_deterministic21":
        _cross(run, corpus, model, final["log_perplexity"])
    run.model(LanguageModel(model, corpus.material.tokenizer))


def evaluation(settings: Settings, corpus: Corpus, model: Transformer) -> Callable[[], dict[str, float]]:
    """Return what measures a model: log of the geometric-mean perplexity, and of a hop language what markers show."""
    held_out = corpus.held_out("test")
    tokenizer = corpus.material.tokenizer
    hop = language(corpus.name).family == "hop"
    examples = texts.examples(settings, tokenizer, corpus.name) if hop else None

    def measured() -> dict[str, float]:
        numbers = {"log_perplexity": float(sentence_losses(model, held_out).mean())}
        if examples is not None:
            assert tokenizer.eos is not None, "a tokenizer that was trained here has an end token"
            markers = tuple(examples.answers[0].tolist())
            bits = marker_surprisals(model, held_out, markers, tokenizer.eos)
            numbers["marker"] = float(bits.marker.mean())
            numbers["difference"] = float(bits.difference.mean())
            numbers["right"] = float(bits.right.mean())
            numbers |= _accuracies(model, examples)
        return numbers

    return measured


def _accuracies(model: Transformer, examples: Examples) -> dict[str, float]:
    """Return interchange accuracy in percent by block and position, `iia_LAYER_POSITION`."""
    share = 100 * interchange_accuracy(model, examples.base, examples.source, examples.answers).double().mean(
        -1
    )
    return {
        f"iia_{layer}_{position}": float(value)
        for layer, row in enumerate(share)
        for position, value in enumerate(row)
    }


def _cross(run: "Run", corpus: Corpus, model: Transformer, own: float) -> None:
    """Judge the model on the same sentences in other shuffles."""
    losses = {name: float(sentence_losses(model, corpus.held_out("test", name)).mean()) for name in CROSS}
    for name, loss in losses.items():
        run.result(f"on.{name}", loss)
    run.result("own_gap", min(losses.values()) - own)


def _checkpoints(run: "Run", final: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row for each evaluation of the training, as the run has logged them."""
    rows: dict[int, dict[str, Any]] = {}
    for name in final:
        for step, value in zip(*run.record.series(name), strict=True):
            rows.setdefault(int(step), {"update": int(step)})[name] = value
    return [row for _, row in sorted(rows.items()) if "log_perplexity" in row]


class Kept(Callback):
    """Saves the weights of every evaluation as a model of the run, `RUN@UPDATES` where a model is named."""

    def __init__(self, run: "Run", tokenizer: Tokenizer) -> None:
        self.run, self.tokenizer = run, tokenizer

    def on_evaluation(self, step: int, numbers: Mapping[str, float], model: Transformer) -> None:
        """Save the model; a run that is resumed writes the same again."""
        self.run.model(LanguageModel(model, self.tokenizer), checkpoint_name(step))


def _corpus(settings: Settings, run: "Run", name: str) -> Corpus:
    return Corpus(settings, name, texts.material(settings, run.needed[texts.UNIT], name))


def _train(
    settings: Settings,
    run: "Run",
    name: str,
    model: Transformer,
    batches: PackedBatches,
    rate: float,
    steps: int,
    *,
    place: str = "model",
    evaluate: Callable[[], dict[str, float]] | None = None,
    callbacks: Sequence[Callback] = (),
) -> float:
    """Train a model over a complete schedule; return the seconds it took. With `evaluate` the run logs every checkpoint."""
    done = train(
        model,
        batches,
        settings=TrainSettings(
            steps=steps,
            learning_rate=rate,
            schedule="linear",
            final_fraction=0.0,
            warmup=math.ceil(settings.warmup * steps),
            weight_decay=settings.weight_decay,
            accumulation=settings.accumulation,
            precision=settings.precision,
            evaluate_every=steps // settings.checkpoints if evaluate is not None else 0,
            log_every=max(1, steps // 50),
        ),
        evaluate=evaluate,
        callbacks=callbacks,
        log=run.log if evaluate is not None else None,
        checkpoints=run.checkpoints / place,
        resume=True,
        seed=run.seed,
        label=f"{name} lr {rate:.2g}",
    )
    return done.seconds


def run(settings: Settings, run: "Run") -> None:
    """Put the languages of one seed together."""
    records = {name: run.arms[name] for name in settings.languages}
    for name, record in records.items():
        for key, value in record.results.items():
            run.result(f"{name}.{key}", value)
    run.result("unigram_loss", run.arms[texts.UNIT].results["unigram_loss"])
    tables = {name: record.tables["checkpoints"] for name, record in records.items()}
    for key, value in comparison.compared(run.results, tables, settings.n_layers).items():
        run.result(key, value)
    run.table(
        "languages",
        [
            {
                "language": name,
                "perplexity": record.results["perplexity"],
                "marker, bits": record.results.get("marker"),
                "difference, bits": record.results.get("difference"),
                "right number": record.results.get("right"),
                "learning rate": record.results["learning_rate"],
                "seconds": record.results["seconds"],
            }
            for name, record in records.items()
        ],
        "Every language at the end; perplexities are compared within a family alone",
    )


def summarise(settings: Settings, study: "Study") -> None:
    """Add the figures over all seeds."""
    pictures.add(settings, study)
