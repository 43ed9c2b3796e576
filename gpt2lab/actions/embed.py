"""The verb `embed`: a vector for each text; a run keeps how they were made."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lab.actions.models import loaded
from gpt2lab.actions.record import recorded

if TYPE_CHECKING:
    import torch

    from gpt2lab.model.task_heads import Pooling
    from gpt2lab.text.encoding import Side
    from gpt2lab.text.language_model import LanguageModel


def embed(
    model: "str | Path | LanguageModel",
    texts: Sequence[str],
    *,
    head: str | None = None,
    pooling: "Pooling | None" = None,
    prefix: str = "",
    batch_size: int = 32,
    truncate: "Side" = "right",
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
    keep: bool = True,
) -> "torch.Tensor":
    """Return a vector for each text, [texts, width], from a model's embedding head, or from its states by `pooling`.

    head, pooling, prefix, batch_size, truncate: see `gpt2lab.measures.prediction.embed`. keep: leave a run with the
    settings and how many vectors of which width there were; the vectors are the caller's.
    """
    lm = loaded(model, device, dtype)
    from gpt2lab.measures import prediction  # torch, of which a wrong name need not wait

    options = {"head": head, "pooling": pooling, "prefix": prefix, "truncate": truncate}
    with recorded("embed", "embed", model, lm, {"options": options}, keep=keep) as run:
        vectors = prediction.embed(
            lm, texts, head=head, pooling=pooling, prefix=prefix, batch_size=batch_size, truncate=truncate
        )
        if run is not None:
            run.result("texts", len(vectors))
            run.result("width", vectors.shape[1])
    return vectors
