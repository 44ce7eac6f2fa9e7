"""Parts of the worker that need no database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import uvloop

from rowcron import handler, log
from rowcron.capture import LIMIT, Tail, head, tail
from rowcron.errors import BY_SQLSTATE, BadSettings, RowcronError
from rowcron.eventloop import loop_factory
from rowcron.executors.shell import Executor as Shell
from rowcron.handlers import HANDLERS, Handler
from rowcron.logfile import RotatedFile
from rowcron.members import Member
from rowcron.models import Outcome, Run, length
from rowcron.request import BadRequest, read_command
from rowcron.running import Running
from rowcron.settings import WorkerSettings
from rowcron.splitter import statements
from rowcron.text import safe
from rowcron.threads import Threads
from rowcron.wake import Alarm

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select 1", ["select 1"]),
        ("select 1; ; select 2;", ["select 1", "select 2"]),
        ("select ';'; select \";\"", ["select ';'", 'select ";"']),
        (r"select e'\';'; select 2", [r"select e'\';'", "select 2"]),
        ("select 'it''s;'; x", ["select 'it''s;'", "x"]),
        ("do $$ begin; end $$; vacuum", ["do $$ begin; end $$", "vacuum"]),
        ("do $a$ $$;$$ $a$; x", ["do $a$ $$;$$ $a$", "x"]),
        ("select 1 -- ; no\n; select 2", ["select 1 -- ; no", "select 2"]),
        ("/* ; /* ; */ ; */ select 1; /* end */", ["/* ; /* ; */ ; */ select 1"]),
        ("create rule r as on insert to t do (a; b); c", None),
        (
            "create function f() returns int begin atomic select 1; select case when 1 = 1"
            " then 2 end; end; vacuum",
            [
                "create function f() returns int begin atomic select 1; select case when 1 = 1"
                " then 2 end; end",
                "vacuum",
            ],
        ),
        ("begin; commit", ["begin", "commit"]),
        ("select $1; select a$b$c; x", ["select $1", "select a$b$c", "x"]),
        ("-- nothing", []),
        ("", []),
    ],
)
def test_sql_is_split_as_psql_does(text: str, expected: list[str] | None) -> None:
    found = list(statements(text))
    assert found == expected if expected is not None else len(found) == 2


def test_the_tail_is_cut_on_a_character_and_memory_stays_flat() -> None:
    kept = Tail(10)
    for _ in range(1000):
        kept.add("ä€".encode())
    assert kept.text() == "ä€ä€"
    assert sum(map(len, kept._chunks)) < 20
    kept.add(b"x" * 100)
    assert kept.text() == "x" * 10
    assert Tail().text() is None


def test_texts_are_bounded_and_storable() -> None:
    assert tail("ä" * LIMIT) == "ä" * (LIMIT // 2)
    assert tail("a\0\ud800") == "a\ufffd\ufffd"
    assert head(b"\xc3\xa4" * LIMIT) == "ä" * (LIMIT // 2)
    assert head(b"") is None


def test_an_http_command_is_read() -> None:
    request = read_command("put  https://a.example:8/x?y=1\nX-A: b\n\nExpect-Status: 200-204,404\n")
    assert (request.method, request.url) == ("PUT", "https://a.example:8/x?y=1")
    assert request.headers == [("X-A", "b")]
    assert request.expected == [(200, 204), (404, 404)]
    assert read_command("http://a/").method is None


@pytest.mark.parametrize(
    "command",
    ["", "GET", "ftp://a/", "GET /path", "http://", "http://a:99999/", "G@T http://a/",
     "http://a/\nnot a header", "http://a/\nA: \x07", "http://a/\nExpect-Status: ok"],
)  # fmt: skip
def test_a_bad_http_command_is_refused(command: str) -> None:
    with pytest.raises(BadRequest):
        read_command(command)


def test_settings_come_from_arguments_then_environment_then_defaults() -> None:
    environ = {
        "ROWCRON_QUEUE": "mail, reports", "ROWCRON_LEASE": "1 min", "ROWCRON_POLL": "500ms",
        "ROWCRON_CONNECTION_ADMIN": "postgresql://a", "DATABASE_URL": "postgresql://b",
    }  # fmt: skip
    settings = WorkerSettings.from_environment(environ, concurrency=3, poll=None)
    assert (settings.queues, settings.kinds) == (("mail", "reports"), ("sql", "http", "python"))
    assert (settings.lease, settings.poll, settings.concurrency) == (60.0, 0.5, 3)
    assert settings.connections == {"admin": "postgresql://a"}
    assert settings.database_url == "postgresql://b"


@pytest.mark.parametrize(
    "wrong",
    [{"lease": "0.5"}, {"lease": "soon"}, {"poll": "2 h"}, {"concurrency": "none"},
     {"concurrency": 0}, {"kinds": ","}, {"queues": ""}, {"log_level": "loud"}, {"surprise": 1}],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(BadSettings) as caught:
        WorkerSettings.from_environment({}, **wrong)
    name = next(iter(wrong)).replace("_", "-")
    assert name in caught.value.message
    assert caught.value.detail


def test_a_bad_database_url_does_not_show_its_password() -> None:
    from rowcron.connection import conninfo

    with pytest.raises(BadSettings) as caught:
        conninfo("postgresql://me:secret@host:x/y:z?no")
    assert "secret" not in f"{caught.value.message} {caught.value.detail}"
    with pytest.raises(BadSettings) as caught:
        conninfo("postgresql://me:secret%zz@host/y")
    assert "secret" not in f"{caught.value.message} {caught.value.detail}"


def test_the_log_file_is_rotated_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    two = [RotatedFile(path, 1000, 50), RotatedFile(path, 1000, 50)]
    for number in range(200):
        two[number % 2].write(f"{number:05d} {'x' * 40}\n".encode())
    for file in two:
        file.close()
    files = [path, *tmp_path.glob("log.*")]
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    assert sorted(int(line.split()[0]) for line in lines) == list(range(200))
    assert max(file.stat().st_size for file in files) <= 1000
    assert len(files) > 5


def test_a_log_file_that_cannot_be_moved_goes_on_and_locks_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    two = [RotatedFile(path, 100, 2), RotatedFile(path, 100, 2)]
    for file in two:
        file._move = lambda: (_ for _ in ()).throw(PermissionError("not mine"))  # type: ignore[method-assign]
    for number in range(50):
        two[number % 2].write(f"{number:05d}\n".encode())
    assert len(path.read_text("utf-8").splitlines()) == 50


def test_a_console_that_nobody_reads_costs_lines_and_no_time() -> None:
    async def scenario() -> bytes:
        reads, writes = os.pipe()
        events = log.Log("info", descriptor=writes)
        events.loop = asyncio.get_running_loop()
        begin = time.monotonic()
        for number in range(40_000):
            events.event("end", f"{number:06d} {'x' * 50}")
            if number % 100 == 0:
                await asyncio.sleep(0)
        assert time.monotonic() - begin < 10, "it did not wait for a reader"
        found = b""
        os.set_blocking(reads, False)
        while b"lines are missing here" not in found:
            with contextlib.suppress(BlockingIOError):
                found += os.read(reads, 1_000_000)
            await asyncio.sleep(0.01)
        events.close()
        os.close(reads)
        os.close(writes)
        return found

    lines = asyncio.run(asyncio.wait_for(scenario(), 30)).decode().splitlines()
    told = [line.split()[1] for line in lines if line.endswith("x" * 50)]
    assert told == sorted(told), "whole lines, in order"
    lost = int(next(line for line in lines if "are missing here" in line).split()[2])
    assert len(told) + lost == 40_000


def test_log_lines_cannot_steer_a_terminal(tmp_path: Path) -> None:
    assert safe("a\x1b[31m\nb\u202e") == "a\\x1b[31m\\nb\\u202e"
    file = RotatedFile(tmp_path / "log", 10_000, 1)
    with (tmp_path / "console").open("wb") as console:
        events = log.Log("info", file, descriptor=console.fileno())
        events.event("end", "bad \x1b[2J \ud800", job="\x1b\ud800")
        events.close()
    assert "\x1b" not in (tmp_path / "console").read_text("utf-8")
    assert json.loads((tmp_path / "log").read_text("utf-8"))["job"] == "\x1b\ud800"


def test_handlers_are_registered_by_name() -> None:
    def first() -> None:
        pass

    try:
        assert handler("parts.first")(first) is first
        assert handler("parts.first")(first) is first
        with pytest.raises(RowcronError, match="two handlers"):
            handler("parts.first")(lambda: None)
        for name in ("", "with space", "9", "ä", "x" * 201):
            with pytest.raises(RowcronError, match="cannot be"):
                handler(name or " ")(first)
    finally:
        HANDLERS.pop("parts.first", None)


def test_a_generator_cannot_be_a_handler() -> None:
    def plain() -> Iterator[int]:
        yield 1

    async def awaited() -> AsyncIterator[int]:
        yield 1

    for function in (plain, awaited, partial(plain)):
        with pytest.raises(RowcronError, match="is a generator"):
            handler("parts.lazy")(function)
    assert "parts.lazy" not in HANDLERS


def test_an_object_can_be_a_handler_and_loaded_again() -> None:
    class Called:
        async def __call__(self, r: Run) -> None:
            pass

    try:
        handler("parts.called")(Called())
        handler("parts.called")(Called())
        found = HANDLERS["parts.called"]
        assert (found.is_async, found.run) == (True, "r")
    finally:
        HANDLERS.pop("parts.called", None)


def test_handlers_ask_by_name_or_annotation() -> None:
    import psycopg

    def by_name(run, connection, args):  # type: ignore[no-untyped-def]
        pass

    def by_type(r: Run, c: psycopg.Connection[object], run: int) -> None:
        pass

    asked = [(h.run, h.connection, h.whole) for h in (Handler("a", by_name), Handler("b", by_type))]
    assert asked == [("run", "connection", "args"), ("r", "c", None)]


def test_interrupted_threads_answer_once_and_go_on() -> None:
    async def scenario() -> None:
        answers: dict[int, list[str]] = {}
        over = asyncio.Event()
        count = 300

        def done(run: Run, outcome: Outcome) -> None:
            answers.setdefault(run.run_id, []).append(outcome.outcome)
            if len(answers) == count:
                over.set()

        def call(run: Run) -> Outcome:
            if run.stopping:
                return Outcome("released")
            for _ in range(run.run_id % 7 * 300):
                pass
            return Outcome("succeeded")

        threads = Threads(4, call, done)
        runs = [
            Run((n, b"", 1, "j", "o", "q", "python", "c", b"\1{}", 1, None, None, None, bytes(16)))
            for n in range(count)
        ]
        for run in runs:
            threads.start(run)
            if run.run_id % 2:
                await asyncio.sleep(0)
                run.stopping = "released"
                if not threads.stop(run) and run.run_id not in answers:
                    done(run, Outcome("released"))
        await asyncio.wait_for(over.wait(), 20)
        threads.close()
        assert all(len(found) == 1 for found in answers.values())
        assert {answers[n][0] for n in range(0, count, 2)} == {"succeeded"}

    asyncio.run(scenario())


def test_an_attempt_is_not_taken_for_the_one_before_that_was_given_up() -> None:
    async def scenario() -> None:
        gates = [threading.Event(), threading.Event()]
        began: list[Run] = []
        where: list[threading.Thread] = []
        outcomes: list[Outcome] = []
        over = asyncio.Event()

        def done(_: Run, outcome: Outcome) -> None:
            outcomes.append(outcome)
            over.set()

        def call(run: Run) -> Outcome:
            where.append(threading.current_thread())
            began.append(run)
            while not gates[run.attempt - 1].is_set():
                try:
                    gates[run.attempt - 1].wait(0.01)
                except BaseException:
                    if run.attempt == 2:
                        return Outcome("released")
            return Outcome("succeeded")

        async def until(condition: Callable[[], bool]) -> None:
            while not condition():  # noqa: ASYNC110 - threads set no event
                await asyncio.sleep(0.001)

        threads = Threads(4, call, done)
        rest = (None, None, None, bytes(16))
        first, second = (
            Run((7, b"", 1, "j", "o", "q", "python", "c", b"\1{}", attempt, *rest))
            for attempt in (1, 2)
        )
        threads.start(first)
        await until(lambda: began == [first])
        first.stopping = "timeout"
        assert threads.stop(first)
        assert threads.abandon(first)
        threads.start(second)
        await until(lambda: began == [first, second])
        gates[0].set()  # it ends at last
        await until(lambda: not where[0].is_alive())
        second.stopping = "released"
        assert threads.stop(second), "it has begun"
        await asyncio.wait_for(over.wait(), 20)
        assert [outcome.outcome for outcome in outcomes] == ["released"]
        threads.close()

    asyncio.run(scenario())


@contextlib.contextmanager
def no_more_threads() -> Iterator[None]:
    """Let the system refuse threads: no address space holds a stack of that size."""
    before = threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(before)


def test_what_no_thread_can_be_made_for_is_not_executed_later() -> None:
    async def scenario() -> list[int]:
        executed: list[int] = []
        over = asyncio.Event()

        def call(run: Run) -> Outcome:
            executed.append(run.run_id)
            return Outcome("succeeded")

        threads = Threads(4, call, lambda *_: over.set())
        row = (b"", 1, "j", "o", "q", "python", "c", b"\1{}", 1, None, None, None, bytes(16))
        with no_more_threads(), pytest.raises(RuntimeError, match="thread"):
            threads.start(Run((1, *row)))
        threads.start(Run((2, *row)))
        await asyncio.wait_for(over.wait(), 20)
        threads.close()
        return executed

    assert asyncio.run(scenario()) == [2]


def test_threads_that_cannot_be_made_are_made_when_they_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        together = threading.Barrier(4)
        answers: list[Outcome] = []

        def call(_: Run) -> Outcome:
            together.wait(20)
            return Outcome("succeeded")

        threads = Threads(4, call, lambda _, outcome: answers.append(outcome))
        row = (b"", 1, "j", "o", "q", "python", "c", b"\1{}", 1, None, None, None, bytes(16))
        threads.start(Run((0, *row)))
        with no_more_threads():
            for n in (1, 2, 3):
                threads.start(Run((n, *row)))
            await asyncio.sleep(0.2)
        until = time.monotonic() + 10
        while len(answers) < 4 and time.monotonic() < until:  # noqa: ASYNC110 - from threads
            await asyncio.sleep(0.01)
        assert [outcome.outcome for outcome in answers] == ["succeeded"] * 4
        threads.close()

    asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records if "threads" in record.msg] == [
        "handlers share 1 threads, not 4: can't start new thread; a lower --concurrency, or a"
        " higher limit of memory or processes"
    ]


def test_a_shell_that_is_stopped_as_it_starts_ends() -> None:
    class Hands:
        settings = WorkerSettings(database_url="postgresql:///", kinds=["shell"])

        def __init__(self, count: int) -> None:
            self.count = count
            self.over = asyncio.Event()
            self.outcomes: list[Outcome] = []

        def done(self, run: Run, outcome: Outcome) -> None:
            self.outcomes.append(outcome)
            if len(self.outcomes) == self.count:
                self.over.set()

    async def scenario() -> None:
        count = 60
        hands = Hands(count)
        executor = Shell(hands)
        row = (1, "j", "o", "q", "shell", "sleep 60", b"\1{}", 1, None, None, None, bytes(16))
        row = (*row, None, bytes(16), None, None)
        for n in range(count):
            run = Run((n, b"", *row))
            executor.start(run)
            for _ in range(n % 20):
                await asyncio.sleep(0)
            run.stopping = "released"
            executor.stop(run, 0.0)
            if n % 3 == 0:
                executor.stop(run, 0.0)
        await asyncio.wait_for(hands.over.wait(), 20)
        # those without a turn had not begun
        found = Counter((o.outcome, o.error) for o in hands.outcomes)
        assert found == {("released", None): 3, ("stopped", None): 57}

    asyncio.run(scenario())


def test_uvloop_is_used_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def factory(**options: object) -> object:
        return loop_factory(WorkerSettings(database_url="postgresql:///", **options))

    assert factory() is uvloop.new_event_loop
    assert factory(event_loop="asyncio") is None
    assert factory(kinds=["sql", "shell"]) is None
    with pytest.raises(BadSettings, match="shell"):
        factory(kinds=["shell"], event_loop="uvloop")
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert factory() is None
    with pytest.raises(BadSettings, match="not installed"):
        factory(event_loop="uvloop")


def test_intervals_are_read_as_postgresql_counts_them() -> None:
    import struct

    assert length(struct.pack("!qii", 1_500_000, 1, 13)) == 1.5 + 86_400 * (1 + 30 + 365.25)


def test_every_code_of_the_schema_has_an_exception() -> None:
    codes = {"SCH", "TZN", "KND", "NAM", "LIM", "CMD", "OWN", "NOJ", "NOR", "CLM", "WRK", "HLD",
             "VER", "DEF", "CON", "KEY", "EXE"}  # fmt: skip
    assert {f"RC{code}" for code in codes} <= BY_SQLSTATE.keys()


class AtOnce:
    """An executor whose runs end as they begin."""

    def __init__(self, running: Running, seconds: float) -> None:
        self.running = running
        self.seconds = seconds
        self.room = 10_000
        self.begun = 0
        self.most = 0  # that had begun and were not counted as ended

    def start(self, run: Run) -> None:
        self.begun += 1
        running = self.running
        self.most = max(self.most, len(running.active) - len(running._line))
        time.sleep(self.seconds)
        running.done(run, Outcome("succeeded"))

    def stop(self, run: Run, grace: float) -> None:
        raise AssertionError(f"{run} has ended")


async def begin_many(count: int, concurrency: int, seconds: float) -> tuple[Running, AtOnce, int]:
    """Begin so many; return also how many had begun when the first was to be reported."""
    settings = WorkerSettings.model_construct(concurrency=concurrency, kill_grace=1.0)
    running = Running(settings, log.Log("error"), "", Alarm())
    executor = AtOnce(running, seconds)
    running.executors = {"python": executor}  # type: ignore[dict-item]
    length = struct.pack(">qii", 3_600_000_000, 0, 0)
    rows = [
        (i, b"t" * 16, 1, "j", "o", "q", "python", "h", b"\1{}", 1, None, None, None, length)
        for i in range(count)
    ]
    running.begin([Run(row) for row in rows], Member(), at_once=False)
    first = 0
    while running.active:
        await asyncio.sleep(0)
        if running.reporter.pending and not first:
            first = executor.begun
    return running, executor, first


def test_all_begin_before_those_that_ended_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowcron.running.BEGUN_WITHIN", 60.0)
    running, executor, first = asyncio.run(begin_many(450, 1000, 0))
    assert first == executor.begun == len(running.reporter.pending) == 450


def test_those_that_ended_are_not_kept_for_long() -> None:
    running, executor, first = asyncio.run(begin_many(300, 1000, 0.001))
    assert first == 100  # took longer than the 20 ms
    assert executor.begun == len(running.reporter.pending) == 300


def test_no_more_begin_than_may_run_together() -> None:
    running, executor, _ = asyncio.run(begin_many(450, 150, 0))
    assert executor.most <= 150
    assert executor.begun == len(running.reporter.pending) == 450


def test_executors_that_do_not_say_begin_nothing_before_the_commit() -> None:
    async def begun() -> tuple[int, int]:
        settings = WorkerSettings.model_construct(concurrency=1000, kill_grace=1.0)
        running = Running(settings, log.Log("error"), "", Alarm())
        running.executors = {"python": AtOnce(running, 0)}  # type: ignore[dict-item]
        length = struct.pack(">qii", 3_600_000_000, 0, 0)
        row = (b"t" * 16, 1, "j", "o", "q", "python", "h", b"\1{}", 1, None, None, None, length)
        unknown = (*row[:5], "robot", *row[6:])
        with running.committing(Member()) as commit:
            commit.begin([Run((1, *row)), Run((2, *unknown))])
            fails = AtOnce(running, 0)
            fails.early = lambda run: run.run_id == 3 or 1 / 0  # type: ignore[attr-defined]
            running.executors = {"python": fails}  # type: ignore[dict-item]
            with pytest.raises(ZeroDivisionError):
                commit.begin([Run((3, *row)), Run((4, *row))])
        return len(commit.begun), len(running.active)

    assert asyncio.run(begun()) == (0, 0)


def test_what_has_ended_is_not_stopped() -> None:
    async def stopped() -> int:
        settings = WorkerSettings.model_construct(concurrency=1000, kill_grace=1.0)
        running = Running(settings, log.Log("error"), "", Alarm())
        running.executors = {"python": AtOnce(running, 0)}  # type: ignore[dict-item]
        length = struct.pack(">qii", 3_600_000_000, 0, 0)
        row = (b"t" * 16, 1, "j", "o", "q", "python", "h", b"\1{}", 1, None, None, None, length)
        runs = [Run((i, *row)) for i in range(250)]
        running.begin(runs, Member(), at_once=True)  # a hundred begin, and wait for the others
        running.stop(runs[0], "cancelled", 1.0)
        return len(running.reporter.pending)

    assert asyncio.run(stopped()) == 100
