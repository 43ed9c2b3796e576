"""Measure `patching-exactness`: how well attribution patching estimates activation patching on indirect objects."""

import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import user_path
from gpt2lab.measures import corpus
from gpt2lab.measures.measurement import Measurement
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.interpret import attribution_patch, patch_sweep
from gpt2lab.plots.heatmaps import heatmap
from gpt2lab.text.pieces import split_text
from gpt2lab.text.readers import text_lines
from gpt2lab.text.rows import headed
from gpt2lab.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True)
class Comparison:
    """Both kinds of patching at one site, as shares of what the prompts differ in."""

    patched: Tensor
    """Activation patching, [layers, positions, prompts]."""
    estimated: Tensor
    """Attribution patching, alike."""

    @property
    def error(self) -> float:
        """Mean |estimate - patch| over layers, positions and prompts."""
        return float((self.estimated - self.patched).abs().mean())

    @property
    def by_prompt(self) -> Tensor:
        """The same for each prompt, [prompts]."""
        return (self.estimated - self.patched).abs().mean((0, 1))

    @property
    def heat_maps(self) -> tuple[Tensor, Tensor]:
        """Mean over prompts of patch and estimate, each [layers, positions]."""
        return self.patched.mean(2), self.estimated.mean(2)


def compare_patching(
    model: Transformer,
    clean: Tensor,
    corrupt: Tensor,
    answer: Tensor,
    against: Tensor,
    *,
    position: int,
    site: str = "resid_pre",
    by_prompt: bool = True,
) -> Comparison:
    """Patch every layer and position of a clean run into a corrupt one, and estimate it from one gradient.

    clean, corrupt [prompts, time]; the metric is logit(answer) - logit(against) [prompts] at the end. Both kinds are divided
    by what activation patching of layer 0 does at `position`, where the prompts differ: prompt by prompt as in the paper, or
    (by_prompt=False) by its mean size over prompts, which a prompt whose answers hardly differ does not blow up.
    LabError if that is 0, and for NaN.
    """
    clean, corrupt = clean.to(model.device), corrupt.to(model.device)
    metric = partial(_difference, answer=answer.to(model.device), against=against.to(model.device))
    sweep = patch_sweep(model, clean, corrupt, site, metric, at=-1)
    estimate = attribution_patch(model, clean, corrupt, site, metric, at=-1)[site].transpose(1, 2)
    if not bool(sweep.effects.isfinite().all() and estimate.isfinite().all()):
        raise LabError("patching: effects are not finite; the model gives NaN or infinite states")
    whole = sweep.effects[0, position]  # [prompts]
    scale = whole if by_prompt else whole.abs().mean()
    if not bool((scale.abs() > 0).all()):
        raise LabError(
            "patching: the prompts give the same difference of logits, so there is nothing to compare"
        )
    return Comparison((sweep.effects / scale).cpu(), (estimate.detach() / scale).cpu())


@torch.no_grad()
def prefers(model: Transformer, clean: Tensor, answer: Tensor, against: Tensor) -> Tensor:
    """Return whether a model gives each prompt's answer a larger logit than the other name, bool [prompts].

    Where it does so in about half of the prompts there is no behaviour that patching could bring back.
    """
    with evaluating(model):
        hidden = model.hidden(clean.to(model.device))[:, -1:]
        logits = model.unembed(hidden)
    return (_difference(logits, answer.to(model.device), against.to(model.device)) > 0).cpu()


def _difference(logits: Tensor, answer: Tensor, against: Tensor) -> Tensor:
    """Return logit(answer) - logit(against) at the end of each row; logits [rows, time, vocab]."""
    rows = torch.arange(len(answer), device=logits.device)
    last = logits[:, -1].to(torch.promote_types(logits.dtype, torch.float32))
    return last[rows, answer] - last[rows, against]


class Prompts(NamedTuple):
    """Prompts with two names of which one is repeated; rows 2k and 2k + 1 differ in which one, at one position."""

    clean: Tensor
    """[prompts, time] int64."""
    corrupt: Tensor
    """The partner of each, alike."""
    answer: Tensor
    """The name that a prompt does not repeat, [prompts]."""
    against: Tensor
    """The name that it does."""

    @property
    def position(self) -> int:
        """Where the first prompt and its partner differ."""
        return int((self.clean[0] != self.corrupt[0]).nonzero()[0])


_NAMES = "John Mary James Sarah David Laura Michael Lisa Robert Emily Daniel Anna Thomas Kate Mark Alice Paul Rachel"
_PLACES = "store garden restaurant school hospital office station house"
_THINGS = "drink ring kiss bone basket computer necklace book"


def english_prompts(tokenizer: Tokenizer, count: int, *, seed: int = 0, start: int | None = None) -> Prompts:
    """Return `count` prompts `Then, A and B went to the PLACE. A gave a THING to`, half of them with B for the second A.

    The template is one of Wang et al. 2022; words that are more than one token are left out. start: a token before each.
    LabError for an odd count, and for a tokenizer that has too few of the words.
    """
    if count < 2 or count % 2:
        raise LabError(f"prompts come in pairs: give an even number from 2 on, got {count}")
    names, places, things = (
        [word for word in words.split() if len(split_text(tokenizer, "a", f" {word}")[1]) == 1]
        for words in (_NAMES, _PLACES, _THINGS)
    )
    if len(names) < 2 or not places or not things:
        raise LabError(
            "this tokenizer has no single tokens for the names and things of the built-in prompts; give a CSV of your own "
            "with the columns prompt, answer_io, answer_s"
        )
    draw, rows = random.Random(f"pairs {seed}"), list[dict[str, str]]()
    for _ in range(count // 2):
        a, b = draw.sample(names, 2)
        place, thing = draw.choice(places), draw.choice(things)
        for one, other in ((a, b), (b, a)):
            text = f"Then, {a} and {b} went to the {place}. {one} gave a {thing} to"
            rows.append({"prompt": text, "answer_io": f" {other}", "answer_s": f" {one}"})
    return _encoded(rows, tokenizer, start, "the built-in prompts")


def read_prompts(path: Path | str, tokenizer: Tokenizer, *, start: int | None = None) -> Prompts:
    """Read indirect-object prompts; start: a token that is put before each (the paper's position 11 counts one).

    The file is CSV with the columns prompt, answer_io and answer_s; rows 2k and 2k + 1 are each other's corrupt prompt.
    LabError for answers of several tokens, for prompts of different lengths, which are to be patched apart, and for
    partners that do not differ in one place, the same in all pairs.
    """
    file = user_path(path)
    rows = [row for _, row in headed(file, text_lines(file), "prompt", "answer_io", "answer_s")]
    if len(rows) % 2:
        raise LabError(f"{path}: needs an even number of rows, got {len(rows)}; 2k and 2k + 1 are a pair")
    return _encoded(rows, tokenizer, start, str(path))


def _encoded(rows: list[dict[str, str]], tokenizer: Tokenizer, start: int | None, where: str) -> Prompts:
    before = [] if start is None else [start]
    (prompts, first), (others, second) = (
        zip(*(split_text(tokenizer, row["prompt"], row[name]) for row in rows), strict=True)
        for name in ("answer_io", "answer_s")
    )
    if prompts != others:
        raise LabError(
            f"{where}: a prompt ends inside a token of one of its answers; end prompts before a blank"
        )
    ids, answers = [[*before, *prompt] for prompt in prompts], (first, second)
    if len({len(row) for row in ids}) > 1:
        raise LabError(
            f"{where}: prompts have {min(map(len, ids))} to {max(map(len, ids))} tokens; split them by length"
        )
    if any(len(answer) != 1 for column in answers for answer in column):
        raise LabError(f"{where}: an answer is one token; these names take several with this tokenizer")
    clean = torch.tensor(ids)
    corrupt = clean[torch.arange(len(ids)) ^ 1]
    different = clean != corrupt
    if not bool((different == different[0]).all()) or int(different[0].sum()) != 1:
        raise LabError(
            f"{where}: two partners differ in one token, at the same place in all pairs; these do not"
        )
    yes, no = (torch.tensor([answer[0] for answer in column]) for column in answers)
    return Prompts(clean, corrupt, yes, no)


@dataclass(frozen=True, kw_only=True)
class PatchingExactness:
    """How well attribution patching estimates activation patching of the residual stream, on prompts with two names."""

    prompts: str | None = None
    """CSV with the columns prompt, answer_io, answer_s, partners in alternation; none generates English prompts."""
    samples: int = 32
    """Prompts, an even number, the first of a file; the paper has 480."""
    start: bool = True
    """Put a start (or end) of text before each prompt, as in the paper."""
    by_prompt: bool = True
    """Divide by each prompt's own effect, as in the paper; otherwise by the mean size of all."""
    site: str = "resid_pre"
    """Activation that is patched, in every layer."""
    seed: int = 0
    """Seed of the English prompts."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model. LabError for prompts that do not fit the tokenizer, and for NaN."""
        tokenizer = corpus.need_tokenizer(lm, "patching-exactness")
        start = corpus.start_token(tokenizer) if self.start else None
        if self.prompts is None:
            found = english_prompts(tokenizer, self.samples, seed=self.seed, start=start)
        else:
            found = read_prompts(self.prompts, tokenizer, start=start)
        if self.samples < 1:
            raise LabError(f"patching-exactness: samples must be at least 1, got {self.samples}")
        clean, corrupt, answer, against = (column[: self.samples] for column in found)
        both = compare_patching(
            lm.model, clean, corrupt, answer, against, position=found.position, site=self.site,
            by_prompt=self.by_prompt,
        )  # fmt: skip
        if not bool((both.patched.isfinite() & both.estimated.isfinite()).all()):
            raise LabError(
                "patching-exactness: effects are not finite; the model gives NaN or infinite states"
            )
        patched, estimated = both.heat_maps
        pieces = [tokenizer.decode([token], skip_special=False) for token in clean[0].tolist()]
        drawing: dict[str, Any] = {
            "rows": range(len(patched)), "columns": pieces, "y_label": "layer", "diverging": True,
            "label": "share of what the prompts differ in",
        }  # fmt: skip
        return Measurement(
            name="patching-exactness",
            numbers={
                "error": both.error,
                "error_median": float(both.by_prompt.median()),
                "error_of_means": float((estimated - patched).abs().mean()),
                "preferred": float(prefers(lm.model, clean, answer, against).double().mean()),
            },
            units={
                "error": "of what the prompts differ in, mean over layers, positions and prompts",
                "error_median": "alike, of the middle prompt",
                "error_of_means": "alike, of means over prompts",
                "preferred": "share of prompts whose answer has a larger logit than the repeated name",
            },
            tables={"cells": _cells(patched, estimated, pieces)},
            figures={
                "patched": partial(heatmap, patched.tolist(), **drawing),
                "estimated": partial(heatmap, estimated.tolist(), **drawing),
            },
            about={"prompts": len(clean), "they differ at": found.position, "first": tokenizer.decode(clean[0].tolist())},
        )  # fmt: skip


def _cells(patched: Tensor, estimated: Tensor, pieces: list[str]) -> list[dict[str, Any]]:
    """Every layer and position, the largest effects first; `token` is the first prompt's."""
    rows = [
        {
            "layer": layer,
            "position": place,
            "token": piece,
            "patched": float(patched[layer, place]),
            "estimated": float(estimated[layer, place]),
        }
        for layer in range(len(patched))
        for place, piece in enumerate(pieces)
    ]
    return sorted(rows, key=lambda row: -abs(row["patched"]))
