"""Norms whose standard deviation is replaced by a frozen number, path by path, while the model trains (Baroni et al. 2025).

Real: n = (x - μ) / σ · g + b with σ = √(mean (x - μ)² + eps) of each token. Fake: the same with a constant σ̄ that carries
no gradient; μ, g and b stay and go on training. An RMSNorm has neither μ nor b, and is frozen likewise.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Backbone, Block, Inner, Inputs, Transformer, TransformerConfig, Wrapper
from gpt2lab.model.attention import Attention
from gpt2lab.model.forward import Pass, Seen
from gpt2lab.model.norms import Norm
from gpt2lab.papers.layernorm_removal.schedule import LATE, Schedule, check_length

_PLACES = "norm_places"
"""Note of a pass: [batch, time] int64, what each token is to the norms."""
USUAL, FIRST, END, PADDING = 0, 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class StagedNorms:
    """Norms that a schedule freezes, one path after another, in training; what is frozen is saved with the model."""

    schedule: Schedule = field(default_factory=Schedule)
    """When each path is frozen; the default is the paper's for 12 blocks."""
    momentum: float = 0.9
    """Weight of the old value in the running mean of σ, updated once a step; from 0 up to, but not, 1."""
    update_frozen: bool = False
    """Let the constants of frozen norms follow the running mean too."""
    special_positions: bool = False
    """Give position 0 a constant of its own, and the values of an end of text that too (Heimersheim 2024)."""
    end_of_text: int | None = None
    """Token that ends a text; none is the model's own. Read with special_positions only."""

    way_out: ClassVar[str] = (
        "make a model without norms of it with: gpt2lab apply fold-layernorm MODEL --out DIR"
    )

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise LabError(
                f"staged-norms: momentum must lie in [0, 1), got {self.momentum}; 0.9 is the paper's"
            )

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        """Put norms that can be frozen, all real still, in the place of the model's. LabError if it has none such."""
        require_plain(model, "staged-norms")
        config = model.config
        self.schedule.steps_of(
            config.n_layers, late=self.special_positions
        )  # refuses units that are not there
        for index, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            name = f"blocks.{index}"
            block.norm1 = StagedNorm.of(
                block.norm1, config, [f"{name}.ln1", f"{name}.ln1v"], self.special_positions
            )
            block.norm2 = StagedNorm.of(block.norm2, config, [f"{name}.ln2"], self.special_positions)
            block.attention = TwoPathAttention.of(block.attention, config, index)
        model.final_norm = StagedNorm.of(model.final_norm, config, ["ln_final"], self.special_positions)
        model.wrappers.append(Stage(self, config))


def require_plain(model: Backbone, what: str) -> None:
    """Refuse models whose norms cannot be taken out. LabError, beginning with `what`."""
    config = model.config
    if config.norm_placement == "post":
        raise LabError(
            f"{what} needs norms that stand before each layer: those of this {config.family} stand on the residual stream "
            "itself, so that a frozen one could be folded into nothing"
        )
    if config.norm == "none":
        raise LabError(f"{what}: this model has no norms any more")
    if config.embedding_norm:
        raise LabError(
            f"{what}: this model has a norm over its embeddings, which stands on the residual stream itself"
        )
    if config.head != "linear":
        raise LabError(
            f"{what} needs a linear head to fold the last norm into; this model's is {config.head!r}"
        )
    if config.norm_eps > 1:
        raise LabError(
            f"{what}: norm_eps {config.norm_eps:g} switches this model's norms off already; fold them in with gpt2lab apply "
            "fold-layernorm"
        )
    if isinstance(model.final_norm, StagedNorm):
        raise LabError(
            f"{what}: this model's norms are staged already; go on training it with gpt2lab train --model, or fold what is "
            "frozen with gpt2lab apply fold-layernorm"
        )
    for block in model.blocks:
        own = type(block) is Block and type(block.norm1) is type(block.norm2) is Norm
        if not own or type(block.attention) is not Attention or type(block.attention.qkv) is not nn.Linear:
            raise LabError(
                f"{what} needs the core's own blocks with dense matrices, which something attached to this model changed: "
                "remove the norms first, then attach; adapters are merged with gpt2lab apply merge-lora"
            )
    if type(model.final_norm) is not Norm or type(model.head) is not nn.Linear:
        raise LabError(
            f"{what} needs the core's own final norm and head, which something attached to this model changed"
        )


class StagedNorm(Norm):
    """A norm with one or two paths, each real or fake; x [..., d_model] → [..., paths · d_model], the paths side by side.

    Both paths of an attention's norm share gain, bias and constant. State that training changes is in buffers: `fake`
    [paths], `constant` (σ̄) and `average` (the running mean of σ), both [2]: for position 0, and for all others (without
    special positions for all alike), and `late` [2]: whether the ends of texts, and position 0, are not special any more.
    """

    fake: Tensor
    constant: Tensor
    average: Tensor
    late: Tensor

    def __init__(self, config: TransformerConfig, paths: list[str], special: bool) -> None:
        super().__init__(config, paths[0])
        self.paths, self.special = paths, special
        self.register_buffer("fake", torch.zeros(len(paths), dtype=torch.bool))
        self.register_buffer("late", torch.zeros(2, dtype=torch.bool))
        self.register_buffer("constant", torch.zeros(2))  # 0: nothing was measured yet
        self.register_buffer("average", torch.zeros(2))
        self.measuring = False
        self.sums: Tensor | None = None
        """Σ σ and number of tokens measured in the running step, for position 0 and for all others, [2, 2]."""

    @classmethod
    def of(cls, norm: Any, config: TransformerConfig, paths: list[str], special: bool) -> Self:
        """Return a staged norm in the place of a plain one, with its parameters."""
        made = cls(config, paths, special).to(norm.weight.device)
        made.weight = norm.weight
        if norm.kind == "layernorm":
            made.bias = norm.bias
        return made.train(norm.training)

    def _apply(self, fn: Any, recurse: bool = True) -> "StagedNorm":
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, tensor in before.items():
            after = self._buffers[name]
            if tensor is not None and after is not None and after.dtype != tensor.dtype:
                self._buffers[name] = tensor.to(after.device)  # bf16 would round what is divided by to 0.4 %
        return self

    def forward(self, x: Tensor, run: Seen) -> Tensor:
        """Normalise x [..., d_model] for each path."""
        places = run.notes.get(_PLACES) if isinstance(run, Pass) else None
        real = super().scale(x)  # float32: a mean of squares in bf16 is off by percents
        again = isinstance(run, Pass) and run.again  # gradient checkpointing computes a block twice
        if self.measuring and self.training and not again:
            self._measure(real.detach().squeeze(-1), places)
        centred, ready = self.centred(x), []
        for path, name in enumerate(self.paths):
            scale = torch.where(self.fake[path], self._frozen(path, places, real), real).to(x.dtype)
            y = centred / run.see(scale, f"{name}.hook_scale") * self.weight  # formula: FakeLN
            y = y + self.bias if self.kind == "layernorm" else y
            ready.append(run.see(y, f"{name}.hook_normalized"))
        return ready[0] if len(ready) == 1 else torch.cat(ready, dim=-1)

    def scale(self, x: Tensor) -> Tensor:
        """Return what the first path divides x [..., d_model] by, [..., 1]; a frozen one's constant beyond position 0."""
        real = super().scale(x)
        return torch.where(self.fake[0], self._frozen(0, None, real), real)

    def _frozen(self, path: int, places: Tensor | None, like: Tensor) -> Tensor:
        """The constant of each token, [] or [batch, time, 1]."""
        first, usual = self.constant.to(like.dtype)
        if not self.special or places is None:
            return usual
        is_first = places[..., None] == FIRST
        is_end = (places[..., None] == END) & ~self.late[0] & torch.tensor(path == 1, device=places.device)
        return torch.where(is_first | is_end, first, usual)

    def _measure(self, scale: Tensor, places: Tensor | None) -> None:
        """Add σ of the tokens of one micro-batch, [batch, time], to the sums of this step."""
        known = torch.zeros_like(scale, dtype=torch.int64) if places is None else places
        first = (known == FIRST) & self.special
        rest = (known != PADDING) & ~first
        found = torch.stack(
            [torch.stack([(scale * part).sum(), part.sum()]) for part in (first, rest)]
        ).float()
        self.sums = found if self.sums is None else self.sums + found

    def close_step(self, momentum: float, update_frozen: bool) -> None:
        """Bring what was measured in this step into the running mean, and the constant after it while a path is real."""
        if self.sums is not None:
            counts = self.sums[:, 1]
            mean = torch.where(counts > 0, self.sums[:, 0] / counts.clamp_min(1), self.average)
            mean[0] = torch.where(
                counts[0] > 0, mean[0], mean[1]
            )  # no position 0 seen, or none that is special
            old = torch.where(self.average > 0, self.average, mean)
            self.average.copy_(momentum * old + (1 - momentum) * mean)  # formula: running mean of σ
            self.sums = None
        if update_frozen or not bool(self.fake.all()):
            self.constant.copy_(self.average)
        if bool(self.late[1]):
            self.constant[0] = self.constant[1]

    def freeze(self, path: int) -> None:
        """Make a path fake. LabError before anything was measured."""
        if not bool((self.constant > 0).all()) or not bool(self.constant.isfinite().all()):
            raise LabError(
                f"{self.paths[path]}: frozen before its standard deviation was measured; let the schedule start at step 1, "
                "or later, or call calibrate first"
            )
        self.fake[path] = True


class TwoPathAttention(Attention):
    """Attention whose queries and keys read the first half of what it is given, and whose values the second."""

    @classmethod
    def of(cls, attention: Any, config: TransformerConfig, index: int) -> Self:
        """Return such an attention in the place of a plain one, with its matrices."""
        with torch.device("meta"):
            made = cls(config, index)
        made.qkv, made.out = attention.qkv, attention.out
        return made.train(attention.training)

    def _projected(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        rows = (self.n_heads + self.n_kv_heads) * self.d_head
        if type(self.qkv) is not nn.Linear:  # an adapter stands around the matrix
            return torch.cat([self.qkv(first)[..., :rows], self.qkv(second)[..., rows:]], dim=-1)
        weight, bias = self.qkv.weight, self.qkv.bias
        biases = (None, None) if bias is None else (bias[:rows], bias[rows:])
        return torch.cat(
            [F.linear(first, weight[:rows], biases[0]), F.linear(second, weight[rows:], biases[1])], -1
        )


class Stage(Wrapper):
    """Fires the events of a schedule, keeps the running means, and tells the norms what each token is."""

    def __init__(self, options: StagedNorms, config: TransformerConfig) -> None:
        super().__init__()
        self.options = options
        self.end = config.eos if options.end_of_text is None else options.end_of_text
        self.steps = options.schedule.steps_of(config.n_layers, late=options.special_positions)

    def forward(self, model: Backbone, inner: Inner, inputs: Inputs) -> Tensor:
        """Run the pass with a note of what each token is, where the norms need one."""
        if not self.options.special_positions and inputs.attention_mask is None:
            return inner(inputs)
        return inner(replace(inputs, notes={**inputs.notes, _PLACES: self._places(inputs)}))

    def _places(self, inputs: Inputs) -> Tensor:
        shape = inputs.embeddings.shape[:2]
        places = torch.zeros(shape, dtype=torch.int64, device=inputs.embeddings.device)
        mask = torch.ones_like(places) if inputs.attention_mask is None else inputs.attention_mask.long()
        if self.options.special_positions:
            if inputs.tokens is not None and self.end is not None:
                places = torch.where(inputs.tokens == self.end, END, places)
            begins = inputs.cache is None or inputs.cache.length == 0
            places = torch.where((mask.cumsum(1) == 1) & (mask > 0) & begins, FIRST, places)
        return torch.where(mask > 0, places, PADDING)

    def require_steps(self, model: Backbone, steps: int) -> None:
        """Refuse a run that ends before the events that are left. LabError."""
        left = {unit: at for unit, at in self.steps.items() if not _has_fired(model, unit)}
        if left:
            check_length(left, steps)

    def before_update(self, model: Backbone, step: int) -> None:
        """Fire the events of this step, then measure σ in its forward passes."""
        for unit, at in self.steps.items():
            if at == step:
                fire(model, unit)
        for norm in staged(model):
            norm.measuring, norm.sums = True, None

    def after_update(self, model: Backbone, step: int) -> dict[str, float]:
        """Update the running means; return how many units are fake."""
        close(model)
        return {"fake_units": float(sum(int(norm.fake.sum()) for norm in staged(model)))}

    def activation_names(self, names: list[str]) -> list[str]:
        """Return all names, with those of the values' path behind those of queries and keys."""
        behind = {name.replace(".ln1.", ".ln1v.") for name in names if ".ln1." in name}
        named = list[str]()
        for name in names:
            named.append(name)
            if name.endswith(".ln1.hook_normalized"):
                block = name.removesuffix("ln1.hook_normalized")
                named += [
                    kind
                    for kind in (f"{block}ln1v.hook_scale", f"{block}ln1v.hook_normalized")
                    if kind in behind
                ]
        return named


# What is done to a model with staged norms.


def staged(model: Backbone) -> Iterator[StagedNorm]:
    """Yield the staged norms of a model, in the order of the forward pass. LabError if it has none."""
    if not isinstance(model.final_norm, StagedNorm):
        raise LabError("this model has no staged norms; attach StagedNorms first")
    for block in model.blocks:
        for norm in (block.norm1, block.norm2):
            assert isinstance(norm, StagedNorm)
            yield norm
    yield model.final_norm


def unit_of(model: Backbone, unit: str) -> tuple[StagedNorm, int]:
    """Return the norm that a unit is a path of, and the number of the path."""
    kind, _, layer = unit.partition(".")
    if kind == "f":
        return model.final_norm, 0  # type: ignore[return-value]  # staged, as `staged` checks
    block = model.blocks[int(layer)]
    return (block.norm2, 0) if kind == "mlp" else (block.norm1, int(kind == "v"))  # type: ignore[return-value]  # likewise


def _has_fired(model: Backbone, unit: str) -> bool:
    if unit in LATE:
        return all(bool(norm.late[LATE.index(unit)]) for norm in staged(model))
    norm, path = unit_of(model, unit)
    return bool(norm.fake[path])


def fire(model: Backbone, unit: str) -> None:
    """Make a unit fake, or end what is special about ends of texts (`eot`) or about position 0 (`bos`), in place."""
    if unit in LATE:
        for norm in staged(model):
            norm.late[LATE.index(unit)] = True
            if unit == "bos":
                norm.constant[0] = norm.constant[1]
        return
    norm, path = unit_of(model, unit)
    norm.freeze(path)


def close(model: Backbone) -> None:
    """End the measuring of a step."""
    options = stage_of(model).options
    for norm in staged(model):
        norm.measuring = False
        norm.close_step(options.momentum, options.update_frozen)


def stage_of(model: Backbone) -> Stage:
    """Return the wrapper that stages a model's norms. LabError if there is none."""
    for wrapper in model.wrappers:
        if isinstance(wrapper, Stage):
            return wrapper
    raise LabError("this model has no staged norms; attach StagedNorms first")


@torch.no_grad()
def calibrate(model: Transformer, batches: list[dict[str, Tensor]]) -> None:
    """Set every running mean and constant to the mean σ over some batches, in place; a frozen constant stays."""
    training = model.training
    model.eval()  # no dropout
    for norm in staged(model):
        norm.measuring, norm.sums, norm.training = True, None, True
        norm.average.zero_()
    try:
        for batch in batches:
            mask = batch.get("attention_mask")
            model.hidden(
                batch["tokens"].to(model.device),
                attention_mask=None if mask is None else mask.to(model.device),
            )
    finally:
        model.train(training)
        close(model)


def unit_table(model: Backbone) -> list[dict[str, object]]:
    """Return a row for each unit: fake or real, its constant, its running mean of σ, and the step of its event."""
    steps, rows = stage_of(model).steps, list[dict[str, object]]()
    for unit in steps:
        if unit in LATE:
            continue
        norm, path = unit_of(model, unit)
        rows.append(
            {
                "unit": unit,
                "state": "fake" if bool(norm.fake[path]) else "real",
                "step": steps[unit],
                "constant": float(norm.constant[1]),
                "mean sigma": float(norm.average[1]),
                "mean sigma at position 0": float(norm.average[0]),
            }
        )
    return rows
