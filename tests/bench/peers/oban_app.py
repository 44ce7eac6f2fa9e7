"""Oban for Python: its schema, its client and its worker, as its documentation shows them."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import Any

import uvloop
from oban import Oban, worker
from oban.schema import install as install_schema
from peers.probe import BODY, CONCURRENCY, COUNT, GAP, PROBE, URL, answer
from psycopg_pool import AsyncConnectionPool


@worker(queue="default")
class Bench:
    async def process(self, job: Any) -> None:
        PROBE.hit(job.args.get("i"))
        if BODY:
            await asyncio.sleep(BODY)


def register() -> None:
    """COUNT workers that are due each minute."""
    for i in range(COUNT):

        class Due:
            async def process(self, job: Any, i: int = i) -> None:
                PROBE.hit(i)

        Due.__name__ = Due.__qualname__ = f"Due{i}"
        setattr(sys.modules[__name__], Due.__name__, worker(queue="default", cron="* * * * *")(Due))


def pool(size: int) -> AsyncConnectionPool:
    return AsyncConnectionPool(URL, min_size=2, max_size=size, open=False)


async def fill() -> None:
    async with pool(2) as connections:
        client = Oban(pool=connections)
        for start in range(0, COUNT, 1000):
            numbers = range(start, min(start + 1000, COUNT))
            await client.enqueue_many(Bench.new({"i": i}) for i in numbers)


async def ping() -> None:
    sent = []
    async with pool(4) as connections:
        client = Oban(pool=connections)
        for i in range(COUNT):
            await asyncio.sleep(GAP)
            before = time.time()
            await client.enqueue(Bench.new({"i": i}))
            sent.append((i, before, time.time()))
    answer(sent)


async def single() -> None:
    each = COUNT // CONCURRENCY
    async with pool(max(CONCURRENCY, 2)) as connections:
        client = Oban(pool=connections)

        async def send() -> None:
            for i in range(each):
                await client.enqueue(Bench.new({"i": i}))

        begin = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(CONCURRENCY)))
        answer(each * CONCURRENCY / (time.perf_counter() - begin))


async def bulk() -> None:
    begin = time.perf_counter()
    await fill()
    answer(COUNT / (time.perf_counter() - begin))


async def work() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with pool(20) as connections, Oban(pool=connections, queues={"default": CONCURRENCY}):
        await stop.wait()


async def at_once() -> None:
    register()
    await work()


async def install() -> None:
    async with pool(2) as connections:
        await install_schema(connections)


VERBS = {
    "install": install, "fill": fill, "ping": ping, "single": single, "bulk": bulk, "work": work,
    "at_once": at_once,
}  # fmt: skip

if __name__ == "__main__":
    uvloop.run(VERBS[sys.argv[1]]())
