"""Each kind of job on a real worker whose login is only rowcron_worker."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from harness import Database, wait_until
from rowcron.capture import result_and_output
from worker_app import give
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
ALL = ("--kind", "sql,shell,http,python")


def test_sql_succeeds_fails_and_is_recorded_with_its_effect(jobs: Jobs, start: Start) -> None:
    worker = start()
    good = jobs.run("sql", "insert into public.effect values (1, 1), (2, 1)")
    rows = jobs.run("sql", "select 7 as seven, 'ä' as text")
    bad = jobs.run("sql", "insert into public.effect select 1 / 0")
    assert jobs.end(good)["outcome"] == "succeeded"
    assert jobs.end(good)["result"]["rows"] == 2
    assert jobs.end(rows)["result"]["first"] == {"seven": 7, "text": "ä"}
    entry = jobs.end(bad)
    assert (entry["outcome"], "division by zero" in entry["error"]) == ("failed", True)
    assert jobs.db.execute("select count(*) from public.effect").fetchone() == (2,)
    assert worker.wait_for("end", run_id=bad)["outcome"] == "failed"


def test_notices_of_sql_go_to_the_log(jobs: Jobs, start: Start) -> None:
    worker = start()
    run = jobs.run("sql", "do $$ begin raise notice 'it is %', current_user; end $$")
    assert worker.wait_for("notice", run_id=run)["message"] == "it is alice"


def test_sql_times_out_by_the_server(jobs: Jobs, start: Start) -> None:
    start()
    begin = time.monotonic()
    entry = jobs.end(jobs.run("sql", "select pg_sleep(30)", timeout="300 ms"))
    assert (entry["outcome"], entry["reason"]) == ("failed", "timeout")
    assert time.monotonic() - begin < 5


def test_sql_that_catches_its_timeout_is_terminated(jobs: Jobs, start: Start) -> None:
    start("--sql-connections", "1")
    stubborn = """do $$ begin
      loop begin perform pg_sleep(30); exception when query_canceled then null; end; end loop;
    end $$"""
    entry = jobs.end(jobs.run("sql", stubborn, timeout="200 ms", max_lost=1))
    assert (entry["outcome"], entry["reason"].partition(";")[0]) == ("lost", "timeout")
    assert jobs.end(jobs.run("sql", "select 1"))["outcome"] == "succeeded"  # the lane is free again


def test_sql_is_cancelled_by_notification(jobs: Jobs, start: Start) -> None:
    start("--poll", "30", "--lease", "60", "--kill-grace", "20")
    run = jobs.run("sql", "select pg_sleep(30)")
    jobs.wait_running(run)
    begin = time.monotonic()
    assert jobs.owner.execute("select rowcron.cancel(%s)", (run,)).fetchone() == ("asked",)
    assert jobs.end(run)["outcome"] == "cancelled"
    assert time.monotonic() - begin < 5


def test_sql_over_a_named_connection_is_not_atomic(
    jobs: Jobs, start: Start, database: Database
) -> None:
    start(ROWCRON_CONNECTION_ADMIN=database.url("postgres"))
    jobs.db.execute("select rowcron.grant_connection('admin', 'alice')")
    jobs.db.execute("select rowcron.grant_connection('other', 'alice')")
    text = "vacuum public.effect; insert into public.effect values (1, 1); select 5 as five;"
    entry = jobs.end(jobs.run("sql", text, connection="admin"))
    assert (entry["outcome"], entry["output"]) == ("succeeded", "VACUUM\nINSERT 0 1\nSELECT 1")
    assert entry["result"] == {"five": 5}
    entry = jobs.end(jobs.run("sql", "select pg_sleep(30)", connection="admin", timeout="200 ms"))
    assert (entry["outcome"], entry["reason"]) == ("failed", "timeout")


def test_what_needs_a_connection_is_left_to_a_worker_that_has_it(
    jobs: Jobs, start: Start, database: Database
) -> None:
    start(ROWCRON_CONNECTION_ADMIN=database.url("postgres"))
    jobs.db.execute("select rowcron.grant_connection('Other', 'alice')")
    name = jobs.add("sql", "vacuum public.effect", connection="Other")
    run = jobs.start(name)
    jobs.end(jobs.run("sql", "select 1"))
    assert not jobs.entries(run)
    gates = jobs.owner.execute(
        "select gate, detail, hint from rowcron.why_not_running(%s) where holds", [name]
    ).fetchall()
    assert gates == [
        (
            "worker",
            'no live worker has the connection "Other"',
            "rowcron worker --queue default --kind sql, with ROWCRON_CONNECTION_OTHER set",
        )
    ]
    start(ROWCRON_CONNECTION_OTHER=database.url("postgres"))
    assert jobs.end(run)["outcome"] == "succeeded"


def test_a_connections_name_may_be_of_any_letters(
    start: Start, jobs: Jobs, database: Database
) -> None:
    """Small letters are those of A to Z, in the database as in the worker."""
    letter = "\N{LATIN CAPITAL LETTER U WITH DIAERESIS}"
    environment = {f"ROWCRON_CONNECTION_{letter}BUNG": database.url("alice")}
    start(**environment)
    name = f"{letter}bung"
    jobs.db.execute("select rowcron.grant_connection(%s, 'alice')", (name,))
    assert jobs.end(jobs.run("sql", "select 1", connection=name))["outcome"] == "succeeded"


def test_a_job_that_got_another_handler_unseen_runs_with_it(jobs: Jobs, start: Start) -> None:
    name = jobs.add("python", "nothing")
    with psycopg.connect(jobs.owner.info.dsn) as other:
        [run] = other.execute("select rowcron.enqueue(%s)", [name]).fetchone()
        jobs.owner.execute("update rowcron.job set command = 'elsewhere' where name = %s", [name])
    start()
    wait_until(
        lambda: jobs.db.execute(
            "select 1 from rowcron.run where id = %s and handler = 'elsewhere' and state = 'ready'",
            [run],
        ).fetchone()
    )
    assert not jobs.entries(run)


def test_shell_gets_a_bare_environment_and_its_args(jobs: Jobs, start: Start) -> None:
    start(*ALL, "--shell-env", "PASSED", PASSED="yes", KEPT_BACK="no")
    run = jobs.run("shell", "cat; echo; env; echo oops >&2", {"a": "ü"})
    entry = jobs.end(run)
    assert entry["outcome"] == "succeeded"
    first, *lines = entry["output"].splitlines()
    assert first == '{"a": "ü"}'
    assert lines[-1] == "oops"
    environment = dict(line.partition("=")[::2] for line in lines[:-1])
    assert environment["ROWCRON_RUN_ID"] == str(run)
    assert environment["PASSED"] == "yes"
    usual = {"PATH", "HOME", "LANG", "PASSED", "PWD", "OLDPWD", "SHLVL", "_"}
    assert {name for name in environment if not name.startswith("ROWCRON_")} <= usual
    assert len([name for name in environment if name.startswith("ROWCRON_")]) == 5


def test_shell_reports_exit_status_and_signal(jobs: Jobs, start: Start) -> None:
    start(*ALL)
    exits, killed = jobs.run("shell", "exit 3"), jobs.run("shell", "kill -SEGV $$")
    assert jobs.end(exits)["reason"] == "exit"
    assert jobs.end(exits)["result"] == {"exit": 3}
    assert jobs.end(killed)["error"] == "killed by signal 11 (SIGSEGV)"


def test_shell_timeout_kills_the_whole_group(jobs: Jobs, start: Start, tmp_path: Path) -> None:
    start(*ALL)
    mark = tmp_path / "mark"
    command = f"echo started; trap '' TERM; (sleep 3; touch {mark}) & sleep 30"
    entry = jobs.end(jobs.run("shell", command, timeout="300 ms"))
    assert (entry["outcome"], entry["reason"]) == ("failed", "timeout")
    assert entry["output"] == "started\n"
    living = Path("/proc").glob("[0-9]*/cmdline")
    assert not any(str(mark).encode() in _read(path) for path in living)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_shell_is_cancelled(jobs: Jobs, start: Start) -> None:
    start(*ALL)
    run = jobs.run("shell", "sleep 30")
    jobs.wait_running(run)
    jobs.owner.execute("select rowcron.cancel(%s)", (run,))
    assert jobs.end(run)["outcome"] == "cancelled"


def test_a_child_that_holds_the_output_does_not_hang_the_run(jobs: Jobs, start: Start) -> None:
    start(*ALL)
    begin = time.monotonic()
    assert jobs.end(jobs.run("shell", "sleep 20 & echo done"))["output"] == "done\n"
    assert time.monotonic() - begin < 5


def test_output_of_100_mb_leaves_its_tail_and_the_worker_small(jobs: Jobs, start: Start) -> None:
    worker = start(*ALL)
    small = _memory(worker.process.pid)
    entry = jobs.end(jobs.run("shell", "yes 'ä' | head -c 104857599; printf '\\000end'"))
    assert entry["outcome"] == "succeeded"
    assert entry["output"].endswith("ä\n\ufffdend")
    assert 65_000 < len(entry["output"].encode()) <= 65_536
    assert _memory(worker.process.pid) - small < 20_000


def _memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def test_a_command_and_args_of_1_mb_reach_the_shell(jobs: Jobs, start: Start) -> None:
    start(*ALL)
    command = f"wc -c; : {'x' * 1_000_000}"
    entry = jobs.end(jobs.run("shell", command, {"text": "y" * 1_000_000}))
    assert (entry["outcome"], entry["output"]) == ("succeeded", "1000012\n")


class Handler(http.server.BaseHTTPRequestHandler):
    """A real HTTP server: the path says what it does."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, dict[str, str], bytes]]

    def do_GET(self) -> None:
        """Answer; POST does the same."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, dict(self.headers.items()), body))  # type: ignore[attr-defined]
        status = int(self.path.strip("/").split("/")[0] or 200)
        text = b"x" * 1_000_000 if "long" in self.path else b"hello\0"
        if "slow" in self.path:
            time.sleep(3)
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "1")
        if status == 302:
            self.send_header("Location", "http://[::1/" if "broken" in self.path else "/200")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        try:
            self.wfile.write(text)
        except OSError:
            self.close_connection = True

    do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[http.server.ThreadingHTTPServer]:
    """A server on loopback; `seen` holds its requests."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_http_sends_args_and_judges_the_status(
    jobs: Jobs, start: Start, web: http.server.ThreadingHTTPServer
) -> None:
    start()
    base = f"http://127.0.0.1:{web.server_port}"
    plain = jobs.run("http", f"{base}/200")
    post = jobs.run("http", f"{base}/201\nX-Team: billing\tinc.", {"n": 1})
    missing = jobs.run("http", f"GET {base}/404")
    expected = jobs.run("http", f"PUT {base}/404\nExpect-Status: 200-299, 404", {"n": 2})
    moved = jobs.run("http", f"{base}/302")
    broken = jobs.run("http", f"{base}/302/broken\nFollow-Redirects: 3")
    entry = jobs.end(plain)
    assert (entry["outcome"], entry["output"]) == ("succeeded", "hello\ufffd")
    assert entry["result"] == {"status": 200}
    assert jobs.end(post)["result"] == {"status": 201}
    assert (jobs.end(missing)["outcome"], jobs.end(missing)["reason"]) == ("failed", "status")
    assert jobs.end(expected)["outcome"] == "succeeded"
    assert "redirects to /200" in jobs.end(moved)["error"]
    assert "its Location is no URL" in jobs.end(broken)["error"]
    assert jobs.end(broken)["reason"] == "status"
    requests = {path: (method, headers, body) for method, path, headers, body in web.seen}  # type: ignore[attr-defined]
    assert requests["/200"][0] == "GET"
    method, headers, body = requests["/201"]
    assert (method, body, headers["X-Team"]) == ("POST", b'{"n": 1}', "billing\tinc.")
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] != requests["/200"][1]["Idempotency-Key"]


def test_http_is_bounded_in_time_and_size(
    jobs: Jobs, start: Start, web: http.server.ThreadingHTTPServer
) -> None:
    start()
    base = f"http://127.0.0.1:{web.server_port}"
    slow, long = (
        jobs.run("http", f"{base}/200/slow", timeout="300 ms"),
        jobs.run("http", f"{base}/200/long"),
    )
    assert (jobs.end(slow)["outcome"], jobs.end(slow)["reason"]) == ("failed", "timeout")
    assert jobs.end(long)["output"] == "x" * 65_536
    gone = jobs.run("http", "http://127.0.0.1:9/")
    assert (jobs.end(gone)["outcome"], jobs.end(gone)["reason"]) == ("failed", "connection")


def test_retry_after_sets_the_pause(
    jobs: Jobs, start: Start, web: http.server.ThreadingHTTPServer
) -> None:
    start()
    address = f"http://127.0.0.1:{web.server_port}/429"
    run = jobs.run("http", address, max_attempts=2, retry_delay="1 hour")
    assert jobs.end(run)["attempt"] == 2
    first, second = (entry["finished_at"] for entry in jobs.entries(run))
    assert 0.9 < (second - first).total_seconds() < 5


def test_python_handlers_get_what_they_ask_for(jobs: Jobs, start: Start) -> None:
    start()
    assert jobs.end(jobs.run("python", "add-it", {"a": 1, "b": 2}))["result"] == {"sum": 3}
    name = jobs.add("python", "whole", timeout="90 s")
    run = jobs.start(name, [1, "x"])
    result = jobs.end(run)["result"]
    assert len(result.pop("key")) == 36
    assert result == {
        "args": [1, "x"], "run_id": run, "attempt": 1, "job": name, "owner": "alice",
        "on_demand": True, "allowed": 90.0,
    }  # fmt: skip
    assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"
    assert jobs.end(jobs.run("python", "nothing_async"))["outcome"] == "succeeded"
    wrong = jobs.end(jobs.run("python", "add-it", {"a": 1}))
    assert "missing 1 required positional argument: 'b'" in wrong["error"]


def test_what_is_async_beneath_something_else_is_awaited(jobs: Jobs, start: Start) -> None:
    start()
    runs = {name: jobs.run("python", name) for name in ("beneath", "promise", "runs_itself")}
    for name, run in runs.items():
        assert jobs.end(run)["result"] == "awaited", name
    called = jobs.run("python", "called")
    assert jobs.end(called)["result"] == f"awaited {called}"
    handed = jobs.run("python", "insert_beneath")
    assert jobs.end(handed)["outcome"] == "succeeded", jobs.end(handed)["error"]
    assert jobs.db.execute("select n, run_id from public.effect").fetchall() == [(1, handed)]
    late = jobs.run("python", "beneath", {"seconds": 60}, timeout="300 ms")
    asked = jobs.run("python", "beneath", {"seconds": 60})
    assert jobs.end(late, 5)["error"] == "timed out after 0:00:00.300000"
    jobs.wait_running(asked)
    jobs.owner.execute("select rowcron.cancel(%s)", (asked,))
    assert jobs.end(asked, 5)["outcome"] == "cancelled"


def test_work_that_a_handler_only_returns_is_no_success(jobs: Jobs, start: Start) -> None:
    start()
    for name in ("lazily", "lazily_async", "insert_lazily"):
        entry = jobs.end(jobs.run("python", name, max_attempts=3))
        assert (entry["outcome"], entry["reason"], entry["attempt"]) == ("failed", "abandoned", 1)
        assert "nothing of that was executed" in entry["error"]
    assert jobs.db.execute("select count(*) from public.effect").fetchone() == (0,)


@pytest.mark.parametrize(
    ("what", "result", "output"),
    [
        ("nul", {"text": "a\ufffdb", "escaped": "\\u0000"}, None),
        ("surrogate", "\ufffd", None),
        ("object", None, "<object object"),
        ("nan", None, "nan"),
        ("long", None, "xxxx"),
    ],
)
def test_results_are_made_storable(what: str, result: object, output: str | None) -> None:
    stored, text = result_and_output(give(what))
    assert (None if stored is None else json.loads(stored)) == result
    assert (text or "").startswith(output or "")
    assert stored is None or "\\u0000" not in stored.replace("\\\\u0000", "")


def test_what_is_hard_to_store_is_stored(jobs: Jobs, start: Start) -> None:
    start()
    nul = jobs.run("python", "give", {"what": "nul"})
    surrogate = jobs.run("python", "give", {"what": "surrogate"})
    broken = jobs.run("python", "fail", {"how": "x"})
    assert jobs.end(nul)["result"] == {"text": "a\ufffdb", "escaped": "\\u0000"}
    assert jobs.end(surrogate)["result"] == "\ufffd"
    error = jobs.end(broken)["error"]
    assert error.endswith("ValueError: broken \ufffd \ufffd")
    assert "rowcron/" not in error  # the worker's own frames are nobody's business


@pytest.mark.parametrize("handler", ["count_and_divide", "count_and_divide_async"])
def test_each_handler_has_a_context_of_its_own(jobs: Jobs, start: Start, handler: str) -> None:
    start("--concurrency", "1")
    for digits in (3, None, 5):
        entry = jobs.end(jobs.run("python", handler, {"digits": digits}))
        assert entry["result"] == [1, len("0.") + (digits or 28)]


def test_a_handler_says_never_again_or_later(jobs: Jobs, start: Start) -> None:
    start()
    never = jobs.run("python", "fail", {"how": "abandon"}, max_attempts=5)
    later = jobs.run("python", "fail", {"how": "later"}, max_attempts=2, retry_delay="1 hour")
    assert (jobs.end(never)["outcome"], jobs.end(never)["attempt"]) == ("failed", 1)
    assert jobs.end(later)["attempt"] == 2


def test_a_handler_cancels_its_run(jobs: Jobs, start: Start) -> None:
    worker = start()
    run = jobs.run("python", "fail", {"how": "cancel"}, max_attempts=5)
    end = jobs.end(run)
    assert (end["outcome"], end["reason"], end["error"]) == ("cancelled", "the order is gone", None)
    assert end["final"]
    told = worker.wait_for("end", run_id=run)
    assert told["text"].endswith(": the order is gone")
    assert told["level"] == "info"


def test_a_handler_puts_its_run_off_and_nothing_is_counted(jobs: Jobs, start: Start) -> None:
    worker = start()
    run = jobs.run("python", "fail", {"how": "snooze"}, max_attempts=1)
    query = (
        "select r.attempt, r.failures, r.losses, r.state, r.waits_for, r.due_at - clock_timestamp()"
        " > interval '59 minutes' from rowcron.run as r where r.id = %s and r.state <> 'running'"
    )

    def put_off() -> bool:
        found = jobs.db.execute(query, (run,)).fetchone()
        return found == (1, 0, 0, "waiting", "time", True)

    assert wait_until(put_off)
    assert jobs.entries(run) == []
    jobs.db.execute("update rowcron.run set due_at = now(), state = 'ready', waits_for = null")

    def told() -> list[str]:
        return [event["text"] for event in worker.events("end")]

    assert wait_until(lambda: len(told()) == 2)
    assert all(line.endswith(", put off: the bank is closed") for line in told())


@pytest.mark.parametrize("seconds", [0, -5, 0.001])
def test_a_run_is_put_off_for_a_second_at_least(jobs: Jobs, start: Start, seconds: float) -> None:
    worker = start()
    run = jobs.run("python", "snooze", {"seconds": seconds}, max_attempts=1)
    first, second = wait_until(lambda: (t := worker.events("start"))[1:] and t[:2], what="two")
    assert first["run_id"] == second["run_id"] == run
    times = [datetime.fromisoformat(event["at"]) for event in (first, second)]
    assert times[1] - times[0] > timedelta(seconds=0.9)


@pytest.mark.parametrize("how", ["snooze", "cancel"])
@pytest.mark.parametrize("handler", ["plan_late", "plan_late_connected", "plan_late_plain"])
def test_a_run_that_is_being_stopped_is_neither_put_off_nor_cancelled_by_its_handler(
    jobs: Jobs, start: Start, handler: str, how: str
) -> None:
    start()
    run = jobs.run("python", handler, {"how": how}, timeout="300 ms", max_attempts=1)
    entry = jobs.end(run)
    assert (entry["outcome"], entry["reason"]) == ("failed", "timeout")
    asked = jobs.run("python", handler, {"how": how})
    jobs.wait_running(asked)
    jobs.owner.execute("select rowcron.cancel(%s)", (asked,))
    entry = jobs.end(asked)
    assert (entry["outcome"], entry["reason"]) == ("cancelled", "cancelled by alice")


@pytest.mark.parametrize("how", ["nan", "inf", "1e300", "-1", "a word"])
def test_a_pause_that_is_none_costs_no_report(jobs: Jobs, start: Start, how: str) -> None:
    start()
    run = jobs.run("python", "pause", {"how": how}, max_attempts=2, retry_delay="1 hour")
    first = wait_until(lambda: jobs.entries(run))[0]
    assert (first["outcome"], first["reason"]) == ("failed", "exception")
    assert first["error"].endswith(f"RetryAfter: the pause is {how}")
    query = "select extract(epoch from due_at - %s) from rowcron.run where id = %s"
    found = jobs.db.execute(query, (first["finished_at"], run)).fetchone()
    left = 0 if found is None else float(found[0])
    expected = {"inf": 86_400, "1e300": 86_400, "-1": 0}.get(how, 3_600)
    assert 0.8 * expected <= left + 1 <= 1.2 * expected + 2


@pytest.mark.parametrize("handler", ["insert", "insert_async"])
def test_a_handed_connection_commits_effect_and_record_together(
    jobs: Jobs, start: Start, handler: str
) -> None:
    start()
    good = jobs.run("python", handler, {"n": 1})
    bad = jobs.run("python", handler, {"n": 2, "then": "raise"})
    assert jobs.end(good)["outcome"] == "succeeded"
    assert jobs.end(bad)["outcome"] == "failed"
    query = """
      select e.n, e.xmin = l.xmin from public.effect as e join rowcron.ledger as l using (run_id)
    """
    assert jobs.db.execute(query).fetchall() == [(1, True)]


@pytest.mark.parametrize("kind", ["", "_async"], ids=["plain", "async"])
def test_a_handed_connection_is_clean_again(jobs: Jobs, start: Start, kind: str) -> None:
    start("--handler-connections", "1")
    spoilt = jobs.end(jobs.run("python", f"spoil{kind}"))
    assert spoilt["outcome"] == "succeeded", spoilt["error"]
    found = jobs.end(jobs.run("python", f"look_round{kind}"))
    assert found["result"] == "(('0', True, 0), None, [])", found["error"]


def test_a_handler_cannot_commit_early_and_a_cut_is_a_loss(jobs: Jobs, start: Start) -> None:
    start()
    early = jobs.run("python", "insert", {"n": 1, "then": "commit"})
    cut = jobs.run("python", "insert", {"n": 2, "then": "cut"}, max_lost=1)
    assert "Explicit commit() forbidden" in jobs.end(early)["error"]
    assert jobs.end(cut)["outcome"] == "lost"
    assert jobs.db.execute("select count(*) from public.effect").fetchone() == (0,)


def test_handlers_time_out_and_leave_their_slots(jobs: Jobs, start: Start) -> None:
    start("--concurrency", "5", "--handler-connections", "1")
    begin = time.monotonic()
    runs = [
        jobs.run("python", handler, args, timeout="300 ms")
        for handler, args in (
            ("sleep", {"seconds": 30}),
            ("sleep_async", {"seconds": 30}),
            ("insert", {"then": "sleep"}),
            ("insert_async", {"then": "sleep"}),
            ("stubborn", {}),
        )
    ]
    for run in runs:
        entry = jobs.end(run)
        assert (entry["outcome"], entry["reason"]) == ("failed", "timeout")
    for handler in ("nothing", "nothing_async", "insert", "insert_async", "sleep"):
        args = {"seconds": 0} if handler == "sleep" else {}
        assert jobs.end(jobs.run("python", handler, args))["outcome"] == "succeeded"
    assert time.monotonic() - begin < 10
    assert jobs.db.execute("select count(*) from public.effect").fetchone() == (2,)


def test_a_job_without_its_handler_waits(jobs: Jobs, start: Start) -> None:
    start()
    unknown = jobs.run("python", "nobody_has_it")
    assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"
    state = jobs.db.execute("select state from rowcron.run where id = %s", (unknown,)).fetchone()
    assert state == ("ready",)


def test_a_job_deleted_while_it_runs_ends_in_the_ledger(jobs: Jobs, start: Start) -> None:
    start()
    name = jobs.add("python", "sleep", args={"seconds": 1})
    run = jobs.start(name)
    jobs.wait_running(run)
    jobs.owner.execute("delete from rowcron.job where name = %s", (name,))
    assert jobs.end(run)["final"]


def test_names_with_quotes_emoji_and_escapes_are_shown_harmless(jobs: Jobs, start: Start) -> None:
    worker = start()
    name = 'it\'s "quoted" 🚀'
    run = jobs.run("python", "nothing", name=name)
    assert jobs.end(run)["job"] == name
    assert worker.wait_for("end", run_id=run)["job"] == name
    wait_until(lambda: "🚀" in worker.console.read_text("utf-8"))


def test_the_worker_has_no_right_on_tables(jobs: Jobs, start: Start, worker_url: str) -> None:
    with psycopg.connect(worker_url) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("select * from rowcron.run")


def test_what_asks_for_a_connection_is_left_to_workers_that_have_one(
    jobs: Jobs, start: Start
) -> None:
    without = start("--handler-database-url", "")
    event = without.wait_for("withheld")
    assert "insert" in event["handlers"]
    assert "nothing" not in event["handlers"]
    assert "insert" not in without.wait_for("worker")["handlers"]
    run = jobs.run("python", "insert", {"n": 1})
    other = jobs.run("python", "nothing")
    assert jobs.end(other)["outcome"] == "succeeded"
    time.sleep(0.5)
    assert jobs.entries(run) == []
    gate = jobs.owner.execute(
        "select w.detail, w.hint from rowcron.active as a"
        " cross join lateral rowcron.why_not_running(a.job) as w"
        " where a.run_id = %s and w.gate = 'worker'",
        (run,),
    ).fetchone()
    assert gate is not None
    assert gate[0] == 'no live worker has the handler "insert"'
    assert "--handler-database-url" in gate[1]
    start()
    assert jobs.end(run)["outcome"] == "succeeded"


@pytest.mark.parametrize("options", [("--concurrency", "1"), ("--sql-connections", "1")])
def test_why_tells_that_the_workers_are_full(
    jobs: Jobs, start: Start, options: tuple[str, str]
) -> None:
    start(*options)
    jobs.wait_running(jobs.run("sql", "select pg_sleep(30)"))
    jobs.run("sql", "select 1", name="behind")
    gate = (
        "select string_agg(w.gate, ', '), min(w.detail) from rowcron.why_not_running('behind') as w"
        " where w.holds"
    )

    def shut() -> tuple[str, str]:
        row = jobs.owner.execute(gate).fetchone()
        assert row is not None
        return row

    wait_until(lambda: shut()[0] == "room")
    assert "is full; run" in shut()[1]


def test_jobs_run_whatever_instants_look_like_in_a_session(jobs: Jobs, start: Start) -> None:
    name = jobs.db.info.dbname
    for setting in (
        "datestyle = 'German'",
        "intervalstyle = 'iso_8601'",
        "timezone = 'Asia/Tokyo'",
    ):
        jobs.db.execute(f"alter database {name} set {setting}".encode())
    worker = start(*ALL)
    good = jobs.run("sql", "select 1")
    again = jobs.run("sql", "select 1 / 0", max_attempts=2, retry_delay="1 ms")
    handed = jobs.run("python", "insert", {"n": 1})
    assert jobs.end(good)["outcome"] == "succeeded"
    assert jobs.end(handed)["outcome"] == "succeeded"
    assert jobs.end(again)["attempt"] == 2
    assert "division" in jobs.end(again)["error"]
    due = worker.wait_for("end", run_id=again, attempt=1)["next_due_at"]
    assert datetime.fromisoformat(due).tzinfo is not None


def test_jobs_run_at_their_time_in_a_database_whose_zone_redefines_utc(
    jobs: Jobs, start: Start, database: Database
) -> None:
    """A zone in POSIX's words: its abbreviation is UTC, three hours off."""
    name = jobs.db.info.dbname
    jobs.db.execute(f"alter database {name} set timezone = 'UTC+3'".encode())
    start(*ALL)
    with psycopg.connect(database.url("alice"), autocommit=True) as owner:
        for schedule in ("* * * * * *", "@at {}"):
            owner.execute(
                "insert into rowcron.job (name, schedule, timezone, command)"
                " select %s, replace(%s, '{}', to_char("
                "  (clock_timestamp() + interval '2 s') at time zone interval '0',"
                """  'YYYY-MM-DD"T"HH24:MI:SS"Z"')), 'GMT',"""
                " $$select current_setting('rowcron.scheduled_for')$$",
                (schedule, schedule),
            )

    def ended() -> list[tuple[bool, bool]]:
        return jobs.db.execute(
            "select bool_and(l.outcome = 'succeeded'),"
            " bool_and((l.result #>> '{first,current_setting}')::timestamptz = l.scheduled_for)"
            " from rowcron.ledger as l"
            " where l.scheduled_for between l.started_at - interval '5 s' and l.started_at"
            " group by l.job"
        ).fetchall()

    assert wait_until(lambda: len(rows := ended()) == 2 and rows) == [(True, True)] * 2


def test_a_job_that_talks_without_end_makes_the_worker_neither_deaf_nor_its_log_long(
    jobs: Jobs, start: Start
) -> None:
    worker = start("--kind", "sql")
    loop = (
        "do $$ declare s text := repeat(E'\\x01', {}); begin loop raise notice '%', s; end loop;"
        " end $$"
    )
    floods = [jobs.run("sql", loop.format(size), timeout="30 s") for size in (1, 60_000)]
    for flood in floods:
        jobs.wait_running(flood)
    other = jobs.run("sql", "select 1")
    assert jobs.end(other, 10)["outcome"] == "succeeded"
    for flood in floods:
        jobs.owner.execute("select rowcron.cancel(%s)", (flood,))
        assert jobs.end(flood, 10)["outcome"] == "cancelled"
    told = [e for e in worker.events("notice") if e["run_id"] in floods and "message" in e]
    assert 100 < len(told) <= 200
    assert worker.log.stat().st_size < 5_000_000
    assert {e["run_id"] for e in worker.events("notice") if "more" in e} == set(floods)
    calm = jobs.run("sql", "do $$ begin raise notice 'calm'; end $$")
    assert jobs.end(calm)["outcome"] == "succeeded"
    assert worker.wait_for("notice", run_id=calm)["message"] == "calm"
