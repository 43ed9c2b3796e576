"""Mistakes that can be told from the words alone: said before a part or the settings are imported, and torch with them."""

import itertools
from collections.abc import Sequence

from gpt2lab.actions.backends import names_back_end
from gpt2lab.actions.models import refuse_missing
from gpt2lab.base.registry import part, parts
from gpt2lab.cli.parser import typed
from gpt2lab.text import sources


def refuse_early(verb: str, argv: Sequence[str]) -> None:
    """LabError for data, a model or a part that is not there; whatever else is wrong the verb says itself."""
    if {"-h", "--help"} & set(argv):
        return
    if verb == "train":
        _training(argv)
    elif verb == "generate":
        _known("decoder", typed(argv, "--decoder"))
        _model(argv)
    elif verb in ("measure", "apply") and argv and not argv[0].startswith("-"):
        _known({"measure": "measure", "apply": "transform"}[verb], argv[0])
        if verb == "apply" or not any(names_back_end(word) for word in argv[1:2]):
            _model(argv[1:])


def _training(argv: Sequence[str]) -> None:
    after = argv[argv.index("--data") + 1 :] if "--data" in argv else ()
    for word in itertools.takewhile(lambda word: not word.startswith("-"), after):
        sources.files(word)
    model = typed(argv, "--model")
    if model is not None:
        refuse_missing(model)
    for kind in ("optimizer", "architecture", "objective"):
        _known(kind, typed(argv, f"--{kind}"))


def _model(argv: Sequence[str]) -> None:
    """LabError if the next word is a model's name and there is none: behind a flag it may be the flag's value."""
    if argv and not argv[0].startswith("-"):
        refuse_missing(argv[0])


def _known(kind: str, name: str | None) -> None:
    """LabError for a part that is not there or not built."""
    if name is not None and name not in [one.name for one in parts(kind) if one.built]:
        part(kind, name)  # which says what is wrong with it
