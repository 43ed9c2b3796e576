"""Measure `attribution`: which heads and feed-forwards write the answer, and which write against it."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.measures.measurement import Measurement
from gpt2lab.measures.prompts import answers, read_prompt, refuse_nan
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.interpret import Decomposition, decompose, direct_effect, dla, logit_bias, nmae
from gpt2lab.plots.heatmaps import heatmap

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Direct logit attribution of every part of the residual to one token over another."""

    prompt: str = ""
    """Text to read."""
    target: str = ""
    """The answer, one token; the default is the model's most probable token."""
    against: str = ""
    """Token to compare with; the default is the most probable other one."""
    position: int = -1
    """Position of the token before the answer, counted from 0, or from the end if negative."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model; LabError for answers of several tokens, and for models that are no sum of parts."""
        tokenizer, model = need_tokenizer(lm, "attribution"), lm.model
        prompt = read_prompt(lm, self.prompt, "attribution")
        time = prompt.ids.shape[1]
        if not -time <= self.position < time:
            raise LabError(f"attribution: position {self.position}, but the prompt has {time} tokens")
        with evaluating(model), torch.inference_mode():
            logits = refuse_nan(model(prompt.ids)[0, self.position].float())
        target, against = answers(
            tokenizer, logits, logits, self.target, self.against, "attribution", context=self.prompt
        )
        parts = decompose(model, prompt.ids, pos=self.position)
        yes, no = (torch.tensor([[token]], device=model.device) for token in (target, against))
        with torch.inference_mode():
            direct = dla(model, parts.values, yes, scale=parts.scale, against=no)[:, 0, 0].cpu()
            effect = direct_effect(model, parts.values, parts.total, yes, against=no)[:, 0, 0].cpu()
            bias = float(logit_bias(model, yes, no))
        shown = {name: float(value) for name, value in zip(parts.names, direct, strict=True)}
        return Measurement(
            name="attribution",
            numbers={
                "logit_difference": float(logits[target] - logits[against]),
                "heads": _sum(shown, "H"),
                "feed_forwards": _sum(shown, "MLP"),
                "embeddings_and_biases": sum(shown.values()) + bias - _sum(shown, "H") - _sum(shown, "MLP"),
                "nmae": float(nmae(direct, effect)),
            },
            units={
                "logit_difference": "nats, target over against",
                "heads": "of it, by projection",
                "feed_forwards": "of it",
                "embeddings_and_biases": "of it",
                "nmae": "% between attribution and direct effect",
            },
            tables={"parts": _rows(parts, direct, effect)},
            figures={"parts": _figure(lm, shown)} if lm.config.n_layers else {},
            about={
                "target": tokenizer.decode([target]), "against": tokenizer.decode([against]),
                "after": prompt.pieces[self.position], "parts": len(parts.names),
            },
        )  # fmt: skip


def _sum(shown: dict[str, float], kind: str) -> float:
    return sum(value for name, value in shown.items() if name.startswith("L") and kind in name)


def _rows(parts: Decomposition, direct: Tensor, effect: Tensor) -> list[dict[str, object]]:
    """All parts, the largest first."""
    order = torch.sort(direct.abs(), descending=True, stable=True).indices.tolist()
    return [
        {"part": parts.names[i], "attribution": float(direct[i]), "direct effect": float(effect[i])}
        for i in order
    ]


def _figure(lm: "LanguageModel", shown: dict[str, float]) -> "Callable[[], Figure]":
    layers = range(lm.config.n_layers)
    most = max(lm.config.layer(i).n_heads for i in layers)
    columns = [*(f"H{head}" for head in range(most)), " MLP"]
    values = [[shown.get(f"L{layer}{column}", float("nan")) for column in columns] for layer in layers]
    return partial(
        heatmap, values, rows=layers, columns=[column.strip() for column in columns], y_label="layer",
        label="attribution, nats", diverging=True,
    )  # fmt: skip
