"""Labels that a model draws from its own predictions, from which the curvature of its loss is estimated."""

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model.loss import IGNORE


def sampled_label_loss(
    logits: Tensor,
    *,
    generator: torch.Generator | None = None,
    keep: Tensor | None = None,
    vocab_size: int | None = None,
) -> Tensor:
    """Return the mean cross entropy, in nats, at labels drawn from the logits themselves.

    logits [..., vocab]; keep [...] leaves out positions where it is False (padding); vocab_size leaves out the ids from
    there on (rows of the table that no token has). No gradient flows through the drawing. nan without any position.
    LabError: vocab_size beyond the logits, keep of another shape. Liu et al. 2023, algorithm 2, lines 2 and 3.
    """
    flat = logits.reshape(-1, logits.shape[-1])
    if vocab_size is not None:
        if not 1 <= vocab_size <= logits.shape[-1]:
            raise LabError(
                f"vocab_size must lie in 1 to {logits.shape[-1]}, the logits' width, got {vocab_size}"
            )
        flat = flat[:, :vocab_size]
    if keep is not None and keep.numel() != len(flat):
        raise LabError(
            f"keep is {list(keep.shape)}, the logits {list(logits.shape)}: one answer for each position"
        )
    labels = drawn_labels(flat.detach(), generator)
    if keep is not None:
        labels = labels.masked_fill(~keep.flatten().bool(), IGNORE)
    wide = torch.promote_types(flat.dtype, torch.float32)
    return F.cross_entropy(flat.to(wide), labels, ignore_index=IGNORE)


@torch.no_grad()
def drawn_labels(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one label a row from softmax(logits), [rows, vocab] → [rows], by the Gumbel-max rule."""
    noise = torch.empty_like(logits, dtype=torch.float32).exponential_(generator=generator)
    return (logits.float() - noise.log()).argmax(dim=-1)
