"""The verb `predict`: what a model's head says of texts, kept in a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lab.actions.models import loaded
from gpt2lab.actions.record import recorded

if TYPE_CHECKING:
    import torch

    from gpt2lab.measures.prediction import Prediction
    from gpt2lab.text.encoding import Side
    from gpt2lab.text.language_model import LanguageModel


def predict(
    model: "str | Path | LanguageModel",
    texts: "Sequence[str] | Sequence[Sequence[str]]",
    *,
    pairs: Sequence[str] | None = None,
    head: str | None = None,
    batch_size: int = 32,
    truncate: "Side" = "right",
    separator: str = "",
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
    keep: bool = True,
    command: str = "",
) -> "list[Prediction]":
    """Say of each text what a model's head has learnt: its class with probabilities, its number, its words' labels.

    texts, pairs, head, batch_size, truncate, separator: see `gpt2lab.measures.prediction.predict`. keep: leave a run
    with a table of them; command: what it notes as the command that repeats it.
    """
    lm = loaded(model, device, dtype)
    from gpt2lab.measures import prediction  # torch, of which a wrong name need not wait

    options = {"head": head, "pairs": pairs, "truncate": truncate, "separator": separator}
    with recorded("predict", "predict", model, lm, {"options": options}, keep=keep, command=command) as run:
        said = prediction.predict(
            lm,
            texts,
            pairs=pairs,
            head=head,
            batch_size=batch_size,
            truncate=truncate,
            separator=separator,
        )
        if run is not None:
            rows = [
                {
                    "text": text if isinstance(text, str) else " ".join(text),
                    "labels": " ".join(one.labels),
                    **{f"score {label}": score for label, score in one.scores.items()},
                }
                for text, one in zip(texts, said, strict=True)
            ]
            run.table("predictions", rows, caption="predictions")
            run.result("texts", len(said))
    return said
