"""Figures of others: what draws is kept to the letter, what could act on a page is gone."""

from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.plots import svg
from gpt2lab.plots.svg import clean_svg, style_of, themed, to_text

PUBLISHED = sorted((Path(__file__).parents[2] / "docs" / "results").rglob("*.svg"))
HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:h="http://www.w3.org/1999/xhtml">'
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def cleaned(inner: str) -> str:
    return to_text(clean_svg(f"{HEAD}{inner}</svg>"))


@pytest.mark.parametrize(
    "inner",
    [
        "<script>document.title = 'x'</script>",
        "<SCRIPT>x</SCRIPT>",
        "<h:script>x</h:script>",
        '<h:iframe src="https://evil.example"/>',
        "<foreignObject><h:div>x</h:div></foreignObject>",
        '<image xlink:href="https://evil.example/a.png"/>',
        '<image href="//evil.example/a.png"/>',
        '<image href="data:image/svg+xml;base64,PHN2Zz4="/>',
        '<use href="https://evil.example/a.svg#b"/>',
        '<use xlink:href="data:image/svg+xml,&lt;svg/&gt;#a"/>',
        '<a href="javascript:alert(1)"><text>x</text></a>',
        '<a xlink:href=" java&#x73;cript:alert(1)"><text>x</text></a>',
        '<animate attributeName="href" values="javascript:x"/>',
        '<set attributeName="onload" to="x"/>',
        '<g onload="x" onclick="x" ONMOUSEOVER="x"/>',
        '<rect fill="url(https://evil.example/a)"/>',
        '<rect fill="URL(https://evil.example/a)"/>',
        '<rect style="fill: url(//evil.example/a)"/>',
        '<rect style="background-image: url(a)"/>',
        '<rect style="position: fixed; top: 0"/>',
        '<rect style="fill: u\\72l(https://evil.example)"/>',
        '<rect style="fill: red; } body { display: none"/>',
        "<rect style=\"font-family: 'x' @import '//evil.example'\"/>",
        '<rect filter="url(#f)"/><filter id="f"><feImage href="//evil.example"/></filter>',
        "<style>@import url(//evil.example); body { display: none }</style>",
        '<text class="badge holds" tabindex="0" contenteditable="true" ping="x">x</text>',
        "<?xml-stylesheet href='//evil.example'?><!-- x -->",
        "<metadata><h:b>x</h:b></metadata>",
    ],
)
def test_what_could_act_on_a_page_is_left_out(inner: str) -> None:
    text = cleaned(inner).removeprefix(HEAD).replace("http://www.w3.org/", "").lower()
    for word in (
        "script", "evil", "iframe", "foreignobject", "<a ", "on", "animate", "<set", "import", "position", "background",
        "body", "display", "class", "tabindex", "style=\"fill: u", "<!--", "<?", "filter", "metadata", "svg+xml",
    ):  # fmt: skip
        assert word not in text, word


def test_what_draws_is_kept() -> None:
    inner = (
        '<defs><clipPath id="c"><rect width="3" height="4"/></clipPath>'
        '<path id="m" d="M 0 1" style="stroke: #0072b2"/></defs>'
        '<g clip-path="url(#c)"><use xlink:href="#m" x="1" y="2" style="fill: none; stroke: #0072b2"/></g>'
        f'<image xlink:href="{PIXEL}" width="3" height="4"/>'
        '<text x="1" transform="rotate(-90 1 2)" text-anchor="middle">a &lt; b</text><title>t</title>'
    )
    text = cleaned(inner)
    assert text.endswith(inner + "</svg>")
    assert cleaned(text[text.index(">") + 1 : -len("</svg>")]) == text


def test_published_figures_lose_nothing() -> None:
    assert len(PUBLISHED) > 20
    for file in PUBLISHED[::3]:
        before = svg.ET.fromstring(file.read_text(encoding="utf-8"))
        after = svg.ET.fromstring(to_text(clean_svg(file.read_text(encoding="utf-8"))))
        for one, other in zip(before.iter(), after.iter(), strict=True):
            assert (one.tag, one.text) == (other.tag, other.text), file
            assert one.attrib.keys() == other.attrib.keys(), file
            assert all(value == other.get(name) for name, value in one.attrib.items() if name != "style")
            assert style_of(one) == style_of(other), file


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no figure", "there is no <svg>"),
        ("<svg><g></svg>", "not well-formed"),
        ("<svg>&unknown;</svg>", "not well-formed"),
        ('<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>', "not well-formed"),
        ("<svg-of-others></svg-of-others>", "outermost element"),
        ("<svg>" + "<g>" * 200 + "</g>" * 200 + "</svg>", "deeper than 100"),
        ("<svg>" + "<g>" * 200_000 + "</g>" * 200_000 + "</svg>", "deeper than 100"),
        ('<svg xlink:href="#a"/>', "not well-formed"),
    ],
)
def test_what_is_no_figure_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(LabError, match=says):
        clean_svg(text)


def test_a_figure_above_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svg, "LARGEST", 100)
    with pytest.raises(LabError, match="more than the 100"):
        clean_svg("<svg>" + " " * 100 + "</svg>")


def test_names_and_colours_of_a_part_of_a_page_are_its_own() -> None:
    drawing = clean_svg(
        f'{HEAD}<clipPath id="a"/><use xlink:href="#a" clip-path="url(#a)" fill="#0072b2" style="mask: url(#a)"/></svg>'
    )
    themed(drawing, "f1-", {"#0072b2": "var(--c0)"})
    used = to_text(drawing)
    assert '<clipPath id="f1-a"/>' in used
    assert 'xlink:href="#f1-a" clip-path="url(#f1-a)" style="mask: url(#f1-a); fill: var(--c0)"' in used
