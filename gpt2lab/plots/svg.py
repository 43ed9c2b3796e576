"""SVG that others wrote, made fit to be part of a page: what is not known to draw, and only to draw, is left out.

A figure may come from a plug-in, or from a run's folder that was copied from elsewhere. Inside a page its scripts,
event attributes, styles and remote references would act on the page. So elements, attributes and style properties are
taken from a list of those that draw, and references stay within the figure.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from xml.etree.ElementTree import Element

from gpt2lab.base.errors import LabError
from gpt2lab.base.wording import printable

LARGEST = 32 * 2**20
"""Characters of a figure that is read: ten times a scatter plot of 50,000 points."""

_DEEPEST = 100  # levels of elements; matplotlib's figures have 8
_SVG, _XLINK, _XML = (
    f"{{{name}}}"
    for name in (
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/XML/1998/namespace",
    )
)
_ELEMENTS = re.compile(
    "svg|g|defs|symbol|use|path|rect|circle|ellipse|line|polyline|polygon|text|tspan|textPath|title|desc|clipPath|mask"
    "|pattern|marker|linearGradient|radialGradient|stop|image"
)
_GROUPS = {"a": "g", "switch": "g"}  # kept for what is in them
_STYLES = re.compile(
    "fill(-opacity|-rule)?|stroke(-opacity|-width|-linecap|-linejoin|-miterlimit|-dasharray|-dashoffset)?|opacity|color"
    "|stop-(color|opacity)|visibility|display|clip-(path|rule)|mask|marker-(start|mid|end)"
    "|font(-family|-size|-style|-weight|-variant|-stretch)?|text-(anchor|decoration|rendering)|baseline-shift"
    "|(dominant|alignment)-baseline|(letter|word)-spacing|writing-mode|(shape|image)-rendering|vector-effect|paint-order"
    "|mix-blend-mode"
)
_ATTRIBUTES = re.compile(
    "id|d|x|y|[xy][12]|[cdfr][xy]|r|width|height|points|transform|viewBox|preserveAspectRatio|version|role|lang|offset"
    "|aria-(label|labelledby|hidden)|rotate|textLength|lengthAdjust|startOffset|pathLength|spreadMethod|orient|ref[XY]"
    "|gradient(Units|Transform)|pattern(Units|ContentUnits|Transform)|clipPathUnits|mask(Units|ContentUnits)"
    "|marker(Units|Width|Height)"
)
_LOCAL = re.compile(r"url\(\s*['\"]?#([\w.:-]+)['\"]?\s*\)")
_HARMLESS = re.compile(r"[^\\@{}<>]*")
_CALL = re.compile(r"(url|image|image-set|src|element|expression|attr|var|env|paint)\s*\(", re.IGNORECASE)
_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*")

Styles = dict[str, str]


def clean_svg(text: str) -> Element:
    """Return the drawing in an SVG text: an element without namespaces, `xlink:href` as the only prefixed attribute.

    LabError if there is no whole SVG element, or it is larger than `LARGEST` characters or nested deeper than 100 levels.
    """
    if len(text) > LARGEST:
        raise LabError(f"a figure of {len(text):,} characters, more than the {LARGEST:,} that are read")
    text = printable(text)  # a token as a label may hold characters that XML does not
    # Before the element there may be a document type, whose entities are not wanted.
    start, end = text.find("<svg"), text.rfind("</svg>")
    if start < 0:
        raise LabError("a figure must be SVG text; there is no <svg> in it")
    try:
        root = ET.fromstring(text[start : end + len("</svg>")] if end > start else text[start:])
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise LabError(f"a figure must be SVG text, and this is not well-formed: {error}") from None
    if _local(root.tag) != "svg":
        raise LabError("a figure must be SVG text; its outermost element is not <svg>")
    cleaned = _cleaned(root, 0)
    assert cleaned is not None  # <svg> is on the list
    refers = any("xlink:href" in one.attrib for one in cleaned.iter())
    names = {"xmlns": _SVG[1:-1], **({"xmlns:xlink": _XLINK[1:-1]} if refers else {})}
    cleaned.attrib = names | cleaned.attrib
    return cleaned


def to_text(drawing: Element) -> str:
    """Return a drawing as SVG text."""
    return printable(ET.tostring(drawing, encoding="unicode")).replace(" />", "/>")


def themed(drawing: Element, prefix: str, colours: Mapping[str, str]) -> None:
    """Give the ids of a drawing a prefix and its colours other names, in place: as a part of a page.

    colours: colour as it is written → CSS value. An attribute cannot hold a CSS variable, a style can.
    """
    for element in drawing.iter():
        styles = style_of(element)
        for name, value in list(element.attrib.items()):
            if name == "id":
                element.set(name, prefix + value)
            elif name == "xlink:href" and value.startswith("#"):
                element.set(name, f"#{prefix}{value[1:]}")
            elif name == "aria-labelledby":
                element.set(name, " ".join(prefix + one for one in value.split()))
            elif name != "style":
                element.set(name, _LOCAL.sub(rf"url(#{prefix}\1)", value))
            if name in ("fill", "stroke", "color", "stop-color") and value in colours:
                del element.attrib[name]
                styles.setdefault(name, value)
        for name, value in styles.items():
            styles[name] = colours.get(value, _LOCAL.sub(rf"url(#{prefix}\1)", value))
        set_style(element, styles)


def style_of(element: Element) -> Styles:
    """Return the declarations of an element's style attribute, by property."""
    pairs = (part.partition(":") for part in element.get("style", "").split(";"))
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def set_style(element: Element, styles: Styles) -> None:
    """Write an element's style attribute; without declarations it has none."""
    element.attrib.pop("style", None)
    if styles:
        element.set("style", "; ".join(f"{name}: {value}" for name, value in styles.items()))


def _local(tag: object) -> str | None:
    """Return the name of an SVG element; None for one of another language, a comment or an instruction."""
    if not isinstance(tag, str):
        return None
    return tag.removeprefix(_SVG) if tag.startswith((_SVG, "{")) is tag.startswith(_SVG) else None


def _cleaned(element: Element, depth: int) -> Element | None:
    """Return a copy with what is allowed of an element; None if nothing is."""
    name = _local(element.tag)
    name = _GROUPS.get(name or "", name)
    if name is None or not _ELEMENTS.fullmatch(name):
        return None
    if depth > _DEEPEST:
        raise LabError(f"a figure whose elements are nested deeper than {_DEEPEST} levels")
    copy = Element(name)
    for key, value in element.attrib.items():
        _keep_attribute(copy, key, value)
    copy.text = element.text
    for child in element:
        kept = _cleaned(child, depth + 1)
        if kept is not None:
            kept.tail = child.tail
            copy.append(kept)
    return copy


def _keep_attribute(copy: Element, key: str, value: str) -> None:
    if key in ("href", f"{_XLINK}href"):
        if value.startswith("#") or (copy.tag == "image" and _PICTURE.fullmatch(value)):
            copy.set("xlink:href", value)
    elif key == f"{_XML}space":
        copy.set("xml:space", value)
    elif key == "style":
        probe = Element("style", {"style": value})
        set_style(
            copy,
            {
                name: value
                for name, value in style_of(probe).items()
                if _STYLES.fullmatch(name) and _stays_inside(value)
            },
        )
    elif (_ATTRIBUTES.fullmatch(key) or _STYLES.fullmatch(key)) and _stays_inside(value):
        copy.set(key, value)


def _stays_inside(value: str) -> bool:
    """Tell whether a value refers to nothing outside the figure and holds no escape that could hide it."""
    return bool(_HARMLESS.fullmatch(value)) and not _CALL.search(_LOCAL.sub("", value))
