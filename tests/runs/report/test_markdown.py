"""Markdown reports show text of others literally, whatever it holds, in a renderer that allows HTML."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from gpt2lab.runs.report.document import (
    Command,
    DataTable,
    Document,
    Fact,
    Facts,
    Passage,
    Picture,
    Prose,
    Section,
)
from gpt2lab.runs.report.markdown import inline, to_markdown

RENDER = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</td></table><iframe src='//evil.example'></iframe>",
    "[click](javascript:alert(1))",
    "![](https://evil.example/a.png)",
    "[a[b]c](javascript:alert(1))",
    "[a `b`](https://evil.example)",
    "[a **b**](https://evil.example)",
    "[a]: javascript:alert(1)",
    "[a][b]",
    "<https://evil.example>",
    "<!-- hidden -->",
    "&lt;script&gt; &#106; &amp;",
    "# a heading",
    "a\n# a heading\n\n<script>x</script>",
    "- a list",
    "3. a list",
    "4) a list",
    "> a quote",
    "---",
    "===",
    "``` fence",
    "~~~ fence",
    "    <script>indented</script>",
    "a | b | c",
    "*a* _b_ ~~c~~ __d__",
    "a\\",
    "\\<script>",
    "\\\\[x](javascript:y)",
    "un`paired",
    "``` a ``` b",
    "**un*paired**",
    "`a|b` | **c|d**",
    "snake_case and low_99.9 and [0.1, 0.2]",
]


class Shown(HTMLParser):
    """The text of a page, its elements and what they refer to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.refers = "", set[str](), list[str]()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.refers += [value or "" for name, value in attrs if name in ("href", "src")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def words(text: str) -> str:
    """Text without blanks and without the lab's own marks of code and strength."""
    return re.sub(r"\s|`|\*\*", "", text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_does_nothing(text: str, tmp_path: Path) -> None:
    figure = tmp_path / "figures" / "a) b.svg"
    blocks = [
        Prose(text),
        Prose(text, strong=True),
        Section(text, [Passage(text, text), DataTable(text, [{text: text, "n": 1.5}, {text: text, "n": 2}])]),
        Command(text),
        Facts(text, [Fact(text, text, text, text), Fact("b", text)]),
        Picture("a", text, "<svg/>", figure),
    ]
    page = Shown(RENDER.render(to_markdown(Document(text, [text, "seeds"], blocks), tmp_path)))
    assert page.tags <= {
        "h1", "h2", "p", "strong", "em", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "img"
    }  # fmt: skip
    assert page.refers == ["figures/a%29%20b.svg"]
    assert words(page.text).count(words(" ".join(text.split()))) >= 12


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab<>[]()!&#;:_*`~\\\"'|-+=. \n1/x", max_size=25))
def test_a_line_shows_what_it_was_given(text: str) -> None:
    page = Shown(RENDER.render(f"x {inline(text)} x"))
    assert page.tags <= {"p", "code", "strong"} and not page.refers
    assert words(page.text) == words(f"x{text}x")


def test_links_of_a_paper_stay_links() -> None:
    links = {"the code": "https://example.org/a_(b)?c=d e", "arXiv": "https://arxiv.org/abs/1234.5"}
    page = Shown(RENDER.render(to_markdown(Document("x", [], [], links), Path())))
    assert page.refers == ["https://example.org/a_%28b%29?c=d%20e", "https://arxiv.org/abs/1234.5"]
