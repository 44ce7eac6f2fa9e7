"""PgQueuer: its schema, its client and its worker, as its documentation shows them."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import asyncpg
import uvloop
from peers.probe import BODY, CONCURRENCY, COUNT, CRON, GAP, MODE, PROBE, URL, answer
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job, Schedule
from pgqueuer.queries import Queries

# It wants room for two batches among the tasks that run at a time.
BATCH = CONCURRENCY // 2 if BODY else min(CONCURRENCY, 1000)


async def connected() -> tuple[AsyncpgDriver, Queries]:
    driver = AsyncpgDriver(await asyncpg.connect(URL))
    return driver, Queries(driver)


async def fill() -> None:
    _, queries = await connected()
    for start in range(0, COUNT, 1000):
        numbers = range(start, min(start + 1000, COUNT))
        await queries.enqueue(
            ["bench"] * len(numbers), [str(i).encode() for i in numbers], [0] * len(numbers)
        )


async def ping() -> None:
    _, queries = await connected()
    sent = []
    for i in range(COUNT):
        await asyncio.sleep(GAP)
        before = time.time()
        await queries.enqueue("bench", str(i).encode())
        sent.append((i, before, time.time()))
    answer(sent)


async def single() -> None:
    """Enqueue one by one, over as many connections as asked."""
    clients = [(await connected())[1] for _ in range(CONCURRENCY)]
    each = COUNT // CONCURRENCY

    async def send(queries: Queries) -> None:
        for i in range(each):
            await queries.enqueue("bench", str(i).encode())

    begin = time.perf_counter()
    await asyncio.gather(*(send(queries) for queries in clients))
    answer(each * CONCURRENCY / (time.perf_counter() - begin))


async def bulk() -> None:
    begin = time.perf_counter()
    await fill()
    answer(COUNT / (time.perf_counter() - begin))


def serve(app: PgQueuer) -> None:
    if MODE == "plain":
        # since 1.0 handlers are async only; its documentation advises to_thread for blocking code
        threads = ThreadPoolExecutor(CONCURRENCY)
        asyncio.get_running_loop().set_default_executor(threads)

        def plain(number: int) -> None:
            PROBE.hit(number)
            if BODY:
                time.sleep(BODY)

        @app.entrypoint("bench")
        async def in_thread(job: Job) -> None:
            await asyncio.to_thread(plain, int(job.payload or b"0"))

    else:

        @app.entrypoint("bench")
        async def handler(job: Job) -> None:
            PROBE.hit(int(job.payload or b"0"))
            if BODY:
                await asyncio.sleep(BODY)


async def run(*prepare: object) -> None:
    app = PgQueuer(AsyncpgDriver(await asyncpg.connect(URL)))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, app.shutdown.set)
    for step in prepare:
        step(app)  # type: ignore[operator]
    limit = {"max_concurrent_tasks": CONCURRENCY} if BODY else {}
    await app.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=30), **limit)


def schedule(app: PgQueuer, expression: str) -> None:
    """Register COUNT jobs that are due together; each notes the instant of its schedule."""
    for i in range(COUNT):

        async def due(schedule: Schedule) -> None:
            PROBE.hit(schedule.next_run.timestamp())

        due.__name__ = f"due_{i}"
        app.schedule(f"due_{i}", expression)(due)


async def install() -> None:
    _, queries = await connected()
    await queries.install()


VERBS = {
    "install": install,
    "fill": fill,
    "ping": ping,
    "single": single,
    "bulk": bulk,
    "work": lambda: run(serve),
    "tick": lambda: run(lambda app: schedule(app, "* * * * * *")),
    "at_once": lambda: run(lambda app: schedule(app, CRON)),
}

if __name__ == "__main__":
    uvloop.run(VERBS[sys.argv[1]]())  # type: ignore[arg-type]
