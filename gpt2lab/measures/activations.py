"""Measure `activations`: records named tensors of a forward pass, describes them, and writes them to a file."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.measurement import Measurement
from gpt2lab.measures.prompts import read_prompt, refuse_nan
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.interpret import save_activations

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Record activations of a prompt by name."""

    prompt: str = ""
    """Text to read."""
    read: tuple[str, ...] = ("resid_post",)
    """Names: exact, globs, or short ones that stand for every layer (resid_post, attn.hook_pattern, blocks.2.*)."""
    out: str | None = None
    """Output file, .npz: arrays by name and a JSON header with hashes of model and tokens."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model; LabError for a name that the model does not have."""
        prompt = read_prompt(lm, self.prompt, "activations")
        if not self.read:
            raise LabError("activations: nothing to read; give names with --read")
        with evaluating(lm.model), torch.no_grad(), lm.model.tap(read=self.read) as tap:
            # Without a head there are no logits to look at.
            refuse_nan(lm.model.hidden(prompt.ids) if lm.config.head == "none" else lm.model(prompt.ids))
        tensors = {name: tap[name] for names in tap.asked.values() for name in names}
        if self.out is not None:
            about = {"prompt": self.prompt, "pieces": prompt.pieces, "read": list(self.read)}
            save_activations(self.out, tensors, model=lm.model, tokens=prompt.ids, about=about)
        return Measurement(
            name="activations",
            numbers={
                "names": len(tensors),
                "values": sum(tensor.numel() for tensor in tensors.values()),
                "mebibytes": sum(tensor.nbytes for tensor in tensors.values()) / 2**20,
            },
            tables={"activations": [_row(name, tensor) for name, tensor in tensors.items()]},
            about={"tokens": prompt.ids.shape[1], "file": self.out or "none (give --out FILE.npz)"},
        )


def _row(name: str, tensor: Tensor) -> dict[str, Any]:
    """Describe one tensor; masked scores, which are infinite, are left out of its statistics."""
    values = tensor.detach().double().cpu()
    values = values[values.isfinite()]
    return {
        "name": name,
        "shape": "×".join(map(str, tensor.shape)),
        "type": str(tensor.dtype).removeprefix("torch."),
        "mean": float(values.mean()) if len(values) else 0.0,
        "deviation": float(values.std(correction=0)) if len(values) else 0.0,
        "largest": float(values.abs().max()) if len(values) else 0.0,
    }
