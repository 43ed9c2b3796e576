"""Models read from GGUF files: one tensor after another, dequantised into the model's own memory."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import progress
from gpt2lab.model.checkpoints.gguf_file import GGUFFile, shapes
from gpt2lab.model.checkpoints.gguf_layout import ROPE_FACTORS, Piece, cut, halves, pieces, read_metadata
from gpt2lab.model.checkpoints.native import blueprint
from gpt2lab.model.checkpoints.tensor_files import some
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.finite import all_finite
from gpt2lab.model.matrices import forms
from gpt2lab.model.quantization.codes import Bits
from gpt2lab.model.quantization.layers import QuantizedMatrix
from gpt2lab.model.quantization.quantized import Quantized
from gpt2lab.model.transformer import Transformer

_KEPT = {"Q4_0": 4, "Q4_1": 4, "Q5_0": 5, "Q5_1": 5, "Q8_0": 8}
"""Types of whole levels with one scale, and perhaps a minimum, for each 32 weights → their bits."""

_ROWS = 2**20
"""Weights that are compared at a time."""


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
    file: GGUFFile | Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    stored: bool = False,
) -> Transformer:
    """Load a file's model, in evaluation mode; dtype None is float32, whatever the file rounds its numbers to.

    stored: matrices in 4, 5 or 8 bits stay so (`Quantized`) where the lab's layers hold exactly their numbers.
    Beside the model, one tensor is in memory at most. LabError as for `GGUFFile`, and for tensors that are missing,
    superfluous or of a wrong shape, not finite, or beyond float16 if that is asked for.
    """
    file = file if isinstance(file, GGUFFile) else GGUFFile(file)
    config = gguf_config(file)
    model = blueprint(config)
    unused = set(file.tensors) - {ROPE_FACTORS}
    state: dict[str, nn.Parameter] = {}
    kept: dict[int, dict[str, nn.Module]] = {}
    chances = _Chances(model) if stored else None
    wanted = dict(model.named_parameters())
    for ours, like in progress(wanted.items(), total=len(wanted), label=file.path.name, unit="tensor"):
        parts = pieces(ours, config)
        bits = _bits(file, parts) if chances is not None else None
        kind = torch.float32 if dtype is None or bits is not None else dtype
        tensor = torch.empty(like.shape, device=device, dtype=kind)
        for part, view in zip(parts, cut(tensor, parts), strict=True):
            _read(file, part, view)
            unused.discard(part.name)
        layer = chances.rounded(ours, tensor, bits) if chances is not None and bits is not None else None
        if bits is not None and layer is not None:
            kept.setdefault(bits, {})[ours.removesuffix(".weight")] = layer
        else:
            state[ours] = nn.Parameter(tensor.to(dtype))
    if unused:
        raise LabError(f"{file.where}: a {config.family} model has no place for {some(sorted(unused))}")
    for bits, layers in sorted(kept.items()):
        rounding = _rounding(bits, tuple(layers))
        rounding.replace(model, layers)
        model.architectures = (*model.architectures, rounding)
    model.load_state_dict(state, strict=False, assign=True)
    if isinstance(model.head, nn.Linear):
        model.tie_head()
    return model.eval()


def _bits(file: GGUFFile, parts: list[Piece]) -> int | None:
    """Return in how many bits the file holds all pieces of a matrix; None: in several, or in others than are kept."""
    found = {_KEPT.get(file.tensors[part.name].kind.name) for part in parts if part.name in file.tensors}
    return found.pop() if len(found) == 1 else None


def _rounding(bits: int, layers: tuple[str, ...]) -> Quantized:
    """Return the rounding that has GGUF's numbers: groups of 32 with a scale and a minimum."""
    return Quantized(bits=cast(Bits, bits), scheme="affine", group=32, layers=layers)


class _Chances:
    """The layers of a model without numbers that may keep the file's bits."""

    def __init__(self, model: Transformer) -> None:
        self.modules = _rounding(8, ("*",)).chosen(model)
        self.forms = forms(model)

    def rounded(self, ours: str, weight: Tensor, bits: int) -> nn.Module | None:
        """Return a layer that holds exactly these weights in so many bits, None if it would not."""
        name = ours.removesuffix(".weight")
        module = self.modules.get(name)
        if module is None:
            return None
        module.weight = nn.Parameter(weight)
        layer = _rounding(bits, (name,)).rounded(name, module, self.forms.get(name))
        module.weight = nn.Parameter(weight.to("meta"))
        assert isinstance(layer, QuantizedMatrix)
        rows = max(1, _ROWS // layer.columns)
        flat = weight.view(-1, layer.columns)
        same = all(
            torch.equal(layer.dequantise(slice(at, at + rows)), flat[at : at + rows])
            for at in range(0, layer.rows, rows)
        )
        return layer if same else None


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
    if target.dtype == torch.float16 and not all_finite(target):
        raise LabError(
            f"{file.where}: {part.name} goes beyond float16, which ends at 65504; load the model in float32 or bfloat16"
        )
    if part.heads:
        target = halves(target, part.heads)
    if target is not view:
        view.copy_(target)
