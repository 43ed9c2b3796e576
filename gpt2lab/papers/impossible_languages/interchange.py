"""Interchange interventions: one state of a source sentence, put into a base sentence, and whose answer comes out.

Base and source differ in the number of their subject. Where the number travels from the subject to the verb's marker, a
swapped state carries it along, and the base is answered as the source (Geiger et al. 2021; Kallini et al. 2024, section 6).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.prompts import refuse_nan
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.interpret import patch_sweep

HOPPED = 4
"""Words between verb and marker in the examples."""
CONTROL_LENGTH = 3
"""Tokens of an example of the control: determiner, subject, verb. Elsewhere the hopped-over words follow."""


@torch.no_grad()
def interchange(model: Transformer, base: Tensor, source: Tensor, layer: int, position: int) -> Tensor:
    """Return the next-token logits of `base` with the output of one block at one position taken from `source`.

    base, source [batch, time] int64 → [batch, vocab]. What is swapped is the residual stream after block `layer`, before
    the final norm. LabError for inputs of different lengths, and a layer or position that is not there.
    """
    base, source = (_rows(model, tokens) for tokens in (base, source))
    if base.shape != source.shape:
        raise LabError(
            f"interchange: base and source must have the same shape, got {list(base.shape)} and {list(source.shape)}"
        )
    layers, time = model.config.n_layers, base.shape[1]
    if not 0 <= layer < layers or not 0 <= position < time:
        raise LabError(f"interchange: layer {layer} and position {position}: there are {layers} and {time}")
    name = f"blocks.{layer}.hook_resid_post"

    def swap(x: Tensor, _: str) -> Tensor:
        x[:, position] = tap[name][:, position].to(x)
        return x

    with evaluating(model):
        with model.tap(read=[name]) as tap:
            model.hidden(source)
        with model.tap(write={name: swap}):
            logits = model.unembed(model.hidden(base)[:, -1])
    return logits


def interchange_accuracy(
    model: Transformer, base: Tensor, source: Tensor, answers: Tensor, *, batch_size: int = 64
) -> Tensor:
    """Tell for every block, position and example whether the swap gives the source's answer: bool [layers, time, examples].

    base, source [examples, time] int64; answers [examples, 2]: the ids of the base's and the source's next token. An answer
    is right if p(source's) > p(base's). Their mean over examples is the interchange intervention accuracy.
    LabError as for `interchange`, for no example, and for NaN logits.
    """
    base, source = (_rows(model, tokens) for tokens in (base, source))
    answers = answers.to(model.device)
    if not len(base) or answers.shape != (len(base), 2):
        raise LabError(
            f"interchange: {len(base)} examples need as many pairs of answers, got {list(answers.shape)}"
        )
    found = []
    for start in range(0, len(base), batch_size):
        part = slice(start, start + batch_size)
        wanted = answers[part]

        def metric(logits: Tensor, wanted: Tensor = wanted) -> Tensor:
            both = refuse_nan(logits[:, -1].float()).gather(1, wanted)
            return both[:, 1] - both[:, 0]

        sweep = patch_sweep(model, source[part], base[part], "resid_post", metric, by="position", at=-1)
        found.append((sweep.values > 0).cpu())  # p(P) > p(S)
    return torch.cat(found, dim=-1)


@dataclass(frozen=True)
class Examples:
    """Base and source sentences of equal length, each with its two answers."""

    base: Tensor
    """[examples, time] int64: the sentence in the singular, without its marker."""
    source: Tensor
    """The same with its subject in the plural."""
    answers: Tensor
    """[examples, 2]: markers of singular and plural."""

    def __len__(self) -> int:
        return len(self.base)

    def control(self) -> "Examples":
        """Return the examples of the control: determiner, subject and verb, after which its marker follows."""
        cut = slice(None, CONTROL_LENGTH)
        kept = torch.unique(torch.cat([self.base[:, cut], self.source[:, cut]], 1), dim=0)
        return Examples(
            kept[:, :CONTROL_LENGTH], kept[:, CONTROL_LENGTH:], self.answers[:1].expand(len(kept), 2)
        )


def find_examples(
    control: Sequence[Sequence[int]],
    hopped: Sequence[Sequence[int]],
    determiners: Sequence[int],
    markers: tuple[int, int],
    plural: Callable[[int], int | None],
    *,
    paper_regex: bool = False,
) -> Examples:
    """Find `the SUBJECT VERB t1 t2 t3 t4` in aligned sentences of the control and of WordHop, with a singular marker.

    control, hopped: the same sentences; in the first the marker stands after VERB, in the second after t4, and otherwise
    all tokens are equal. determiners: ids of The and the. plural: the token of a subject's plural, None where there is
    none of one token. Each stretch is taken once. paper_regex: only tokens whose ids hold no 0, which is what the authors'
    pattern finds. LabError for sentences that are not aligned, and if nothing is found.
    """
    if len(control) != len(hopped):
        raise LabError(
            f"interchange: {len(control)} sentences of the control, {len(hopped)} of the other language"
        )
    found: dict[tuple[int, ...], int] = {}
    for one, other in zip(control, hopped, strict=True):
        for place in range(1, len(one) - HOPPED - 2):
            stretch = _stretch(one, other, place, determiners, markers)
            if stretch is None or (paper_regex and any("0" in str(token) for token in stretch)):
                continue
            instead = plural(stretch[1])
            if instead is not None and instead != stretch[1]:
                found[stretch] = instead
    if not found:
        raise LabError(
            "interchange: no example found: no sentence has `the`, a singular subject, a verb and four words of one token "
            "each, with a plural of one token; give more sentences, or base and source of your own"
        )
    base = torch.tensor(list(found))
    source = base.clone()
    source[:, 1] = torch.tensor(list(found.values()))
    return Examples(base, source, torch.tensor([markers]).expand(len(base), 2))


def _stretch(
    one: Sequence[int], other: Sequence[int], place: int, determiners: Sequence[int], markers: tuple[int, int]
) -> tuple[int, ...] | None:
    """Return the seven tokens around a subject at `place` of the control, None where they do not fit."""
    before, after = tuple(one[place - 1 : place + 2]), tuple(one[place + 3 : place + 3 + HOPPED])
    fits = (
        before[0] in determiners
        and one[place + 2] == markers[0]
        and not set(markers) & {*before, *after}
        and tuple(other[place - 1 : place + 2 + HOPPED]) == before + after
        and len(other) > place + 2 + HOPPED
        and other[place + 2 + HOPPED] == markers[0]
    )
    return before + after if fits else None


def regular_plural(noun: str) -> str:
    """Return the plural of an English noun by its ending; a few irregular ones are known."""
    lower = noun.lower()
    if lower in _IRREGULAR:
        return noun[0] + _IRREGULAR[lower][1:]
    if re.search(r"(s|x|z|ch|sh)$", lower):
        return noun + "es"
    if re.search(r"[^aeiou]y$", lower):
        return noun[:-1] + "ies"
    return noun + "s"


_IRREGULAR = {
    "man": "men", "woman": "women", "child": "children", "person": "people", "mouse": "mice", "goose": "geese",
    "foot": "feet", "tooth": "teeth", "wolf": "wolves", "knife": "knives", "wife": "wives", "life": "lives",
    "leaf": "leaves", "thief": "thieves", "half": "halves", "hero": "heroes", "sheep": "sheep", "fish": "fish",
}  # fmt: skip


def _rows(model: Transformer, tokens: Tensor) -> Tensor:
    if tokens.dim() != 2 or not tokens.numel():
        raise LabError(f"interchange: sentences are token ids [batch, time], got shape {list(tokens.shape)}")
    model.config.require_causal("interchange")
    return tokens.to(model.device)
