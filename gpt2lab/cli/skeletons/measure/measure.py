"""The method: the in-context learning score (after Olsson et al. 2022), loss at late positions minus loss at early ones."""

from dataclasses import dataclass

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures import corpus
from gpt2lab.measures.measurement import Measurement
from gpt2lab.measures.perplexity import score_sequences
from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class ExampleMeasure:
    """Mean loss in the last quarter of the context minus mean loss in its first quarter; below 0 if context helps."""

    data: tuple[str, ...] = ("docstrings",)
    """Text to score: files, folders, hub:ID or names of built-in sources."""
    window: int | None = None
    """Tokens of context; none means the model's positions, at most 512."""
    batch_size: int = 8
    """Windows in one forward pass; changes speed and memory, not the numbers."""
    limit: int | None = 20_000
    """Use at most so many tokens of the text."""

    def __call__(self, lm: LanguageModel) -> Measurement:
        """Measure. LabError for a window shorter than 4 tokens, and for text shorter than one window."""
        tokenizer = corpus.need_tokenizer(lm, "this measure")
        window = min(lm.config.max_positions, 512) if self.window is None else self.window
        if window < 4:
            raise LabError(f"window must be at least 4 tokens, got {window}")
        ids = torch.tensor(corpus.stream(corpus.read_texts(self.data), tokenizer, limit=self.limit).ids)
        rows = [ids[at : at + window + 1] for at in range(0, len(ids) - window, window)]
        if not rows:
            raise LabError(f"the text has {len(ids)} tokens, fewer than one window of {window} and the next")
        scores = score_sequences(lm.model, rows, window=window, stride=window, batch_size=self.batch_size)
        losses = (
            torch.stack([score.losses for score in scores]).double().mean(0)
        )  # [window], over all windows
        quarter = window // 4
        early, late = float(losses[:quarter].mean()), float(losses[-quarter:].mean())
        return Measurement(
            name="example-measure",
            numbers={"score": late - early, "late": late, "early": early},
            units=dict.fromkeys(("score", "late", "early"), "nats per token"),
            tables={"positions": _by_position(losses)},
            about={"data": list(self.data), "window": window, "windows": len(rows)},
        )


def _by_position(losses: torch.Tensor, pieces: int = 8) -> list[dict[str, float]]:
    """Return the mean loss of each eighth of the context."""
    found, start = [], 0
    for piece in losses.tensor_split(pieces):
        if len(piece):
            found.append({"from": start, "to": start + len(piece) - 1, "loss": float(piece.mean())})
        start += len(piece)
    return found
