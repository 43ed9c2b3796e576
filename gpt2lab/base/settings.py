"""Settings are frozen dataclasses: built from text or JSON, turned into help, written back as plain values.

A field's docstring (the string under it) is its help. Dotted names reach nested settings: `train.steps`.
"""

import argparse
import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar, cast, get_args

from gpt2lab.base.errors import LabError, brief, nearest, shown
from gpt2lab.base.json_numbers import flat
from gpt2lab.base.values import Mismatch, fit, holds_several, is_union, metavar, plain, quote, show
from gpt2lab.base.wording import quoted

S = TypeVar("S")

Model = Annotated[str, "model"]
"""Type of a field that holds a model as people name it: a folder, a run, a hub id; "" for none. See `replace_names`."""
ModelTokenizer = Annotated[str, "tokenizer"]
"""Type of a field that names a model for its tokenizer alone."""


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, base classes included; {} without source.

    A field whose metadata has a `doc` has that one.
    """
    known: Any = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    docs = {field.name: str(field.metadata["doc"]) for field in known if "doc" in field.metadata}
    if docs:
        return docs
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue  # a class typed at the prompt has no source
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for line, following in itertools.pairwise(body):
            if not (isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)):
                continue
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                docs[line.target.id] = inspect.cleandoc(str(following.value.value)).replace("\n", " ")
    return docs


def build(cls: type[S], values: Mapping[str, object], where: str) -> S:
    """Make an instance of the dataclass `cls` from `values`; every other field keeps its default.

    Keys may be dotted and values may be text: both are brought to the fields' own types. `where` opens every
    error: LabError for an unknown name (with the nearest), a value of the wrong type, a missing setting.
    """
    return _assemble(cls, None, _tree(values, where), where, "", text=True)


def update(instance: S, values: Mapping[str, object], where: str) -> S:
    """Return a copy of a settings instance with `values` in place; rules and errors of `build`."""
    return _assemble(type(instance), instance, _tree(values, where), where, "", text=True)


def as_arguments(settings: Any, usual: Any = None, *, without: Collection[str] = ()) -> list[str]:
    """Return `--set NAME=VALUE`, quoted for a shell, for every setting that differs from `usual`.

    usual: an instance of the same class; None is the fields' own defaults. without: names that are given in another way.
    """
    cls = type(settings)
    before = {option.name: option.default for option in options(cls, default=usual)}
    words = []
    for option in options(cls, default=settings):
        if option.name in without or option.default == before.get(option.name):
            continue
        entries = {"": option.default}
        if isinstance(option.default, Mapping):
            entries = {f".{key}": value for key, value in option.default.items()}
        words += [f"--set {quoted(option.name + key)}={quoted(show(v))}" for key, v in entries.items()]
    return words


def to_plain(instance: Any) -> dict[str, Any]:
    """Turn a settings instance into JSON's own values; `from_plain` gives the instance back.

    TypeError if a field holds something that JSON has no form for.
    """
    return cast(dict[str, Any], plain(instance, type(instance).__name__))


def from_plain(cls: type[S], values: Mapping[str, object], where: str | None = None) -> S:
    """Make an instance from what `to_plain` wrote; no text is read as another type. Errors as `build`."""
    place = where or cls.__name__
    if not isinstance(values, Mapping):
        raise LabError(f"{place}: settings are values by name, got {shown(values)}")
    return _assemble(cls, None, dict(values), place, "", text=False)


def parse_assignments(pairs: Sequence[str], where: str = "--set") -> dict[str, str]:
    """Split `a.b=c` pairs at the first `=`; LabError for one without a name or an equals sign."""
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise LabError(
                f"{where} {brief(pair)}: a setting is given as NAME=VALUE, for example {where} steps=100"
            )
        values[name.strip()] = value.strip()
    return values


def replace_names(instance: S, annotation: Any, place: Callable[[str], str]) -> S:
    """Return a copy of a settings instance in which the fields of type `annotation` hold place(NAME); "" and None stay.

    Also in nested settings, and in each entry of a field with several names. `annotation`: `Model`, `ModelTokenizer`.
    """
    values: Any = instance
    hints = typing.get_type_hints(type(instance), include_extras=True)
    changed: dict[str, Any] = {}
    for name in _fields(type(instance)):
        value = getattr(values, name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changed[name] = replace_names(value, annotation, place)
        elif value and annotation in _members(hints[name]):
            changed[name] = place(value) if isinstance(value, str) else tuple(map(place, value))
    return cast(S, dataclasses.replace(values, **changed)) if changed else instance


def _members(hint: Any) -> Iterator[Any]:
    """Yield a type and those that it is made of: of `A | None` and tuple[A, ...] also A."""
    yield hint
    if typing.get_origin(hint) is not Annotated:
        for member in get_args(hint):
            yield from _members(member)


@dataclasses.dataclass(frozen=True)
class Option:
    """One setting as a person sees it."""

    name: str
    """Dotted name, `train.steps`."""
    type: Any
    """The annotation, resolved."""
    default: Any
    """The default, or `dataclasses.MISSING`."""
    doc: str
    """The field's docstring, on one line."""


def options(cls: type, prefix: str = "", default: Any = None) -> Iterator[Option]:
    """Yield every setting of a dataclass, nested ones by their dotted names, in the order of the fields.

    `default` is an instance whose values stand for the defaults (a preset).
    """
    docs, hints = field_docs(cls), _hints(cls)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        value = getattr(default, field.name) if default is not None else _default(field)
        nested = nested_settings(hints[field.name])
        if nested is not None and (value is dataclasses.MISSING or isinstance(value, nested)):
            chosen = value if isinstance(value, nested) else None
            yield from options(nested, f"{prefix}{field.name}.", chosen)
        else:
            yield Option(prefix + field.name, hints[field.name], value, docs.get(field.name, ""))


def add_arguments(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    cls: type,
    *,
    only: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    default: Any = None,
) -> None:
    """Add a flag for every setting of `cls`: `train.weight_decay` becomes `--train.weight-decay`.

    Values stay text and absent flags stay absent, so that `build(cls, given(namespace, cls), ...)` does the
    checking, in one place and in one wording. A field that holds several values takes several words; one that holds
    settings or none has a flag for each of those, as has one that always does. `only` or `skip` choose by dotted name.
    """
    chosen = [
        option
        for option in options(cls, default=default)
        if option.name not in skip and (only is None or option.name in only)
    ]
    for option in itertools.chain.from_iterable(map(_spread, chosen)):
        words: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if option.type is not bool:
            words = {"metavar": metavar(option.type), "nargs": "+" if holds_several(option.type) else None}
        flag = "--" + option.name.replace("_", "-")
        parser.add_argument(flag, dest=option.name, default=argparse.SUPPRESS, help=_help(option), **words)


def _spread(option: Option) -> Iterator[Option]:
    """Yield an option, or those of the settings that it holds where it is not none; these have no defaults of their own."""
    nested = nested_settings(option.type)
    if nested is None:
        yield option
    else:
        for one in options(nested, f"{option.name}."):
            yield dataclasses.replace(one, default=dataclasses.MISSING)


def _help(option: Option) -> str:
    shown = option.default not in (dataclasses.MISSING, None, "", ())
    return (
        f"{option.doc} (default: {show(option.default)})".replace("%", "%%")
        if shown
        else option.doc.replace("%", "%%")
    )


def given(namespace: argparse.Namespace, cls: type) -> dict[str, object]:
    """Return the settings of `cls` that were typed, by dotted name."""
    typed = vars(namespace)
    known = itertools.chain.from_iterable(map(_spread, options(cls)))
    found = {option.name: typed[option.name] for option in known if option.name in typed}
    return {name: v[0] if isinstance(v, list) and len(v) == 1 else v for name, v in found.items()}


# How an instance is put together.


def _tree(values: Mapping[str, object], where: str) -> dict[str, object]:
    """Turn dotted keys into nested dicts: {"a.b": 1} -> {"a": {"b": 1}}."""
    tree: dict[str, object] = {}
    for key, value in values.items():
        *path, leaf = key.split(".")
        node = tree
        for name in path:
            inner = node.setdefault(name, {})
            if not isinstance(inner, dict):
                raise LabError(f"{where}: {key} is given, and so is {name} as a whole; give one of them")
            node = inner
        present = node.get(leaf)
        if isinstance(present, dict) and isinstance(value, Mapping):
            present.update(_tree(value, where))
        elif leaf in node:
            raise LabError(f"{where}: {key} is given twice")
        else:
            node[leaf] = _tree(value, where) if isinstance(value, Mapping) else value
    return tree


def _assemble(
    cls: type[S], base: S | None, tree: Mapping[str, object], where: str, prefix: str, *, text: bool
) -> S:
    """Make a `cls` of what `tree` says, then of `base`, then of the defaults."""
    fields = _fields(cls)
    for name in tree:
        if name not in fields:
            raise _no_such(cls, prefix, name, where)
    values: dict[str, object] = {}
    for name, field in fields.items():
        present = getattr(base, name) if base is not None else _default(field)
        nested = nested_settings(_hints(cls)[name])
        if name in tree:
            values[name] = _value(cls, name, present, tree[name], where, prefix, text=text)
        elif present is not dataclasses.MISSING:
            values[name] = present
        elif nested is not None:
            values[name] = _assemble(nested, None, {}, where, f"{prefix}{name}.", text=text)
        else:
            raise LabError(f"{where}: {prefix}{name} is missing; it has no default")
    try:
        return cls(**values)
    except ValueError as error:  # __post_init__ refused the combination
        raise LabError(str(error) if str(error).startswith(where) else f"{where}: {error}") from error


def _value(
    cls: type, name: str, present: Any, value: object, where: str, prefix: str, *, text: bool
) -> object:
    """Bring one given value to the type of its field; a mapping fills a nested dataclass."""
    hint = _hints(cls)[name]
    nested = nested_settings(hint)
    if nested is not None and isinstance(value, Mapping):
        inner = present if text and isinstance(present, nested) else None
        return _assemble(nested, inner, value, where, f"{prefix}{name}.", text=text)
    try:
        return fit(value, hint, text)
    except Mismatch as mismatch:
        raise LabError(f"{where}: {prefix}{name} must be {mismatch}, got {quote(value)}") from None


def _fields(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(cls) if field.init}


def defaults_and_help(cls: type) -> dict[str, Any]:
    """Return what a record keeps beside settings: their defaults by dotted name, if all have one, and what each means."""
    known = list(options(cls))
    all_have = all(option.default is not dataclasses.MISSING for option in known)
    return {
        "values": flat(to_plain(cls())) if all_have else {},
        "help": {option.name: option.doc for option in known},
    }


def _no_such(cls: type, prefix: str, name: str, where: str) -> LabError:
    known = [option.name for option in options(cls, prefix)]
    own = [prefix + f.name for f in dataclasses.fields(cls)]
    match = nearest(prefix + name, own) or nearest(prefix + name, known)
    if match is None:
        match = next((full for full in known if full.rsplit(".", 1)[-1] == name), None)
    hint = f"did you mean {match}?" if match else f"known: {', '.join(known)}"
    full = prefix + name
    written = full if len(full) <= 100 and full.isprintable() else shown(full)
    return LabError(f"{where}: no setting {written}; {hint}")


def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return dataclasses.MISSING


def nested_settings(hint: Any) -> type | None:
    """Return the dataclass that a field holds, also behind `| None`; None for any other type."""
    members = [m for m in get_args(hint) if m is not types.NoneType] if is_union(hint) else [hint]
    if len(members) == 1 and isinstance(members[0], type) and dataclasses.is_dataclass(members[0]):
        return members[0]
    return None
