"""Chats as text and token ids: a folder's chat template, rendered, and which tokens the assistant wrote.

A template is a Jinja program of a stranger's: it runs in Jinja's sandbox, sees plain JSON values only, and its output is
bounded. The syntax is that of transformers: blank lines of tags go, loop controls, `tojson`, `raise_exception`,
`strftime_now`, and `{% generation %}` … `{% endgeneration %}` around what the assistant writes.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from gpt2lab.base.errors import LabError
from gpt2lab.text import sources
from gpt2lab.text.bounded import string
from gpt2lab.text.records import records
from gpt2lab.text.tokenizer import Tokenizer

Message = Mapping[str, Any]
"""role (system, user, assistant, ...), content, and what else a template reads; plain JSON values."""
Span = tuple[int, int]
"""Characters [start, stop) of a text."""

_LONGEST = 2**24
"""Characters that a template may write."""
_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True)
class ChatTokens:
    """A chat as a model reads it."""

    ids: list[int]
    """Token ids, without any that the template does not write itself."""
    answers: list[bool]
    """For each id whether the assistant wrote any of its characters."""
    text: str


class ChatTemplate:
    """A chat template with the special tokens that it names. LabError for one that is no template."""

    def __init__(self, template: str, special: Mapping[str, str] | None = None) -> None:
        """Compile a template; special: texts by name, such as {"eos_token": "</s>"}."""
        self.source, self.special = template, dict(special or {})
        self._template, self._answers = _compiled(template)

    @staticmethod
    def of(tokenizer: Tokenizer, name: str = "default") -> "ChatTemplate":
        """Return a template of a tokenizer's folder. LabError if it has none of that name."""
        found = tokenizer.chat_templates
        if name not in found:
            have = f"it has {', '.join(found)}" if found else "its folder holds no chat template"
            raise LabError(f"chat template {name!r}: no such template; {have}")
        return ChatTemplate(found[name], special_texts(tokenizer))

    @property
    def marks_answers(self) -> bool:
        """Whether the template itself says what the assistant writes."""
        return _GENERATION.search(self.source) is not None

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Return the text of a chat. LabError for no message, and for what the template refuses."""
        return self._rendered(messages, add_generation_prompt, tools)[0]

    def unfinished(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        """Return the text of a chat up to the end of its last message, which is to be continued. LabError as `render`."""
        text = self.render(messages, tools=tools)
        last = str(messages[-1].get("content", "")).strip()
        at = text.rfind(last)
        if at < 0:
            raise LabError("the chat template changes the last message, so that it cannot be continued")
        return text[: at + len(last)]

    def answers(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[str, list[Span]]:
        """Return the text of a chat and the characters of each of the assistant's messages.

        Of a template without `{% generation %}` an answer is what its message adds to the chat before it with the prompt for
        an answer, up to the last special token in it. LabError where a template is not prefix-stable: it writes an earlier
        part of a chat in another way once more follows, so that the difference is no answer.
        """
        text, spans = self._rendered(messages, False, tools)
        if self.marks_answers:
            return text, spans
        plain = _checked(messages)
        for place, message in enumerate(plain):
            if message["role"] == "assistant":
                before = self._rendered(plain[:place], True, tools)[0] if place else self._opening(tools)
                after = (
                    text if place + 1 == len(plain) else self._rendered(plain[: place + 1], False, tools)[0]
                )
                if not (after.startswith(before) and text.startswith(after)):
                    raise LabError(
                        f"message {place + 1}: this chat template writes what stands before an answer in another way once "
                        "the chat goes on, so that answers cannot be found by comparison; mark them in the template with "
                        "{% generation %} and {% endgeneration %}"
                    )
                spans.append((len(before), self._end(text, len(before), len(after))))
        return text, spans

    def tokens(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> ChatTokens:
        """Return a chat's token ids and which of them the assistant wrote, as `answers` finds them."""
        text, spans = self.answers(messages, tools=tools)
        ids, offsets = tokenizer.aligned(text)
        marks = [any(start < end and stop > begin for begin, end in spans) for start, stop in offsets]
        return ChatTokens(ids, marks, text)

    def _opening(self, tools: Sequence[Mapping[str, Any]] | None) -> str:
        try:
            return self._render((), True, tools)[0]
        except TemplateError:
            raise LabError(
                "message 1: this chat template does not let the assistant speak first, so that its answer cannot be found"
            ) from None

    def _end(self, text: str, start: int, stop: int) -> int:
        """Return where an answer ends: blanks behind its last special token are the template's own."""
        kept = text[start:stop].rstrip()
        closed = any(token and kept.endswith(token) for token in self.special.values())
        return start + len(kept) if closed or _CLOSING.search(kept) else stop

    def _rendered(
        self, messages: Sequence[Message], prompt: bool, tools: Sequence[Mapping[str, Any]] | None
    ) -> tuple[str, list[Span]]:
        try:
            return self._render(_checked(messages), prompt, tools)
        except TemplateError as error:
            raise LabError(f"the chat template refuses this chat: {error.message or error}") from None
        except (
            TypeError,
            ValueError,
            KeyError,
            AttributeError,
            ZeroDivisionError,
            OverflowError,
            RecursionError,
        ) as error:
            raise LabError(f"the chat template fails on this chat: {error}") from None

    def _render(
        self, messages: Sequence[Message], prompt: bool, tools: Sequence[Mapping[str, Any]] | None
    ) -> tuple[str, list[Span]]:
        """Return text and marked spans. LabError for too much text, and for marks that the text does not bear out."""
        values = {**self.special, "messages": list(messages), "add_generation_prompt": prompt}
        values |= {"tools": _plain(tools) if tools is not None else None, "documents": None}
        pieces: list[str] = []
        size = 0
        with self._answers.recording(pieces) as marked:
            for piece in self._template.generate(values):
                pieces.append(piece)
                size += len(piece)
                if size > _LONGEST:
                    raise LabError(f"the chat template writes more than {_LONGEST:,} characters")
        text = "".join(pieces)
        for start, said in marked:
            if text[start : start + len(said)] != said:
                raise LabError(
                    "this chat template marks answers inside of a macro or a block that it writes later, so that their "
                    "place is not known; write {% generation %} where the text is written"
                )
        return text, [(start, start + len(said)) for start, said in marked if said]


_CLOSING = re.compile(r"<\|[^<>|\s]+\|>$|<[a-z_]*end[a-z_]*>$|</s>$")
"""What looks like an end-of-turn token, where the tokenizer does not name it as one."""


def special_texts(tokenizer: Tokenizer) -> dict[str, str]:
    """Return the texts of the special tokens, as templates name them: {"bos_token": "<s>", ...}."""
    found = {}
    for name in _NAMED:
        value = tokenizer.settings.get(f"{name}_token")
        text = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(text, str):
            found[f"{name}_token"] = text
    for name, id in (
        ("bos", tokenizer.bos),
        ("eos", tokenizer.eos),
        ("pad", tokenizer.pad),
        ("unk", tokenizer.unk),
    ):
        if id is not None:
            found.setdefault(f"{name}_token", tokenizer.token(id))
    return found


def read_chats(source: sources.SourceLike, *, field: str = "messages") -> list[tuple[str, list[Message]]]:
    """Read rows with a list of messages; (place, messages) each. LabError, with file and line, for anything else."""
    found = []
    for where, row in records(source, field):
        messages = row[field]
        if isinstance(messages, str):  # a cell of csv
            try:
                messages = json.loads(messages)
            except (ValueError, RecursionError):
                messages = None
        if not isinstance(messages, list):
            raise LabError(f"{where}: field {field!r} should hold a list of messages with role and content")
        for message in messages:
            if isinstance(message, Mapping) and isinstance(content := message.get("content"), str):
                string(content, where, f"{field}.content")
        try:
            found.append((where, _checked(messages)))
        except LabError as error:
            raise LabError(f"{where}: {error}") from None
    return found


def holds_chats(source: sources.SourceLike, *, field: str = "messages") -> bool:
    """Tell whether the first row of a source's files holds a list of messages; other sources hold none."""
    for item in [source] if isinstance(source, str | Path) else source:
        try:
            row = next(records(item), None) if sources.files(item) else None
        except LabError:  # text, or a mistake that reading puts in words
            return False
        messages = row[1].get(field) if row is not None else None
        if not (
            isinstance(messages, list) and messages and all(isinstance(one, Mapping) for one in messages)
        ):
            return False
    return True


def _checked(messages: Sequence[Message]) -> list[Message]:
    """Return messages as plain values, without those that are null. LabError if there is none, or one without a role."""
    if not messages:
        raise LabError("a chat needs at least one message")
    found: list[Message] = []
    for place, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise LabError(f"message {place}: expected an object with role and content")
        found.append({str(name): _plain(value) for name, value in message.items() if value is not None})
    return found


def _plain(value: Any) -> Any:
    """Return JSON values as they are. LabError for others, whose methods a template could call."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    raise LabError(f"a chat holds texts, numbers, lists and objects, found {type(value).__name__}")


class _Answers(Extension):
    """The tag `{% generation %}`: notes where the text between it and `{% endgeneration %}` stands."""

    tags = {"generation"}  # noqa: RUF012  (Jinja reads it so)

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._pieces: list[str] | None = None
        self._marked: list[tuple[int, str]] = []

    def parse(self, parser: Parser) -> nodes.Node:
        """Make the tag a call of `_note` with its body."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

    def _note(self, caller: Callable[[], str]) -> str:
        said = str(caller())
        if self._pieces is not None:
            self._marked.append((sum(map(len, self._pieces)), said))
        return said

    @contextmanager
    def recording(self, pieces: list[str]) -> Iterator[list[tuple[int, str]]]:
        """Note answers while `pieces` grows by what has been written."""
        self._pieces, self._marked = pieces, []
        try:
            yield self._marked
        finally:
            self._pieces = None


class _Namespace(Namespace):
    """Jinja's `namespace` without names that Python reads itself."""

    def __init__(*args: Any, **values: Any) -> None:
        self, *rest = args
        given = dict(*rest, **values)
        _refuse_private(given)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private([name])
        Namespace.__setitem__(self, name, value)


def _refuse_private(names: Any) -> None:
    for name in names:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace has no {name!r}")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> None:
    raise TemplateError(message)


@lru_cache(maxsize=32)
def _compiled(template: str) -> tuple[Template, _Answers]:
    """Compile a template in a sandbox of its own; LabError for one that is none."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Answers, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": lambda format: datetime.now().strftime(format),
        "namespace": _Namespace,
    }
    try:
        made = environment.from_string(template)
    except (TemplateError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        raise LabError(f"the chat template is damaged{f', line {line}' if line else ''}: {error}") from None
    found = environment.extensions[f"{_Answers.__module__}.{_Answers.__name__}"]
    assert isinstance(found, _Answers)
    return made, found
