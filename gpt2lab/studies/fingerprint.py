"""The fingerprint of a claim's rule: it changes with everything that decides the verdict, and with nothing else."""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from gpt2lab.base.json_numbers import encode
from gpt2lab.studies.claim import Claim


def rule_fingerprint(claim: Claim) -> str:
    """Return a hash of a claim's quantity, precondition, thresholds, kind, and what its power is reckoned from.

    A function counts with its code, comments and spaces left out, and the plain values that it closes over.
    """
    parts = [
        *(_code(part) for part in (claim.measure, claim.needs)),
        None,  # the place of a rule of its own, which a claim could have before 2026-12-01: recorded fingerprints stay
        *(None if part is None else part.words for part in (claim.holds_if, claim.holds_in_part_if)),
        [claim.kind, claim.over, claim.best_of, list(claim.scales)],
        [claim.paper_effect, claim.pilot_sd],
    ]
    return hashlib.sha256(encode(parts).encode()).hexdigest()[:16]


def _code(part: str | Callable[..., Any] | None) -> Any:
    """Return an expression as it is, a function as its code."""
    if part is None or isinstance(part, str):
        return part
    function = inspect.unwrap(part)
    closed = function.__closure__ or () if inspect.isfunction(function) else ()  # a callable object has none
    values: list[Any] = [cell.cell_contents for cell in closed]
    plain = [repr(value) for value in values if isinstance(value, (str, int, float, bool, type(None)))]
    inner = [_code(value) for value in values if inspect.isfunction(value)]
    return [_source(function), plain, inner]


def _source(function: Callable[..., Any]) -> str:
    """Return the code of a function without comments and spaces; its name where the code is not to be had."""
    try:
        text = textwrap.dedent(inspect.getsource(function))
        return ast.unparse(ast.parse(text))
    except SyntaxError:  # a lambda in the middle of an expression
        return "".join(text.split())
    except (OSError, TypeError):
        return str(getattr(function, "__qualname__", type(function).__qualname__))
