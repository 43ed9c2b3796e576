"""What the verbs apply and measure take: a part's name, a model, and the part's own options."""

import argparse
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.outline import part_outline
from gpt2lab.base.registry import parts
from gpt2lab.base.settings import add_arguments, build, given
from gpt2lab.cli.parser import MODEL, Parser, add_device, add_dtype, add_set


def add_part(parser: Parser, argv: Sequence[str], kind: str, what: str, skip: Sequence[str] = ()) -> None:
    """Add NAME, MODEL, --device, --dtype, --set and a flag for every option of the part that was typed.

    LabError if the first word that could be its name is none.
    """
    known = {one.name: one for one in parts(kind)}
    listed = "; ".join(f"{name}: {one.summary}" for name, one in known.items() if one.built)
    parser.add_argument(kind, metavar="NAME", help=f"{what} ({listed or 'none is built yet'})")
    text = "; for a measure of text also openai:ADDRESS#NAME or recorded:FILE" if kind == "measure" else ""
    parser.add_argument("model", metavar="MODEL", help=MODEL + text)
    add_device(parser)
    add_dtype(parser)
    add_set(parser)
    plain = [word for word in argv if not word.startswith("-")]
    name = next((word for word in plain if word in known), plain[0] if plain else None)
    if name is None:
        return
    if name not in known:
        raise unknown(kind, name, [one for one in known if known[one].built])
    cls = part_outline(kind, name)
    parser.elsewhere = lambda option: (
        f"{kind} {name} draws nothing, so that no seed changes it; leave it out" if option == "seed" else None
    )
    add_arguments(parser.add_argument_group(f"{kind} {name}"), cls, skip=("device", *skip))


def part_options(
    arguments: argparse.Namespace, kind: str, name: str, verb: Callable[..., Any]
) -> dict[str, Any]:
    """Return the options of a part that were typed, checked against the outline of its fields, before it is imported.

    LabError for a misspelt name, a value of another type, one that is missing, and as `typed_options`.
    """
    outline = part_outline(kind, name)
    options = typed_options(arguments, outline, verb, f"a {kind}")
    build(outline, options, f"{verb.__name__} {name}")
    return options


def typed_options(
    arguments: argparse.Namespace, cls: type, verb: Callable[..., Any], what: str
) -> dict[str, Any]:
    """Return the options of a part that were typed as flags or by --set, for the function of the verb.

    LabError for a --set of what the function itself takes, such as a model: it is no option of the part.
    """
    own = {name for name, p in inspect.signature(verb).parameters.items() if p.kind is not p.VAR_KEYWORD}
    for name in arguments.settings:
        if name in own:
            raise LabError(
                f"--set {name}: no option of {what}; flags and arguments are given as such, see --help"
            )
    return {**given(arguments, cls), **arguments.settings}
