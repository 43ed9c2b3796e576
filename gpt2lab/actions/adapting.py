"""`train` with an adapter: the given model is frozen, and the run keeps what was trained beside it."""

from pathlib import Path

import torch

from gpt2lab.actions.models import find_model
from gpt2lab.model.adapters import Lora, adapters, count_trainable
from gpt2lab.model.architecture import attach
from gpt2lab.model.quantization import QuantizationOptions, Quantized
from gpt2lab.runs.run import Run
from gpt2lab.text.language_model import LanguageModel, save_adapter


def round_base(lm: LanguageModel, options: QuantizationOptions | None) -> None:
    """Round the model's matrices, if asked to, before an adapter is attached (Dettmers et al. 2023)."""
    if options is not None:
        attach(lm.model, Quantized(**options.options()))


def attach_adapter(run: Run, lm: LanguageModel, lora: Lora, *, seed: int) -> None:
    """Attach an adapter to the model, drawn from `seed`, and note and print how much of the model trains."""
    attach(lm.model, lora, generator=torch.Generator().manual_seed(seed))
    count = count_trainable(lm.model)
    run.note(f"lora: {count}")
    run.result("parameters.trainable", count.trainable)


def keep_adapter(run: Run, lm: LanguageModel, lora: Lora, model: str) -> None:
    """Save the adapter below the run's folder as PEFT does; it names `model`, the one that was given, as its base.

    A second adapter has no base that PEFT could open: the whole model is saved then, both adapters with it.
    """
    if len(adapters(lm.model)) > 1:
        run.model(lm)
        return
    place = find_model(model)
    base = str(place.resolve()) if isinstance(place, Path) else model
    save_adapter(lm, run.folder / "model", base=base, name=lora.name)
    run.note(f"model: an adapter for {base}; one ordinary model: gpt2lab apply merge-lora {run.id} --out DIR")
