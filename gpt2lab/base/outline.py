"""The fields of a settings dataclass, read from its source: a mistake in a name or a value is found without an import.

What a part needs (torch above all) takes seconds to import, and no mistake of a command line should wait for it. The
source is parsed, never run: names of annotations and defaults are looked up in the standard library, in `gpt2lab.base`,
and in the sources of other modules. What cannot be read so (a class made by a program, a base class of another library, a
default that is computed) has no outline, and whoever asked imports the class instead: `part_outline` does, so that every
plug-in works.
"""

import ast
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import itertools
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt2lab.base.registry import part, parts

_BUILTINS = {
    kind.__name__: kind for kind in (bool, dict, float, frozenset, int, list, object, set, str, tuple)
}
_CALLED = (*_BUILTINS.values(), Path)
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.BitOr: operator.or_,
    ast.Div: operator.truediv,
    ast.Mult: operator.mul,
    ast.Sub: operator.sub,
}
_DEEPEST = 50  # names that stand for names; more is a circle


class Unreadable(Exception):
    """A class whose fields cannot be told from its source alone."""


def part_outline(kind: str, name: str) -> type:
    """Return a dataclass with the fields of a part: names, types, defaults and docs, but no methods and no checks.

    It is read from the source; where that cannot be, the part itself is imported. LabError as `gpt2lab.base.registry.part`.
    """
    found = next((one for one in parts(kind) if one.name == name and one.built), None)
    read = outline(found.object) if found is not None else None
    return read if read is not None else part(kind, name)


def outline(place: str, *, optional: bool = False) -> type | None:
    """Return what `part_outline` returns of the class at `package.module:Name`; None where its source does not say it.

    optional: every field has a default, None if the class has none, as if presets gave what is missing.
    """
    module, _, name = place.partition(":")
    try:
        return _outline(module, name, optional)
    except (Unreadable, RecursionError):
        return None


def arguments(place: str, methods: Sequence[str]) -> dict[str, Any] | None:
    """Return the arguments of the first of these methods that a class has, each with its type.

    If that hands further ones on (**options), those of the following methods too. None where the source does not say it.
    """
    module, _, name = place.partition(":")
    found: dict[str, Any] = {}
    try:
        home, node = _definition(module, name)
        for method in methods:
            at, line = _method(home, node, method)
            if line is None:
                continue
            own = [*line.args.posonlyargs, *line.args.args, *line.args.kwonlyargs]
            types = {one.arg: _argument_type(at, one) for one in own}
            found = {**types, **found}
            if line.args.kwarg is None:
                return found
    except (Unreadable, RecursionError):
        return None
    return None


def _argument_type(module: str, argument: ast.arg) -> Any:
    return object if argument.annotation is None else _annotation(_Scope(module, False), argument.annotation)


def _method(module: str, node: Any, name: str) -> tuple[str, ast.FunctionDef | None]:
    """Return a method of a class, its own or inherited, with its module; None for one that no class of the lab has.

    Unreadable for the constructor of another library's class.
    """
    if not isinstance(node, ast.ClassDef):
        if name == "__init__":
            raise Unreadable(f"{module}: the constructor of another library")
        return module, None
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == name:
            return module, inner
    for base in node.bases:
        home, found = _definition(module, base.id) if isinstance(base, ast.Name) else (module, None)
        at, line = _method(home, found, name)
        if line is not None:
            return at, line
    return module, None


class _Scope(NamedTuple):
    """Where an expression stands."""

    module: str
    """Dotted name."""
    optional: bool
    """Whether settings that it names have defaults throughout."""


def _outline(module: str, name: str, optional: bool) -> type:
    return _made(module, name, optional, _version(module))


@functools.cache
def _made(module: str, name: str, optional: bool, version: tuple[Path, int]) -> type:
    """Make the outline of a class; once for each version of its file, so that a nested default is of its field's type."""
    home, node = _definition(module, name)
    if not isinstance(node, ast.ClassDef) or not _is_dataclass(node):
        raise Unreadable(f"{module}: {name} is no dataclass")
    fields: dict[str, tuple[str, Any, Any]] = {}
    constants: dict[str, Any] = {}
    for owner, base in _ancestry(home, node):
        scope = _Scope(owner, optional)
        for line, doc in _annotated(base):
            target = line.target.id if isinstance(line.target, ast.Name) else ""
            if "ClassVar" in ast.unparse(line.annotation):
                if line.value is not None:
                    constants[target] = _tried(scope, line.value, None)
            elif _is_dataclass(base) and (made := _field(scope, line, doc)) is not None:
                fields[target] = (target, _annotation(scope, line.annotation), made)
    return dataclasses.make_dataclass(
        name,
        fields.values(),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": ast.get_docstring(node), **constants},
    )


def _field(scope: _Scope, line: ast.AnnAssign, doc: str) -> Any:
    """Return a field with its default and its docstring; None for one that is no setting."""
    extra = {"metadata": {"doc": doc}}
    given = line.value
    if given is None:
        return dataclasses.field(default=None, **extra) if scope.optional else dataclasses.field(**extra)  # type: ignore[call-overload]  # keywords
    if isinstance(given, ast.Call) and ast.unparse(given.func).rpartition(".")[2] == "field":
        words = {word.arg: word.value for word in given.keywords}
        if "init" in words:
            return None
        if (factory := words.get("default_factory")) is not None:
            made = factory.body if isinstance(factory, ast.Lambda) else ast.Call(factory, [], [])
            return dataclasses.field(
                default_factory=functools.partial(_value_of, _value(scope, made)), **extra
            )  # type: ignore[call-overload]  # keywords
        if (given := words.get("default")) is None:
            return dataclasses.field(**extra)  # type: ignore[call-overload]  # keywords
    return dataclasses.field(default_factory=functools.partial(_value_of, _value(scope, given)), **extra)  # type: ignore[call-overload]  # keywords


def _value_of(value: Any) -> Any:
    return value


def _annotated(node: ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str]]:
    """Yield the annotated lines of a class, each with the docstring under it."""
    for line, following in itertools.pairwise([*node.body, ast.Pass()]):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            said = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            doc = following.value.value if said else ""  # type: ignore[attr-defined]  # as said
            yield line, inspect.cleandoc(str(doc)).replace("\n", " ")


def _ancestry(module: str, node: ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield a class and those that it derives from, the first ancestor first. Unreadable for one of another library."""
    for base in reversed(node.bases):
        name = base.value if isinstance(base, ast.Subscript) else base
        if not isinstance(name, ast.Name):
            raise Unreadable(f"{module}: base class {ast.unparse(base)}")
        home, found = _definition(module, name.id)
        if isinstance(found, ast.ClassDef):
            yield from _ancestry(home, found)
        elif home.partition(".")[0] not in sys.stdlib_module_names:
            raise Unreadable(f"{module}: base class {ast.unparse(base)}")
    yield module, node


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any(ast.unparse(one).partition("(")[0].endswith("dataclass") for one in node.decorator_list)


# Expressions.


def _annotation(scope: _Scope, node: ast.expr) -> Any:
    """Return the type that an annotation names; `object`, which takes every value, for one that is not to be had here."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval").body
    return _tried(scope, node, object)


def _tried(scope: _Scope, node: ast.expr, otherwise: Any) -> Any:
    try:
        return _value(scope, node)
    except (Unreadable, TypeError, ValueError):
        return otherwise


def _value(scope: _Scope, node: ast.expr, depth: int = 0) -> Any:
    """Return what an expression of literals, names, types and settings stands for. Unreadable for any other."""

    def value(inner: ast.expr) -> Any:
        return _value(scope, inner, depth + 1)

    if depth > _DEEPEST:
        raise Unreadable(f"{scope.module}: nested too deeply")
    match node:
        case ast.Constant(value=constant):
            return constant
        case ast.Name(id=name):
            return _named(scope, name, depth + 1)
        case ast.Attribute(value=inner, attr=name) if inspect.ismodule(found := value(inner)):
            return getattr(found, name)
        case ast.Subscript(value=inner, slice=index):
            return value(inner)[value(index)]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](value(left), value(right))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -value(inner)
        case ast.Slice(lower=lower, upper=upper, step=step):
            return slice(*(None if end is None else value(end) for end in (lower, upper, step)))
        case ast.Tuple(elts=items) | ast.List(elts=items):
            parts = (value(one.value) if isinstance(one, ast.Starred) else (value(one),) for one in items)
            found = itertools.chain.from_iterable(parts)
            return tuple(found) if isinstance(node, ast.Tuple) else list(found)
        case ast.Dict(keys=keys, values=items) if None not in keys:
            return {value(key): value(item) for key, item in zip(keys, items, strict=True) if key is not None}
        case ast.Call(func=called, args=items, keywords=words) if all(word.arg for word in words):
            kind = value(called)
            if kind in _CALLED or (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
                return kind(*map(value, items), **{str(word.arg): value(word.value) for word in words})
    raise Unreadable(f"{scope.module}: {ast.unparse(node)}")


def _named(scope: _Scope, name: str, depth: int) -> Any:
    """Return what a name of a module stands for."""
    if name in _BUILTINS:
        return _BUILTINS[name]
    home, found = _definition(scope.module, name)
    if isinstance(found, ast.ClassDef):
        return _outline(home, found.name, scope.optional)
    if isinstance(found, ast.expr):
        return _value(_Scope(home, scope.optional), found, depth)
    return found


def _definition(module: str, name: str, depth: int = 0) -> tuple[str, Any]:
    """Return where a name is defined, and its class or expression there; of a module that may be imported the object."""
    if module.startswith("gpt2lab.base.") or module.partition(".")[0] in sys.stdlib_module_names:
        return module, getattr(importlib.import_module(module), name)
    found = _names(module, _version(module)).get(name)
    if found is None or depth > _DEEPEST:
        raise Unreadable(f"{module}: no {name}")
    if isinstance(found, tuple):
        return _definition(*found, depth=depth + 1)
    if isinstance(found, str):
        if found.partition(".")[0] in sys.stdlib_module_names:
            return found, importlib.import_module(found)
        raise Unreadable(f"{module}: {name} is the module {found}")
    return module, found


def _version(module: str) -> tuple[Path, int]:
    path = _file(module)
    return path, path.stat().st_mtime_ns


@functools.cache
def _names(
    module: str, version: tuple[Path, int]
) -> Mapping[str, ast.ClassDef | ast.expr | tuple[str, str] | str]:
    """Return the names of a module: classes, values, (module, name) of what is imported from others, and modules."""
    path = version[0]
    try:
        lines = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError) as error:
        raise Unreadable(f"{path}: {error}") from None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: dict[str, ast.ClassDef | ast.expr | tuple[str, str] | str] = {}
    for line in [
        *itertools.chain.from_iterable(one.body for one in lines if isinstance(one, ast.If)),
        *lines,
    ]:
        match line:
            case ast.ClassDef(name=name):
                found[name] = line
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name] = value
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                found |= {
                    one.id: value
                    for one, value in zip(targets, values, strict=False)
                    if isinstance(one, ast.Name)
                }
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                found[name] = value
            case ast.ImportFrom(module=source, names=names, level=level):
                above = package.rsplit(".", level - 1)[0] if level else ""
                origin = ".".join(filter(None, (above, source)))
                found |= {one.asname or one.name: (origin, one.name) for one in names}
            case ast.Import(names=names):
                found |= {one.asname or one.name.partition(".")[0]: one.name for one in names}
    return found


def _file(module: str) -> Path:
    """Return the source file of a module, without importing it or what is above it. Unreadable if there is none."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        base = Path(folder, *inner)
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return file
    raise Unreadable(f"{module}: no source")
