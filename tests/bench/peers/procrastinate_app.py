"""Procrastinate: its schema, its client and its worker, as its documentation shows them."""

from __future__ import annotations

import asyncio
import sys
import time

from peers.probe import BODY, CONCURRENCY, COUNT, CRON, GAP, MODE, PROBE, URL, answer
from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=URL, max_size=min(max(CONCURRENCY, 10), 50)))


@app.task(name="bench_plain")
def plain(i: int = 0) -> None:
    PROBE.hit(i)
    if BODY:
        time.sleep(BODY)


@app.task(name="bench_async")
async def handler(i: int = 0) -> None:
    PROBE.hit(i)
    if BODY:
        await asyncio.sleep(BODY)


TASK = plain if MODE == "plain" else handler


async def fill() -> None:
    for start in range(0, COUNT, 1000):
        numbers = range(start, min(start + 1000, COUNT))
        await TASK.batch_defer_async(*({"i": i} for i in numbers))


async def ping() -> None:
    sent = []
    for i in range(COUNT):
        await asyncio.sleep(GAP)
        before = time.time()
        await TASK.defer_async(i=i)
        sent.append((i, before, time.time()))
    answer(sent)


async def single() -> None:
    each = COUNT // CONCURRENCY

    async def send() -> None:
        for i in range(each):
            await TASK.defer_async(i=i)

    begin = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(CONCURRENCY)))
    answer(each * CONCURRENCY / (time.perf_counter() - begin))


async def bulk() -> None:
    begin = time.perf_counter()
    await fill()
    answer(COUNT / (time.perf_counter() - begin))


async def work() -> None:
    await app.run_worker_async(concurrency=CONCURRENCY, delete_jobs="never", listen_notify=True)


async def schedule(cron: str) -> None:
    """Work with COUNT periodic tasks that are due together; each notes its instant."""
    for i in range(COUNT):

        async def due(timestamp: int) -> None:
            PROBE.hit(timestamp)

        app.periodic(cron=cron)(app.task(name=f"due_{i}")(due))
    await work()


async def install() -> None:
    await app.schema_manager.apply_schema_async()


VERBS = {
    "install": install, "fill": fill, "ping": ping, "single": single, "bulk": bulk, "work": work,
    "tick": lambda: schedule("* * * * * *"), "at_once": lambda: schedule(CRON),
}  # fmt: skip


async def main() -> None:
    async with app.open_async():
        await VERBS[sys.argv[1]]()


if __name__ == "__main__":
    asyncio.run(main())
