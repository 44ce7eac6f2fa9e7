"""Statements whose answer was cut off, hundreds of times: settled by asking, never by guessing.

A proxy cuts the connection between COMMIT and its answer, for claim, execute, finish and enqueue;
and before the server has even begun, leaving it to go on with nobody there and to commit later.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from chaos.block import Block
from chaos.proxy import Deed, Moment
from chaos.scene import Scene
from chaos.size import sized, table
from harness import TestServer, wait_until

CUTS = sized(12, 300)  # of each statement
CLAIM, EXECUTE = r"rowcron\.claim(?:_ready)?\(", r"rowcron\.execute\("
FINISH, COMMIT = r"rowcron\.finish\(\$1::uuid", r"(?i)^commit"
STATEMENTS = {"claim": CLAIM, "execute": EXECUTE, "finish": FINISH, "handler's commit": COMMIT}


@pytest.fixture
def scene(server: TestServer) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


def outcomes(scene: Scene) -> dict[str, int]:
    query = (
        "select outcome || case when final then ' (final)' else '' end as outcome, count(*) as n"
    )
    query += " from rowcron.ledger where run_id is not null group by 1 order by 1"
    return {row["outcome"]: row["n"] for row in scene.rows(query)}


@pytest.mark.parametrize(("moment", "deed"), [("answered", "cut"), ("sent", "leave")])
def test_answers_cut_off_double_nothing_and_lose_nothing(
    scene: Scene, capsys: pytest.CaptureFixture[str], moment: Moment, deed: Deed
) -> None:
    chance = random.Random(4)
    names = [scene.job(kind) for kind in ("sql", "handed", "handed_async", "plain", "shell")]
    rules = {
        name: scene.proxy.rule(pattern, moment, deed, CUTS, lambda: chance.random() < 0.4)
        for name, pattern in STATEMENTS.items()
    }
    began = time.monotonic()
    worker = scene.work("--concurrency", "8", through=True, lease=5)
    scene.work("--concurrency", "4", lease=5)  # somebody to take what is given back too early
    total = 0

    def cut_enough() -> bool:
        nonlocal total
        if scene.live() < 30:
            total += 5 * 6
            for name in names:
                query = "select rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[6]))"
                scene.alice.execute(query, [name])
        return all(rule.left == 0 for rule in rules.values())

    wait_until(cut_enough, sized(60, 900), f"the cuts: {[r.left for r in rules.values()]}")
    scene.ended(60)
    scene.check()
    told = scene.only("select count(*) from rowcron.ledger where final")
    assert told == total
    assert worker.process.poll() is None
    with capsys.disabled():
        rows: dict[str, Any] = {f"cuts: {name}": rule.done for name, rule in rules.items()}
        rows |= {"runs": total, "runs lost": total - told, **outcomes(scene)}
        rows |= {"effects": scene.effects().total(), "seconds": round(time.monotonic() - began, 1)}
        print(table(f"In doubt: {moment}, {deed}", rows))


def test_runs_whose_claim_was_not_heard_do_not_wait_for_the_long_ones(scene: Scene) -> None:
    """The worker lives and holds a run for an hour: its lease will not run out."""
    long = scene.jobs.add("shell", "exec sleep 30", name="long")
    scene.job("sql")
    worker = scene.work(through=True, lease=3)
    run = scene.jobs.start(long)
    scene.jobs.wait_running(run)
    rule = scene.proxy.rule(CLAIM, "answered", "cut", chosen=lambda: True)
    unheard = scene.jobs.start("sql")
    wait_until(rule.reached.is_set, what="the cut")
    assert scene.jobs.end(unheard, 10)["outcome"] == "succeeded"
    assert scene.jobs.running(run), "the long one is not disturbed"
    scene.jobs.owner.execute("select rowcron.cancel(%s)", [run])
    assert scene.jobs.end(run)["outcome"] == "cancelled"
    assert worker.process.poll() is None


LATE = {
    "claim": (CLAIM, "shell", "rowcron.run", "update", "new.state = 'running'"),
    "execute": (EXECUTE, "sql", "rowcron.ledger", "insert", "session_user = 'w_worker'"),
    "finish": (FINISH, "shell", "rowcron.ledger", "insert", "session_user = 'w_worker'"),
    "handler's commit": (COMMIT, "handed", "rowcron.ledger", "insert", "session_user = 'alice'"),
}


@contextmanager
def open_when_gone(scene: Scene, block: Block, pid: int) -> Iterator[None]:
    """The server ends a job two seconds after its client has gone: nobody else stands then."""
    left = threading.Event()

    def watch() -> None:
        with psycopg.connect(scene.database.url("postgres"), autocommit=True) as db:
            there = "select count(*) from pg_stat_activity where pid = %s"
            while not left.wait(0.05):
                if db.execute(there, [pid]).fetchone() == (0,):
                    block.open()
                    return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()


def commit_late(server: TestServer, what: str, dies: bool) -> str:
    """Let one statement commit seconds after its cut; return what became of the run."""
    pattern, kind, place, event, when = LATE[what]
    with Scene(server) as scene:
        name = scene.job(kind)
        with Block(scene.db, place, event, when, late=True) as block:
            scene.proxy.rule(pattern, "sent", "leave")
            worker = scene.work("--concurrency", "2", through=True, lease=1, wait=False)
            run = scene.jobs.start(name)
            pid = block.wait()
            with open_when_gone(scene, block, pid):
                if dies:
                    worker.kill()
                scene.work(lease=1)
                if dies:
                    lost = "select bool_or(lost_at is not null) from rowcron.worker"
                    wait_until(lambda: scene.only(lost), what="the loss")
                time.sleep(1.5)  # the server stands there, with nobody to hear it
                there = scene.only("select count(*) from pg_stat_activity where pid = %s", pid)
            block.open()
            scene.jobs.end(run)
        scene.ended()
        scene.check()
        told = " ".join(entry["outcome"] for entry in scene.entries(run))
        effects = scene.effects()[run]
        if what in ("finish", "handler's commit"):
            # nobody ended that session: what it did is the end, and nobody had it done again
            assert (there, told, effects) == (1, "succeeded", 1), what
        return f"{told}; effects {effects}"


def test_what_commits_seconds_after_the_cut_counts_once(
    server: TestServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the worker lives, and asks, or dies, and another looks after its runs."""
    cases = [(what, dies) for what in LATE for dies in (False, True)]
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda case: commit_late(server, *case), cases))
    names = [f"{what}, worker {'dies' if dies else 'lives'}" for what, dies in cases]
    with capsys.disabled():
        print(table("In doubt: committed seconds later", dict(zip(names, told, strict=True))))


def test_an_enqueuer_that_was_not_answered_asks_again_with_its_key(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a client has to do: name a key, and say it again until there is an answer."""
    name = scene.job("sql")
    chance = random.Random(4)
    url = scene.proxy.url("alice", scene.database.name)
    rules = [
        scene.proxy.rule("rowcron.enqueue", "answered", "cut", CUTS, lambda: chance.random() < 0.5),
        scene.proxy.rule("rowcron.enqueue", "sent", "leave", CUTS, lambda: chance.random() < 0.3),
        scene.proxy.rule("rowcron.enqueue", "sent", "cut", CUTS, lambda: chance.random() < 0.2),
    ]
    unanswered = 0

    def enqueue(key: str) -> int:
        nonlocal unanswered
        while True:
            try:
                with psycopg.connect(url, autocommit=True) as connection:
                    query = "select rowcron.enqueue(%s, key => %s)"
                    row = connection.execute(query, [name, key]).fetchone()
                    assert row is not None
                    return int(row[0])
            except psycopg.OperationalError:
                unanswered += 1

    wanted = 0
    answers: dict[str, int] = {}
    with ThreadPoolExecutor(4) as pool:
        while any(rule.left for rule in rules):
            keys = [f"order-{wanted + n}" for n in range(20)]
            wanted += 20
            answers |= dict(zip(keys, pool.map(enqueue, keys), strict=True))
    assert unanswered >= 3 * CUTS
    found = {row["key"]: row["id"] for row in scene.rows("select key, id from rowcron.run")}
    assert found == answers, "a run a key, and everybody was told its number"
    scene.work()
    scene.ended(60)
    scene.check()
    assert len(scene.effects()) == wanted
    # without a key the client cannot know: the run may be there
    rule = scene.proxy.rule("rowcron.enqueue", "answered", "cut")
    with (
        psycopg.connect(url, autocommit=True) as connection,
        pytest.raises(psycopg.OperationalError),
    ):
        connection.execute("select rowcron.enqueue(%s)", [name])
    assert rule.done == 1
    assert scene.only("select count(*) from public.held") >= wanted
    wait_until(lambda: len(scene.effects()) == wanted + 1, what="the run that nobody knows")
    with capsys.disabled():
        rows = {"cuts: enqueue": unanswered, "keys": wanted, "runs": len(found), "doubled": 0}
        print(table("In doubt: enqueue", rows))


def test_two_that_enqueue_one_key_while_the_first_is_in_doubt_get_one_run(scene: Scene) -> None:
    """The first insert commits late; whoever asks again waits for it, and is told its number."""
    name = scene.job("sql")
    url = scene.proxy.url("alice", scene.database.name)
    query = "select rowcron.enqueue(%s, key => 'one')"
    with Block(scene.db, "rowcron.run", "insert", late=True) as block:
        scene.proxy.rule("rowcron.enqueue", "sent", "leave")
        with (
            psycopg.connect(url, autocommit=True) as connection,
            pytest.raises(psycopg.OperationalError),
        ):
            connection.execute(query, [name])
        block.wait()
        with ThreadPoolExecutor(1) as pool:
            again = pool.submit(lambda: scene.alice.execute(query, [name]).fetchone())
            waiting = "select exists (select from pg_locks where not granted"
            waiting += " and locktype = 'transactionid')"
            wait_until(lambda: scene.only(waiting), what="the second to wait for the first")
            block.open()
            row = again.result(10)
    assert row is not None
    assert [r["id"] for r in scene.rows("select id from rowcron.run")] == [row[0]]
