"""Idle: statements that a worker with nothing to do sends, its CPU, its memory; and a herd.

All tools idle side by side, each in a database of its own, because they do next to nothing. What
each has sent stands in the JSON file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg

from bench import proc
from bench.plan import Case, Context
from bench.tools import ROWCRON, Failure, Load, Tool, Workers

NAME = "idle"
SETTLING = 15.0  # s until a worker is taken to be idle
STATEMENTS = """
from pg_stat_statements as s
join pg_database as d on d.oid = s.dbid
join pg_roles as r on r.oid = s.userid
where d.datname = current_database() and s.toplevel and r.rolname in ('bench_user', 'bench_worker')
"""
CALLS = f"select coalesce(sum(s.calls), 0)::bigint {STATEMENTS}"
TEXTS = (
    "select regexp_replace(left(s.query, 120), '\\s+', ' ', 'g'), sum(s.calls)::bigint"
    f" {STATEMENTS} group by 1"
)
_answers: dict[int, dict[str, dict[str, Any] | Exception]] = {}


def cases(context: Context) -> Iterator[Case]:
    """Nothing due; one run for many workers."""
    seconds = context.seconds or (20 if context.short else 60)
    title = f"statements a second of an idle worker, over {seconds} s"
    yield Case("statements", "1/s", title, {"seconds": seconds}, lower_is_better=True,
               takes=seconds + 30, limit=seconds + 180)  # fmt: skip
    herd = min(context.jobs or 200, 20 if context.short else 200)
    title = f"one run for {herd} idle workers: statements within 2 s"
    yield Case("herd", "", title, {"workers": herd}, lower_is_better=True, takes=60)


def sample(context: Context, tool: Tool, case: Case) -> dict[str, Any] | str:
    """One round."""
    server = context.server
    if case.name == "herd":
        if tool is not ROWCRON:
            return "not asked of it"
        database = tool.fresh(server)
        try:
            with server.admin(database) as conn:
                conn.execute("create extension if not exists pg_stat_statements")
                return herd(context, database, conn, case.load["workers"])
        finally:
            server.drop(database)
    if tool.name not in _answers.get(context.number, {}):
        _answers[context.number] = side_by_side(context, case.load["seconds"])
    answer = _answers[context.number].pop(tool.name)
    if isinstance(answer, Exception):
        raise answer
    return answer


def side_by_side(context: Context, seconds: int) -> dict[str, dict[str, Any] | Exception]:
    """All tools at once."""
    answers: dict[str, dict[str, Any] | Exception] = {}
    with ExitStack() as stack:
        working: dict[Tool, tuple[psycopg.Connection[Any], Workers]] = {}
        for tool in context.tools:
            try:
                database = tool.fresh(context.server)
                stack.callback(context.server.drop, database)
                conn = stack.enter_context(context.server.admin(database))
                conn.execute("create extension if not exists pg_stat_statements")
                load = Load(0, concurrency=100, options=context.options(tool))
                workers = stack.enter_context(tool.working(context.server, database, load))
                working[tool] = (conn, workers)
            except (RuntimeError, OSError, psycopg.Error) as error:
                answers[tool.name] = error
        time.sleep(SETTLING)
        before = {t: _state(conn, workers) for t, (conn, workers) in working.items()}
        time.sleep(seconds)
        for tool, (conn, workers) in working.items():
            try:
                workers.alive()
                answers[tool.name] = _difference(before[tool], _state(conn, workers), workers)
            except (RuntimeError, OSError, psycopg.Error) as error:
                answers[tool.name] = error
    return answers


def _state(conn: psycopg.Connection[Any], workers: Workers) -> dict[str, Any]:
    begin = time.monotonic()
    texts = dict(conn.execute(TEXTS.encode()).fetchall())
    return {"at": begin, "texts": texts, "cpu": proc.cpu(workers)}


def _difference(old: dict[str, Any], new: dict[str, Any], workers: Workers) -> dict[str, Any]:
    took = new["at"] - old["at"]
    sent = {text: n - old["texts"].get(text, 0) for text, n in new["texts"].items()}
    sent = {text: n for text, n in sent.items() if n}
    return {
        "value": sum(sent.values()) / took,
        "CPU %": 100 * (new["cpu"] - old["cpu"]) / took,
        "MB": proc.rss(workers),
        "sent": sent,
        "note": f"{len(sent)} different statements, {sum(sent.values())} in all",
    }


def herd(
    context: Context, database: str, conn: psycopg.Connection[Any], count: int
) -> dict[str, Any]:
    """Many workers sleep; one run arrives."""
    load = Load(1, concurrency=20, processes=count, starts=True, options=context.rowcron_options)
    with ROWCRON.working(context.server, database, load) as workers:
        deadline = time.monotonic() + 180
        settled = "select count(*) from rowcron.worker where asleep"
        while ROWCRON.ask(conn, settled) < count:
            workers.alive()
            if time.monotonic() > deadline:
                raise Failure(f"{count} workers were not asleep after 180 s")
            time.sleep(0.5)
        time.sleep(3)
        quiet = ROWCRON.ask(conn, CALLS)
        time.sleep(2)
        quiet = ROWCRON.ask(conn, CALLS) - quiet
        calls, cpu = ROWCRON.ask(conn, CALLS), proc.cpu(workers)
        with psycopg.connect(context.server.url("bench_user", database), autocommit=True) as user:
            user.execute("select rowcron.enqueue('async', '{\"i\": 1}')")
        sent = time.time()
        time.sleep(2)
        calls, cpu = ROWCRON.ask(conn, CALLS) - calls, proc.cpu(workers) - cpu
    first = [r["first"] for r in workers.reports() if r["count"]]
    if len(first) != 1:
        raise Failure(f"the one run was started {len(first)} times")
    return {
        "value": calls, "in 2 s of quiet": quiet, "statements a worker": (calls - quiet) / count,
        "CPU s": cpu, "start ms": (first[0] - sent) * 1e3,
    }  # fmt: skip
