"""Live pages: many cost the database what one does, and each role is told only what it may see."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest

from harness import Database, wait_until
from rowcron.web.actor import Asker
from rowcron.web.canvas import Canvas
from rowcron.web.pulse import Beat
from rowcron.web.settings import WebSettings
from web.site import WEB, Site, password

TICK = 0.1


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, at most 20 s."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.fixture
def alone(shared: Database) -> Iterator[Site]:
    """A web process of the test's own."""
    site = Site(WebSettings(conninfo=shared.url(WEB), tick=TICK))
    yield site
    site.stop()


@contextlib.asynccontextmanager
async def opened(site: Site, role: str, number: int, query: str = "") -> AsyncIterator[list[str]]:
    """So many open pages of a role; what each of them has been told."""
    told = [""] * number
    limits = httpx.Limits(max_connections=number + 1)
    with site.sign_in(role) as signed:
        cookies = dict(signed.cookies)
    async with httpx.AsyncClient(
        base_url=site.url, cookies=cookies, limits=limits, timeout=30
    ) as client:

        async def read(index: int) -> None:
            async with client.stream("GET", f"/live{query}") as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                async for text in answer.aiter_text():
                    told[index] += text

        readers = [asyncio.create_task(read(index)) for index in range(number)]
        try:
            await until(lambda: all("event: status" in text or query for text in told))
            yield told
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


async def looks_at(site: Site, roles: list[str], number: int, seconds: float) -> int:
    """Statements in so many seconds while so many pages of each role are open."""
    async with contextlib.AsyncExitStack() as stack:
        for role in roles:
            await stack.enter_async_context(opened(site, role, number))
        assert site.state.live.viewers == number * len(roles)
        await asyncio.sleep(5 * TICK)  # whoever came last has been told
        before = site.state.live.looks
        await asyncio.sleep(seconds)
        looks = int(site.state.live.looks - before)
        await until(lambda: site.state.live.looks > before)
        return looks


@pytest.mark.parametrize("roles", [["ada"], ["ada", "bea", "vic", "otto"]])
def test_open_pages_cost_what_one_does_while_nothing_changes(alone: Site, roles: list[str]) -> None:
    """One question a tick, whoever looks and however many; the roles are asked for nothing."""
    looks = asyncio.run(looks_at(alone, roles, 60 // len(roles), 1.5))
    assert looks <= 1.5 / TICK + 2, "at most one statement a tick"
    wait_until(lambda: alone.state.live.viewers == 0, what="the streams' end")
    wait_until(lambda: alone.state.live.idle, what="the looking's end")


def test_a_page_that_comes_later_is_told_the_time_of_then(alone: Site) -> None:
    """Nothing changes, so the last look is long ago."""

    async def late() -> float:
        async with opened(alone, "ada", 1):
            await asyncio.sleep(3)
            async with opened(alone, "ada", 1) as told:
                await until(lambda: "event: clock" in told[0])
                now = time.time()
                return now - float(told[0].split("event: clock\ndata: ")[1].split("\n")[0])

    assert abs(asyncio.run(late())) < 2


def test_when_something_changes_each_role_is_asked_once_a_tick(
    alone: Site, ada: psycopg.Connection
) -> None:
    ada.execute("insert into rowcron.job (name, command) values ('busy', 'x')")
    busy = threading.Event()

    def work() -> None:
        with psycopg.connect(ada.info.dsn, password=password("ada"), autocommit=True) as conn:
            while not busy.is_set():
                conn.execute("select rowcron.enqueue('busy')")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        looks = asyncio.run(looks_at(alone, ["ada", "vic"], 5, 1.5))
    finally:
        busy.set()
        worker.join()
        ada.execute("delete from rowcron.job where name = 'busy'")
    # the pulse, and for each of two roles two statements: what is, and what ended lately
    assert 3 < looks <= (1.5 / TICK + 2) * (1 + 2 * 2)


def test_what_live_pages_cost_is_what_they_sent(
    alone: Site, ada: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every job is asked for as much: of one that has no schedule nothing is to come."""
    row = ada.execute(
        "insert into rowcron.job (name, command) values ('counted', 'x') returning id"
    ).fetchone()
    assert row is not None
    sent: list[object] = []
    ask = Asker.rows

    async def counted(asker: Asker, query: Any, values: Any = ()) -> list[dict[str, Any]]:
        task = asyncio.current_task()
        if task is not None and getattr(task.get_coro(), "__name__", "") == "_look":
            sent.append(query)
        return await ask(asker, query, values)

    live = alone.state.live

    async def watch() -> None:
        async with opened(alone, "ada", 1, f"?job={row[0]}") as told:
            await until(lambda: "event: head" in told[0])
            await until(lambda: live.looks - live.pulse.asked >= len(sent) > 0)
            assert live.looks - live.pulse.asked == len(sent)

    monkeypatch.setattr(Asker, "rows", counted)
    asyncio.run(watch())


def test_the_question_is_asked_by_a_role_where_the_process_may_not(
    shared: Database, root: psycopg.Connection, ada: psycopg.Connection
) -> None:
    """A login that is no member of rowcron_web, or behind a pooler that forgets SET ROLE."""
    root.execute("create role web_stranger login")
    site = Site(WebSettings(conninfo=shared.url("web_stranger"), tick=TICK))
    try:

        async def watch() -> None:
            async with opened(site, "ada", 1) as told:
                ada.execute("insert into rowcron.job (name, command) values ('asked by ada', 'x')")
                ada.execute("select rowcron.enqueue('asked by ada')")
                await until(lambda: "asked by ada" in told[0])

        asyncio.run(watch())
    finally:
        site.stop()
        root.execute("drop role web_stranger")


def test_a_picture_is_drawn_again_for_all_who_look(
    alone: Site, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    """What ends shows in its row alone; a new job draws the whole; another role is told nothing."""
    row = ada.execute(
        "insert into rowcron.job (name, command) values ('drawn', 'x') returning id"
    ).fetchone()
    assert row is not None
    query = "/timeline?search=drawn"

    async def watch() -> None:
        async with (
            opened(alone, "ada", 3, query) as told,
            opened(alone, "bea", 1, query) as other,
        ):
            await until(lambda: all(f"event: j{row[0]}\n" in text for text in told))
            plots = [text.count("event: plot\n") for text in told]
            root.execute(
                "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt,"
                " final, started_at, finished_at, outcome) select id, name, owner, queue, kind, 9,"
                " 1, true, clock_timestamp() - interval '1 h', clock_timestamp(), 'failed'"
                " from rowcron.job where id = %s",
                [row[0]],
            )
            await until(lambda: all('class="bar failed"' in text for text in told))
            ada.execute("insert into rowcron.job (name, command) values ('drawn, too', 'x')")
            await until(lambda: all("drawn, too" in text for text in told))
            assert all(text.count("event: plot\n") > n for text, n in zip(told, plots, strict=True))
            assert "event: j" not in other[0]
            assert "drawn, too" not in other[0]

    asyncio.run(watch())


def test_many_pictures_of_a_role_take_no_more_than_one_may(
    alone: Site, ada: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them differs, and something changes all the time."""
    ada.execute("insert into rowcron.job (name, command) values ('restless', 'x')")
    spent: list[float] = []
    draw = Canvas.look

    async def timed(canvas: Canvas, asker: Asker, beat: Beat | None) -> None:
        begin = time.monotonic()
        try:
            await draw(canvas, asker, beat)
        finally:
            spent.append(time.monotonic() - begin)

    async def watch() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for number in range(40):
                query = f"/timeline?search=restless&at={1_800_000_000 + number}"
                await stack.enter_async_context(opened(alone, "ada", 1, query))
            await until(lambda: bool(alone.state.live.viewers == 40))
            await until(lambda: all(canvas.drawn for canvas in pictures()))
            spent.clear()
            for _ in range(30):
                ada.execute("select rowcron.enqueue('restless')")
                await asyncio.sleep(0.1)

    def pictures() -> list[Canvas]:
        return list(alone.state.live._boards["ada"].canvases.values())

    monkeypatch.setattr(Canvas, "look", timed)
    try:
        asyncio.run(watch())
    finally:
        ada.execute("delete from rowcron.job where name = 'restless'")
    # a twentieth, and room for pictures whose last drawing was a quick one
    assert 0 < sum(spent) < 3 / 4


def test_no_role_waits_for_the_pictures_of_another(
    alone: Site, ada: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Canvas.look
    drawing = threading.Event()

    async def slow(canvas: Canvas, asker: Asker, beat: Beat | None) -> None:
        drawing.set()
        await asker.rows("select pg_sleep(4)")
        try:
            await draw(canvas, asker, beat)
        finally:
            drawing.clear()

    async def watch() -> None:
        async with opened(alone, "vic", 1) as told:
            monkeypatch.setattr(Canvas, "look", slow)
            async with opened(alone, "ada", 1, "/timeline?search=nothing"):
                await until(drawing.is_set)
                ada.execute("insert into rowcron.job (name, command) values ('not held up', 'x')")
                ada.execute("select rowcron.enqueue('not held up')")
                await until(lambda: "not held up" in told[0])
                assert drawing.is_set(), "the picture is not there yet"

    asyncio.run(watch())


def test_each_role_is_told_what_it_may_see(alone: Site, ada: psycopg.Connection) -> None:
    async def watch() -> None:
        async with (
            opened(alone, "ada", 1) as own,
            opened(alone, "bea", 1) as other,
            opened(alone, "vic", 1) as viewer,
        ):
            ada.execute("insert into rowcron.job (name, command) values ('ada secret', 'x')")
            ada.execute("select rowcron.enqueue('ada secret')")
            await until(lambda: "ada secret" in own[0] and "ada secret" in viewer[0])
            await asyncio.sleep(5 * TICK)
            assert "ada secret" not in other[0]

    asyncio.run(watch())


def test_what_a_job_said_stays_within_its_event(
    alone: Site, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    """Server-sent events end a line at a carriage return, too: no job may write one of its own."""
    ada.execute("insert into rowcron.job (name, command) values ('forger', 'x')")

    async def watch() -> None:
        async with opened(alone, "ada", 1) as told:
            root.execute(
                "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt,"
                " final, started_at, finished_at, outcome, error) select id, name, owner, queue,"
                " kind, 11, 1, true, clock_timestamp(), clock_timestamp(), 'failed', %s"
                " from rowcron.job where name = 'forger'",
                ["boom\r\revent: trouble\rdata: All is lost\r\r"],
            )
            await until(lambda: "All is lost" in told[0])
            lines = re.split(r"\r\n|\r|\n", told[0])  # as a browser does
            said = [i for i, line in enumerate(lines) if "All is lost" in line]
            assert {lines[i] for i in said} == {"data: data: All is lost"}
            assert {lines[i - 1] for i in said} == {"data: event: trouble"}

    asyncio.run(watch())


def test_the_page_of_another_s_job_tells_nothing(alone: Site, ada: psycopg.Connection) -> None:
    row = ada.execute(
        "insert into rowcron.job (name, command) values ('hidden', 'x') returning id"
    ).fetchone()
    assert row is not None

    async def watch() -> None:
        async with opened(alone, "bea", 1, f"?job={row[0]}") as told:
            await until(lambda: "event: trouble" in told[0])
            assert "hidden" not in told[0]

    asyncio.run(watch())


def test_the_page_of_a_run_is_told_of_that_run_alone(
    alone: Site, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    row = ada.execute(
        "insert into rowcron.job (name, command, queue) values ('of many runs', 'x', 'nobody''s')"
        " returning id"
    ).fetchone()
    first = ada.execute("select rowcron.enqueue('of many runs')").fetchone()
    assert row is not None
    assert first is not None

    async def watch() -> None:
        async with (
            opened(alone, "ada", 1, f"?job={row[0]}") as job,
            opened(alone, "ada", 1, f"?run={first[0]}") as run,
            opened(alone, "bea", 1, f"?run={first[0]}") as other,
        ):
            await until(lambda: "event: sum" in run[0] and "event: trouble" in other[0])
            for _ in range(3):
                beside = ada.execute("select rowcron.enqueue('of many runs')").fetchone()
                assert beside is not None
                await until(lambda told=f"run {beside[0]}": told in job[0])  # type: ignore[misc]
            root.execute(
                "with ended as (delete from rowcron.run where id = %s)"
                " insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt,"
                " final, started_at, finished_at, outcome) select id, name, owner, queue, kind,"
                " %s, 1, true, clock_timestamp(), clock_timestamp(), 'failed'"
                " from rowcron.job where id = %s",
                [first[0], first[0], row[0]],
            )
            await until(lambda: "Attempt 1" in run[0])
            told = re.findall("event: sum\n.*\n", run[0])
            assert len(told) == 2, "nothing in between"
            assert "failed" in told[1]
            assert "event: sum" not in other[0]

    asyncio.run(watch())


def test_pages_of_many_jobs_are_all_told(alone: Site, ada: psycopg.Connection) -> None:
    """More than are told after one look; a change of each reaches its page."""
    rows = ada.execute(
        "insert into rowcron.job (name, command) select 'one of many ' || n, 'x'"
        " from generate_series(1, 25) as n returning id"
    ).fetchall()

    async def watch() -> None:
        async with contextlib.AsyncExitStack() as stack:
            pages = [
                await stack.enter_async_context(opened(alone, "ada", 1, f"?job={row[0]}"))
                for row in rows
            ]
            await until(lambda: all("event: head" in told[0] for told in pages))
            ada.execute("select rowcron.pause(name) from rowcron.job where name ~ 'one of many'")
            await until(lambda: all("paused" in told[0] for told in pages))

    asyncio.run(watch())


def test_without_a_session_there_is_no_stream(site: Site) -> None:
    with site.client() as client:
        assert client.get("/live").status_code == 401


def test_open_pages_live_through_an_outage(alone: Site, root: psycopg.Connection) -> None:
    async def watch() -> None:
        async with opened(alone, "ada", 1) as told:
            root.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'ada'"
            )
            root.execute("delete from rowcron.job where name = 'after the outage'")
            root.execute("set session authorization ada")
            root.execute("insert into rowcron.job (name, command) values ('after the outage', 'x')")
            root.execute("select rowcron.enqueue('after the outage')")
            root.execute("reset session authorization")
            await until(lambda: "after the outage" in told[0])

    asyncio.run(watch())
