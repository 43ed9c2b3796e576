"""Take the norms out of a language model: fine-tune while they are frozen one after another, then fold them away."""

import copy
import hashlib
import itertools
import math
import warnings
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.base.wording import listed
from gpt2lab.measures.held_out import windows_loss
from gpt2lab.model import Transformer, attach
from gpt2lab.model.interpret.artefacts import model_hash
from gpt2lab.papers.layernorm_removal.architecture import (
    StagedNorms,
    calibrate,
    fire,
    require_plain,
    stage_of,
    unit_table,
)
from gpt2lab.papers.layernorm_removal.fold import compatible, folded, require_foldable, require_staged
from gpt2lab.papers.layernorm_removal.massive import (
    FirstEvent,
    Widest,
    explained,
    is_massive,
    refuse_massive,
    widest_token,
)
from gpt2lab.papers.layernorm_removal.objective import EvenLogScales, EvenScales
from gpt2lab.papers.layernorm_removal.schedule import RECIPES, Recipe, Schedule, fitted, require_length
from gpt2lab.text import sources
from gpt2lab.text.batches import ArrayTokens, PackedBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.splits import PositionRule
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.transform import Journal, TrainingTransform, refuse_other_work

Output = Literal["folded", "compatible", "staged"]
_HELD_OUT, _HELD_OUT_TOKENS = PositionRule(20, 1), 65_536


@dataclass(frozen=True, kw_only=True)
class FoldLayerNorm:
    """Make a model without norms, or a compatible export, of one with frozen norms (staged, or a compatible export)."""

    output: Literal["folded", "compatible"] = "folded"
    """folded: no norms, gpt2lab's own layout. compatible: the family's layout with eps 1e12, which transformers opens."""

    def __call__(self, lm: LanguageModel) -> LanguageModel:
        """Return the new model, in the given one's type; compatible in float32 at least. LabError while a norm is real."""
        require_staged(lm.model)
        if self.output == "folded":
            return LanguageModel(folded(lm.model), lm.tokenizer)
        wide = torch.promote_types(lm.model.dtype, torch.float32)
        return LanguageModel(compatible(copy.deepcopy(lm.model).to(wide)), lm.tokenizer)


@dataclass(frozen=True, kw_only=True)
class RemoveLayerNorm(TrainingTransform):
    """Fine-tune a model while the standard deviation in each norm is replaced by a frozen number; then fold the norms."""

    data: tuple[str, ...] = ("docstrings",)
    """Text to fine-tune on: files, folders, hub:ID or names of built-in sources."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    preset: Literal["small", "medium", "large", "xl"] | None = None
    """The authors' settings for a size of GPT-2; none fits the schedule to steps, blocks and gates."""
    mode: Literal["full", "at-once", "instant", "control"] = "full"
    """full: path after path. at-once: all before one step. instant: without training. control: train with real norms."""
    steps: int | None = None
    """Updates; none is the preset's, or 300."""
    schedule: Schedule | None = None
    """When each path is frozen; none is the preset's, or fitted to the steps. What is not named is as for GPT-2 small."""
    penalty: float | None = None
    """Weight of the auxiliary loss; none is the preset's, or 0.1, in gated models 1: theirs evens log σ before every norm. A
    control has none unless it is given."""
    momentum: float | None = None
    """Weight of the old value in the running mean of the standard deviation; none is the preset's, or 0.9."""
    update_frozen: bool = False
    """Let the constants of frozen norms follow the running mean too."""
    special_positions: bool = False
    """Give position 0 and ends of texts separate constants, until two late events (the predecessor's recipe)."""
    learning_rate: float | None = None
    """Peak; none is the preset's, or 6e-4. It falls to the preset's floor, or to half."""
    warmup: int | None = None
    """Warm-up updates; none is the preset's, or a twelfth of the steps."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices and embeddings."""
    batch_size: int | None = None
    """Rows of a micro-batch; none is the preset's, or 8."""
    accumulation: int | None = None
    """Micro-batches of an update; none is the preset's, or 1."""
    context: int | None = None
    """Tokens of a row; none is the model's positions, at most 1024."""
    precision: Literal["float32", "bf16", "auto"] = "auto"
    """Arithmetic of the passes; auto is bf16 on GPUs that have it."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""
    output: Output = "folded"
    """folded: no norms, own layout. compatible: the family's layout, eps 1e12, for transformers. staged: frozen norms."""
    checkpoint_every: int = 0
    """Updates between two checkpoints; 0 writes one at the end and when the run is stopped."""
    seed: int = 0
    """Seed for the order of the data and dropout."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LabError(
                    f"{name} must be at least 1, got {value}; mode instant is the one that trains nothing"
                )
        EvenScales(penalty=self.penalty or 0.0)
        StagedNorms(momentum=self._given("momentum", 0.9))

    def train(self, lm: LanguageModel, journal: Journal | None) -> LanguageModel:
        """Return the new model; `lm` stays as it is. LabError for norms that cannot be taken out, or a wrong schedule.

        Weights are trained and folded in float32 and come back in the model's own type; only a compatible export stays in
        float32, since 16 bits cannot hold it. The journal gets a row every update (cross entropy, spread, sigma before the
        last norm, gradient norm, frozen units), a note when a unit is frozen, the validation losses before and after, and
        the table of all units.
        """
        require_plain(lm.model, "remove-layernorm")
        if self.mode != "control" and self.output == "folded":
            require_foldable(lm.config)
        lm.config.require_causal("remove-layernorm")
        if lm.tokenizer is None:
            raise LabError(
                "remove-layernorm reads text, and this model has no tokenizer; put its tokenizer.json beside it"
            )
        steps = self.training().steps  # refuses what the loop would, before text is read
        self._require_length(lm, steps)
        model = copy.deepcopy(lm.model).float().requires_grad_(True)
        batches, held_out, read = self._data(lm, steps)
        if journal is not None and self.mode != "instant":
            refuse_other_work(journal, model=model_hash(lm.model), data=read)
        start = widest_token(model, batches[0]["tokens"])
        if self.mode == "instant":
            refuse_massive(model, start)
        if self.mode != "control":
            attach(
                model,
                self.staging(lm.config.n_layers, gated=lm.config.gated, massive=is_massive(model, start)),
            )
            calibrate(model, [batches[i] for i in range(8 if self.mode == "instant" else 1)])
        if self.mode == "instant":
            for unit in stage_of(model).steps:
                fire(model, unit)
        else:
            before = windows_loss(model, held_out).loss if held_out is not None else math.nan
            with explained(model, batches[0]["tokens"], start):
                self._train(model, batches, held_out, journal, start)
            after = windows_loss(model, held_out).loss if held_out is not None else math.nan
            _warn_of_harm(before, after)
            if journal is not None and held_out is not None:
                journal.result("before.validation_loss", before)
                journal.result("validation_loss", after)
        if journal is not None and self.mode != "control":
            journal.table(
                "units", unit_table(model), caption="Every norm's inputs at the end of the training"
            )
        model.eval()
        if self.mode == "control" or self.output == "staged":
            return LanguageModel(model.to(lm.model.dtype), lm.tokenizer)
        if self.output == "compatible":
            return LanguageModel(compatible(model), lm.tokenizer)
        return LanguageModel(folded(model).to(lm.model.dtype), lm.tokenizer)

    def _require_length(self, lm: LanguageModel, steps: int) -> None:
        """Refuse a schedule that the run does not reach. LabError."""
        if self.mode in ("full", "at-once"):
            schedule = self.staging(lm.config.n_layers, gated=lm.config.gated).schedule
            require_length(schedule.steps_of(lm.config.n_layers, late=self.special_positions), steps)

    def staging(self, n_layers: int, *, gated: bool = False, massive: bool = False) -> StagedNorms:
        """Return the architecture that is attached to a model of `n_layers` (gated) blocks while it trains.

        massive: whether a token of theirs stands out, which trains with the norms until it does not.
        """
        recipe = self._recipe
        schedule = self.schedule or (
            recipe.schedule
            if recipe
            else fitted(n_layers, self._steps, late=self.special_positions, gated=gated, massive=massive)
        )
        if self.mode == "at-once":
            first = min(schedule.steps_of(n_layers, late=self.special_positions).values())
            schedule = replace(schedule, start=first, mlp_gap=0, qk_gap=0, v_gap=0, events=())
        return StagedNorms(
            schedule=schedule,
            momentum=self._given("momentum", 0.9),
            update_frozen=self.update_frozen,
            special_positions=self.special_positions,
        )

    def training(self) -> TrainSettings:
        """Return the settings of the loop."""
        recipe, steps = self._recipe, self._steps
        laid_out = max(recipe.laid_out, steps) if recipe else 0
        return TrainSettings(
            steps=steps,
            laid_out=laid_out,
            learning_rate=self._given("learning_rate", 6e-4),
            final_fraction=recipe.final_fraction if recipe else 0.5,
            warmup=min(self._given("warmup", steps // 12), steps),
            weight_decay=self.weight_decay,
            betas=(0.9, 0.999),
            accumulation=self._given("accumulation", 1),
            precision=self.precision,
            gradient_checkpointing=self.gradient_checkpointing,
            checkpoint_every=self.checkpoint_every,
            log_every=1,
        )

    @property
    def _recipe(self) -> Recipe | None:
        return RECIPES[self.preset] if self.preset else None

    @property
    def _steps(self) -> int:
        return int(self._given("steps", 300))

    def _given(self, name: str, default: Any) -> Any:
        """The option if it was given, else the preset's, else `default`."""
        value = getattr(self, name)
        if value is not None:
            return value
        return getattr(self._recipe, name) if self._recipe else default

    def _train(
        self,
        model: Transformer,
        batches: PackedBatches,
        held_out: PackedBatches | None,
        journal: Journal | None,
        start: Widest,
    ) -> None:
        gated = model.config.gated
        penalty = (
            self._given("penalty", 1.0 if gated else 0.1) if self.mode != "control" else self.penalty or 0.0
        )
        guards = []
        if gated and self.mode != "control":
            first = min(stage_of(model).steps.values())
            guards.append(FirstEvent(batches[0]["tokens"], first, start))
        train(
            model,
            batches,
            settings=self.training(),
            objective=(EvenLogScales if gated else EvenScales)(penalty=penalty),
            callbacks=guards,
            evaluate=None
            if held_out is None
            else lambda: {"validation_loss": windows_loss(model, held_out).loss},
            log=None if journal is None else self._logger(model, journal),
            checkpoints=None if journal is None else journal.checkpoints,
            resume=True,
            seed=self.seed,
            label="remove-layernorm",
        )

    def _logger(self, model: Transformer, journal: Journal) -> Callable[..., None]:
        """Return what logs an update, and notes which units were frozen at its start."""
        steps = {} if self.mode == "control" else stage_of(model).steps

        def write(step: int, **numbers: float) -> None:
            journal.log(step, **numbers)
            if frozen := [unit for unit, at in steps.items() if at == step - 1]:
                journal.note(f"update {step}: frozen are {listed(frozen)}")

        return write

    def _data(self, lm: LanguageModel, steps: int) -> tuple[PackedBatches, PackedBatches | None, str]:
        """Read as much text as the run takes, and return its hash too; LabError if it does not fill a row."""
        assert lm.tokenizer is not None
        tokenizer, rows = lm.tokenizer, self._given("batch_size", 8)
        context = min(lm.model.context, 1024) if self.context is None else self.context
        if context > lm.model.context:
            raise LabError(f"context {context}: the model has {lm.model.context} positions")
        wanted = (steps if self.mode != "instant" else 8) * rows * self._given(
            "accumulation", 1
        ) * context + 1
        texts = sources.documents(self.data, field=self.field)
        read, held = split_documents(_encoded(texts, tokenizer), wanted)
        sizes = {"batch_size": rows, "context": context}
        batches = PackedBatches(ArrayTokens(read), seed=self.seed, **sizes)
        enough = len(held) > context
        validation = PackedBatches(ArrayTokens(held), shuffle=False, **sizes) if enough else None
        content = hashlib.sha256(array("i", read).tobytes() + b"/" + array("i", held).tobytes())
        return batches, validation, content.hexdigest()


def _encoded(texts: Iterator[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    """Yield each document as the tokenizer writes it, a llama's bos included, closed by its end of text."""
    end = [] if tokenizer.eos is None else [tokenizer.eos]
    while some := list(itertools.islice(texts, 64)):
        for ids in tokenizer.encode_batch(some, special=True):
            yield ids if ids[-1:] == end else [*ids, *end]


def split_documents(documents: Iterator[list[int]], wanted: int) -> tuple[Sequence[int], Sequence[int]]:
    """Return `wanted` training tokens, or all there are, and 65,536 of every 20th document (2, 22, ...) for validation."""
    read, held = array("i"), array("i")  # 4 bytes a token; in a list it would be 36
    for number, ids in enumerate(documents):
        if not _HELD_OUT.held_out(number):
            read.extend(ids)
        elif len(held) < _HELD_OUT_TOKENS:
            held.extend(ids)
        if len(read) >= wanted:
            break
    return read, held[:_HELD_OUT_TOKENS]


def _warn_of_harm(before: float, after: float) -> None:
    """Say so where a model has lost more than a nat: a token that blows up while norms are frozen can ruin it for good."""
    if math.isfinite(before) and not after <= before + 1:  # NaN is harm too
        warnings.warn(
            f"remove-layernorm: the validation loss rose from {before:.3f} to {after:.3f} nats; more steps, wider gaps or "
            "a lower learning rate may help, and the run's log shows where gradient_norm jumps",
            stacklevel=4,
        )
