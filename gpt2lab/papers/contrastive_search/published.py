"""The published loop of contrastive search, for comparison only: the cache is copied k times at every step.

As in the authors' code and in transformers 4.24 to 4.56: every candidate is a row of its own, [batch * k, 1] tokens with a
copy of the cache, all of which meet the head; then the rows of the chosen candidates are gathered. The same tokens come
out as of `decoder.ContrastiveSearch`, slower and in k times the memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from gpt2lab.decode.interface import Decoded, Decoder, Generators, Limits, OnToken, PromptRow
from gpt2lab.decode.loop import Continuation, Rows, deciding, hold_back
from gpt2lab.model import Transformer
from gpt2lab.papers.contrastive_search.decoder import States, likeliest


@dataclass(frozen=True, kw_only=True)
class CopyingContrastiveSearch(Decoder):
    """Contrastive search by copies of the cache; rows go on to the end, whether they have ended or not."""

    reads_last: ClassVar[bool] = True
    """Every candidate is read before one is chosen."""

    k: int = 5
    """Candidates at each step."""
    alpha: float = 0.6
    """Weight of novelty."""

    @property
    def rows_per_prompt(self) -> int:
        """Rows of the model's matrices that one prompt takes."""
        return self.k

    def decode(
        self,
        model: Transformer,
        prompts: Sequence[PromptRow],
        limits: Limits,
        *,
        generator: Generators = None,
        on_token: OnToken | None = None,
    ) -> Decoded:
        """Continue each prompt as `Decoder.decode` says."""
        rows = Rows(len(prompts), limits, on_token)
        with deciding(model):
            text = Continuation(model, prompts, limits, spare=1)
            logits = text.start()
            states = States(text.hidden, text.real, limits.max_new_tokens)
            own = torch.arange(len(prompts), device=text.device)
            copies = own.repeat_interleave(self.k)  # each row k times
            cache = text.cache
            while True:
                ready = hold_back(logits.float(), rows.step, limits)
                probabilities, candidates = likeliest(ready.softmax(-1), self.k)
                cache = cache.select(copies)
                hidden = model.hidden(candidates.flatten()[:, None], cache=cache)[:, 0]
                after = model.unembed(hidden)  # [batch * k, vocab]
                unit = states.unit(hidden).unflatten(0, candidates.shape)
                scores = (1 - self.alpha) * probabilities - self.alpha * states.penalties(unit, 0)
                best = scores.argmax(dim=1)
                rows.take(candidates[own, best].tolist())
                if not rows.running:
                    return rows.decoded()
                cache = cache.select(own * self.k + best)
                states.append(unit[own, best])
                logits = after[own * self.k + best]
