"""One JSON request to a server that the user named: time limits, a size limit, and retries where they can help."""

import http.client
import json
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gpt2lab.base.errors import LabError
from gpt2lab.base.json_files import parse_json
from gpt2lab.base.wording import printable

LARGEST = 64 * 2**20
"""Bytes of an answer that are read: log-probabilities of a context of 100,000 tokens are a fifth of it."""
_AGAIN = (408, 409, 429, 500, 502, 503, 504)  # statuses that another try may not meet
_LONGEST_WAIT = 60.0  # seconds between two tries, whatever the server asks for
_QUOTED = 300  # characters of a server's message that are shown


class _Passing(Exception):
    """A failure that another try may not meet."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class JsonClient:
    """Sends JSON to paths below one address. It follows no redirect, so that a key goes to this address alone."""

    address: str
    """Where the paths begin, such as http://localhost:8000/v1."""
    key: str | None = field(default=None, repr=False)
    """Sent as a bearer token, and never shown."""
    timeout: float = 120.0
    """Seconds without a byte after which a try has failed."""
    tries: int = 5
    """Tries in all."""
    pause: float = 0.5
    """Seconds before the second try; doubled before each further one."""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.address)
            allowed = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            allowed = False
        if not allowed:
            raise LabError(
                f"{printable(self.address)!r}: the address of a server is needed, such as http://localhost:8000/v1"
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise LabError(
                "the address of a server holds no password, ? or #; a key comes from an environment variable"
            )
        if not self.timeout > 0 or self.tries < 1 or not self.pause >= 0:
            raise LabError("timeout must be above 0, tries at least 1 and pause not negative")

    def post(self, path: str, content: Any) -> Any:
        """Send an object and return the JSON answer. LabError if there is none, said with the server's own words."""
        body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
        for attempt in range(self.tries):
            try:
                return self._once(path, body)
            except _Passing as failure:
                if attempt + 1 == self.tries:
                    raise LabError(f"{self._where(path)}: {failure}, {self.tries} times") from None
                wait = failure.wait if failure.wait is not None else self.pause * 2**attempt
                time.sleep(min(wait, _LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _once(self, path: str, body: bytes) -> Any:
        parts = urlsplit(self.address)
        assert parts.hostname is not None
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname, parts.port, timeout=self.timeout)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            connection.request("POST", parts.path.rstrip("/") + path, body, headers)
            answer = connection.getresponse()
            data = _read(answer, time.monotonic() + 10 * self.timeout)
            whole = answer.length in (None, 0) or len(data) > LARGEST
        except ssl.SSLError as error:
            raise LabError(f"{self._where(path)}: no secure connection ({error})") from None
        except (TimeoutError, socket.gaierror, OSError, http.client.HTTPException) as error:
            raise _Passing(f"no answer ({type(error).__name__}: {printable(str(error))[:_QUOTED]})") from None
        finally:
            connection.close()
        if len(data) > LARGEST:
            raise LabError(
                f"{self._where(path)}: an answer of more than {LARGEST:,} bytes, which is not read"
            )
        if answer.status in _AGAIN:
            raise _Passing(
                f"status {answer.status}{self._said(data)}", _asked(answer.getheader("Retry-After"))
            )
        if answer.status != 200:
            raise LabError(f"{self._where(path)}: status {answer.status}{self._said(data)}")
        if not whole:
            raise _Passing("the answer was cut off")
        return parse_json(data, self._where(path))

    def _where(self, path: str) -> str:
        return self.address.rstrip("/") + path

    def _said(self, data: bytes) -> str:
        """A server's own words on what is wrong, without the key, should it repeat it."""
        text = data[: 16 * _QUOTED].decode("utf-8", "replace")
        try:
            error = json.loads(data)["error"]
            text = str(error["message"] if isinstance(error, dict) else error)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        if self.key:
            text = text.replace(self.key, "(key)")
        text = " ".join(printable(text).split())[:_QUOTED]
        return f" ({text})" if text else ""


def _read(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    """Return an answer's bytes, at most one more than `LARGEST`. TimeoutError for one that trickles in for too long."""
    pieces, size = [], 0
    while size <= LARGEST:
        piece = answer.read1(1 << 16)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > deadline:
            raise TimeoutError("the answer does not come to its end")
    return b"".join(pieces)


def _asked(header: str | None) -> float | None:
    """Seconds that a server asks to wait; None where it does not say, or says it as a date."""
    return float(header) if header is not None and header.isdecimal() and len(header) < 9 else None
