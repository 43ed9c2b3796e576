"""A server that answers as the hub does to the few requests by which a model is fetched."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A hub with one model."""

    repository: str
    files: Mapping[str, bytes]
    large: tuple[str, ...] = ("model.safetensors",)
    """Files whose SHA-256 the hub states."""
    cut_at: int | None = None
    """Of a large file no more bytes come, as if the line had broken."""
    ranges: list[str] = field(default_factory=list)
    """The parts of files that were asked for."""
    asked: int = 0
    """Requests so far."""
    address: str = ""

    def info(self) -> bytes:
        siblings = []
        for path, content in self.files.items():
            sibling: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": "0" * 40}
            if path in self.large:
                sum_ = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"size": len(content), "sha256": sum_, "pointerSize": 134}
            siblings.append(sibling)
        return json.dumps({"id": self.repository, "sha": COMMIT, "siblings": siblings}).encode()


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Answer at `hub.address` during the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            hub.asked += 1
            path = urlparse(self.path).path
            if path.startswith(f"/api/models/{hub.repository}"):
                self._send(hub.info(), {"Content-Type": "application/json"}, body=body)
                return
            name = path.removeprefix(f"/{hub.repository}/resolve/{COMMIT}/")
            if name not in hub.files:
                self._send(b"", {"X-Error-Code": "EntryNotFound"}, status=404, body=body)
                return
            self._file(name, hub.files[name], body=body)

        def _file(self, name: str, content: bytes, *, body: bool) -> None:
            tag = hashlib.sha256(content).hexdigest()
            headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            status, begin = 200, 0
            if asked := self.headers.get("Range"):
                hub.ranges.append(asked)
                begin = int(asked.removeprefix("bytes=").partition("-")[0])
                headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
                status = 206
            cut = hub.cut_at if name in hub.large else None
            left = None if cut is None else max(cut - begin, 0)
            self._send(content[begin:], headers, status=status, body=body, cut=left)

        def _send(
            self,
            content: bytes,
            headers: Mapping[str, str],
            *,
            status: int = 200,
            body: bool,
            cut: int | None = None,
        ) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content if cut is None else content[:cut])
                if cut is not None:
                    self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
