"""The study on real stories: the same loader, loop and graders on text that no grammar made.

A byte-level BPE is trained on the training stories and reduced to its most frequent ids; two or more small models
and one larger reference model are trained, the reference on stories of its own. Losses are compared in bits per
byte. A sample of a thousand stories is far too small for fluent text, so the study gives no verdict there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.held_out import scores_loss
from gpt2lab.measures.scoring import Row, score_rows
from gpt2lab.model import Transformer
from gpt2lab.papers.tinystories import corpus
from gpt2lab.papers.tinystories.diversity import originality
from gpt2lab.papers.tinystories.free_text import FreeTextGrader, check_disjoint, check_reference, name_cloze
from gpt2lab.papers.tinystories.grader import sample_stories
from gpt2lab.papers.tinystories.grading import calibrate
from gpt2lab.papers.tinystories.models import story_config
from gpt2lab.papers.tinystories.study.settings import RealSettings
from gpt2lab.text.batches import ArrayTokens, PackedBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.language_model import load as load_folder
from gpt2lab.text.reduction import ReducedTokenizer, count_tokens, reduce_vocabulary
from gpt2lab.text.splits import TRAIN, HashRule, by_hash
from gpt2lab.text.tokenizer import train_bpe
from gpt2lab.text.tokenizer_files import load_tokenizer
from gpt2lab.training import TrainSettings, train

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.runs.run_record import RunRecord

REFERENCE = "reference"
WHY_NO_VERDICT = (
    "on real stories the claim cannot be measured exactly, and a small sample gives no fluent text at all: this run "
    "shows the loader, loss curves, bits per byte and what the free-text grader says"
)


class _Shape(NamedTuple):
    name: str
    d_model: int
    n_layers: int
    learning_rate: float


def _shapes(settings: RealSettings) -> list[_Shape]:
    if len(settings.widths) != len(settings.depths) or not settings.widths:
        raise LabError("real.widths and real.depths belong together, one width for each depth")
    graded = [
        _Shape(f"real_d{d}_l{n}", d, n, settings.learning_rate)
        for d, n in zip(settings.widths, settings.depths, strict=True)
    ]
    rate = settings.reference_learning_rate
    return [_Shape(REFERENCE, settings.reference_width, settings.reference_depth, rate), *graded]


def arms(settings: RealSettings) -> list[str]:
    """Return the names of the models: the reference first, it takes longest."""
    return [shape.name for shape in _shapes(settings)]


@dataclass(frozen=True)
class RealCorpus:
    """Real stories of one seed, split three ways, and the reduced tokenizer of the graded models' stories."""

    train: list[str]
    reference: list[str]
    """Training stories of the reference model; none of them is in `train`."""
    held_out: list[str]
    tokenizer: ReducedTokenizer

    def stream(self, stories: Sequence[str]) -> list[int]:
        """Return the ids of stories one after the other, each ended by the end-of-text token."""
        assert self.tokenizer.eos is not None
        eos = self.tokenizer.eos
        return [i for ids in self.tokenizer.encode_batch(stories) for i in (*ids, eos)]


def real_corpus(settings: RealSettings, data: str, seed: int) -> RealCorpus:
    """Read, split and encode real stories; the split depends on the seed. LabError for fewer than 40 stories."""
    stories = corpus.stories_of(data)
    if len(stories) < 40:
        raise LabError(f"{data}: {len(stories)} stories; the study on real stories needs at least 40")
    rest, held_out = _split(stories, settings.valid_fraction, f"held out {seed}")
    training, reference = _split(rest, settings.reference_share, f"reference {seed}")
    check_disjoint(reference, training)
    base = (
        load_tokenizer(settings.tokenizer) if settings.tokenizer else train_bpe(training, settings.bpe_size)
    )
    if base.eos is None:
        raise LabError(
            f"{settings.tokenizer}: this tokenizer has no end-of-text token to separate stories with"
        )
    eos = base.eos
    counts = count_tokens(([*ids, eos] for ids in base.encode_batch(training)), base)
    reduction = reduce_vocabulary(counts, size=settings.vocabulary, eos=eos)
    return RealCorpus(training, reference, held_out, ReducedTokenizer(base, reduction))


def _split(stories: Sequence[str], share: float, salt: str) -> tuple[list[str], list[str]]:
    rule = HashRule("sha256", order="big", salt=salt)
    parts = by_hash(stories, {"held out": share}, key=str, rule=rule)
    return parts[TRAIN], parts["held out"]


def run_arm(settings: RealSettings, data: str, arm: str, run: "Run") -> None:
    """Train one model on real stories and report its loss in bits per byte."""
    shape = next(item for item in _shapes(settings) if item.name == arm)
    made = real_corpus(settings, data, run.seed)
    stories = made.reference if arm == REFERENCE else made.train
    ids = made.stream(stories)
    config = story_config(
        shape.d_model, shape.n_layers, vocab_size=made.tokenizer.vocab_size, n_heads=settings.n_heads,
        max_positions=settings.context, eos=made.tokenizer.eos, bos=made.tokenizer.eos,
    )  # fmt: skip
    # another seed for the reference: it must not share more with the graded models than the language
    seed = run.seed + 1000 * (arm == REFERENCE)
    model = Transformer(config, generator=torch.Generator().manual_seed(seed)).to(run.device)
    lm = LanguageModel(model, made.tokenizer)
    batches = PackedBatches(
        ArrayTokens(ids), batch_size=settings.batch_size, context=settings.context, seed=seed
    )
    per_update = settings.batch_size * settings.context * settings.accumulation
    steps = max(1, round(settings.epochs * len(ids) / per_update)) if settings.epochs else settings.steps
    rate = _RateOfBits(lm, made.held_out)
    train(
        model,
        batches,
        settings=TrainSettings(
            steps=steps,
            learning_rate=shape.learning_rate,
            schedule="constant" if settings.schedule == "constant" else "linear",
            final_fraction=0.0,
            warmup=min(30, steps),
            accumulation=settings.accumulation,
            evaluate_every=max(1, steps // 8),
            checkpoint_every=settings.checkpoint_every,
        ),
        evaluate=rate.evaluate,
        log=run.log,
        checkpoints=run.checkpoints if settings.checkpoint_every else None,
        resume=settings.checkpoint_every > 0,
        seed=seed,
        label=run.id,
    )
    found = rate.evaluate()
    run.result("bits_per_byte", found["bits_per_byte"])
    run.result("loss", found["validation_loss"])
    run.result("unk_share", found["unk_share"])
    run.result("epochs", steps * per_update / len(ids))
    run.result("train_tokens", len(ids))
    for name, count in model.count_parameters().items():
        run.result(f"parameters_{name}", count)
    run.model(lm)


class _RateOfBits:
    """Loss of held-out stories per token and per byte."""

    def __init__(self, lm: LanguageModel, stories: Sequence[str]) -> None:
        self.lm = lm
        tokenizer = lm.tokenizer
        assert isinstance(tokenizer, ReducedTokenizer)
        assert tokenizer.eos is not None
        encoded = [[tokenizer.eos, *ids, tokenizer.eos] for ids in tokenizer.encode_batch(stories)]
        longest = lm.config.max_positions + 1
        kept = [ids[:longest] for ids in encoded]
        self.rows = [Row(torch.tensor(ids), len(ids) - 1) for ids in kept]
        shares = [(len(cut) - 1) / (len(ids) - 1) for cut, ids in zip(kept, encoded, strict=True)]
        self.bytes = sum(len(story.encode()) * share for story, share in zip(stories, shares, strict=True))
        tokens = [i for ids in kept for i in ids[1:]]
        self.unk_share = tokens.count(tokenizer.reduction.unk) / len(tokens)

    def evaluate(self) -> dict[str, float]:
        """Return nats per token, bits per byte and the share of <unk> that neither of them counts in full."""
        scores = score_rows(self.lm.model, self.rows, batch_size=16, label="held-out")
        found = scores_loss(scores, n_bytes=self.bytes)
        return {
            "validation_loss": found.loss,
            "bits_per_byte": found.bits_per_byte,
            "unk_share": self.unk_share,
        }


def run_seed(settings: RealSettings, data: str, run: "Run") -> None:
    """Grade what the models write, beside the grader's own calibration."""
    made = real_corpus(settings, data, run.seed)
    reference = load_folder(run.arms[REFERENCE].folder / "model")
    grader = FreeTextGrader(reference, made.held_out, seed=run.seed)
    calibration = calibrate(grader.grades, grader.calibration_stories, made.train, seed=run.seed + 1)
    run.table("calibration", calibration.rows(), "The offline grader on texts of known quality, grades of 10")
    run.result("reference.bits_per_byte", run.arms[REFERENCE].results["bits_per_byte"])
    run.result("grader.void", len(calibration.void()))
    rows: list[dict[str, object]] = []
    for name, record in run.arms.items():
        if name != REFERENCE:
            rows.append(_grade(settings, name, record, made, grader, reference, run))
            void = calibration.void()
            rows[-1] |= dict.fromkeys(void, math.nan)
    run.table("models", rows, "Graded models; a grade that the calibration makes void is left out")
    statistics = corpus.corpus_statistics(made.train)
    facts = [{"": name, "value": value} for name, value in vars(statistics).items() if name != "common"]
    facts.append({"": "most frequent words", "value": " ".join(word for word, _ in statistics.common)})
    facts.append({"": "share of the stream that is not <unk>", "value": made.tokenizer.reduction.coverage})
    run.table("corpus", facts, "The training stories")


def _grade(
    settings: RealSettings,
    name: str,
    record: "RunRecord",
    made: RealCorpus,
    grader: FreeTextGrader,
    reference: LanguageModel,
    run: "Run",
) -> dict[str, object]:
    lm = load_folder(record.folder / "model")
    check_reference(reference, lm)
    drawn = sample_stories(
        lm,
        settings.samples,
        temperature=settings.temperature,
        seed=run.seed,
        max_new_tokens=settings.max_new_tokens,
    )
    texts = [story.text for story in drawn]
    stops = sum(story.finished == "eos" for story in drawn) / len(drawn)
    model = name.removeprefix("real_")
    cloze, _ = name_cloze(lm, made.held_out)
    written = [text for text in texts if text.strip()]
    copied = originality(written, made.train).nearest_rouge_2 if written else math.nan
    row: dict[str, object] = {
        "model": model, "parameters": record.results["parameters_total"], "bits per byte": record.results["bits_per_byte"],
        **grader.grades(texts), "stops": stops, "name cloze": cloze, "nearest Rouge-2": copied,
        "held-out nearest Rouge-2": originality(made.held_out[: len(texts)], made.train).nearest_rouge_2,
    }  # fmt: skip
    for key in ("bits_per_byte", "loss", "unk_share"):
        run.result(f"{model}.{key}", record.results[key])
    run.result(f"{model}.stops", stops)
    run.text(f"samples_{model}", "\n\n".join(texts[:6]), f"Stories of {model}")
    return row
