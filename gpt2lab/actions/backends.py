"""Text back ends by what people type: a server, recorded answers, a server whose answers are recorded."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.files import user_path

if TYPE_CHECKING:
    from gpt2lab.decode.backend import TextBackend

_SERVER, _RECORDED = "openai:", "recorded:"
_OPTIONS = ("key", "record")


def names_back_end(model: object) -> bool:
    """Whether a model is named as a text back end: openai:ADDRESS#NAME or recorded:FILE."""
    return isinstance(model, str) and model.startswith((_SERVER, _RECORDED))


def open_back_end(model: str) -> "TextBackend":
    """Return the back end of that name; no request is made yet.

    openai:http://localhost:8000/v1#NAME is a server and its name of the model. Before the #, ?key=VARIABLE names the
    environment variable with its key, and ?record=FILE (or &record=FILE) keeps the answers; recorded:FILE repeats them.
    LabError for anything else.
    """
    from gpt2lab.decode.backends import Recorded, Recorder, Server

    if model.startswith(_RECORDED):
        return Recorded(path=user_path(model.removeprefix(_RECORDED)))
    address, _, name = model.removeprefix(_SERVER).partition("#")
    address, _, query = address.partition("?")
    options = _options(query)
    if not address or not name:
        raise LabError(
            "openai: a server is named by its address and its model, such as openai:http://localhost:8000/v1#llama-3"
        )
    server = Server(address=address, model=name, key_variable=options.get("key", ""))
    record = options.get("record")
    return server if record is None else Recorder(backend=server, path=Path(user_path(record)))


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=9)
    except ValueError:
        raise LabError(
            f"openai: {query!r} is not NAME=VALUE&...; {' and '.join(_OPTIONS)} are known"
        ) from None
    for option, value in pairs:
        if option not in _OPTIONS:
            raise unknown("option of a server", option, _OPTIONS)
        if not value:
            raise LabError(f"openai: {option} is empty; leave it out, or give a value")
    return dict(pairs)
