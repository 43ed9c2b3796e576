"""The study: one small model of generated stories, whose continuations are drawn with and without the method."""

from dataclasses import dataclass

import torch

from gpt2lab import decode
from gpt2lab.measures.text_metrics import distinct_n, ngrams, tokens_of
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.runs.run import Run
from gpt2lab.studies.claim import Above, AtLeast, Claim
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.sources import documents
from gpt2lab.text.tokenizer import word_level
from gpt2lab.training import TrainSettings, adamw, next_token, train

from .decoder import ExampleDecoder


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The model, and what is drawn from it."""

    stories: int = 3000
    """Generated training stories; a tenth as many more give the prompts."""
    d_model: int = 64
    """Width of the model, of two blocks."""
    steps: int = 400
    """Updates."""
    texts: int = 100
    """Continuations of either decoder."""
    new_tokens: int = 40
    """Tokens of a continuation."""
    epsilon: float = 0.02
    """The method's threshold."""


PRESETS = {"smoke": Settings(stories=100, d_model=16, steps=20, texts=8, new_tokens=12), "laptop": Settings()}

LEARNT = "loss.trained < loss.start - 0.3"  # else there is nothing to draw from

CLAIMS = [
    Claim(
        "Without the improbable tokens, texts are more like those of the training data",
        name="A",
        fixed="2026-12-01",  # before the run
        measure="seen.method - seen.sampling",
        quantity="share of triples of words seen in training, the method's minus plain sampling's",
        holds_if=Above(0.0),
        needs=LEARNT,
        unit="share of the triples of words that occur in training",
        paper="section 3",
    ),
    Claim(
        "This costs little variety",
        name="B",
        fixed="2026-12-01",  # before the run
        measure="distinct.method / distinct.sampling",
        quantity="distinct pairs of words of the method over those of plain sampling",
        holds_if=AtLeast(0.9),
        needs=LEARNT,
        unit="distinct pairs of words, as a share of plain sampling's",
        paper="section 5",
    ),
]


def run(settings: Settings, run: Run) -> None:
    """Train a model, draw from it twice with the same random numbers, count."""
    texts = list(documents(f"tinyworld:{settings.stories + settings.stories // 10}"))
    lm = _trained(texts, settings, run)
    known = {triple for text in texts[: settings.stories] for triple in ngrams(tokens_of(text), 3)}
    held_out = texts[settings.stories :]
    prompts = [" ".join(held_out[i % len(held_out)].split()[:6]) for i in range(settings.texts)]
    decoders = {
        "method": ExampleDecoder(epsilon=settings.epsilon),
        "sampling": ExampleDecoder(epsilon=0.0),
    }
    for name, decoder in decoders.items():
        drawn = decode.generate(
            lm, prompts, decoder=decoder, max_new_tokens=settings.new_tokens, seed=run.seed, stop_at_eos=False
        )
        triples = [triple for text in drawn for triple in ngrams(tokens_of(text.text), 3)]
        run.result(f"seen.{name}", sum(triple in known for triple in triples) / max(len(triples), 1))
        run.result(f"distinct.{name}", distinct_n([text.text for text in drawn], 2))
        run.text(name, "\n\n".join(map(str, drawn[:5])), caption=f"The first continuations, {name}")


def _trained(texts: list[str], settings: Settings, run: Run) -> LanguageModel:
    """Train a small model on all texts but the last, and report its loss on those, in nats per token."""
    tokenizer = word_level(texts)
    assert tokenizer.eos is not None
    rows = [[*tokenizer.encode(text), tokenizer.eos] for text in texts]
    batches = SequenceBatches(rows[: settings.stories], batch_size=16, seed=run.seed)
    held_out = SequenceBatches(rows[settings.stories :], batch_size=settings.stories // 10, shuffle=False)
    config = gpt2_config(
        vocab_size=tokenizer.vocab_size, d_model=settings.d_model, n_layers=2, n_heads=4, max_positions=256
    )
    model = Transformer(config, generator=torch.Generator().manual_seed(run.seed)).to(run.device)

    def evaluate() -> dict[str, float]:
        batch = {name: tensor.to(run.device) for name, tensor in held_out[0].items()}
        with torch.no_grad():
            return {"validation_loss": float(next_token(model, batch)[0])}

    loop = TrainSettings(steps=settings.steps, learning_rate=3e-3, warmup=settings.steps // 10)
    run.result("loss.start", evaluate()["validation_loss"])
    done = train(
        model,
        batches,
        settings=loop,
        optimizer=adamw(model, loop),
        evaluate=evaluate,
        log=run.log,
        checkpoints=run.checkpoints,
        resume=True,
        seed=run.seed,
    )
    run.result("loss.trained", done.validation["validation_loss"])
    return LanguageModel(model.eval(), tokenizer)
