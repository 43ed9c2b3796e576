"""The measure of pondering: the loss by number of steps, and what each step changes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures import corpus
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.perplexity import exponential
from gpt2lab.measures.scoring import check_batch_size
from gpt2lab.papers.pondering.analysis import likely_tokens, loss_by_steps, step_statistics
from gpt2lab.papers.pondering.pause import Pause
from gpt2lab.papers.pondering.steps import find_pondering
from gpt2lab.plots.figures import column_chart
from gpt2lab.plots.heatmaps import heatmap

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

_LABELS = {
    "kl": "KL from one pass to the next, nats",
    "cosine": "cosine of successive inputs",
    "entropy": "entropy of a pass's distribution, nats",
    "loss": "loss of a pass's distribution, nats/token",
    "raised": "share of targets that the next pass finds likelier",
    "gradient": "gradient's norm at a pass's input",
}


@dataclass(frozen=True, kw_only=True)
class PonderingSteps:
    """Loss of a pondering model by number of steps, and how each step moves its distribution and its input."""

    data: tuple[str, ...] = ("docstrings",)
    """Text to score: files, folders, hub:ID or names of built-in sources."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    most: int = 5
    """Largest number of steps tried."""
    window: int | None = None
    """Tokens the model reads at once; none means its positions, at most 256."""
    limit: int = 8192
    """Score at most this many tokens."""
    batch_size: int = 8
    """Windows in one forward pass; changes speed and memory, not the numbers."""
    shown: int = 12
    """Tokens of the text whose intermediate distributions are listed."""
    top: int = 3
    """Most probable tokens listed for each."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure. LabError for a model that does not ponder, settings that do not fit it, or too little text."""
        tokenizer = corpus.need_tokenizer(lm, "loss-by-steps")
        wrapper = find_pondering(lm.model)
        window = self._window(lm)
        check_batch_size(self.batch_size)
        passage = corpus.stream(corpus.read_texts(self.data, self.field), tokenizer, limit=self.limit)
        window = min(window, len(passage.ids) - 1)
        n = (len(passage.ids) - 1) // window
        rows = torch.stack([torch.tensor(passage.ids[i * window : (i + 1) * window + 1]) for i in range(n)])
        losses = loss_by_steps(lm.model, rows, range(self.most + 1), batch_size=self.batch_size)
        curve: Table = [
            {"steps": steps, "loss": loss, "perplexity": exponential(loss)} for steps, loss in losses.items()
        ]
        best = min(losses, key=lambda steps: losses[steps])
        numbers = {"best_steps": float(best), "loss": losses[best], "loss_without": losses[0]}
        tables: dict[str, Table] = {"loss_by_steps": curve}
        figures: dict[str, Any] = {
            "loss_by_steps": partial(
                column_chart, curve, "steps", "loss", x_label="steps", y_label="nats/token"
            )
        }
        if not isinstance(wrapper, Pause):
            self._add_passes(lm, rows, tables, figures)
        return Measurement(
            name="loss-by-steps",
            numbers=numbers,
            units={"best_steps": "steps", "loss": "nats/token", "loss_without": "nats/token"},
            tables=tables,
            figures=figures,
            about={
                "data": list(self.data),
                "tokens": rows[:, 1:].numel(),
                "window": window,
                "steps": int(wrapper.steps),
            },
        )

    def _window(self, lm: "LanguageModel") -> int:
        window = min(lm.model.context, 256) if self.window is None else self.window
        if not 1 <= window <= lm.model.context:
            raise LabError(f"window must lie in [1, {lm.model.context}], the model's positions, got {window}")
        for name in ("limit", "shown", "top"):
            if getattr(self, name) < 1:
                raise LabError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.most < 0:
            raise LabError(f"most must be at least 0 steps, got {self.most}")
        return window

    def _add_passes(
        self, lm: "LanguageModel", rows: torch.Tensor, tables: dict[str, Table], figures: dict[str, Any]
    ) -> None:
        """Add what happens in the passes of the model as it is."""
        passes = tables["passes"] = step_statistics(lm.model, rows, batch_size=self.batch_size)
        for name, label in _LABELS.items():
            figures[f"passes_{name}"] = _curve(passes, name, label)
        spell: Callable[[int], str] = lm.tokenizer.token if lm.tokenizer is not None else str
        ids = rows[0, : self.shown].tolist()
        known = tables["tokens"] = likely_tokens(lm.model, ids, spell, top=self.top)
        table = [[row for row in known if row["pass"] == index] for index in range(len(passes))]
        figures["tokens"] = partial(
            heatmap,
            [[row["entropy"] for row in line] for line in table],
            rows=[f"pass {index}" for index in range(len(passes))],
            columns=[spell(token) for token in ids],
            y_label="after",
            label="entropy, nats",
            cells=[[row["top 1"].rpartition(" ")[0] for row in line] for line in table],
        )


def _curve(passes: Table, name: str, label: str) -> Callable[[], Any]:
    rows = [row for row in passes if name in row]
    return partial(column_chart, rows, "pass", name, x_label="pass", y_label=label)
