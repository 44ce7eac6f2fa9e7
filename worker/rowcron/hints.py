"""What the parameters of a handler ask for, by their annotations."""

from __future__ import annotations

import ast
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rowcron.models import Run

CONNECTIONS = frozenset({"Connection", "AsyncConnection"})
_CHOICES = frozenset({"Union", "Optional", "Annotated"})
_NO_HINTS = (inspect.Parameter.empty, Any, object, "Any", "object")


def parameters(function: Callable[..., Any]) -> Iterable[inspect.Parameter]:
    """Return the parameters of whatever can be called: a partial's or object's, too."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception:  # names known to type checkers only; what is left is their text
        signature = inspect.signature(function)
    return signature.parameters.values()


def asks_for_run(parameter: inspect.Parameter) -> bool:
    """Return whether a parameter is to get the run."""
    return any(
        choice is Run or choice == "Run" or (choice in _NO_HINTS and parameter.name == "run")
        for choice in _choices(parameter.annotation)
    )


def asks_for_connection(parameter: inspect.Parameter) -> bool:
    """Return whether a parameter is to get a connection."""
    return any(
        _is_connection(choice) or (choice in _NO_HINTS and parameter.name == "connection")
        for choice in _choices(parameter.annotation)
    )


def _is_connection(choice: Any) -> bool:
    if isinstance(choice, str):
        return choice in CONNECTIONS
    module = getattr(choice, "__module__", "")
    return getattr(choice, "__name__", "") in CONNECTIONS and module.startswith("psycopg")


def _choices(hint: Any) -> Iterator[Any]:
    """Open unions, and leave parameters of types away; what is but text are names in the end."""
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    origin = typing.get_origin(hint)
    if isinstance(hint, str):
        try:
            yield from _choices_of_text(ast.parse(hint.strip(), mode="eval").body)
        except SyntaxError:
            return
    elif origin in (typing.Union, types.UnionType):
        for each in typing.get_args(hint):
            yield from _choices(each)
    elif origin is typing.Annotated:
        yield from _choices(typing.get_args(hint)[0])
    else:
        yield origin or hint


def _choices_of_text(hint: ast.expr) -> Iterator[Any]:
    match hint:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            yield from _choices_of_text(left)
            yield from _choices_of_text(right)
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            if name not in _CHOICES:
                yield name
            elif isinstance(inner, ast.Tuple):
                for each in inner.elts[: 1 if name == "Annotated" else None]:
                    yield from _choices_of_text(each)
            else:
                yield from _choices_of_text(inner)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            yield name
        case ast.Constant(value=str(text)):
            yield from _choices(text)
