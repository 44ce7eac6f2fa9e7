"""What handlers ask for: annotations as people write them, so not all of them text."""

# ruff: noqa: F722, F821, UP007, UP045

import typing
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Optional, Union

import psycopg
import pytest

import rowcron
from rowcron import Run
from rowcron.handlers import Handler

pytestmark = pytest.mark.once
assert rowcron
assert typing


def no_hint(run: Any, connection: Any) -> None:
    """Ask by name."""


def no_hint_either(run: "object", connection: "Any | None" = None) -> None:
    """Ask by name."""


def optional(r: Optional[Run] = None, c: "psycopg.Connection[object] | None" = None) -> None:
    """Ask in a union."""


def nested(
    r: Annotated[Run | None, "it"], c: Union["psycopg.AsyncConnection[object]", None]
) -> None:
    """Ask in a union that is annotated, and by text within one."""


def text_alone(
    r: "Union['rowcron.Run', None]",
    c: "typing.Optional[psycopg.Connection[Known]]",
) -> None:
    """Ask in words, as one name is unknown."""


def text_in_pipes(
    r: "Annotated[Run, Run] | None",
    c: "psycopg.Connection | psycopg.AsyncConnection | Known",
) -> None:
    """Likewise."""


def templated(template: str, r: Run, c: "psycopg.Connection[object]", to: str) -> None:
    """Ask beneath a partial."""


class Templated:
    """Asks where it is called."""

    def __call__(self, r: Optional[Run], c: "psycopg.Connection[object]") -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("function", "asked"),
    [
        (no_hint, ("run", "connection")),
        (no_hint_either, ("run", "connection")),
        (optional, ("r", "c")),
        (nested, ("r", "c")),
        (text_alone, ("r", "c")),
        (text_in_pipes, ("r", "c")),
        (partial(templated, template="y"), ("r", "c")),
        (partial(partial(templated, "y"), to="me"), ("r", "c")),
        (Templated(), ("r", "c")),
    ],
)
def test_handlers_ask_by_every_usual_annotation(
    function: Callable[..., None], asked: tuple[str, str]
) -> None:
    found = Handler("a", function)
    assert (found.run, found.connection) == asked


def several(run: "int | None", connection: "list[psycopg.Connection[object]]") -> None:
    """Ask for neither."""


def several_in_words(
    run: "list[Run]",
    connection: "dict[str, Connection] | int",
    other: "not even, (an expression",
) -> None:
    """Likewise, as one name is unknown."""


@pytest.mark.parametrize("function", [several, several_in_words])
def test_what_is_annotated_otherwise_is_an_argument(function: Callable[..., None]) -> None:
    found = Handler("a", function)
    assert (found.run, found.connection) == (None, None)
