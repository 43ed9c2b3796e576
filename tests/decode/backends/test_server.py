"""An OpenAI-compatible server, over real sockets: what is asked, what is read, and what hostile answers become."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.decode.backends import Server, http_json
from gpt2lab.measures.lab_backend import LabBackend
from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import byte_level
from tests.decode.backends.server_for_tests import Reply, as_json, completions, serving

SECRET = "sk-very-secret"
CONTEXTS = ["The red ball", "Once upon"]
CONTINUATIONS = [[" is", " rolls away", "."], [" a time"]]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    """A model of bytes that says printable ones only, so that a token is a character."""
    config = TransformerConfig(
        vocab_size=257, d_model=24, n_layers=2, n_heads=3, max_positions=64, init_std=0.3, bos=256
    )
    model = Transformer(config, generator=torch.Generator().manual_seed(3)).eval()
    unprintable = tuple(i for i in range(256) if not 32 <= i < 127)
    said = json.dumps({"suppress_tokens": unprintable}).encode()
    return LanguageModel(model, byte_level(), side_files={"generation_config.json": said})


def quick(address: str, **options: Any) -> Server:
    return Server(address=address, model="tiny", pause=0.01, **{"timeout": 5.0, **options})


def test_it_writes_what_the_model_behind_it_writes(lm: LanguageModel) -> None:
    with serving(completions(lm)) as server:
        backend = quick(server.address)
        greedy = backend.generate(["Once", "The"], max_new_tokens=9, temperature=0.0)
        drawn = backend.generate(["Once"] * 2, max_new_tokens=9, n=3, seed=4, logprobs=True)
        again = backend.generate(["Once"] * 2, max_new_tokens=9, n=3, seed=4, logprobs=True)
    ours = LabBackend(lm=lm).generate(["Once", "The"], max_new_tokens=9, temperature=0.0)
    assert [[one.text for one in row] for row in greedy] == [[one.text for one in row] for row in ours]
    assert greedy[0][0].tokens == 9 and greedy[0][0].finished == "length"
    assert drawn == again
    assert len({one.text for row in drawn for one in row}) == 6
    assert all(len(one.logprobs or ()) == one.tokens for row in drawn for one in row)
    sent = server.requests[0]
    assert (sent["model"], sent["temperature"], sent["n"], sent["max_tokens"]) == ("tiny", 0.0, 1, 9)
    assert set(server.paths) == {"/v1/completions"}
    assert "Authorization" not in server.headers[0]


def test_its_scores_are_the_labs(lm: LanguageModel) -> None:
    with serving(completions(lm)) as server:
        found = quick(server.address).score(CONTEXTS, CONTINUATIONS)
    known = LabBackend(lm=lm).score(CONTEXTS, CONTINUATIONS)
    for row, expected in zip(found, known, strict=True):
        for one, other in zip(row, expected, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert (one.tokens, one.likeliest) == (other.tokens, other.likeliest)


def test_a_token_across_the_border_counts_for_all_continuations_of_a_context() -> None:
    offsets = {"ab c": [0, 1, 3], "ab x": [0, 2, 3]}  # "b " is one token of the first
    values = {"ab c": [None, -1.0, -2.0], "ab x": [None, -0.25, -0.5]}

    def answer(request: dict[str, Any]) -> Reply:
        text = request["prompt"]
        logprobs = {
            "text_offset": offsets[text],
            "token_logprobs": values[text],
            "top_logprobs": [None, {}, {}],
        }
        return as_json({"choices": [{"text": text, "logprobs": logprobs}]})

    with serving(answer) as server:
        ((first, second),) = quick(server.address).score(["ab"], [[" c", " x"]])
        assert (first.logprob, first.tokens) == (-3.0, 2)  # from "b " on
        assert (second.logprob, second.tokens) == (-0.75, 2)
        with pytest.raises(LabError, match="cannot be scored without a token before it"):
            quick(server.address).score([""], [["ab c"]])


def test_the_key_goes_with_each_request_and_nowhere_else(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    with serving(completions(lm)) as server:
        backend = quick(server.address, key_variable="MY_KEY")
        backend.generate(["a"], max_new_tokens=1)
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert SECRET not in repr(backend) + backend.name + json.dumps(server.requests)

    def refusing(request: dict[str, Any]) -> Reply:
        return as_json({"error": {"message": f"wrong key {SECRET} for you"}}, 401)

    with serving(refusing) as server:
        with pytest.raises(LabError, match=r"status 401 \(wrong key \(key\) for you\)") as error:
            quick(server.address, key_variable="MY_KEY").generate(["a"], max_new_tokens=1)
        assert len(server.requests) == 1  # another try would not help
    assert SECRET not in str(error.value)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(LabError, match="variable MY_KEY holds no key"):
        quick("http://localhost:1/v1", key_variable="MY_KEY")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(lm: LanguageModel, status: int) -> None:
    answers = completions(lm)
    failures = iter([status, status])

    def answer(request: dict[str, Any]) -> Reply:
        code = next(failures, None)
        return answers(request) if code is None else (code, {"Retry-After": "0"}, b"busy")

    with serving(answer) as server:
        assert quick(server.address).generate(["a"], max_new_tokens=2)[0][0].tokens == 2
        assert len(server.requests) == 3


def test_a_server_that_stays_busy_is_given_up_with_its_words() -> None:
    with serving(lambda request: (503, {}, b'{"error": "loading\\u001b[31m the model"}')) as server:
        with pytest.raises(LabError, match=r"status 503 \(loading\\x1b\[31m the model\), 3 times"):
            quick(server.address, tries=3).generate(["a"], max_new_tokens=2)
        assert len(server.requests) == 3


GOOD: dict[str, Any] = {"text": "x", "finish_reason": "length", "logprobs": {"token_logprobs": [-1.0]}}
HOSTILE: list[tuple[bytes, str]] = [
    (b"<html>", "not JSON, or cut off"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"choices": [\xff]}', "not UTF-8"),
    (b"[]", "not the 1 choices"),
    (b'{"choices": {}}', "not the 1 choices"),
    (b'{"choices": []}', "not the 1 choices"),
    (json.dumps({"choices": [GOOD, GOOD]}).encode(), "not the 1 choices"),
    (b'{"choices": [3]}', "a choice without a text"),
    (b'{"choices": [{"text": null}]}', "a choice without a text"),
    (json.dumps({"choices": [{**GOOD, "index": 1}]}).encode(), "whose index is 1"),
    (json.dumps({"choices": [{**GOOD, "index": [0]}]}).encode(), r"whose index is \[0\]"),
    (json.dumps({"choices": [{**GOOD, "finish_reason": "content_filter"}]}).encode(), "content_filter"),
    (json.dumps({"choices": [{**GOOD, "finish_reason": "\x1b" * 900}]}).encode(), r"finish_reason '\\x1b"),
    (json.dumps({"choices": [{**GOOD, "logprobs": None}]}).encode(), "without token_logprobs"),
    (
        b'{"choices": [{"text": "x", "finish_reason": "stop", "logprobs": {"token_logprobs": [NaN]}}]}',
        "of nan",
    ),
    (
        b'{"choices": [{"text": "x", "finish_reason": "stop", "logprobs": {"token_logprobs": [2.5]}}]}',
        "of 2.5",
    ),
    (
        b'{"choices": [{"text": "x", "finish_reason": "stop", "logprobs": {"token_logprobs": [true]}}]}',
        "of True",
    ),
    (
        b'{"choices": [{"text": "x", "finish_reason": "stop", "logprobs": {"token_logprobs": ["a"]}}]}',
        "of 'a'",
    ),
]


@pytest.mark.parametrize(("body", "message"), HOSTILE)
def test_a_wrong_answer_is_one_sentence(body: bytes, message: str) -> None:
    with serving(lambda request: (200, {}, body)) as server, pytest.raises(LabError, match=message) as error:
        quick(server.address).generate(["a"], max_new_tokens=2, logprobs=True)
    assert len(str(error.value)) < 600
    assert str(error.value).isprintable()


@pytest.mark.parametrize("used", [-1, "many", True, [1]])
def test_a_count_that_is_none_is_refused(used: object) -> None:
    body = {"choices": [{"text": "x", "finish_reason": "stop"}], "usage": {"completion_tokens": used}}
    with serving(lambda request: as_json(body)) as server, pytest.raises(LabError, match="no count"):
        quick(server.address).generate(["a"], max_new_tokens=2)


def test_two_choices_of_one_index_are_refused() -> None:
    body = {"choices": [{**GOOD, "index": 0}] * 2}
    with (
        serving(lambda request: as_json(body)) as server,
        pytest.raises(LabError, match="two choices of the same index"),
    ):
        quick(server.address).generate(["a"], max_new_tokens=2, n=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "other"}, "does not repeat a prompt"),
        ({"logprobs": None}, "does not repeat a prompt"),
        ({"text_offset": [0]}, "unequal length"),
        ({"text_offset": [0, 2, 1]}, "no list of growing places"),
        ({"text_offset": [0, 1, "2"]}, "no list of growing places"),
        ({"token_logprobs": [None, None, -1.0]}, "a log-probability of None"),
        ({"token_logprobs": [None, -1.0, float("inf")]}, "a log-probability of inf"),
    ],
)
def test_a_reading_that_cannot_be_used_is_refused(change: dict[str, Any], message: str) -> None:
    logprobs: Any = {
        "text_offset": [0, 1, 2],
        "token_logprobs": [None, -1, -2],
        "top_logprobs": [None, {}, {}],
    }
    logprobs = change.get("logprobs", {**logprobs, **change})
    choice = {"text": change.get("text", "abc"), "logprobs": logprobs}
    with (
        serving(lambda request: as_json({"choices": [choice]})) as server,
        pytest.raises(LabError, match=message),
    ):
        quick(server.address).score(["a"], [["bc"]])


def test_an_answer_that_is_huge_or_cut_off_or_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_json, "LARGEST", 1000)

    def silent(request: dict[str, Any]) -> Reply:
        time.sleep(0.5)
        return as_json({})

    answers: list[tuple[Callable[[dict[str, Any]], Reply], str]] = [
        (lambda request: (200, {}, b" " * 5000), "an answer of more than 1,000 bytes"),
        (lambda request: (200, {"Content-Length": "90"}, b'{"choices"'), "the answer was cut off, 2 times"),
        (silent, r"no answer \(TimeoutError.*, 2 times"),
    ]
    for answer, message in answers:
        with serving(answer) as server, pytest.raises(LabError, match=message):
            quick(server.address, tries=2, timeout=0.2).generate(["a"], max_new_tokens=2)


def test_nobody_there_is_one_sentence() -> None:
    with pytest.raises(LabError, match=r"http://127.0.0.1:1/v1/completions: no answer \(ConnectionRefused"):
        quick("http://127.0.0.1:1/v1", tries=2).generate(["a"], max_new_tokens=2)


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    with (
        serving(lambda request: as_json({})) as other,
        serving(lambda request: (307, {"Location": other.address}, b"")) as server,
    ):
        with pytest.raises(LabError, match="status 307"):
            quick(server.address, key_variable="MY_KEY").generate(["a"], max_new_tokens=2)
        assert not other.requests


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost:8000",
        "ftp://h/v1",
        "http://",
        "file:///etc/passwd",
        "http://h:99999/v1",
        "http://[::1/v1",
    ],
)
def test_without_an_address_nothing_is_asked(address: str) -> None:
    with pytest.raises(LabError, match="the address of a server is needed"):
        quick(address)


@pytest.mark.parametrize("address", ["http://user:pass@h/v1", "http://h/v1?key=1", "http://h/v1#x"])
def test_an_address_holds_no_secret(address: str) -> None:
    with pytest.raises(LabError, match="holds no password") as error:
        quick(address)
    assert "pass@" not in str(error.value)


def test_settings_out_of_range_are_refused() -> None:
    backend = quick("http://127.0.0.1:1/v1")
    for settings, message in [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"n": 0}, "n must be"),
        ({"stop": "x"}, "stop is a list"),
        ({"stop": [""]}, "stop is a list"),
    ]:
        with pytest.raises(LabError, match=message):
            backend.generate(["a"], **{"max_new_tokens": 2, **settings})
    with pytest.raises(LabError, match="2 contexts for 1 lists"):
        backend.score(["a", "b"], [["c"]])
    with pytest.raises(LabError, match="continuation to be scored is empty"):
        backend.score(["a"], [["b", ""]])
    with pytest.raises(LabError, match="which model of the server"):
        Server(address="http://h/v1", model="")
