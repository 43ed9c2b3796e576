"""A language model as lm-evaluation-harness sees one: log-likelihoods, rolling log-likelihoods, text until a stop string.

Numbers are those of the harness's own class for Hugging Face models, `hf`, on the same folder, where contexts are cut on
the left in the same way. Here they do not depend on the batch size, and these differ (docs/guide/lm-eval.md says why):
a start token is never scored, what closes a text is not put after a context, and a context and its continuation are
cut at the border of their characters and not after as many tokens as the context has alone.
"""

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.extras import install
from gpt2lab.decode import Sampling, generate
from gpt2lab.decode.greedy import Greedy
from gpt2lab.decode.interface import Decoder
from gpt2lab.measures.corpus import need_tokenizer
from gpt2lab.measures.scoring import Row, score_rows
from gpt2lab.text.chats import ChatTemplate
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.pieces import frame, split_text

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import (
        handle_stop_sequences,
        has_bos_prefix,
        normalize_gen_kwargs,
        postprocess_generated_text,
    )
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    raise LabError(f"lm-evaluation-harness is not installed; {install('eval')}") from error

AUTO_BATCH = 16
"""Rows at a time where the harness says `auto`."""

_DRAWING = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical",
    "repetition_penalty": "repetition_penalty",
}
"""The harness's words for how tokens are drawn, and those of our decoders."""


class HarnessModel(TemplateLM):
    """A loaded model for the harness.

    LabError for a model without tokenizer, and for one that reads in both directions.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        batch_size: int | str = 1,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        prefix_token_id: int | None = None,
        add_bos_token: bool | None = None,
        seed: int = 0,
    ) -> None:
        """Wrap a model. max_length, max_gen_toks: most tokens of an input, of a generated text unless a task says so.

        prefix_token_id: what stands before a text that has no context (default: bos, else eos). add_bos_token:
        whether texts are encoded with the tokenizer's own special tokens (default: as its files say).
        """
        super().__init__()
        lm.config.require_causal("lm-eval")
        self.lm, self.tokenizer = lm, need_tokenizer(lm, "lm-eval")
        self.batch_size = AUTO_BATCH if str(batch_size).startswith("auto") else int(batch_size)
        self.max_length = lm.config.max_positions if max_length is None else int(max_length)
        if not 1 <= self.max_length <= lm.config.max_positions:
            most = lm.config.max_positions
            raise LabError(
                f"max_length must lie between 1 and the model's {most} positions, got {max_length}"
            )
        self.max_gen_toks, self.seed = int(max_gen_toks), int(seed)
        self.custom_prefix, self.add_bos_token = prefix_token_id, add_bos_token
        self._device = lm.model.device
        self._template = "default"

    @property
    def eot_token_id(self) -> int | None:
        """Id that ends a text."""
        return self.tokenizer.eos

    @property
    def prefix_token_id(self) -> int:
        """Id that stands before a text without context. LabError if the model has neither bos nor eos."""
        for token in (self.custom_prefix, self.tokenizer.bos, self.tokenizer.eos):
            if token is not None:
                return int(token)
        raise LabError(
            "this tokenizer has neither bos nor eos; say what stands first with prefix_token_id=ID"
        )

    @property
    def tokenizer_name(self) -> str:
        """What the harness files its encoded requests under."""
        return f"gpt2lab-{self.tokenizer.fingerprint[:16]}"

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a chat as text: with the prompt for an answer, or up to the end of its last message.

        LabError for a model without a chat template, and for what its template refuses.
        """
        template = ChatTemplate.of(self.tokenizer, self._template)
        if add_generation_prompt:
            return template.render(chat_history, add_generation_prompt=True)
        return template.unfinished(chat_history)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Choose a chat template by name, True for the default, and return its text; None without.

        LabError if the model has none of that name.
        """
        if chat_template is False or chat_template is None:
            return None
        self._template = "default" if chat_template is True else chat_template
        return ChatTemplate.of(self.tokenizer, self._template).source

    def get_model_info(self) -> dict[str, Any]:
        """Return what the harness writes beside the results."""
        counted = self.lm.model.count_parameters()["total"]
        return {"model_num_parameters": counted, "model_dtype": str(self.lm.model.dtype)}

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """Return the ids of a text, the last `left_truncate_len` of them if it is given."""
        special = self.add_bos_token if add_special_tokens is None else add_special_tokens
        if add_special_tokens is None and self._begins_with_prefix(string):
            special = False
        ids = self.tokenizer.encode(string, special=True if special is None else special)
        return ids[-left_truncate_len:] if left_truncate_len else ids

    def _begins_with_prefix(self, string: str) -> bool:
        known = any(
            token is not None for token in (self.custom_prefix, self.tokenizer.bos, self.tokenizer.eos)
        )
        prefix = self.tokenizer.decode([self.prefix_token_id], skip_special=False) if known else None
        return bool(has_bos_prefix(string, prefix))

    def _opening(self, string: str) -> list[int]:
        """Return the special tokens that the tokenizer puts before a text, none if the text begins with one written out."""
        if self.add_bos_token is False or self._begins_with_prefix(string):
            return []
        return frame(self.tokenizer, string)[0]

    # Log-likelihoods.

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return log p (nats) of each continuation after its context, and whether greedy decoding would have said it."""
        pairs = [(request.args, *self._encode_pair(*request.args)) for request in requests]
        return self._loglikelihood_tokens(pairs, disable_tqdm=disable_tqdm)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Cut the tokens of both texts together at their border; the start token stands for a context that has none.

        Blanks at the end of a context belong to the continuation, as in the harness.
        """
        kept = context.rstrip()
        before, after = split_text(self.tokenizer, kept, context[len(kept) :] + continuation)
        if context:
            before = [*self._opening(context + continuation), *before]
        if before:
            return before, after
        starts = after[:1] == [self.prefix_token_id]  # written in the text
        return [self.prefix_token_id], after[1:] if starts else after

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Return log p of each continuation (nats), and whether greedy decoding would have said it.

        What does not fit loses its beginning. LabError: no continuation, or one longer than max_length.
        """
        rows = [self._row(context, continuation) for _, context, continuation in requests]
        scores = score_rows(self.lm.model, rows, batch_size=override_bs or self.batch_size, label="lm-eval")
        answers = [(-float(one.losses.double().sum()), bool(one.hits.all())) for one in scores]
        for (key, _, _), answer in zip(requests, answers, strict=True):
            if key is not None:
                self.cache_hook.add_partial("loglikelihood", key, answer)
        return answers

    def _row(self, context: list[int], continuation: list[int]) -> Row:
        if not 1 <= len(continuation) <= self.max_length:
            raise LabError(
                f"a continuation has {len(continuation)} tokens; it needs at least 1 and fits {self.max_length}"
            )
        tokens = [*context, *continuation][-(self.max_length + 1) :]
        return Row(torch.tensor(tokens), len(continuation))

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return log p (nats) of each whole text, in windows of max_length tokens that score every token once.

        A start token stands before the text and is not scored, nor is any other that the tokenizer puts around texts.
        """
        windows: list[tuple[None, list[int], list[int]]] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            ids = self.tokenizer.encode(request.args[0])
            if ids[:1] == [self.prefix_token_id]:
                ids = ids[1:]  # it opens the first window, where nothing stands before it
            pieces = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)
            for context, scored in map(make_disjoint_window, pieces):
                windows.append((None, context, scored))
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, (value, _) in zip(
            owners, self._loglikelihood_tokens(windows) if windows else [], strict=True
        ):
            totals[owner] += value
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    # Texts.

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continue each context until one of its stop strings; contexts that do not fit lose their beginning.

        LabError: generation options that are unknown, or leave no room for a context.
        """
        groups: dict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            groups[repr(request.args[1])].append(number)
        texts = [""] * len(requests)
        for numbers in groups.values():
            asked = requests[numbers[0]].args[1]
            contexts = [requests[number].args[0] for number in numbers]
            for number, text in zip(numbers, self._continued(contexts, asked), strict=True):
                texts[number] = text
                self.cache_hook.add_partial("generate_until", requests[number].args, text)
        return texts

    def _continued(self, contexts: Sequence[str], asked: dict[str, Any]) -> list[str]:
        """Continue contexts that share their options."""
        options = dict(normalize_gen_kwargs(copy.deepcopy(asked), self.max_gen_toks))
        end = self.tokenizer.eos
        eos = None if end is None else self.tokenizer.decode([end], skip_special=False)
        stops = handle_stop_sequences(options.pop("until", None), eos=eos)
        new = options.pop("max_gen_toks")
        room = self.max_length - new
        if room < 1:
            raise LabError(
                f"{new} new tokens leave no room for a context in {self.max_length} positions; set max_gen_toks "
                "in the task's generation_kwargs, --gen_kwargs or --model_args"
            )
        prompts = [
            [*self._opening(context), *self.tokenizer.encode(context)][-room:] or [self.prefix_token_id]
            for context in contexts
        ]
        found = generate(
            self.lm,
            prompts,
            decoder=_decoder(options),
            max_new_tokens=new,
            stop=[stop for stop in stops if stop and stop != eos],
            keep_stop=True,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        plain = (self.tokenizer.decode(one.tokens) for one in found)
        return [postprocess_generated_text(text, stop=stops, think_end_token=None) for text in plain]


def _decoder(options: dict[str, Any]) -> Decoder:
    """Return the decoder that generation options ask for. LabError for an option that none has."""
    known = {"do_sample", *_DRAWING}
    for name in options:
        if name not in known:
            raise unknown("generation option", name, known)
    drawn = {_DRAWING[name]: value for name, value in options.items() if name in _DRAWING}
    if options.get("do_sample") and float(drawn.get("temperature", 1.0)) > 0:
        return Sampling(**drawn)
    return Greedy(repetition_penalty=float(drawn.get("repetition_penalty", 1.0)))
