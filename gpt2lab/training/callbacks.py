"""What watches a training run and may end it: callbacks, early stopping, and which evaluation is the best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.model import Transformer


class Callback:
    """What the loop calls; each method does nothing until a subclass writes it.

    step counts the updates made. What a callback must remember over a resume it returns as `state`, in plain values.
    """

    stop_reason: str = ""
    """Why the run is to end after this evaluation or update, as a sentence; empty if it is to go on."""

    def on_start(self, step: int, model: Transformer) -> None:
        """Hear that the run starts, or resumes, after `step` updates."""

    def on_update(self, step: int, numbers: Mapping[str, float], model: Transformer) -> None:
        """Hear that update number `step` (1 is the first) is made, with its loss, learning rate, norm and metrics."""

    def on_evaluation(self, step: int, numbers: Mapping[str, float], model: Transformer) -> None:
        """Hear what an evaluation after `step` updates gave; 0 is the one before training."""

    def on_end(self, step: int, numbers: Mapping[str, float], model: Transformer) -> None:
        """Hear that the run has ended after `step` updates, with the numbers of the model that is kept."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A number of the evaluations, and which of its values are better."""

    number: str = "validation_loss"
    """Name of a number of the evaluation."""
    mode: Literal["min", "max"] = "min"
    """Whether lower or higher values are better."""

    def value(self, numbers: Mapping[str, float]) -> float | None:
        """Return its value; None where there is none or it is not finite, which is never the best."""
        found = numbers.get(self.number)
        return float(found) if found is not None and math.isfinite(found) else None

    def require(self, numbers: Mapping[str, float], setting: str) -> None:
        """LabError if an evaluation does not give it."""
        if self.number not in numbers:
            raise LabError(f"{setting}: {unknown('number of the evaluation', self.number, list(numbers))}")

    def gain(self, value: float, over: float) -> float:
        """Return by how much a value is better than another; negative if it is worse."""
        return over - value if self.mode == "min" else value - over


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Watched):
    """End a run whose evaluations have stopped getting better."""

    patience: int = 3
    """Evaluations in a row without improvement after which the run ends."""
    min_delta: float = 0.0
    """Smallest improvement that counts: more than this."""

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise LabError(f"early_stopping: patience must be at least 1, got {self.patience}")
        if not 0 <= self.min_delta < math.inf:
            raise LabError(f"early_stopping: min_delta must not be negative, got {self.min_delta}")


class StopsEarly(Callback):
    """The callback of `EarlyStopping`: counts evaluations since the best one."""

    def __init__(self, settings: EarlyStopping) -> None:
        self.settings = settings
        self.best: float | None = None
        """The best value so far."""
        self.waited = 0
        """Evaluations since it."""

    def on_evaluation(self, step: int, numbers: Mapping[str, float], model: Transformer) -> None:
        """Count the evaluation, and give a reason to stop once there have been too many. LabError without the number."""
        asked = self.settings
        asked.require(numbers, "early_stopping.number")
        value = asked.value(numbers)
        better = value is not None and (
            self.best is None or asked.gain(value, over=self.best) > asked.min_delta
        )
        if better:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.waited >= asked.patience:
            best = "no finite value" if self.best is None else f"{self.best:.6g}"
            self.stop_reason = (
                f"stopped early at step {step}: {asked.number} has not improved on {best} "
                f"for {self.waited} evaluations"
            )

    def state(self) -> dict[str, Any]:
        """Return the best value, the evaluations since, and the reason to stop."""
        return {"best": self.best, "waited": self.waited, "stop_reason": self.stop_reason}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.best, self.waited, self.stop_reason = state["best"], state["waited"], state["stop_reason"]


def stop_reason(callbacks: Sequence[Callback]) -> str:
    """Return why a run is to end, of the first callback that says so; empty if none does."""
    return next((one.stop_reason for one in callbacks if one.stop_reason), "")
