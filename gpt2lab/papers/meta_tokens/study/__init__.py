"""Meta-tokens against plain models of the same text, a second full attention of as many weights, and metas without it.

Every arm is pre-trained on generated lists, some with metas at random places, and fine-tuned on recall tasks in which a
pause, the meta-token, stands at a place that matters. Arms of a seed read the same examples in the same order; those of
one shape begin with the same weights. Every arm tries the same learning rates once, with the tuning seed and on prompts of
their own.
"""

import math
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2lab.measures.held_out import held_out_loss
from gpt2lab.model import Transformer, TransformerConfig, attach
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.papers.meta_tokens.architecture import MetaAttention
from gpt2lab.papers.meta_tokens.bottleneck import rate_distortion
from gpt2lab.papers.meta_tokens.caching import caching
from gpt2lab.papers.meta_tokens.levels import Curriculum, examples
from gpt2lab.papers.meta_tokens.objective import MetaInjection
from gpt2lab.papers.meta_tokens.sharpness import sharpness
from gpt2lab.papers.meta_tokens.study import material as texts
from gpt2lab.papers.meta_tokens.study import pictures
from gpt2lab.papers.meta_tokens.study.claims import CLAIMS
from gpt2lab.papers.meta_tokens.study.material import Material
from gpt2lab.papers.meta_tokens.study.settings import ARMS, GRID_ARMS, PRESETS, Settings
from gpt2lab.papers.meta_tokens.task_data import TaskBatches, score
from gpt2lab.papers.meta_tokens.tasks import SHORTEST, Example
from gpt2lab.papers.meta_tokens.zeroing import zeroed
from gpt2lab.studies.graph import UnitSpec
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.training import TrainSettings, next_token, train
from gpt2lab.training.loop import NotFinite

__all__ = [
    "ARMS",
    "CLAIMS",
    "PRESETS",
    "Settings",
    "config_of",
    "model_of",
    "run",
    "summarise",
    "train_arm",
    "train_at",
    "tune",
    "units",
]

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

TUNING, TEST = "tuning prompts", "test prompts"
"""What reports call the two parts that are held out."""
_SHORT = {"list-recall": "recall", "segment-counting": "counting", "parity": "parity", "copying": "copying"}
"""Names of tasks in results."""
_RIVALS = ("plain", "full")


def units(settings: Settings) -> list[UnitSpec]:
    """Return the text, the tuning of every arm, and the arms."""
    return [
        UnitSpec(texts.UNIT, texts.prepare, shared=True),
        *(
            UnitSpec(f"tuning_{arm}", partial(tune, arm=arm), needs=(texts.UNIT,), tuning=True)
            for arm in settings.arms
        ),
        *(
            UnitSpec(arm, partial(train_arm, arm=arm), needs=(texts.UNIT, f"tuning_{arm}"))
            for arm in settings.arms
        ),
        *(
            UnitSpec(
                _at(arm, name), partial(train_at, arm=arm, length=name), needs=(texts.UNIT, f"tuning_{arm}")
            )
            for arm in GRID_ARMS
            for name in settings.grid_ranges
        ),
    ]


def _at(arm: str, length: str) -> str:
    return f"{arm}_at_{length}"


def config_of(settings: Settings, arm: str, vocabulary: int) -> TransformerConfig:
    """Return the shape of an arm's model before a second attention is attached.

    A second attention adds 4 d² weights to a block of 12 d²: as many as 2 d more hidden units of the feed-forward, or a
    third of a block.
    """
    matched, d = ARMS[arm].matched, settings.d_model
    longest = max(round(max(settings.longer) * settings.longest), *settings.grid, 0)
    rows = max(settings.context, longest + 24)
    return gpt2_config(
        vocab_size=vocabulary,
        d_model=d,
        n_layers=round(settings.n_layers * 4 / 3) if matched == "depth" else settings.n_layers,
        n_heads=settings.n_heads,
        d_mlp=6 * d if matched == "width" else 4 * d,
        max_positions=rows,
        positions=settings.positions,
        init_std=settings.init_std,
    )


def model_of(settings: Settings, arm: str, seed: int, known: Material) -> Transformer:
    """Return an arm's model with the initial weights of a seed; a second attention is drawn like the first."""
    config = config_of(settings, arm, known.tokenizer.vocab_size)
    model = Transformer(config, generator=torch.Generator().manual_seed(seed))
    kind = ARMS[arm].attention
    if kind == "none":
        return model
    token = known.encoder.pause if kind == "metas" else None
    made = MetaAttention(token=token, among=kind, draw="model")
    return attach(model, made, generator=torch.Generator().manual_seed(seed + 1))


def tune(settings: Settings, run: "Run", *, arm: str) -> None:
    """Choose an arm's learning rate in short trials by the loss of the answers of tuning prompts."""
    run.chooses("learning rate", on=TUNING)
    known = texts.prepared(run.needed[texts.UNIT])
    held_out = _prompts(settings, "tuning", run.seed)
    tried: list[dict[str, Any]] = []
    for index, rate in enumerate(settings.rates):
        model = model_of(settings, arm, run.seed, known).to(run.device)
        try:
            _train(settings, arm, run, known, model, rate, settings.trial, name=f"trial_{index}")
            loss = _answer_loss(settings, arm, known, model, held_out)
        except NotFinite:
            loss = math.inf
        tried.append({"learning_rate": rate, "loss": loss})
        run.share((index + 1) / len(settings.rates))
    best = min(tried, key=lambda row: row["loss"])
    run.table("sweep", tried, "Loss of the answers of tuning prompts, nats a token")
    run.result("learning_rate", best["learning_rate"])
    run.result("at_edge", best["learning_rate"] in (settings.rates[0], settings.rates[-1]))
    run.result("trials", len(tried))


def train_arm(settings: Settings, run: "Run", *, arm: str) -> None:
    """Pre-train and fine-tune an arm's model at its rate, and report its answers."""
    run.judges("answers", on=TEST)
    known = texts.prepared(run.needed[texts.UNIT])
    chosen = run.needed[f"tuning_{arm}"].results
    model = model_of(settings, arm, run.seed, known).to(run.device)
    seconds = _train(settings, arm, run, known, model, chosen["learning_rate"], 1.0, name="model", log=True)
    run.result("learning_rate", chosen["learning_rate"])
    run.result("at_edge", chosen["at_edge"])
    run.result("parameters", model.count_parameters()["total"])
    run.result("seconds_per_update", seconds)
    rows: list[dict[str, Any]] = []
    for task in settings.tasks:
        for name, lengths in settings.tests.items():
            tested = examples(task, settings.tested, [lengths], seed=run.seed, words=settings.words)
            found = score(model, known.encoder, tested, pauses=ARMS[arm].pauses)
            run.result(f"{_SHORT[task]}.{name}", found.share)
            run.result(f"{_SHORT[task]}.tokens.{name}", found.tokens)
            rows.append(
                {
                    "task": task,
                    "words of a prompt": f"{lengths[0]} to {lengths[1]}",
                    "exact": found.share,
                    "tokens": found.tokens,
                }
            )
    run.table("answers", rows, "Share of prompts answered exactly, and of answer tokens that are right")
    if arm == "meta":
        _look_inside(settings, run, known, model)


def train_at(settings: Settings, run: "Run", *, arm: str, length: str) -> None:
    """Train an arm on prompts up to one length of the grid, at its rate, and report its answers at all of them."""
    run.judges("answers", on=TEST)
    known = texts.prepared(run.needed[texts.UNIT])
    ranges = settings.grid_ranges
    model = model_of(settings, arm, run.seed, known).to(run.device)
    rate = run.needed[f"tuning_{arm}"].results["learning_rate"]
    trained = replace(settings, ranges=((SHORTEST, ranges[length][1]),), tasks=("list-recall",))
    _train(trained, arm, run, known, model, rate, 1.0, name="model")
    for name, lengths in ranges.items():
        tested = examples("list-recall", settings.tested, [lengths], seed=run.seed, words=settings.words)
        run.result(name, score(model, known.encoder, tested, pauses=ARMS[arm].pauses).share)


def _train(
    settings: Settings, arm: str, run: "Run", known: Material, model: Transformer, rate: float, share: float, *,
    name: str, log: bool = False,
) -> float:  # fmt: skip
    """Pre-train and fine-tune over complete schedules of a share of the updates; return seconds an update of fine-tuning."""
    kind = ARMS[arm]
    token = known.encoder.pause
    objective = (
        MetaInjection(token=token, fraction=settings.fraction, seed=run.seed) if kind.inject else next_token
    )
    updates = [max(1, round(share * count)) for count in (settings.pretrain_steps, settings.steps)]
    tasks = TaskBatches(
        encoder=known.encoder,
        tasks=settings.tasks,
        curriculum=Curriculum(ranges=settings.ranges, steps=updates[1]),
        batch_size=settings.batch_size,
        words=settings.words,
        pauses=kind.pauses,
        seed=run.seed,
    )
    done = None
    for stage, batches, count in (
        ("pretrain", known.pretraining(settings, run.seed), updates[0]),
        ("finetune", tasks, updates[1]),
    ):
        done = train(
            model,
            batches,
            settings=TrainSettings(
                steps=count,
                learning_rate=rate,
                warmup=math.ceil(settings.warmup * count),
                weight_decay=settings.weight_decay,
                accumulation=settings.accumulation if stage == "pretrain" else 1,
                precision=settings.precision,
                log_every=max(1, count // 50),
            ),
            objective=objective if stage == "pretrain" else next_token,
            log=run.log if log and stage == "finetune" else None,
            checkpoints=run.checkpoints / name / stage,
            resume=True,
            seed=run.seed,
            label=f"{arm} {stage} lr {rate:.2g}",
        )
    assert done is not None
    return done.seconds / done.steps if done.steps else math.nan


def _prompts(settings: Settings, part: str, seed: int) -> list[Example]:
    """Return prompts of trained lengths of every task."""
    count = max(1, settings.tested // 2)
    return [
        one
        for task in settings.tasks
        for one in examples(task, count, [settings.tests["x1"]], seed=seed, part=part, words=settings.words)
    ]


def _answer_loss(
    settings: Settings, arm: str, known: Material, model: Transformer, prompts: list[Example]
) -> float:
    kept = [one if ARMS[arm].pauses else one.without_pauses() for one in prompts]
    parts = (kept[start : start + 64] for start in range(0, len(kept), 64))
    fed = (
        {name: x for name, x in known.encoder.batch(part).items() if name != "meta_positions"}
        for part in parts
    )
    return held_out_loss(model, fed).loss


def _look_inside(settings: Settings, run: "Run", known: Material, model: Transformer) -> None:
    """Zero metas, compare entropies, find what metas hold, and how much their states tell of the answer; keep the model."""
    token, gains, rows = known.encoder.pause, dict[str, list[float]](), list[dict[str, Any]]()
    for name, lengths in settings.tests.items():
        tested = examples("list-recall", settings.tested, [lengths], seed=run.seed, words=settings.words)
        row: dict[str, Any] = {
            "words of a prompt": f"{lengths[0]} to {lengths[1]}",
            "full": run.results[f"recall.{name}"],
        }
        for what in ("no_pos", "no_embed"):
            with zeroed(model, what, token=token):
                row[what] = score(model, known.encoder, tested).share
            run.result(f"{what}.{name}", row[what])
            gains.setdefault(what, []).append(row[what] - row["full"])
        rows.append(row)
    run.table(
        "zeroing",
        rows,
        "Share answered exactly: full, without the position of metas, without their embedding",
    )
    for what, values in gains.items():
        run.result(f"{what}_gain", fmean(values))
    looked = examples(
        "list-recall", settings.looked_at, [settings.tests["x1"]], seed=run.seed, words=settings.words
    )
    batch = known.encoder.batch(looked)
    sharp = sharpness(model, batch["tokens"], mask=batch["attention_mask"], token=token)
    for name, value in (
        ("entropy", sharp.entropy), ("entropy_drop", sharp.drop), ("score_boost", sharp.boost), ("sharper", sharp.sharper),
    ):  # fmt: skip
        run.result(name, value)
    run.array("entropy_drops", sharp.drops.numpy(), "Drop in entropy by row of attention, nats")
    run.array("score_boosts", sharp.boosts.numpy(), "Rise of the largest score by row of attention")
    held = caching(model, batch["tokens"], mask=batch["attention_mask"], token=token, distance=12)
    for kind, cosines in zip(("embeddings", "states"), held, strict=True):
        run.array(f"caching_{kind}", cosines.numpy(), f"Cosine of metas with {kind} by block and distance")
    _bottlenecks(settings, run, known, model)
    run.model(LanguageModel(model, known.tokenizer))


def _bottlenecks(settings: Settings, run: "Run", known: Material, model: Transformer) -> None:
    """Train a bottleneck on the state of the last meta, and one on that of the ordinary token before it."""
    count = settings.bottleneck_examples
    parts = []
    for part, seed in (("train", run.seed + 2), ("test", run.seed)):
        rows = examples(
            "list-recall", count, [settings.tests["x1"]], seed=seed, part=part, words=settings.words
        )
        parts.append((_states(model, known, rows), [known.encoder.ids(one.answer)[0] for one in rows]))
    classes = {
        answer: place for place, answer in enumerate(sorted({a for _, answers in parts for a in answers}))
    }
    answers = [torch.tensor([classes[one] for one in found]) for _, found in parts]
    table: list[dict[str, Any]] = []
    sums = {}
    for place, arm in enumerate(("meta", "token")):
        train, test = ((states[place], known_) for (states, _), known_ in zip(parts, answers, strict=True))
        found = rate_distortion(train, test, len(classes), settings.bottleneck)
        table += [{"state": arm, **row} for row in found]
        sums[arm] = fmean(row["sum"] for row in found)
    run.table(
        "rate_distortion",
        table,
        "Rate and distortion in nats on test prompts, by price beta of a nat of rate",
    )
    run.result("bottleneck_gain", sums["token"] - sums["meta"])


@torch.no_grad()
def _states(model: Transformer, known: Material, rows: list[Example]) -> tuple[Tensor, Tensor]:
    """Last states of the last meta of each prompt, and of the ordinary token before it, each [n, d_model]."""
    metas, tokens = list[Tensor](), list[Tensor]()
    for start in range(0, len(rows), 64):
        batch = known.encoder.batch(rows[start : start + 64])
        hidden = model.eval().hidden_of({name: x.to(model.device) for name, x in batch.items()}).float().cpu()
        place = torch.arange(batch["tokens"].shape[1])
        last = torch.where(batch["meta_positions"], place, -1).max(1).values
        ordinary = torch.where(~batch["meta_positions"] & (place < last[:, None]), place, -1).max(1).values
        index = torch.arange(len(hidden))
        metas.append(hidden[index, last])
        tokens.append(hidden[index, ordinary])
    return torch.cat(metas), torch.cat(tokens)


def run(settings: Settings, run: "Run") -> None:
    """Put the arms of one seed together."""
    records = {arm: run.arms[arm] for arm in settings.arms}
    for arm, record in records.items():
        for name, value in record.results.items():
            run.result(f"{arm}.{name}", value)
    for arm in GRID_ARMS:
        for trained in settings.grid_ranges:
            for tested, share in run.arms[_at(arm, trained)].results.items():
                run.result(f"{arm}.grid.{trained}.{tested}", share)
    for name in settings.tests:
        rivals = max(run.results[f"{arm}.recall.{name}"] for arm in _RIVALS)
        run.result(f"rivals.recall.{name}", rivals)
        run.result(f"max_recall.{name}", max(run.results[f"{arm}.recall.{name}"] for arm in settings.arms))
        run.result(f"lead.{name}", run.results[f"meta.recall.{name}"] - rivals)
        for arm in settings.arms:
            if arm != "meta":
                over = run.results[f"meta.recall.{name}"] - run.results[f"{arm}.recall.{name}"]
                run.result(f"over.{arm}.{name}", over)
    rows = [
        {
            "arm": arm,
            **{f"recall, {name}": record.results[f"recall.{name}"] for name in settings.tests},
            "learning rate": record.results["learning_rate"],
            "parameters": int(record.results["parameters"]),
            "seconds an update": record.results["seconds_per_update"],
        }
        for arm, record in records.items()
    ]
    run.table(
        "arms", rows, "Every arm: share of list-recall prompts answered exactly by length, and its cost"
    )


def summarise(settings: Settings, study: "Study") -> None:
    """Add the figures over all seeds."""
    pictures.add(settings, study)
