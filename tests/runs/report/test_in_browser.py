"""Hostile reports in a real browser: nothing runs and nothing is asked for. Needs Chromium."""

import html.parser
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from gpt2lab.runs.report.write import write_comparison, write_report
from gpt2lab.runs.run import Run
from tests.runs.report.test_hostile_reports import CLAIM

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=3000", "--dump-dom",
]  # fmt: skip
OWN = "document.title='OWNED'"

TEXTS = [
    f"<script>{OWN}</script>", f"`</code><script>{OWN}</script>` **</strong><script>{OWN}</script>**",
    f"</pre></code></title></style></svg><script>{OWN}</script>", f"\"'><script>{OWN}</script>",
    f'<img src=x onerror="{OWN}"><img src=URL/image>', "<iframe src=URL/frame></iframe><object data=URL/object></object>",
    "<link rel=stylesheet href=URL/link><style>@import url(URL/import);</style>",
    "<meta http-equiv=refresh content='0;url=URL/refresh'>", f'<svg onload="{OWN}"><image href=URL/svg></svg>',
    f'<details open ontoggle="{OWN}">x</details><input autofocus onfocus="{OWN}">',
    "<base href=URL/base><form action=URL/form>", "<!--", "-->", "]]>",
    f"[x](javascript:{OWN}) ![y](URL/markdown) <URL/auto>",
]  # fmt: skip
DRAWINGS = [
    f"<script>{OWN}</script>", "<script xlink:href='URL/script'/>", f'<g onload="{OWN}"><rect width="9" height="9"/></g>',
    f"<animate attributeName='x' onbegin=\"{OWN}\" begin='0s' dur='1s'/>", "<set attributeName='href' to='javascript:1'/>",
    "<image href='URL/a' width='9' height='9'/>", "<image xlink:href='URL/b' width='9' height='9'/>",
    "<use href='URL/c#a'/>", "<style>@import url(URL/d); * { background: url(URL/e) }</style>",
    "<rect width='9' height='9' style='fill:url(URL/f#a); background-image: image-set(\"URL/g\" 1x)'/>",
    "<rect width='9' height='9' fill=\"url('URL/h#a')\" filter='url(URL/i#a)' mask='url(URL/j)'/>",
    "<text y='50' style='fill: u\\72l(URL/k)'>escaped</text>", "<feImage href='URL/l'/>",
    f"<foreignObject width='9' height='9'><b xmlns='http://www.w3.org/1999/xhtml'><img src='URL/m' onerror=\"{OWN}\"/></b>"
    "</foreignObject>",
    f"<a href=\"javascript:{OWN}\"><text y='20'>click</text></a>",
    f"<h:script xmlns:h='http://www.w3.org/1999/xhtml'>{OWN}</h:script>",
    f"<title>&lt;/title&gt;&lt;script&gt;{OWN}&lt;/script&gt;</title>",
    f"<desc>&lt;/svg&gt;&lt;script&gt;{OWN}&lt;/script&gt;</desc>",
]  # fmt: skip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """A server's address and what it was asked for."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()


class Page(html.parser.HTMLParser):
    """The elements of a page, and attributes that act."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.acting: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            outside = not (value or "").startswith(("#", "https://arxiv.org/", "https://github.com/"))
            if name.startswith("on") or (name in ("href", "src", "xlink:href", "action") and outside):
                self.acting.append(f"{tag} {name}={value}")


def browse(page: Path, profile: Path) -> str:
    """Return what a browser makes of a page once its scripts, if any, have run."""
    assert CHROMIUM is not None
    environment = {**os.environ, "HOME": str(profile)}
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", page.as_uri()]
    return subprocess.run(
        command, capture_output=True, timeout=180, check=True, text=True, env=environment
    ).stdout


def fill(run: Run, url: str) -> None:
    """Report everything hostile, figures both by the lab and as a copied folder has them."""
    for place, inner in enumerate(DRAWINGS):
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="300" height="60" '
            f'onload="{OWN}"><text y="30">drawing</text>{inner.replace("URL", url)}</svg>'
        )
        words = TEXTS[place % len(TEXTS)].replace("URL", url)
        run.figure(f"kept{place}", svg, words)
        run.figure(f"copied{place}", svg, words)
        (run.folder / "figures" / f"copied{place}.svg").write_text(svg)
    for place, given in enumerate(TEXTS):
        text = given.replace("URL", url)
        run.text(f"t{place}", text, text)
        run.table(f"b{place}", [{text: text, "x": 1.0}, {"x": 2.0}], text)


def hostile_pages(home: Path, url: str) -> list[Path]:
    """Write the reports of a training, a study and a comparison of which every text and figure is hostile."""
    texts = [text.replace("URL", url) for text in TEXTS]
    words, settings = " ".join(texts), {"prompt": texts, **dict(zip(texts, texts, strict=True))}
    ids = []
    for loss in (1.0, 2.0):
        with Run.start("train", "odd", home=home, settings=settings, command=words) as run:
            run.log(1, loss=loss)
            run.log(2, loss=loss / 2)
            fill(run, url)
            run.ending = ("failed", words)
        ids.append(run.id)
    about = {"summary": words, "settings": settings, "help": settings, "preset": dict.fromkeys(texts, "")}
    with Run.start("study", "study", home=home, settings=about, paper="conda", scale="smoke") as study:
        fill(study, url)
    own = dict.fromkeys(
        ("sentence", "reason", "power", "measure", "quantity", "unit", "needs", "paper"), words
    )
    (study.folder / "verdicts.json").write_text(
        json.dumps([CLAIM | own, CLAIM | own | {"name": f"../{words}"}])
    )
    with Run.start("seed", "seed0", home=home, parent=study.id, settings=settings, seed=0) as seed:
        fill(seed, url)
    pages = [write_report(name, home=home) for name in (ids[0], study.id, seed.id)]
    return [*pages, write_comparison(ids, home=home)]


def test_a_script_that_is_not_stopped_would_be_seen(asked: tuple[str, list[str]], tmp_path: Path) -> None:
    url, paths = asked
    page = tmp_path / "control.html"
    page.write_text(f"<!doctype html><title>x</title><script>{OWN}</script><img src={url}/control>")
    assert "<title>OWNED</title>" in browse(page, tmp_path / "profile")
    assert paths == ["/control"]


def test_nothing_of_a_hostile_report_runs_or_is_asked_for(
    asked: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, paths = asked
    forbidden = {
        "script",
        "iframe",
        "object",
        "link",
        "img",
        "form",
        "input",
        "base",
        "foreignobject",
        "animate",
        "set",
    }
    for page in hostile_pages(tmp_path / "runs", url):
        shown = browse(page, tmp_path / "profile")
        found = Page(shown)
        assert "OWNED" not in re.findall(r"<title>(.*?)</title>", shown)[0], page
        assert not found.tags & forbidden, page
        assert not found.acting, page
        markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        copy = page.with_name("as-markdown.html")
        text = page.with_suffix(".md").read_text(encoding="utf-8")
        copy.write_text(f"<!doctype html><meta charset=utf-8><title>plain</title>{markdown.render(text)}")
        assert "<title>plain</title>" in browse(copy, tmp_path / "profile"), page
    assert paths == []
