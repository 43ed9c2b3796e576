"""A server that speaks OpenAI's protocol for completions (vLLM, llama.cpp, Ollama), at an address that is given."""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import Progress, progress
from gpt2lab.base.wording import printable
from gpt2lab.decode.backend import (
    Completion,
    ReadToken,
    Score,
    TextBackend,
    check_groups,
    check_sampling,
    cut_at_stop,
    score_group,
)
from gpt2lab.decode.backends.http_json import JsonClient

T = TypeVar("T")

_PATH = "/completions"


@dataclass(frozen=True, kw_only=True)
class Server(TextBackend):
    """`/completions` of an OpenAI-compatible server. A prompt is sent as it is, without a chat template.

    Scores need a server that repeats the prompt with its log-probabilities (`echo` with `logprobs`: vLLM does).
    """

    address: str
    """Where its paths begin, such as http://localhost:8000/v1; nothing is ever sent anywhere else."""
    model: str
    """The name by which the server knows the model."""
    key_variable: str = ""
    """Environment variable that holds the key, if the server wants one; neither the variable's value nor a run keeps it."""
    timeout: float = 120.0
    """Seconds without a byte after which a try has failed."""
    tries: int = 5
    """Tries of a request that meets a busy or broken server."""
    pause: float = 0.5
    """Seconds before the second try; doubled before each further one."""
    parallel: int = 4
    """Requests under way at a time."""
    _client: JsonClient = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.model:
            raise LabError(f"{self.address}: say which model of the server is meant")
        if self.parallel < 1:
            raise LabError(f"parallel must be at least 1 request, got {self.parallel}")
        key = None
        if self.key_variable:
            key = os.environ.get(self.key_variable, "")
            if not key or not key.isascii() or not key.isprintable():
                raise LabError(f"the environment variable {self.key_variable} holds no key; export it first")
        client = JsonClient(self.address, key, self.timeout, self.tries, self.pause)
        object.__setattr__(self, "_client", client)

    @property
    def name(self) -> str:
        """Model and address."""
        return f"{self.model} at {self.address}"

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
        """Ask for each prompt in a request of its own; see `TextBackend.generate`."""
        check_sampling(max_new_tokens=max_new_tokens, stop=stop, temperature=temperature, top_p=top_p, n=n)
        jobs = []
        for index, prompt in enumerate(prompts):
            request: dict[str, Any] = {"prompt": prompt, "max_tokens": max_new_tokens, "n": n}
            request |= {"temperature": temperature, "top_p": top_p, "seed": _row_seed(seed, index)}
            request |= {"stop": list(stop)} if stop else {}
            request |= {"logprobs": 1} if logprobs else {}
            jobs.append(partial(self._complete, request, stop))
        return self._all(jobs, "generate")

    def score(self, contexts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[list[Score]]:
        """Let the server read context and continuation and repeat them with log-probabilities; see `TextBackend.score`.

        LabError for a server that does not repeat them.
        """
        check_groups(contexts, continuations)
        groups = list(zip(contexts, continuations, strict=True))
        jobs = [partial(self._read, context + text) for context, texts in groups for text in texts]
        readings = iter(self._all(jobs, "score"))
        return [score_group(context, [next(readings) for _ in texts]) for context, texts in groups]

    def _all(self, jobs: Sequence[Callable[[], T]], label: str) -> list[T]:
        """Do all requests, some at a time, results in their order; the first error ends the rest."""
        shown: Progress[None] = progress(total=len(jobs), label=label, unit="requests")
        with ThreadPoolExecutor(self.parallel) as pool, shown as bar:
            found = []
            futures = [pool.submit(job) for job in jobs]
            try:
                for future in futures:
                    found.append(future.result())
                    bar.advance(1)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return found

    def _complete(self, request: dict[str, Any], stop: Sequence[str]) -> list[Completion]:
        answer = self._ask(request, request["n"])
        used = answer.get("usage")
        count = used.get("completion_tokens") if isinstance(used, dict) and request["n"] == 1 else None
        return [self._completion(choice, request, stop, count) for choice in answer["choices"]]

    def _completion(
        self, choice: dict[str, Any], request: dict[str, Any], stop: Sequence[str], count: object
    ) -> Completion:
        """Read one choice; `count` is what the server says of its tokens."""
        text, stopped = cut_at_stop(choice["text"], stop)
        reason = choice.get("finish_reason")
        if reason not in ("stop", "length"):
            raise self._wrong(f"finish_reason {_brief(reason)}, neither stop nor length")
        values = None
        if "logprobs" in request:
            values = tuple(map(self._logprob, self._list(choice, "token_logprobs")))
            count = len(values)
        if not (count is None or (isinstance(count, int) and not isinstance(count, bool) and count >= 0)):
            raise self._wrong(f"completion_tokens is {_brief(count)}, no count")
        return Completion(text=text, finished="stop" if stopped else reason, tokens=count, logprobs=values)

    def _read(self, text: str) -> list[ReadToken]:
        """Tokens of a text as the server reads them; the one it adds, because some refuse to add none, is left out."""
        (choice,) = self._ask(
            {"prompt": text, "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1, "n": 1}, 1
        )["choices"]
        if not choice["text"].startswith(text) or not isinstance(choice.get("logprobs"), dict):
            raise LabError(
                f"{self.name}: this server does not repeat a prompt with its log-probabilities (echo with logprobs), "
                "so it cannot score; it can still write text"
            )
        starts = self._list(choice, "text_offset")
        values = self._list(choice, "token_logprobs")
        tops = self._list(choice, "top_logprobs")
        if not len(starts) == len(values) == len(tops):
            raise self._wrong("text_offset, token_logprobs and top_logprobs are of unequal length")
        if not all(isinstance(s, int) and not isinstance(s, bool) for s in starts) or starts != sorted(
            starts
        ):
            raise self._wrong("text_offset is no list of growing places")
        read = []
        for i, (start, value, top) in enumerate(zip(starts, values, tops, strict=True)):
            if start >= len(text):
                break
            end = min(starts[i + 1], len(text)) if i + 1 < len(starts) else len(text)
            if value is None and i == 0:
                read.append(ReadToken(start, end, None, False))
                continue
            logprob = self._logprob(value)
            best = (
                max((self._logprob(one) for one in top.values()), default=0.0)
                if isinstance(top, dict)
                else 0.0
            )
            read.append(ReadToken(start, end, logprob, logprob >= best))
        return read

    def _ask(self, request: dict[str, Any], n: int) -> dict[str, Any]:
        """Send a request; return an answer that has `n` choices with a text each, in their order."""
        answer = self._client.post(_PATH, {"model": self.model, **request})
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or len(choices) != n:
            raise self._wrong(f"not the {n} choices that were asked for")
        places = {}
        for at, choice in enumerate(choices):
            if not isinstance(choice, dict) or not isinstance(choice.get("text"), str):
                raise self._wrong("a choice without a text")
            place = choice.get("index", at)
            if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < n:
                raise self._wrong(f"a choice whose index is {_brief(place)}")
            places[place] = choice
        if len(places) < n:
            raise self._wrong("two choices of the same index")
        return {**answer, "choices": [places[place] for place in range(n)]}

    def _list(self, choice: dict[str, Any], name: str) -> list[Any]:
        values = choice["logprobs"].get(name) if isinstance(choice.get("logprobs"), dict) else None
        if not isinstance(values, list):
            raise self._wrong(f"a choice without {name}, which was asked for")
        return values

    def _logprob(self, value: object) -> float:
        """Return a log-probability; LabError for what is none. Rounding puts some a little above 0."""
        known = isinstance(value, (int, float)) and not isinstance(value, bool)
        number = float(value) if known else math.nan  # type: ignore[arg-type]  # a number, as `known` says
        if not math.isfinite(number) or number > 1e-3:
            raise self._wrong(f"a log-probability of {_brief(value)}")
        return min(number, 0.0)

    def _wrong(self, what: str) -> LabError:
        return LabError(f"{self.name}: the answer does not keep to OpenAI's protocol: {what}")


def _row_seed(seed: int, index: int) -> int:
    """The seed of prompt `index`, 31 bits, so that equal prompts get texts of their own."""
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def _brief(value: object) -> str:
    """A value of an answer as it can be shown."""
    return printable(repr(value)[:60])
