"""Measure `patching`: which states of a clean run bring its answer back into a corrupt one, and their estimate."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.measures.measurement import Measurement
from gpt2lab.measures.prompts import Prompt, answers, read_prompt, refuse_nan
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.hook_names import PATTERNS
from gpt2lab.model.interpret import Sweep, attribution_patch, patch_sweep
from gpt2lab.plots.heatmaps import heatmap

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Patching:
    """Activation patching over layers and positions (or heads), and attribution patching beside it."""

    clean: str = ""
    """The prompt with the right answer."""
    corrupt: str = ""
    """A changed prompt with the same number of tokens; its run is patched."""
    target: str = ""
    """The answer, one token; the default is the most probable after the clean prompt."""
    against: str = ""
    """The other answer, one token; the default is the most probable after the corrupt prompt."""
    site: str = "resid_pre"
    """What is patched: resid_pre, attn_out, mlp_out, attn.hook_z … (`Transformer.activation_names` lists them)."""
    by: Literal["position", "head"] = "position"
    """Patch one position at a time, or one head at all positions."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model; LabError for prompts of different lengths, and prompts that get the same answer."""
        tokenizer, model = need_tokenizer(lm, "patching"), lm.model
        clean = read_prompt(lm, self.clean, "patching", "clean")
        corrupt = read_prompt(lm, self.corrupt, "patching", "corrupt")
        if clean.ids.shape != corrupt.ids.shape:
            raise LabError(
                f"patching: the clean prompt has {clean.ids.shape[1]} tokens, the corrupt one {corrupt.ids.shape[1]}; "
                "patches need as many in both"
            )
        with evaluating(model), torch.inference_mode():
            first, second = (refuse_nan(model(prompt.ids)[0, -1].float()) for prompt in (clean, corrupt))
        target, against = answers(
            tokenizer, first, second, self.target, self.against, "patching", context=self.clean
        )

        def metric(logits: Tensor) -> Tensor:
            return logits[:, -1, target].float() - logits[:, -1, against].float()

        sweep = patch_sweep(model, clean.ids, corrupt.ids, self.site, metric, by=self.by, at=-1)
        span = float(sweep.clean - sweep.corrupt)
        if abs(span) < 1e-6:
            raise LabError(
                "patching: both prompts give the same difference of logits, so nothing can be restored"
            )
        found = attribution_patch(model, clean.ids, corrupt.ids, list(sweep.names), metric, at=-1)
        estimate = torch.stack([self._places(found[name][0], sweep) for name in sweep.names]) / span
        restored = sweep.restored[..., 0].cpu()
        words = (tokenizer.decode([target]), tokenizer.decode([against]))
        return self._report(sweep, restored, estimate.cpu(), corrupt, words)

    def _places(self, estimate: Tensor, sweep: Sweep) -> Tensor:
        """One layer's estimate [1, ...] by position or head; what is patched together is summed."""
        pattern = sweep.names[0].endswith(PATTERNS)
        kept = int(pattern) if self.by == "position" else int(not pattern)
        values = estimate[0].movedim(kept, 0).flatten(1).sum(1) if estimate.dim() > 2 else estimate[0]
        full = values.new_full((sweep.values.shape[1],), float("nan"))
        full[: len(values)] = values
        return full

    def _report(
        self, sweep: Sweep, restored: Tensor, estimate: Tensor, corrupt: Prompt, words: tuple[str, str]
    ) -> Measurement:
        there = ~restored.isnan()
        best = int(restored.nan_to_num(-torch.inf).argmax())
        layer, place = divmod(best, restored.shape[1])
        labels = corrupt.pieces if self.by == "position" else [f"H{i}" for i in range(restored.shape[1])]
        drawing: dict[str, Any] = {
            "rows": range(len(sweep.names)), "columns": labels, "y_label": "layer", "diverging": True,
        }  # fmt: skip
        return Measurement(
            name="patching",
            numbers={
                "largest_restored": float(restored[layer, place]),
                "clean_difference": float(sweep.clean),
                "corrupt_difference": float(sweep.corrupt),
                "estimate_error": float((estimate - restored)[there].abs().mean()),
            },
            units={
                "largest_restored": f"of the difference, by layer {layer}, {labels[place]!r}",
                "clean_difference": "nats, target over against",
                "corrupt_difference": "nats",
                "estimate_error": "mean |attribution patching - activation patching|, of the difference",
            },
            tables={"cells": _rows(restored, estimate, labels, self.by)},
            figures={
                "patching": partial(heatmap, restored.tolist(), label="share restored", **drawing),
                "estimate": partial(heatmap, estimate.tolist(), label="share restored, estimated", **drawing),
            },
            about={
                "target": words[0], "against": words[1], "site": self.site, "by": self.by,
                "patched runs": int(there.sum()),
            },
        )  # fmt: skip


def _rows(restored: Tensor, estimate: Tensor, labels: list[str], by: str) -> list[dict[str, Any]]:
    """All patches, the largest first."""
    rows = [
        {
            "layer": layer,
            by: place,
            **({"token": labels[place]} if by == "position" else {}),
            "restored": float(restored[layer, place]),
            "estimate": float(estimate[layer, place]),
        }
        for layer in range(restored.shape[0])
        for place in range(restored.shape[1])
        if not restored[layer, place].isnan()
    ]
    return sorted(rows, key=lambda row: -abs(row["restored"]))
