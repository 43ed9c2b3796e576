"""How numbers, times and lists are written for a reader."""

import math
import os
import re
import shlex
from collections.abc import Sequence

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What a page or a drawing cannot hold: control characters, halves of characters; not \\t, \\n and \\r."""
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What acts on a terminal instead of being shown: escapes, carriage returns, changes of direction; not \\t and \\n."""


def number(value: float | None, digits: int = 4) -> str:
    """Write a number with `digits` significant digits: 0.01234, 1235, 19,833, 1,779,840, 3.1e-07; None is a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("infinite" if value > 0 else "-infinite")
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size >= 9:
        return f"{value:.{digits - 1}g}"
    if float(value).is_integer():
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.0f}"
    text = f"{value:{',' if abs(value) >= 10_000 else ''}.{max(0, digits - 1 - size)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(amount: int, one: str, many: str | None = None) -> str:
    """Write `3 seeds`, `1 seed`, `no seeds`."""
    return f"{amount or 'no'} {one if amount == 1 else many or one + 's'}"


def listed(items: Sequence[object], word: str = "and") -> str:
    """Write `a`, `a and b`, `a, b and c`."""
    texts = [str(item) for item in items]
    if len(texts) < 2:
        return "".join(texts)
    return f"{', '.join(texts[:-1])} {word} {texts[-1]}"


def size(amount: int) -> str:
    """Write bytes as `0 bytes`, `640 bytes`, `1.2 kB`, `14.3 MB`, `2.1 GB`, in powers of 1000."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if amount >= scale:
            return f"{amount / scale:,.1f} {unit}"
    return f"{amount} bytes"


def visible(text: str) -> str:
    r"""Write the control characters of a text as Python does (`\x1b`), so that no terminal obeys them."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def quoted(word: str) -> str:
    r"""Write a word for a shell; a file name that is not UTF-8 as $'\xef', which every store and page can hold."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return f"$'{''.join(map(_escaped, os.fsencode(word)))}'"
    return shlex.quote(word)


def _escaped(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 and chr(byte) not in "'\\" else f"\\x{byte:02x}"


def printable(text: str) -> str:
    r"""Write what no page and no drawing can hold as Python does: control characters (`\x1b`), halves of characters."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)
