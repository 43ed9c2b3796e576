"""How well attribution patching estimates activation patching, prompt by prompt (the paper's indirect objects)."""

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.activations import attribution_patch, patch_sweep
from gpt2lab.text.tokenizer import Tokenizer


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
    LabError if that is 0.
    """
    clean, corrupt = clean.to(model.device), corrupt.to(model.device)
    rows = torch.arange(len(answer), device=model.device)
    yes, no = answer.to(model.device), against.to(model.device)

    def metric(logits: Tensor) -> Tensor:
        last = logits[:, -1].to(torch.promote_types(logits.dtype, torch.float32))
        return last[rows, yes] - last[rows, no]

    sweep = patch_sweep(model, clean, corrupt, site, metric, at=-1)
    estimate = attribution_patch(model, clean, corrupt, site, metric, at=-1)[site].transpose(1, 2)
    whole = sweep.effects[0, position]  # [prompts]
    scale = whole if by_prompt else whole.abs().mean()
    if not bool((scale.abs() > 0).all()):
        raise LabError(
            "patching: the prompts give the same difference of logits, so there is nothing to compare"
        )
    return Comparison((sweep.effects / scale).cpu(), (estimate.detach() / scale).cpu())


def read_prompts(path: Path | str, tokenizer: Tokenizer) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read indirect-object prompts and return clean, corrupt [prompts, time], answer and against [prompts].

    The file is CSV with the columns prompt, answer_io and answer_s; rows 2k and 2k + 1 are each other's corrupt prompt.
    LabError for answers of several tokens, and for prompts of different lengths, which are to be patched apart.
    """
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or len(rows) % 2 or not {"prompt", "answer_io", "answer_s"} <= rows[0].keys():
        raise LabError(f"{path}: needs the columns prompt, answer_io, answer_s and an even number of rows")
    ids = [tokenizer.encode(row["prompt"]) for row in rows]
    answers = [[tokenizer.encode(row[name]) for row in rows] for name in ("answer_io", "answer_s")]
    if len({len(row) for row in ids}) > 1:
        raise LabError(
            f"{path}: prompts have {min(map(len, ids))} to {max(map(len, ids))} tokens; split them by length"
        )
    if any(len(answer) != 1 for column in answers for answer in column):
        raise LabError(f"{path}: an answer is one token; these names take several with this tokenizer")
    clean = torch.tensor(ids)
    partner = torch.arange(len(ids)) ^ 1
    yes, no = (torch.tensor([answer[0] for answer in column]) for column in answers)
    return clean, clean[partner], yes, no
