"""One model of the study: its facts, its tokenizer, its training, what it holds, and what is left of that in few bits."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gpt2lab.model import Transformer, attach
from gpt2lab.model.quantization import GPTQ, Quantized, calibrate
from gpt2lab.papers.knowledge_capacity.evaluation import FieldLosses, field_losses, used_ids
from gpt2lab.papers.knowledge_capacity.exposures import (
    ExposureBatches,
    FreshPeople,
    Marked,
    PersonRows,
    Rows,
    Told,
    WindowRows,
)
from gpt2lab.papers.knowledge_capacity.facts import fact_source, symbol_tokenizer
from gpt2lab.papers.knowledge_capacity.measure import measurement
from gpt2lab.papers.knowledge_capacity.models import shape_config
from gpt2lab.papers.knowledge_capacity.parameters import count_parameters
from gpt2lab.papers.knowledge_capacity.study.settings import Cell, Settings
from gpt2lab.text.generators.biographies import Biographies
from gpt2lab.text.generators.fact_text import FactSource
from gpt2lab.text.generators.random_facts import RandomFacts
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from gpt2lab.training import TrainSettings, train

if TYPE_CHECKING:
    from gpt2lab.measures.measurement import Measurement
    from gpt2lab.runs.run import Run

MARK = "domain"
_POINTS = 10
"""Evaluations while training."""
_JUNK_SEED = 1 << 20
"""Of the people of the junk: no seed of a study."""
_TOKENIZER_PEOPLE, _TOKENIZER_SEED = 2000, 1 << 21
_CALIBRATION = 1000
"""Texts that GPTQ is calibrated on, as in the paper."""
_ROW = 1 << 22
ROUNDINGS: dict[str, tuple[Quantized, GPTQ | None]] = {
    "int8": (Quantized(bits=8, scheme="asymmetric", group=_ROW), None),
    "int4": (Quantized(bits=4, scheme="asymmetric", group=_ROW), None),
    "int8_gptq": (Quantized(bits=8, scheme="symmetric", group=_ROW), GPTQ(act_order=True)),
    "int4_gptq": (Quantized(bits=4, scheme="symmetric", group=_ROW), GPTQ(act_order=True)),
}
"""How the matrices of the blocks are rounded, with one grid a row: to the nearest level, and by GPTQ with the defaults of
AutoGPTQ's class; on texts of the model's own people."""


@dataclass(frozen=True)
class Material:
    """The facts of one model and how they are read."""

    source: FactSource
    tokenizer: Tokenizer
    batches: ExposureBatches


def material(settings: Settings, cell: Cell, seed: int) -> Material:
    """Return the people of a seed, the tokenizer, and the batches in the order of the seed."""
    plain = fact_source(f"{cell.facts}:{cell.people}:{seed}")
    source: FactSource = Marked(plain, MARK) if cell.junk == "marked" else plain
    tokenizer = _tokenizer(settings, cell.facts)
    junk = _junk(settings, cell, seed)
    return Material(
        source,
        tokenizer,
        ExposureBatches(
            _rows(settings, cell.facts, source, tokenizer, seed),
            batch_size=cell.batch_size,
            junk=None if junk is None else _rows(settings, cell.facts, junk, tokenizer, seed),
            junk_size=cell.batch_size * settings.junk_ratio if junk is not None else 0,
        ),
    )


def _junk(settings: Settings, cell: Cell, seed: int) -> Told | None:
    """People of another seed: always the same few, or others each time."""
    if cell.junk == "none":
        return None
    few = settings.repeated_people if cell.junk == "repeated" else cell.people
    source = fact_source(f"{cell.facts}:{few}:{_JUNK_SEED * (seed + 1)}")
    assert isinstance(source, Biographies | RandomFacts)
    return source if cell.junk == "repeated" else FreshPeople(source)


def _tokenizer(settings: Settings, facts: str) -> Tokenizer:
    """The same for every model and seed of one source: of its words, or trained on people of no seed."""
    source = fact_source(f"{facts}:{_TOKENIZER_PEOPLE}:{_TOKENIZER_SEED}")
    if isinstance(source, RandomFacts) and source.style == "symbols":
        return symbol_tokenizer(source, MARK)
    return train_bpe(
        [*source.inventory(), f" {MARK}", *(told.text for told in source.told(0))], settings.vocab_size
    )


def _rows(settings: Settings, facts: str, source: Told, tokenizer: Tokenizer, seed: int) -> Rows:
    if facts == "biod-symbols":
        return PersonRows(source, tokenizer, seed=seed)
    return WindowRows(source, tokenizer, context=settings.context, seed=seed)


def new_model(settings: Settings, cell: Cell, tokenizer: Tokenizer, seed: int) -> Transformer:
    """Return a cell's model with the initial weights of a seed."""
    config = shape_config(
        cell.shape, vocab_size=tokenizer.vocab_size, n_layers=settings.n_layers, n_heads=settings.n_heads,
        d_head=settings.d_head, context=settings.context, eos=tokenizer.eos,
    )  # fmt: skip
    return Transformer(config, generator=torch.Generator().manual_seed(seed))


def fit(
    settings: Settings,
    cell: Cell,
    run: "Run",
    rate: float,
    *,
    share: float = 1.0,
    name: str = "model",
    log: Callable[..., None] | None = None,
) -> tuple[LanguageModel, Material]:
    """Train a cell's model on the run's seed over a complete schedule of `share` of its exposures."""
    text = material(settings, cell, run.seed)
    lm = LanguageModel(new_model(settings, cell, text.tokenizer, run.seed).to(run.device), text.tokenizer)
    steps = max(1, text.batches.batches_for(max(1, round(share * cell.exposures))))

    def evaluate() -> dict[str, float]:
        return {"bits_per_parameter": measured(settings, cell, lm, text, draws=1)["bits_per_parameter"]}

    train(
        lm.model,
        text.batches,
        settings=TrainSettings(
            steps=steps,
            learning_rate=rate,
            warmup=min(1000, math.ceil(settings.warmup * steps)),
            weight_decay=settings.weight_decay,
            betas=(0.9, 0.999),  # "default" in the paper
            precision=settings.precision,  # type: ignore[arg-type]  # checked by TrainSettings
            evaluate_every=max(1, steps // _POINTS) if log else 0,
            log_every=max(1, steps // 50),
            checkpoint_every=max(1, steps // 4),
        ),
        evaluate=evaluate if log else None,
        log=log,
        checkpoints=run.checkpoints / name,
        resume=True,
        seed=run.seed,
        label=f"{cell.name} lr {rate:.2g}",
    )
    return lm, text


def losses_of(settings: Settings, lm: LanguageModel, text: Material, *, draws: int) -> FieldLosses:
    """Return a model's losses on the fields of its own facts."""
    return field_losses(lm, text.source, draws=draws, limit=settings.limit, batch_size=128)


def measured(
    settings: Settings, cell: Cell, lm: LanguageModel, text: Material, *, draws: int | None = None
) -> "Measurement":
    """Measure how many bits of its own facts a model holds."""
    losses = losses_of(settings, lm, text, draws=draws or settings.draws)
    parameters = count_parameters(lm.model, used_ids(text.tokenizer, text.source))
    return measurement(text.source.information, losses, parameters, about={"facts": cell.facts})


def rounded(settings: Settings, cell: Cell, lm: LanguageModel, text: Material) -> dict[str, float]:
    """Return the bits for each parameter that are left after each rounding of the blocks' matrices."""
    found = {}
    for name, (how, gptq) in ROUNDINGS.items():
        made = LanguageModel(copy.deepcopy(lm.model), lm.tokenizer)
        if gptq is None:
            attach(made.model, how)
        else:
            count = math.ceil(min(cell.people, _CALIBRATION) / cell.batch_size)
            batches = [text.batches[i]["tokens"].to(lm.model.device) for i in range(count)]
            calibrate(made.model, how, batches, gptq)
        found[name] = measured(settings, cell, made, text)["bits_per_parameter"]
    return found
