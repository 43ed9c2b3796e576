"""Names of the places where a forward pass shows its tensors, and how positions count there.

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
import functools
from typing import TYPE_CHECKING, Any

import torch

from gpt2lab.base.errors import LabError

if TYPE_CHECKING:
    from gpt2lab.model.config import TransformerConfig

PATTERNS = ("hook_attn_scores", "hook_pattern")
"""Names whose tensors are [batch, heads, time, keys]."""
BY_HEAD = ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_z", "hook_result")
"""Names whose tensors are [batch, time, heads, ...]."""


def activation_names(config: "TransformerConfig") -> list[str]:
    """Return the names that a model of this configuration has, in the order of the forward pass."""
    return list(_names(config))


@functools.lru_cache(maxsize=32)
def _names(config: "TransformerConfig") -> tuple[str, ...]:
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
    return (*names, *(["logits"] if config.head != "none" else []))


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


@functools.lru_cache(maxsize=512)
def matching(names: tuple[str, ...], pattern: str) -> tuple[str, ...]:
    """Return those of `names` that a glob, an exact name or a short name ("resid_post", "attn.hook_z") stands for."""
    if pattern in names:
        return (pattern,)
    # Names of repeated passes ("ponder.0:blocks.1.hook_resid_post") are meant only where their prefix is given.
    names = tuple(name for name in names if ":" in pattern or ":" not in name)
    forms = (pattern, f"*.{pattern}", f"*.hook_{pattern}", f"hook_{pattern}")
    return tuple(name for name in names if any(fnmatch.fnmatchcase(name, form) for form in forms))


def time_axis(name: str) -> int:
    """Return the axis of time of the tensor at a place."""
    return 2 if name.endswith(PATTERNS) else 1


def within(place: Any, positions: range, name: str) -> Any:
    """Move positions of the whole sequence into the pass that computes `positions`; None if all lie outside.

    Negative ones count from the end of what is known in that pass.
    """
    if isinstance(place, int) and not isinstance(place, bool):
        place = place + positions.stop if place < 0 else place
        return place - positions.start if place in positions else None
    if isinstance(place, slice):
        inside = [at - positions.start for at in range(*place.indices(positions.stop)) if at in positions]
        return slice(inside[0], inside[-1] + 1, place.step) if inside else None
    listed = torch.as_tensor(place)
    if listed.dtype == torch.bool:
        if positions.start:
            raise LabError(f"tap: a boolean index for {name} fits one pass only; name the positions")
        return place
    listed = torch.where(listed < 0, listed + positions.stop, listed)
    inside_pass = (listed >= positions.start) & (listed < positions.stop)
    if not inside_pass.any():
        return None
    if not inside_pass.all():
        raise LabError(f"tap: some of the positions written to {name} lie in this pass and others do not")
    return listed - positions.start
