"""How many weights of a model are zero."""

from dataclasses import dataclass

from gpt2lab import LabError, LanguageModel
from gpt2lab.measures.measurement import Measurement

from .transform import matrices


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """Share of the weights in the blocks' matrices whose magnitude is at most `threshold`."""

    threshold: float = 0.0
    """Largest magnitude that counts as zero."""

    def __call__(self, lm: LanguageModel) -> Measurement:
        """Count. LabError if the blocks have no matrices, or the model holds weights that are not finite."""
        for name, parameter in lm.model.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise LabError(f"sparsity: the weights of {name} are not finite")
        rows = []
        weights = zero = 0
        for name, matrix in matrices(lm.model):
            pruned = int((matrix.abs() <= self.threshold).sum())
            rows.append({"matrix": name, "weights": matrix.numel(), "zero": pruned})
            weights += matrix.numel()
            zero += pruned
        if not rows:
            raise LabError("sparsity: this model's blocks have no linear layers")
        return Measurement(
            name="sparsity",
            numbers={"sparsity": zero / weights, "weights": weights, "left": weights - zero},
            units={"sparsity": "share of the weights in the blocks' matrices"},
            tables={"matrices": rows},
            about={"threshold": self.threshold},
        )
