"""Reading and replacing named activations of a forward pass.

The forward pass calls `run.see(x, name)` at every named place. Without an open tap that is one comparison with None.
Names are TransformerLens 2.x's; `Transformer.activation_names()` lists those that a model has:

    hook_embed, hook_pos_embed, hook_token_type_embed                 [batch, time, d_model]
    blocks.{i}.hook_resid_pre / _mid / _post, hook_attn_out, hook_mlp_out [batch, time, d_model]
    blocks.{i}.ln1.hook_scale [batch, time, 1], .hook_normalized [batch, time, d_model]; the same for ln2, ln_final and,
        where there is a norm over the embeddings, ln_embed
    blocks.{i}.attn.hook_q / hook_z    [batch, time, heads, d_head]   (q, k before any rotation)
    blocks.{i}.attn.hook_k / hook_v    [batch, time, kv_heads, d_head]
    blocks.{i}.attn.hook_rot_q / _rot_k  the same after rotation (rotary models only)
    blocks.{i}.attn.hook_attn_scores / hook_pattern   [batch, heads, time, keys]
    blocks.{i}.attn.hook_result        [batch, time, heads, d_model]
    blocks.{i}.mlp.hook_pre / hook_post  [batch, time, d_mlp]; in a mixture of experts [batch, time, chosen, d_mlp]
    blocks.{i}.mlp.hook_router_logits    [batch, time, experts]
    blocks.{i}.mlp.hook_expert_indices / hook_expert_weights   [batch, time, chosen]
    mlm_head.hook_pre / hook_post, mlm_head.ln.…   [batch, time, d_model] (heads with a transform only)
    logits                             [batch, time, vocab]

With pre-norm, resid_mid = resid_pre + attn_out, resid_post = resid_mid + mlp_out, and the next block's resid_pre is this
resid_post. With post-norm (BERT) the norms stand on the stream itself, and names mean what they mean in
TransformerLens: resid_mid = resid_pre + attn_out is what ln1 reads, resid_post = ln1.hook_normalized + mlp_out is what
ln2 reads, and ln2.hook_normalized is the block's output, the next block's resid_pre. No norm stands before the head, so
ln_final.hook_normalized is the last of them.
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError, nearest

if TYPE_CHECKING:
    from gpt2lab.model.cache import KeyValueCache
    from gpt2lab.model.config import TransformerConfig
    from gpt2lab.model.transformer import Transformer

Write = Callable[[Tensor, str], Tensor] | Tensor | tuple[Any, Tensor]


@dataclass
class Seen:
    """A place of the forward pass that shows its tensors to the open tap."""

    tap: "Tap | TapUnder | None"

    def see(self, x: Tensor, name: str) -> Tensor:
        """Show the tensor at the place `name` to the open tap, if any, and go on with what it returns."""
        return x if self.tap is None else self.tap.visit(x, name)


@dataclass
class Pass(Seen):
    """What one forward pass shares with all of its blocks."""

    mask: Callable[[int | None], Tensor | None]
    """Window → boolean mask [batch or 1, 1, time, keys], True where a query may look; None = plainly causal."""
    causal: bool
    """Without a mask: whether the model is causal and queries and keys start together: the kernel's own mask applies."""
    rotary: tuple[Tensor, Tensor] | None
    """cos and sin, each [batch or 1, 1, time, rotary_width]."""
    cache: "KeyValueCache | None"
    slots: slice
    """Where this pass's keys and values go in the cache."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What the wrappers of architectures have to say to blocks."""


class TapUnder:
    """A tap that sees the names of a repeated forward pass behind a prefix; see `architecture.under`."""

    def __init__(self, tap: "Tap | TapUnder", prefix: str) -> None:
        self.tap, self.prefix = tap, prefix

    def wants(self, name: str) -> bool:
        """As the tap does."""
        return self.tap.wants(self.prefix + name)

    def visit(self, x: Tensor, name: str) -> Tensor:
        """As the tap does."""
        return self.tap.visit(x, self.prefix + name)


class StopForward(Exception):
    """Raised inside a forward pass when `stop_after` is reached; the tap's block swallows it."""


class Tap:
    """A scope in which named activations are recorded and replaced; see `Transformer.tap`."""

    def __init__(
        self,
        model: "Transformer",
        read: Sequence[str],
        write: Mapping[str, Write],
        *,
        grad: bool,
        pos: int | slice | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
        stop_after: str | None,
        reduce: Callable[[Tensor | None, Tensor, str], Tensor] | None,
    ) -> None:
        self.model = model
        self.names = model.activation_names()
        self.asked = {pattern: self._match(pattern) for pattern in read}
        self.writes = {name: change for pattern, change in write.items() for name in self._match(pattern)}
        self.reads = {name for names in self.asked.values() for name in names}
        self.stop_after = self._match(stop_after)[-1] if stop_after is not None else None
        self.pos, self.dtype, self.device, self.reduce = pos, dtype, device, reduce
        self.keep_gradient = grad
        self.values: dict[str, list[Tensor]] = {}
        self.reached: set[str] = set()
        self.outer: Tap | None = None
        if grad and not torch.is_grad_enabled():
            raise LabError("tap: grad=True inside torch.no_grad(); gradients cannot be kept there")

    def _match(self, pattern: str) -> list[str]:
        """Names that a glob, an exact name or a short name ("resid_post", "attn.hook_z") stands for."""
        if pattern in self.names:
            return [pattern]
        forms = (pattern, f"*.{pattern}", f"*.hook_{pattern}", f"hook_{pattern}")
        found = [name for name in self.names if any(fnmatch.fnmatchcase(name, form) for form in forms)]
        if not found:
            raise LabError(f"tap: {pattern} names no activation of this model; {self._hint(pattern)}")
        return found

    def _hint(self, pattern: str) -> str:
        short = {name.rsplit("hook_", 1)[-1] for name in self.names}
        match = nearest(pattern, [*self.names, *short])
        return f"did you mean {match}?" if match else "see model.activation_names()"

    def wants(self, name: str) -> bool:
        """Whether this tap or one around it reads or writes `name`: places that cost something ask first."""
        here = name in self.reads or name in self.writes or name == self.stop_after
        return here or (self.outer is not None and self.outer.wants(name))

    def visit(self, x: Tensor, name: str) -> Tensor:
        """Replace, then record, x at the place `name`; outer taps see what inner ones wrote."""
        if name in self.writes:
            x = self._changed(x, name)
            self.reached.add(name)
        if name in self.reads:
            self._record(x, name)
            self.reached.add(name)
        if self.outer is not None:
            x = self.outer.visit(x, name)
        if name == self.stop_after:
            raise StopForward
        return x

    def _changed(self, x: Tensor, name: str) -> Tensor:
        change = self.writes[name]
        if isinstance(change, tuple):
            index, values = change
            new = x.clone()
            new[index] = values.to(x.dtype)
        else:
            new = change(x, name) if callable(change) else change
        if not isinstance(new, Tensor):
            raise LabError(f"tap: the write to {name} returned {type(new).__name__}; it must return a tensor")
        if new.shape != x.shape or new.dtype != x.dtype or new.device != x.device:
            raise LabError(
                f"tap: the write to {name} is {new.dtype} {list(new.shape)} on {new.device}, "
                f"the model has {x.dtype} {list(x.shape)} on {x.device} there"
            )
        return new

    def _record(self, x: Tensor, name: str) -> None:
        if self.keep_gradient:
            if not x.requires_grad:
                raise LabError(
                    f"tap: grad=True, but {name} does not depend on anything that requires a gradient"
                )
            x.retain_grad()
            self.values.setdefault(name, []).append(x)
            return
        kept = x.detach()
        if self.pos is not None:
            position = slice(self.pos, self.pos + 1 or None) if isinstance(self.pos, int) else self.pos
            kept = kept[:, :, position] if _is_pattern(name) else kept[:, position]
        if self.reduce is not None:
            old = self.values.get(name, [None])[0]
            self.values[name] = [self.reduce(old, kept, name).to(device=self.device, dtype=self.dtype)]
            return
        kept = kept.to(device=self.device, dtype=self.dtype)
        # A view would keep the whole tensor alive and could be written to later in the pass.
        self.values.setdefault(name, []).append(kept.clone() if kept.data_ptr() == x.data_ptr() else kept)

    def __enter__(self) -> "Tap":
        self.outer, self.model.open_tap = self.model.open_tap, self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.model.open_tap = self.outer
        if kind is not None and kind is not StopForward:
            return False
        missed = sorted((self.reads | set(self.writes)) - self.reached)
        if missed:
            raise LabError(f"tap: never reached in this block: {', '.join(missed[:5])}")
        return kind is StopForward

    def __getitem__(self, name: str) -> Tensor:
        """Return one activation by its exact name, or [layers, ...] by a short name or glob.

        Calls of the model inside the block are joined along time (so that a block around `generate` gives the whole
        sequence).
        """
        if name in self.values:
            return self._joined(self.values[name], name)
        names = [found for found in self._match(name) if found in self.values]
        if not names:
            raise LabError(
                f"tap: {name} was not read in this block; it read {', '.join(self.asked) or 'nothing'}"
            )
        tensors = [self._joined(self.values[found], found) for found in names]
        if len({tensor.shape for tensor in tensors}) > 1:
            raise LabError(
                f"tap: {name} stands for tensors of different shapes; ask for one by its exact name"
            )
        return torch.stack(tensors)

    def _joined(self, parts: list[Tensor], name: str) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        if _is_pattern(name):
            raise LabError(
                f"tap: {name} was computed {len(parts)} times with growing keys; read it in one forward pass"
            )
        return torch.cat(parts, dim=1)

    @property
    def grad(self) -> dict[str, Tensor]:
        """Gradients of the activations read with grad=True, by exact name, after backward()."""
        if not self.keep_gradient:
            raise LabError("tap: gradients were not kept; open it with grad=True")
        gradients: dict[str, Tensor] = {}
        for name, parts in self.values.items():
            found = [part.grad for part in parts if part.grad is not None]
            if len(found) != len(parts):
                raise LabError(
                    f"tap: {name} got no gradient; call backward() on something that depends on it"
                )
            gradients[name] = self._joined(found, name)
        return gradients


def _is_pattern(name: str) -> bool:
    return name.endswith(("hook_attn_scores", "hook_pattern"))


def activation_names(config: "TransformerConfig") -> list[str]:
    """Return the names that a model of this configuration has, in the order of the forward pass."""
    norm = ["hook_scale", "hook_normalized"] if config.norm != "none" else ["hook_normalized"]
    names = ["hook_embed"] + (["hook_token_type_embed"] if config.token_types else [])
    names += ["hook_pos_embed"] if config.positions == "learned" else []
    names += [f"ln_embed.{kind}" for kind in norm] if config.embedding_norm else []
    for i in range(config.n_layers):
        names += [f"blocks.{i}.{name}" for name in _names_in_block(config, i, norm)]
    names += [
        f"ln_final.{kind}" for kind in (norm if config.norm_placement == "pre" else ["hook_normalized"])
    ]
    if config.head == "transform":
        names += ["mlm_head.hook_pre", "mlm_head.hook_post", *(f"mlm_head.ln.{kind}" for kind in norm)]
    return [*names, *(["logits"] if config.head != "none" else [])]


def _names_in_block(config: "TransformerConfig", index: int, norm: list[str]) -> list[str]:
    rotated = ["rot_q", "rot_k"] if config.positions == "rotary" else []
    heads = ["q", "k", "v", *rotated, "attn_scores", "pattern", "z", "result"]
    attention = [*(f"attn.hook_{kind}" for kind in heads), "hook_attn_out"]
    middle = [] if config.parallel_residual else ["hook_resid_mid"]
    routed = ["router_logits", "expert_indices", "expert_weights"] if config.layer(index).n_experts else []
    mlp = [*(f"mlp.hook_{kind}" for kind in (*routed, "pre", "post")), "hook_mlp_out"]
    first, second = ([f"{name}.{kind}" for kind in norm] for name in ("ln1", "ln2"))
    if config.norm_placement == "post":
        return ["hook_resid_pre", *attention, *middle, *first, *mlp, "hook_resid_post", *second]
    return ["hook_resid_pre", *first, *attention, *middle, *second, *mlp, "hook_resid_post"]
