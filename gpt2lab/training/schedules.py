"""Learning rate over the run, as a share of the peak."""

import math

from gpt2lab.training.settings import TrainSettings


def learning_rate_share(step: int, settings: TrainSettings) -> float:
    """Return the share of the peak learning rate for update `step` (0 is the first).

    Warm-up: (step + 1) / warmup, so that the first update already moves. Then with t in [0, 1] from the end of the
    warm-up to the last update, and f the final fraction:
    cosine f + (1 - f)(1 + cos πt)/2 (Loshchilov & Hutter 2017, eq. 5), linear 1 - (1 - f)t, constant 1,
    warmup-stable-decay 1 until the last `decay_fraction` of all updates, then linear to f (Hu et al. 2024).
    """
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    final, steps = settings.final_fraction, settings.laid_out or settings.steps
    time = (step - settings.warmup) / max(1, steps - 1 - settings.warmup)
    if settings.schedule == "cosine":
        return final + (1 - final) * (1 + math.cos(math.pi * min(time, 1.0))) / 2
    if settings.schedule == "linear":
        return 1 - (1 - final) * min(time, 1.0)
    if settings.schedule == "warmup-stable-decay":
        length = max(1, round(steps * settings.decay_fraction))
        into = max(0, step - (steps - 1 - length))
        return 1 - (1 - final) * min(into / length, 1.0)
    return 1.0
