"""Open pages do not go on saying what is so no more, though nobody has written anything."""

from __future__ import annotations

import asyncio
import contextlib
import re

import psycopg
from psycopg import sql

from harness import Database, wait_until
from web.site import Site, psql_as
from web.test_live import opened, until


def make(ada: psycopg.Connection, name: str, **columns: object) -> int:
    given = {"name": name, "command": "x"} | columns
    names, marks = ", ".join(given), ", ".join(["%s"] * len(given))
    row = ada.execute(
        f"insert into rowcron.job ({names}) values ({marks}) returning id".encode(),
        list(given.values()),
    ).fetchone()
    assert row is not None
    return int(row[0])


def last(told: str, section: str) -> str:
    """What a page has been told last of a section."""
    return told.rpartition(f"event: {section}\n")[2].partition("\n\n")[0]


def test_a_job_whose_worker_dies_says_so(
    site: Site, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    """A killed worker writes nothing; then its job falls due, and nobody begins it."""
    job = make(ada, "left alone", schedule="@hourly", queue="left alone")
    root.execute(
        "insert into rowcron.worker (id, queues, kinds, concurrency, lease, poll,"
        " seen_at, expires_at)"
        " values (gen_random_uuid(), '{left alone}', '{sql}', 1, '3 s', '1 s', clock_timestamp(),"
        " clock_timestamp() + interval '3 s')"
    )
    root.execute(
        "update rowcron.agenda set next_run_at = clock_timestamp() - interval '50 s',"
        " high_water = '-infinity'"
        " where job_id = %s",
        [job],
    )

    async def watch() -> None:
        async with opened(site, "ada", 1, f"?job={job}") as told:
            await until(lambda: "a live worker takes it" in last(told[0], "why"))
            assert "new" in last(told[0], "head")
            await until(lambda: "no live worker serves" in last(told[0], "why"))
            await until(lambda: "overdue" in last(told[0], "head"))

    asyncio.run(watch())


def test_for_how_long_a_run_has_been_ready_is_told_again(
    site: Site, ada: psycopg.Connection
) -> None:
    job = make(ada, "ready for long", queue="nobody's")
    ada.execute("select rowcron.enqueue('ready for long')")

    def said(told: str) -> set[str]:
        return set(re.findall(r"has been ready for (\S+), behind", told))

    async def watch() -> None:
        async with opened(site, "ada", 1, f"?job={job}") as told:
            await until(lambda: len(said(told[0])) > 1)

    asyncio.run(watch())


def test_what_is_due_and_not_begun_is_shown(
    site: Site, shared: Database, root: psycopg.Connection
) -> None:
    """Neither an occurrence that nobody fires nor a run that nobody promotes is nowhere."""
    with psql_as(shared, "bea") as bea:
        fired = make(bea, "nobody fires it", schedule="@hourly", queue="nobody's")
        make(bea, "nobody promotes it", queue="nobody's")
        bea.execute(
            "select rowcron.enqueue('nobody promotes it', due_at => now() + interval '2 s')"
        )
        make(bea, "to come", schedule="0 0 1 1 *")
        make(bea, "paused", schedule="* * * * *", enabled=False)
    root.execute(
        "update rowcron.agenda set next_run_at = clock_timestamp() - interval '75 s',"
        " high_water = '-infinity'"
        " where job_id = %s",
        [fired],
    )
    with site.sign_in("bea") as client:

        def part(name: str) -> str:
            text = client.get("/").text.partition(f'data-section="{name}">')[2]
            return re.split("</section", text)[0]

        wait_until(lambda: "nobody promotes it" in part("waiting"), what="the run to be due")
        waiting = part("waiting")
        assert "nobody fires it" in waiting
        assert waiting.count("due, but no worker has begun it") == 2
        assert "to come" not in waiting
        assert "paused" not in waiting
        assert "nobody" not in part("next")
        assert "<b>2</b> due, not begun" in part("status")


def test_a_job_keeps_its_history_when_it_is_renamed(
    site: Site, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    job = make(ada, "was called so")
    entry = (
        "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
        " started_at, finished_at, outcome, error) select id, name, owner, queue, kind, %s, 1,"
        " true, clock_timestamp(), clock_timestamp(), 'failed', %s from rowcron.job where id = %s"
    )
    root.execute(entry, [8101, "under the first name", job])
    ada.execute("update rowcron.job set name = 'then so' where id = %s", [job])
    root.execute(entry, [8102, "under the second name", job])
    ada.execute("update rowcron.job set name = 'is called so' where id = %s", [job])

    async def watch() -> None:
        async with opened(site, "ada", 1, f"?job={job}") as told:
            await until(lambda: "under the second name" in last(told[0], "runs"))
            assert "under the first name" in last(told[0], "runs")
            root.execute(  # a run that began under the old name ends
                "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt,"
                " final, started_at, finished_at, outcome, error) select id, 'then so', owner,"
                " queue, kind, 8103, 1, true, clock_timestamp(), clock_timestamp(), 'failed',"
                " 'ended later' from rowcron.job where id = %s",
                [job],
            )
            await until(lambda: "ended later" in last(told[0], "runs"))

    asyncio.run(watch())


def test_the_page_of_a_job_with_a_crowd_of_runs_shows_what_comes_first(
    site: Site, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    """Rows that came last stand last in the table, though they may be the first on the page."""
    job = make(ada, "with a crowd", queue="nobody's")
    for _ in range(60):
        ada.execute("select rowcron.enqueue('with a crowd', due_at => now() + interval '1 day')")

    def enqueue(soon: str) -> int:
        row = ada.execute(
            "select rowcron.enqueue('with a crowd', due_at => now() + %s::interval)", [soon]
        ).fetchone()
        assert row is not None
        return int(row[0])

    async def watch() -> None:
        async with opened(site, "ada", 1, f"?job={job}") as told:
            await until(lambda: "event: live" in told[0])
            for soon in ("2 hours", "1 hour"):
                run = enqueue(soon)
                await until(lambda run=run: f">run {run}<" in last(told[0], "live"))  # type: ignore[misc]
            run = enqueue("2 days")
            root.execute(
                "update rowcron.run set state = 'running', waits_for = null, worker_id ="
                " gen_random_uuid(), seal = gen_random_uuid(), started_at = clock_timestamp()"
                " where id = %s",
                [run],
            )
            await until(lambda: f">run {run}<" in last(told[0], "live"))
            ada.execute("select rowcron.cancel(%s)", [run])
            await until(lambda: "cancel asked by" in last(told[0], "live"))

    asyncio.run(watch())


def test_what_the_owner_is_granted_and_what_is_taken_back_is_told(
    site: Site, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    root.execute("select rowcron.grant_connection('elsewhere', 'ada')")
    root.execute("select rowcron.grant_secret('KEY', 'ada')")
    jobs = {
        "owner": make(ada, "loses its executor"),
        "kind": make(ada, "loses its kind", kind="shell"),
        "connection": make(ada, "loses its connection", connection="elsewhere"),
        "secret": make(ada, "loses its secret", kind="http", command="https://x/${secret:KEY}"),
    }
    found = root.execute(
        "select name from rowcron.executor where owner = 'ada'::regrole"
    ).fetchone()
    assert found is not None
    executor = sql.Identifier("rowcron_executor", found[0])
    renamed = sql.SQL("alter function {} rename to renamed").format(executor)
    back = sql.SQL("alter function rowcron_executor.renamed rename to {}").format(
        sql.Identifier(found[0])
    )

    async def watch() -> None:
        async with contextlib.AsyncExitStack() as stack:
            pages = {
                gate: await stack.enter_async_context(opened(site, "ada", 1, f"?job={job}"))
                for gate, job in jobs.items()
            }

            def shut() -> set[str]:
                return {
                    gate
                    for gate, told in pages.items()
                    if f'name">{gate}</span><span class="meta what">shut' in last(told[0], "why")
                }

            await until(lambda: all("event: why" in told[0] for told in pages.values()))
            assert shut() == set()
            with root.transaction():  # one look finds all of it
                root.execute("revoke rowcron_shell from ada")
                root.execute(renamed)
                root.execute("select rowcron.revoke_connection('elsewhere', 'ada')")
                root.execute("select rowcron.revoke_secret('KEY', 'ada')")
            await until(lambda: shut() == set(jobs))
            with root.transaction():  # one look finds all of it
                root.execute("grant rowcron_shell to ada")
                root.execute(back)
                root.execute("select rowcron.grant_connection('elsewhere', 'ada')")
                root.execute("select rowcron.grant_secret('KEY', 'ada')")
            await until(lambda: shut() == set())

    asyncio.run(watch())
