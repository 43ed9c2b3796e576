"""The method: the z-loss (Chowdhery et al. 2022, section 5)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.loss import IGNORE
from gpt2lab.training import Batch, Objective


@dataclass(frozen=True, kw_only=True)
class ExampleObjective(Objective):
    """L = cross entropy + weight · log² Z, mean over targets, with Z = Σ exp(logits) of each target."""

    weight: float = 1e-4
    """Weight of the penalty; 0 is plain training."""

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise LabError(f"weight must not be negative, got {self.weight}")

    def __call__(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss in nats a target, and |log Z| for the log.

        batch: tokens [batch, time], targets [batch, time] (shifted; -100 carries no loss), perhaps attention_mask.
        """
        logits = model(batch["tokens"], attention_mask=batch.get("attention_mask")).float()
        scored = batch["targets"] != IGNORE
        logits, targets = logits[scored], batch["targets"][scored]  # [targets, vocab]
        if not len(targets):
            return logits.sum(), {"log_z": 0.0}
        log_z = logits.logsumexp(-1)
        penalty = self.weight * log_z.square().mean()
        return F.cross_entropy(logits, targets) + penalty, {"log_z": float(log_z.detach().abs().mean())}
