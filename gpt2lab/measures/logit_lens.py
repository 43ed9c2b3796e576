"""Measure `logit-lens`: what the model would say after each of its blocks (nostalgebraist 2020)."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.prompts import Prompt, read_prompt, refuse_nan
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.interpret import logit_lens
from gpt2lab.plots.heatmaps import heatmap
from gpt2lab.text.pieces import piece_text

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

_SHOWN = 8
"""Positions in the table by layer; the table of cells and the figure have them all."""


@dataclass(frozen=True, kw_only=True)
class LogitLens:
    """The likeliest next token after each block, read through the model's own final norm and head."""

    prompt: str = ""
    """Text to read."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model; LabError for an empty prompt or a model without a head."""
        tokenizer, model = need_tokenizer(lm, "logit-lens"), lm.model
        prompt = read_prompt(lm, self.prompt, "logit-lens")
        # With post-norm a block's output is what its second norm returns.
        site = "hook_resid_post" if lm.config.norm_placement == "pre" else "ln2.hook_normalized"
        outputs = [f"blocks.{i}.{site}" for i in range(lm.config.n_layers)]
        names = ["blocks.0.hook_resid_pre", *outputs] if outputs else []
        with evaluating(model), torch.inference_mode():
            with model.tap(read=names) as tap:
                final = refuse_nan(model(prompt.ids)[0].float())
            lens = [logit_lens(model, tap[name][0]).float() for name in names] or [final]
        best = torch.stack([logits.softmax(-1).max(-1).values for logits in lens]).cpu()
        tokens = torch.stack([logits.argmax(-1) for logits in lens]).cpu()
        words = [[piece_text(tokenizer, int(token)) for token in row] for row in tokens]
        answer = final.argmax(-1, keepdim=True)
        settled = _settled(tokens)
        labels = ["embed", *map(str, range(len(outputs)))][: len(lens)]
        return Measurement(
            name="logit-lens",
            numbers={
                "settled_after": sum(settled) / len(settled),
                "settled_after_share": sum(settled) / len(settled) / max(1, len(outputs)),
                "answer_halfway": float(lens[len(lens) // 2].softmax(-1).gather(-1, answer).mean()),
                "answer": float(final.softmax(-1).gather(-1, answer).mean()),
            },
            units={
                "settled_after": "blocks, until the likeliest token stays what it is; mean over positions",
                "settled_after_share": "of all blocks",
                "answer_halfway": "probability of the model's likeliest token after half of the blocks",
                "answer": "the same at the end",
            },
            tables={
                "lens": _by_layer(labels, prompt, words, best.tolist()),
                "cells": _cells(labels, prompt, words, best.tolist()),
            },
            figures={
                "lens": partial(
                    heatmap, best.tolist(), rows=labels, columns=prompt.pieces, cells=words, y_label="after block",
                    label="probability of the likeliest token", limits=(0.0, 1.0), upwards=True,
                )
            },
            about={"tokens": prompt.ids.shape[1], "site": site, "norm": "the final one, on each state by itself"},
        )  # fmt: skip


def _settled(tokens: torch.Tensor) -> list[int]:
    """After how many blocks the likeliest token, [blocks + 1, time], is the last one and stays so, by position."""
    same = (tokens == tokens[-1]).flip(0).long().cumprod(0).sum(0)  # how many of the last agree
    return [len(tokens) - int(count) for count in same]


def _by_layer(labels: list[str], prompt: Prompt, words: list[list[str]], best: list[list[float]]) -> Table:
    first = max(0, len(prompt.pieces) - _SHOWN)
    return [
        {"block": label}
        | {
            f"{place} {prompt.pieces[place]!r}": f"{words[i][place]!r} {best[i][place]:.2f}"
            for place in range(first, len(prompt.pieces))
        }
        for i, label in enumerate(labels)
    ]


def _cells(labels: list[str], prompt: Prompt, words: list[list[str]], best: list[list[float]]) -> Table:
    return [
        {
            "block": label,
            "position": place,
            "token": piece,
            "says": words[i][place],
            "probability": best[i][place],
        }
        for i, label in enumerate(labels)
        for place, piece in enumerate(prompt.pieces)
    ]
