"""Patching between two runs: what of a clean run, put into a corrupt one, brings back its answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.hook_names import BY_HEAD, PATTERNS

if TYPE_CHECKING:
    from gpt2lab.model.transformer import Transformer

Metric = Callable[[Tensor], Tensor]
"""Logits [batch, time, vocab] → a number for each row, [batch]."""
By = Literal["position", "head", "layer"]

_ELEMENTS = {"cpu": 1 << 25, "cuda": 1 << 28}
"""Numbers of one forward pass held at a time: 128 MiB and 1 GiB in float32."""


@dataclass(frozen=True)
class Sweep:
    """What patching each place of a site does to the metric."""

    names: tuple[str, ...]
    """The patched activation of each layer."""
    values: Tensor
    """The metric of the patched runs, [layers, places, batch]; NaN at heads that a layer does not have."""
    clean: Tensor
    """The metric of the clean run, [batch]."""
    corrupt: Tensor
    """The metric of the corrupt run, [batch]."""

    @property
    def effects(self) -> Tensor:
        """Change of the metric by each patch, [layers, places, batch]."""
        return self.values - self.corrupt

    @property
    def restored(self) -> Tensor:
        """Change as a share of the difference between the runs, [layers, places, batch]: 1 is the clean run's answer."""
        return self.effects / (self.clean - self.corrupt)


@torch.no_grad()
def patch_sweep(
    model: "Transformer",
    clean: Tensor,
    corrupt: Tensor,
    site: str,
    metric: Metric,
    *,
    by: By = "position",
    at: int | None = None,
    rows: int | None = None,
) -> Sweep:
    """Run `corrupt` with one activation of `clean` put in its place, for every layer and position (or head).

    clean, corrupt [batch, time] int64; site is a short name that stands for every layer ("resid_pre", "attn.hook_z") or
    an exact one. by="position" patches one position of a layer at a time, "head" one head at all positions, "layer" the
    whole tensor. at: the only position whose logits the metric sees ([batch, 1, vocab]), which saves the head's
    work. Patched copies stand side by side in batches of at most `rows` rows. Dropout is off meanwhile.
    LabError: prompts of different shapes, a site that has no heads, a metric that is not one number for each row.
    """
    _check_prompts(clean, corrupt)
    with evaluating(model):
        with model.tap(read=[site]) as tap:
            first = _measured(model, clean, metric, at)
        with model.tap(read=[site]) as before:
            base = _measured(model, corrupt, metric, at)
        names = tap.asked[site]
        copies = max(1, (rows or _rows_that_fit(model, clean.shape[1], at)) // len(clean))
        axes = [_axis(name, by) for name in names]
        sizes = [1 if axis is None else tap[name].shape[axis] for name, axis in zip(names, axes, strict=True)]
        values = base.new_full((len(names), max(sizes), len(clean)), float("nan"))
        for row, name, axis, size in zip(values, names, axes, sizes, strict=True):
            row[:size] = base
            # A place that is the same in both runs, as all before the first other token, changes nothing.
            others = _differing(tap[name], before[name], axis)
            for places in (others[i : i + copies] for i in range(0, len(others), copies)):
                row[places] = _patched(model, corrupt, name, tap[name], metric, axis, at, places)
    return Sweep(tuple(names), values, first, base)


def attribution_patch(
    model: "Transformer",
    clean: Tensor,
    corrupt: Tensor,
    sites: Sequence[str] | str,
    metric: Metric,
    *,
    at: int | None = None,
) -> dict[str, Tensor]:
    """Return the first-order estimate of every patch, ∂metric/∂activation (corrupt) · (clean - corrupt), by site.

    Arguments as for `patch_sweep`. The product is summed over the last axis: [layers, batch, time] for residual sites,
    [layers, batch, time, heads] for those of heads, [layers, batch, heads, time] for patterns. One forward pass on
    clean, one forward and backward pass on corrupt (Nanda 2023; Syed et al. 2023, eq. 2). No parameter's gradient is
    touched, and frozen weights do no harm.
    """
    sites = [sites] if isinstance(sites, str) else sites
    _check_prompts(clean, corrupt)
    with evaluating(model), torch.inference_mode(False):
        with torch.no_grad(), model.tap(read=sites) as before:
            model.hidden(clean)
        with torch.enable_grad(), model.tap(read=sites, grad=True) as tap:
            total = _measured(model, corrupt, metric, at).sum()
            read = {name: tap[name] for site in sites for name in tap.asked[site]}
            found = torch.autograd.grad(total, list(read.values()), allow_unused=True)
    estimates: dict[str, Tensor] = {}
    for (name, x), gradient in zip(read.items(), found, strict=True):
        if gradient is None:
            raise LabError(f"attribution patching: the metric does not depend on {name}")
        change = torch.nan_to_num(before[name] - x.detach())  # masked scores: -inf - -inf
        estimates[name] = (gradient * change).sum(-1)
    return {site: _stacked(site, [estimates[name] for name in tap.asked[site]]) for site in sites}


def _stacked(site: str, tensors: list[Tensor]) -> Tensor:
    if len({tensor.shape for tensor in tensors}) > 1:
        raise LabError(
            f"attribution patching: {site} has another shape in every layer; name the layers one by one"
        )
    return torch.stack(tensors)


def _differing(clean: Tensor, corrupt: Tensor, axis: int | None) -> list[int]:
    """Return the places along an axis, None for the whole tensor, at which two activations are not the same."""
    other = clean != corrupt
    if axis is None:
        return [0] if bool(other.any()) else []
    return other.transpose(0, axis).flatten(1).any(1).nonzero().flatten().tolist()


def _patched(
    model: "Transformer",
    corrupt: Tensor,
    name: str,
    clean: Tensor,
    metric: Metric,
    axis: int | None,
    at: int | None,
    places: Sequence[int],
) -> Tensor:
    """The metric with each of these places of one activation patched, [places, batch]."""
    batch = len(corrupt)

    def patch(x: Tensor, _: str) -> Tensor:
        for copy, place in zip(x.split(batch), places, strict=True):
            if axis is None:
                copy.copy_(clean)
            else:
                copy.select(axis, place).copy_(clean.select(axis, place))
        return x

    with model.tap(write={name: patch}):
        logits = _logits(model, corrupt.repeat(len(places), 1), at)
    return torch.stack([_one_a_row(metric(part), batch) for part in logits.split(batch)])


def _measured(model: "Transformer", tokens: Tensor, metric: Metric, at: int | None) -> Tensor:
    return _one_a_row(metric(_logits(model, tokens, at)), len(tokens))


def _logits(model: "Transformer", tokens: Tensor, at: int | None) -> Tensor:
    hidden = model.hidden(tokens)
    return model.unembed(hidden if at is None else hidden[:, at : at + 1 or None])


def _one_a_row(value: Tensor, batch: int) -> Tensor:
    if value.shape != (batch,):
        raise LabError(f"the metric gives one number for each row, [{batch}], not {list(value.shape)}")
    return value


def _axis(name: str, by: By) -> int | None:
    pattern = name.endswith(PATTERNS)
    if by == "layer":
        return None
    if by == "position":
        return 2 if pattern else 1
    if by != "head":
        raise LabError(f"patching goes by position, head or layer, not by {by}")
    if not pattern and not name.endswith(BY_HEAD):
        raise LabError(f"patching by head: {name} is not split into heads; try attn.hook_z")
    return 1 if pattern else 2


def _check_prompts(clean: Tensor, corrupt: Tensor) -> None:
    if clean.shape != corrupt.shape or clean.dim() != 2 or not clean.numel():
        raise LabError(
            f"patching needs clean and corrupt prompts of the same shape [batch, time], "
            f"got {list(clean.shape)} and {list(corrupt.shape)}"
        )


def _rows_that_fit(model: "Transformer", time: int, at: int | None) -> int:
    """How many rows keep the logits and the widest tensors of a block within the memory allowed."""
    config = model.config
    widest = max((config.layer(i).d_mlp for i in range(config.n_layers)), default=0)
    logits = config.vocab_size * (time if at is None else 1)
    return _ELEMENTS.get(model.device.type, 1 << 25) // max(
        1, logits + time * (4 * widest + 8 * config.d_model)
    )
