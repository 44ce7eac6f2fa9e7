"""Handlers: functions that python jobs name.

    from rowcron import handler, Run

    @handler
    def send_invoice(number: int, run: Run, connection: psycopg.Connection): ...

A job's args become keyword arguments; a parameter named `args` takes all of them as they are. A
parameter named `run` (or annotated `Run`) gets the run, one named `connection` (or annotated with
psycopg's `Connection` or `AsyncConnection`) a database connection whose commit is the run's end. A
union with such a type is as good; `Any` is as none. A plain function runs in a thread, an `async`
one in the worker's event loop. So does what a plain one returns to be awaited, as a decorator
around an async function does. What is returned is stored as the result.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from rowcron import hints
from rowcron.capture import describe
from rowcron.errors import RowcronError
from rowcron.models import Run

F = TypeVar("F", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,199}")  # as the schema checks python commands


class Abandon(Exception):
    """Raise it in a handler when trying again cannot help: the run fails for good."""


class Cancel(Exception):
    """Raise it in a handler when there is nothing left to do: the run ends as cancelled.

    The message is the reason in the ledger. Nothing has failed, and nothing is tried again. A run
    that is being stopped (its timeout has passed, say) ends as that instead.
    """


class RetryAfter(Exception):
    """Raise it in a handler to fail this attempt and name the pause before the next: seconds."""

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message or f"to be tried again after {seconds:g} s")
        self.seconds = seconds


class Snooze(Exception):
    """Raise it in a handler to have the run come again after so many seconds.

    At least one second, a day at most. It is the same attempt then: nothing has failed, nothing is
    counted, the ledger has no entry. A run that is being stopped (its timeout has passed, say) is
    not put off.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message or f"put off for {seconds:g} s")
        self.seconds = seconds


class Handler:
    """A registered function and what it asks for."""

    __slots__ = ("connection", "function", "is_async", "name", "run", "simple", "whole")

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function
        self.is_async = _is(inspect.iscoroutinefunction, function)
        self.run: str | None = None
        self.connection: str | None = None
        self.whole: str | None = None
        for parameter in hints.parameters(function):
            if hints.asks_for_run(parameter):
                self.run = parameter.name
            elif hints.asks_for_connection(parameter):
                self.connection = parameter.name
            elif parameter.name == "args" and parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            ):
                self.whole = parameter.name
        self.simple = not (self.run or self.connection or self.whole)
        if self.connection is not None:  # has to be of the right sort before it is called
            self.is_async |= inspect.iscoroutinefunction(inspect.unwrap(function))

    def arguments(self, run: Run, connection: Any = None) -> Mapping[str, Any]:
        """Return the keyword arguments of a call. Raises `Abandon` if args do not fit."""
        try:
            args = run.args
        except RecursionError:
            raise Abandon("the args are nested deeper than Python reads JSON") from None
        if self.whole is not None:
            given = {self.whole: args}
        elif isinstance(args, dict):
            if self.simple:
                return args
            given = dict(args)
        else:
            raise Abandon(
                f"handler {self.name!r} takes keyword arguments, but the job's args are not an"
                " object; a parameter named args would take them as they are"
            )
        if self.run is not None:
            given[self.run] = run
        if self.connection is not None:
            given[self.connection] = connection
        return given


def _is(sort: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    """Return whether a function, or what an object is called by, is of a sort."""
    return sort(function) or sort(type(function).__call__)


HANDLERS: dict[str, Handler] = {}


@overload
def handler(function: F, /) -> F: ...
@overload
def handler(name: str | None = None, /) -> Callable[[F], F]: ...
def handler(name: Any = None, /) -> Any:
    """Register a function for python jobs, under its own name or the one that is given."""
    if name is None or isinstance(name, str):
        return lambda function: _register(name, function)
    return _register(None, name)


def _register(given: str | None, function: F) -> F:
    if not callable(function):
        raise RowcronError(
            f'a handler cannot be of type "{type(function).__name__}"',
            detail="It cannot be called.",
            hint="@handler stands above functions; methods are registered below their class:"
            ' handler("send_mail")(Mailer.send_mail)',
        )
    name = given or str(getattr(function, "__name__", ""))  # a partial has none
    if not _NAME.fullmatch(name):
        raise RowcronError(
            f'"{name}" cannot be a handler\'s name',
            detail="It is a letter, then letters, digits, _ . : -, 200 at most.",
            hint='give it one: @handler("send_mail")',
        )
    if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
        raise RowcronError(
            f'handler "{name}" is a generator',
            detail="Nobody iterates it, and until then nothing of it is executed.",
            hint="return a list in place of yield",
        )
    known = HANDLERS.get(name)
    if known is not None and known.function is not function and not _is_reload(known, function):
        raise RowcronError(
            f'two handlers are named "{name}"',
            detail=f"One is in {_place(known.function)[0]}, one in {_place(function)[0]}.",
            hint=f'give one of them a name of its own: @handler("{name}-2")',
        )
    HANDLERS[name] = Handler(name, function)
    return function


def _is_reload(known: Handler, function: Callable[..., Any]) -> bool:
    return _place(known.function) == _place(function)


def _place(function: Callable[..., Any]) -> tuple[str, str]:
    """Return the module and name of a function; of an object, those of its class."""
    return function.__module__, getattr(function, "__qualname__", type(function).__qualname__)


def load_app(name: str | None) -> dict[str, Handler]:
    """Import the module that `--app` names and return its handlers. Raises `RowcronError`."""
    if name is not None:
        here = os.getcwd()  # noqa: PTH109 - sys.path holds text
        if here not in sys.path and "" not in sys.path:
            sys.path.insert(0, here)
        module = name.partition(":")[0]
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            detail, hint = describe(error), None
            if _is_missing(module, error):
                detail = str(error)
                hint = "--app takes a module as import does; PYTHONPATH may name its directory"
            elif isinstance(error, RowcronError):
                detail, hint = "\n".join(filter(None, (detail, error.detail))), error.hint
            elif isinstance(error, SystemExit):
                hint = (
                    "an app is imported, not run: put what ends the process below"
                    ' if __name__ == "__main__":'
                )
            raise RowcronError(
                f'app "{name}" cannot be imported', detail=detail, hint=hint
            ) from error
    return HANDLERS


def _is_missing(module: str, error: BaseException) -> bool:
    """Return whether the module itself is not there, or what it is in; not what it imports."""
    if isinstance(error, ModuleNotFoundError):
        return f"{module}.".startswith(f"{error.name}.")
    return not module or module.startswith(".")
