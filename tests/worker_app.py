"""Handlers for the tests of the worker."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import decimal
import functools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import psycopg.rows
from psycopg.types.string import TextLoader

from rowcron import Abandon, Cancel, RetryAfter, Run, Snooze, handler

if farewells := os.environ.get("TEST_FAREWELLS"):
    atexit.register(lambda: Path(farewells, str(os.getpid())).touch())


@handler
def nothing() -> None:
    """Do nothing."""


@handler
async def nothing_async() -> None:
    """Do nothing, in the loop."""


@handler
async def late(run: Run) -> float:
    """Return by how many seconds it begins after the instant, by this machine's clock."""
    assert run.scheduled_for is not None
    return time.time() - run.scheduled_for.timestamp()


@handler
def occurrence(run: Run) -> str:
    """Return what it is for."""
    return str(run.scheduled_for and run.scheduled_for.isoformat())


COUNTED = contextvars.ContextVar("COUNTED", default=0)


def _count_and_divide(digits: int | None) -> list[Any]:
    COUNTED.set(COUNTED.get() + 1)
    if digits is not None:
        decimal.getcontext().prec = digits
    return [COUNTED.get(), len(str(decimal.Decimal(1) / 3))]


@handler
def count_and_divide(digits: int | None = None) -> list[Any]:
    """Change this context, and return what there is to see of it."""
    return _count_and_divide(digits)


@handler
async def count_and_divide_async(digits: int | None = None) -> list[Any]:
    """The same in the loop."""
    return _count_and_divide(digits)


@handler("add-it")
def add(a: int, b: int) -> dict[str, int]:
    """Take keyword arguments."""
    return {"sum": a + b}


@handler
def whole(args: Any, context: Run) -> dict[str, Any]:
    """Take the arguments as they are, and the run."""
    return {
        "args": args,
        "run_id": context.run_id,
        "attempt": context.attempt,
        "job": context.job,
        "owner": context.owner,
        "on_demand": context.scheduled_for is None,
        "key": str(context.idempotency_key),
        "allowed": (context.deadline - context.started_at).total_seconds(),
    }


@handler
def give(what: str) -> Any:
    """Return something that is hard to store."""
    values: dict[str, Any] = {
        "nul": {"text": "a\0b", "escaped": "\\u0000"},
        "surrogate": "\ud800",
        "object": object(),
        "long": "x" * 70_000,
        "nan": float("nan"),
    }
    return values[what]


@handler
def fail(how: str) -> None:
    """Raise."""
    if how == "abandon":
        raise Abandon("never again")
    if how == "later":
        raise RetryAfter(0.2)
    if how == "cancel":
        raise Cancel("the order is gone")
    if how == "snooze":
        raise Snooze(3600, "the bank is closed")
    raise ValueError("broken \0 \ud800")


@handler
def snooze(seconds: float) -> None:
    """Put the run off."""
    raise Snooze(seconds)


@handler
async def plan_late(how: str) -> None:
    """Have a plan once it is too late for one."""
    try:
        await asyncio.sleep(60)
    finally:
        raise {"snooze": Snooze(1), "cancel": Cancel("not needed")}[how]


@handler
async def plan_late_connected(connection: psycopg.AsyncConnection[Any], how: str) -> None:
    """Likewise, on a connection."""
    await plan_late(how)


@handler
def plan_late_plain(how: str) -> None:
    """Likewise, in a thread."""
    try:
        sleep(60)
    finally:
        raise {"snooze": Snooze(1), "cancel": Cancel("not needed")}[how]


@handler
def pause(how: str) -> None:
    """Ask for a pause that is none."""
    raise RetryAfter(how if how == "a word" else float(how), f"the pause is {how}")  # type: ignore[arg-type]


@handler
def sleep(seconds: float) -> None:
    """Block a thread, in Python again every now and then."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)


@handler
def stubborn(seconds: float = 30) -> None:
    """Do not stop when asked to."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            time.sleep(0.01)
        except BaseException:
            continue


_inside = 0


@handler
async def count_inside(seconds: float = 0) -> int:
    """Return how many of these were inside together as this one came."""
    global _inside
    _inside += 1
    found = _inside
    await asyncio.sleep(seconds)
    _inside -= 1
    return found


@handler
async def sleep_async(seconds: float) -> None:
    """Wait in the loop."""
    await asyncio.sleep(seconds)


@handler
def insert(run: Run, connection: psycopg.Connection[Any], n: int = 1, then: str = "") -> None:
    """Work on the connection whose commit is the run's end."""
    connection.execute("insert into public.effect values (%s, %s)", (n, run.run_id))
    if then == "raise":
        raise ValueError("rolled back")
    if then == "commit":
        connection.commit()
    if then == "cut":
        connection.execute("select pg_terminate_backend(pg_backend_pid())")
    if then == "sleep":
        connection.execute("select pg_sleep(30)")


@handler
def enqueue_more(run: Run, connection: psycopg.Connection[Any], left: int) -> None:
    """Ask for another of its kind, until none is left to ask for."""
    if left:
        query = "select rowcron.enqueue(%s, jsonb_build_object('left', %s::integer))"
        connection.execute(query, (run.job, left - 1))


@handler
async def insert_async(
    run: Run, connection: psycopg.AsyncConnection[Any], n: int = 1, then: str = ""
) -> None:
    """The same in the loop."""
    await connection.execute("insert into public.effect values (%s, %s)", (n, run.run_id))
    if then == "raise":
        raise ValueError("rolled back")
    if then == "sleep":
        await connection.execute("select pg_sleep(30)")


@handler
def end_early(run: Run, connection: psycopg.Connection[Any], how: list[str]) -> None:
    """End the transaction of the connection, or do what only seems to."""
    if "isolation" in how:
        connection.execute("set transaction isolation level serializable")
    connection.execute("insert into public.effect values (1, %s)", (run.run_id,))
    for text in how:
        if text == "close":
            connection.close()
        elif text == "raise":
            raise ValueError("of its own")
        elif text == "savepoint":
            with connection.transaction(force_rollback=True):
                connection.execute("insert into public.effect values (2, %s)", (run.run_id,))
        elif text != "isolation":
            connection.execute(text.encode())


@handler
async def end_early_async(
    run: Run, connection: psycopg.AsyncConnection[Any], how: list[str]
) -> None:
    """The same in the loop."""
    if "isolation" in how:
        await connection.execute("set transaction isolation level serializable")
    await connection.execute("insert into public.effect values (1, %s)", (run.run_id,))
    for text in how:
        if text == "close":
            await connection.close()
        elif text == "raise":
            raise ValueError("of its own")
        elif text == "savepoint":
            async with connection.transaction(force_rollback=True):
                insert = "insert into public.effect values (2, %s)"
                await connection.execute(insert, (run.run_id,))
        elif text != "isolation":
            await connection.execute(text.encode())


@handler
def dwell(connection: psycopg.Connection[Any], seconds: float) -> int:
    """Keep the connection for so long, at work in Python; return which it is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
    return connection.info.backend_pid


@handler
async def dwell_async(connection: psycopg.AsyncConnection[Any], seconds: float) -> int:
    """Likewise, waiting."""
    await asyncio.sleep(seconds)
    return connection.info.backend_pid


@handler
def spoil(connection: psycopg.Connection[Any]) -> None:
    """Leave as much behind as a session can hold."""
    connection.row_factory = psycopg.rows.dict_row
    connection.adapters.register_loader("bool", Shouting)
    connection.add_notice_handler(lambda _: HEARD.append("notice"))
    connection.execute("set statement_timeout = 600000")
    connection.execute("set role none; create temporary table left_behind ()")
    connection.execute("select pg_advisory_lock(4711)")


@handler
async def spoil_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """The same in the loop."""
    connection.row_factory = psycopg.rows.dict_row
    connection.adapters.register_loader("bool", Shouting)
    connection.add_notice_handler(lambda _: HEARD.append("notice"))
    await connection.execute("set statement_timeout = 600000")
    await connection.execute("set role none; create temporary table left_behind ()")
    await connection.execute("select pg_advisory_lock(4711)")


class Shouting(TextLoader):
    """Reads other than what was written."""

    def load(self, data: Any) -> str:
        return str(super().load(data)).upper()


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function as one does that knows nothing of async ones."""

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        return function(*args, **options)

    return wrapper


@handler
@decorated
async def beneath(seconds: float = 0) -> str:
    """Be async beneath a decorator."""
    await asyncio.sleep(seconds)
    return "awaited"


@handler
@decorated
async def insert_beneath(run: Run, connection: psycopg.AsyncConnection[Any]) -> None:
    """Likewise, on a connection."""
    await connection.execute("insert into public.effect values (1, %s)", (run.run_id,))


@handler
def promise() -> Any:
    """Return what is to be awaited."""
    return beneath()


@handler("runs_itself")
@functools.wraps(beneath)
def runs_itself() -> Any:
    """Have a loop of one's own in the thread, as a decorator might."""
    return asyncio.run(beneath())


class Called:
    """An object that is called like an async function."""

    async def __call__(self, context: Run) -> str:
        """Answer."""
        await asyncio.sleep(0)
        return f"awaited {context.run_id}"


handler("called")(Called())


@handler
def lazily() -> Iterator[int]:
    """Return a generator."""
    return (n for n in range(3))


@handler
async def lazily_async() -> Any:
    """Return what is still to be awaited."""
    return asyncio.sleep(0)


@handler
def insert_lazily(run: Run, connection: psycopg.Connection[Any]) -> Any:
    """Work, and return work that is still to be done."""
    connection.execute("insert into public.effect values (2, %s)", (run.run_id,))
    return beneath()


HEARD: list[str] = []
SPEAK = "do $$ begin raise notice 'is anybody there?'; end $$"
LOOK_ROUND = """
  select current_setting('statement_timeout'), to_regclass('left_behind') is null,
    (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())
"""


@handler
def look_round(connection: psycopg.Connection[Any]) -> str:
    """Tell what the handler before has left."""
    connection.execute(SPEAK)
    return str((connection.execute(LOOK_ROUND).fetchone(), connection.isolation_level, HEARD))


@handler
async def look_round_async(connection: psycopg.AsyncConnection[Any]) -> str:
    """The same in the loop."""
    await connection.execute(SPEAK)
    seen = await (await connection.execute(LOOK_ROUND)).fetchone()
    return str((seen, connection.isolation_level, HEARD))


@handler
def speak() -> str:
    """Return what few encodings can hold."""
    return "\N{RIGHTWARDS ARROW} \N{SNOWMAN}"


@handler
def raise_foreign(how: str = "") -> None:
    """Raise with a text that few encodings can hold."""
    text = "closed \N{RIGHTWARDS ARROW} tomorrow"
    if how == "Snooze":
        raise Snooze(3600, text)
    if how == "RetryAfter":
        raise RetryAfter(3600, text)
    raise ValueError("\N{SNOWMAN}")
