"""Arithmetic over the dotted names of results: what a claim's measure and precondition are written in."""

import ast
import functools
import math
from collections.abc import Callable, Iterable, Mapping

from gpt2lab.base.errors import LabError, nearest

Value = float | bool

_FUNCTIONS: dict[str, Callable[..., float]] = {
    "log": math.log,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "abs": abs,
    "min": min,
    "max": max,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
_ALLOWED = "numbers, dotted names, + - * / **, comparisons, and, or, not, log, exp, sqrt, abs, min and max"


def evaluate(expression: str, results: Mapping[str, float]) -> Value:
    """Return the value of `expression` over `results`, whose keys are dotted names such as `loss.adamw`.

    A value that arithmetic does not define (a division by zero, the logarithm of a negative number) is nan.
    LabError for a name that is not among the results, with the nearest one, and for anything but the
    arithmetic named above.
    """
    try:
        return _value(_parse(expression), expression, results)
    except (ZeroDivisionError, OverflowError):
        return math.nan


def names_in(expression: str) -> list[str]:
    """Return the dotted names that `expression` reads, in order of appearance, each once."""
    return list(dict.fromkeys(_names(_parse(expression))))


def missing_result(name: str, results: Iterable[str]) -> LabError:
    """Build the error for a result that the run did not report."""
    known = sorted(results)
    near = nearest(name, known)
    known_text = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    hint = f"did you mean {near}?" if near else f"reported: {known_text or 'nothing'}"
    return LabError(f"{name}: the run reported no such result; {hint}")


@functools.lru_cache(maxsize=1024)
def _parse(expression: str) -> ast.expr:
    """Return the checked syntax tree of an expression."""
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise LabError(f"{expression!r}: not an expression; it may use {_ALLOWED}") from None
    _check(tree, expression)
    return tree


def _check(node: ast.expr, expression: str) -> None:
    """Refuse every kind of node but those of arithmetic."""
    children: list[ast.expr] = []
    match node:
        case ast.Constant(value=bool() | int() | float()):
            pass
        case ast.Name() | ast.Attribute() if _dotted(node) is not None:
            pass
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not()):
            children = [node.operand]
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            children = [node.left, node.right]
        case ast.BoolOp():
            children = node.values
        case ast.Compare() if all(type(operator) in _COMPARISONS for operator in node.ops):
            children = [node.left, *node.comparators]
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS and node.args:
            children = node.args
        case _:
            piece = ast.unparse(node)
            raise LabError(f"{expression!r}: {piece!r} is not allowed here; it may use {_ALLOWED}")
    for child in children:
        _check(child, expression)


def _value(node: ast.expr, expression: str, results: Mapping[str, float]) -> Value:
    """Return the value of a checked node."""

    def value(child: ast.expr) -> Value:
        return _value(child, expression, results)

    match node:
        case ast.Constant(value=bool() as truth):
            return truth
        case ast.Constant(value=int() | float() as number):
            return float(number)  # never an int: 9**9**9 of whole numbers would not end
        case ast.UnaryOp(op=ast.Not()):
            return not value(node.operand)
        case ast.UnaryOp():
            return -value(node.operand) if isinstance(node.op, ast.USub) else +value(node.operand)
        case ast.BinOp():
            return _real(_ARITHMETIC[type(node.op)](value(node.left), value(node.right)))
        case ast.BoolOp(op=ast.And()):
            return all(value(child) for child in node.values)
        case ast.BoolOp():
            return any(value(child) for child in node.values)
        case ast.Compare():
            sides = [value(child) for child in (node.left, *node.comparators)]
            return all(
                _COMPARISONS[type(operator)](left, right)
                for operator, left, right in zip(node.ops, sides[:-1], sides[1:], strict=True)
            )
        case ast.Call(func=ast.Name(id=name)):
            return _call(name, [value(child) for child in node.args], expression)
    name = _dotted(node) or ""
    if name not in results:
        raise missing_result(name, results)
    return results[name]


def _real(value: Value | complex) -> Value:
    """Return nan for the complex number that a fractional power of a negative number gives."""
    return math.nan if isinstance(value, complex) else value


def _call(name: str, arguments: list[Value], expression: str) -> float:
    """Call one of the allowed functions; outside its domain it is nan."""
    if name in ("min", "max"):
        # min and max ignore a nan that stands second; a missing number must not pass unseen
        if any(math.isnan(argument) for argument in arguments):
            return math.nan
        return float(_FUNCTIONS[name](arguments))
    if len(arguments) != 1:
        raise LabError(f"{expression!r}: {name} takes one argument, got {len(arguments)}")
    try:
        return float(_FUNCTIONS[name](arguments[0]))
    except ValueError:
        return math.nan


def _names(node: ast.expr) -> Iterable[str]:
    name = _dotted(node)
    if name is not None:
        yield name
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr) and not (isinstance(node, ast.Call) and child is node.func):
            yield from _names(child)


def _dotted(node: ast.AST) -> str | None:
    """Return `a.b.c` for the nodes that such a name parses to, else None."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value)
        return None if owner is None else f"{owner}.{node.attr}"
    return None
