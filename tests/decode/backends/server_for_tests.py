"""A real HTTP server in the test process that speaks OpenAI's protocol for completions with a model of the lab."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from gpt2lab.decode import generate
from gpt2lab.decode.sampling import Sampling
from gpt2lab.text.language_model import LanguageModel

Reply = tuple[int, dict[str, str], bytes]
"""Status, headers, body."""


def as_json(content: Any, status: int = 200) -> Reply:
    """A whole answer."""
    return status, {}, json.dumps(content).encode()


@dataclass
class TestServer:
    """What it was asked, and its address."""

    __test__ = False
    address: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def serving(answer: Callable[[dict[str, Any]], Reply]) -> Iterator[TestServer]:
    """Serve `answer(request)` until the block ends."""
    seen = TestServer("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = json.loads(body)
            seen.requests.append(request)
            seen.headers.append(dict(self.headers))
            seen.paths.append(self.path)
            status, headers, data = answer(request)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):  # the client may have given up
                self.wfile.write(data)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    seen.address = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completions(lm: LanguageModel) -> Callable[[dict[str, Any]], Reply]:
    """Answer as vLLM does, with a model of bytes: a token is a character."""
    lock = threading.Lock()

    def answer(request: dict[str, Any]) -> Reply:
        with lock:
            choices = [_choice(lm, request, index) for index in range(request.get("n", 1))]
        used = sum(choice.pop("count") for choice in choices)
        return as_json({"choices": choices[::-1], "usage": {"completion_tokens": used}})

    return answer


def _choice(lm: LanguageModel, request: dict[str, Any], index: int) -> dict[str, Any]:
    prompt, warm = request["prompt"], request["temperature"] > 0
    decoder: Any = Sampling(temperature=request["temperature"], top_p=request["top_p"]) if warm else "greedy"
    written = generate(
        lm,
        prompt,
        decoder=decoder,
        max_new_tokens=request["max_tokens"],
        stop=request.get("stop", []),
        seed=request.get("seed", 0) + index,
    )
    choice: dict[str, Any] = {
        "index": index,
        "text": written.text,
        "finish_reason": "length" if written.finished == "length" else "stop",
        "count": len(written.tokens),
    }
    if "logprobs" not in request:
        return choice
    ids = [*written.prompt_tokens, *written.tokens]
    with torch.no_grad():
        logp = lm.model(torch.tensor([ids]))[0].log_softmax(-1)
    values = [float(logp[at - 1, ids[at]]) for at in range(1, len(ids))]
    tops = [{"top": float(logp[at - 1].max())} for at in range(1, len(ids))]
    if request.get("echo"):
        choice["text"] = prompt + written.text
        choice["logprobs"] = {
            "text_offset": list(range(len(ids))),
            "token_logprobs": [None, *values],
            "top_logprobs": [None, *tops],
        }
    else:
        new = len(written.prompt_tokens) - 1
        choice["logprobs"] = {"token_logprobs": values[new:], "top_logprobs": tops[new:]}
    return choice
