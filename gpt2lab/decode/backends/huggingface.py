"""A causal model of transformers, or anything with the same two calls; transformers itself is not imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.decode.backend import (
    Completion,
    Finish,
    ReadToken,
    Score,
    TextBackend,
    check_groups,
    check_sampling,
    cut_at_stop,
    score_group,
)
from gpt2lab.decode.generate import row_generator


class CausalModel(Protocol):
    """What is used of `transformers.PreTrainedModel`."""

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        ...

    def __call__(self, input_ids: Tensor) -> Any:
        """Return an object with `logits` [1, time, vocab]."""
        ...

    def generate(self, input_ids: Tensor, **settings: Any) -> Any:
        """Return rows of token ids, the prompt's first."""
        ...


class OffsetTokenizer(Protocol):
    """What is used of `transformers.PreTrainedTokenizerFast`."""

    bos_token_id: int | None
    eos_token_id: int | None

    def __call__(self, text: str, **settings: Any) -> Any:
        """Return `input_ids` and, if asked for, `offset_mapping`."""
        ...

    def decode(self, ids: Sequence[int], **settings: Any) -> Any:
        """Return their text."""
        ...


@dataclass(frozen=True, kw_only=True)
class HuggingFaceBackend(TextBackend):
    """Text of a model and a fast tokenizer that the caller has loaded; prompts are continued one after the other."""

    model: CausalModel
    """As `AutoModelForCausalLM.from_pretrained` gives it, in evaluation mode."""
    tokenizer: OffsetTokenizer
    """As `AutoTokenizer.from_pretrained` gives it; scores need a fast one."""
    label: str = "a model of transformers"
    """What a report calls it."""

    @property
    def name(self) -> str:
        """The label."""
        return self.label

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        n: int = 1,
        logprobs: bool = False,
    ) -> list[list[Completion]]:
        """Continue with `model.generate`; see `TextBackend.generate`. The caller's random state stays as it is.

        LabError for logprobs, which `score` gives.
        """
        check_sampling(max_new_tokens=max_new_tokens, stop=stop, temperature=temperature, top_p=top_p, n=n)
        if logprobs:
            raise LabError(f"{self.name}: gives no log-probabilities with its texts; score the texts instead")
        settings: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature > 0:
            settings = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
        settings |= {"max_new_tokens": max_new_tokens, "pad_token_id": self.tokenizer.eos_token_id or 0}
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        found = []
        for index, prompt in enumerate(prompts):
            ids = self._ids(prompt)
            with torch.random.fork_rng(devices), torch.no_grad():
                torch.manual_seed(row_generator(seed, index).initial_seed())
                copies = n if temperature > 0 else 1
                rows = self.model.generate(
                    torch.tensor([ids] * copies, device=self.model.device),
                    attention_mask=torch.ones(copies, len(ids), dtype=torch.int64, device=self.model.device),
                    **settings,
                )
            texts = [self._completion(row[len(ids) :], max_new_tokens, stop) for row in rows.tolist()]
            found.append(texts * (n // copies))
        return found

    def score(self, contexts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[list[Score]]:
        """Read context and continuation in one pass; see `TextBackend.score`."""
        check_groups(contexts, continuations)
        return [
            score_group(context, [self._read(context, text) for text in texts])
            for context, texts in zip(contexts, continuations, strict=True)
        ]

    def _ids(self, prompt: str) -> list[int]:
        ids = [int(token) for token in self.tokenizer(prompt)["input_ids"]]
        return ids or [self._start()]

    def _start(self) -> int:
        """The token that stands before a text: bos, or eos."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise LabError(f"{self.name}: its tokenizer has no bos or eos token to start from; give a context")

    def _completion(self, ids: list[int], most: int, stop: Sequence[str]) -> Completion:
        end = self.tokenizer.eos_token_id
        ended = end is not None and end in ids
        if end is not None and ended:
            ids = ids[: ids.index(end) + 1]  # what follows is padding
        text, stopped = cut_at_stop(str(self.tokenizer.decode(ids, skip_special_tokens=True)), stop)
        finished: Finish = "stop" if stopped else "eos" if ended or len(ids) < most else "length"
        return Completion(text=text, finished=finished, tokens=len(ids))

    def _read(self, context: str, text: str) -> list[ReadToken]:
        encoded = self.tokenizer(context + text, return_offsets_mapping=True)
        ids, places = [int(token) for token in encoded["input_ids"]], list(encoded["offset_mapping"])
        if not context and places[0][1] > places[0][0]:  # the tokenizer puts nothing before a text
            ids, places = [self._start(), *ids], [(0, 0), *places]
        with torch.no_grad():
            try:
                logits = self.model(torch.tensor([ids], device=self.model.device)).logits[0]
            except (IndexError, RuntimeError) as error:
                raise LabError(f"{self.name}: cannot read a text of {len(ids)} tokens ({error})") from None
        logp = logits[:-1].float().log_softmax(-1)
        targets = torch.tensor(ids[1:], device=logp.device)
        values = logp.gather(1, targets[:, None])[:, 0]
        if not bool(values.isfinite().all()):
            raise LabError(f"{self.name}: log-probabilities are not numbers (NaN), or infinite")
        hits = (logp.argmax(-1) == targets).tolist()
        read = [ReadToken(places[0][0], places[0][1], None, False)]
        for (start, end), value, hit in zip(places[1:], values.double().tolist(), hits, strict=True):
            read.append(ReadToken(start, end, value, hit))
        return read
