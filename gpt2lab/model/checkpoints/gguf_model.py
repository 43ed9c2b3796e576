"""Models read from GGUF files: one tensor after another, dequantised into the model's own memory."""

from pathlib import Path

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import progress
from gpt2lab.model.checkpoints.gguf_file import GGUFFile, shapes
from gpt2lab.model.checkpoints.gguf_layout import ROPE_FACTORS, Piece, cut, halves, pieces, read_metadata
from gpt2lab.model.checkpoints.native import blueprint
from gpt2lab.model.checkpoints.tensor_files import some
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.transformer import Transformer


def gguf_config(file: GGUFFile | Path) -> TransformerConfig:
    """Return the configuration of a file's model. LabError as for `GGUFFile` and `gguf_layout.read_metadata`."""
    file = file if isinstance(file, GGUFFile) else GGUFFile(file)
    factors = None
    if (stored := file.tensors.get(ROPE_FACTORS)) is not None:
        factors = torch.empty(stored.shape)
        file.read_into(ROPE_FACTORS, factors)
    return read_metadata(file.fields, shapes(file), file.where, factors)


@torch.no_grad()
def load_gguf(
    file: GGUFFile | Path, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Transformer:
    """Load a file's model, in evaluation mode; dtype None is float32, whatever the file rounds its numbers to.

    Beside the model, a million numbers at a time are in memory. LabError as for `GGUFFile`, and for tensors that are
    missing, superfluous or of a wrong shape, not finite, or beyond float16 if that is asked for.
    """
    file = file if isinstance(file, GGUFFile) else GGUFFile(file)
    config = gguf_config(file)
    model = blueprint(config)
    unused = set(file.tensors) - {ROPE_FACTORS}
    state: dict[str, nn.Parameter] = {}
    wanted = dict(model.named_parameters())
    for ours, like in progress(wanted.items(), total=len(wanted), label=file.path.name, unit="tensor"):
        parts = pieces(ours, config)
        tensor = torch.empty(like.shape, device=device, dtype=dtype or torch.float32)
        for part, view in zip(parts, cut(tensor, parts), strict=True):
            _read(file, part, view)
            unused.discard(part.name)
        state[ours] = nn.Parameter(tensor)
    if unused:
        raise LabError(f"{file.where}: a {config.family} model has no place for {some(sorted(unused))}")
    model.load_state_dict(state, strict=False, assign=True)
    if isinstance(model.head, nn.Linear):
        model.tie_head()
    return model.eval()


def _read(file: GGUFFile, part: Piece, view: Tensor) -> None:
    """Fill a view of one of our tensors. LabError for a piece that is missing or of another shape."""
    stored = file.tensors.get(part.name)
    if stored is None:
        raise LabError(f"{file.where}: tensor {part.name} is missing (it has {len(file.tensors)} tensors)")
    if stored.shape != tuple(view.shape):
        raise LabError(
            f"{file.where}: tensor {part.name} is {list(stored.shape)}, its metadata makes it {list(view.shape)}"
        )
    target = view if view.is_contiguous() else torch.empty_like(view, memory_format=torch.contiguous_format)
    file.read_into(part.name, target)
    if target.dtype == torch.float16 and not bool(target.isfinite().all()):
        raise LabError(
            f"{file.where}: {part.name} goes beyond float16, which ends at 65504; load the model in float32 or bfloat16"
        )
    if part.heads:
        target = halves(target, part.heads)
    if target is not view:
        view.copy_(target)
