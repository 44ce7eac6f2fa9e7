"""Secrets: who gets them, and where they must not appear."""

from __future__ import annotations

import base64
import http.server
import json
import os
import shlex
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import psycopg
import pytest

from attack.conftest import Attack
from harness import ROOT, wait_until
from rowcron.blank import Blanker
from test_worker_loop import asleep
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]

pytestmark = pytest.mark.executed
ALL = ("--kind", "sql,shell,http")
TOKEN = "s3cr3t/T0ken+with & \"quotes\" 'n' \\ é"
FILED = "filed-under-a-directory"
NAMED = {"ROWCRON_SECRET_TOKEN": TOKEN, "ROWCRON_SECRET_OTHER": "somebody-else-s-own"}


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked, in several encodings."""

    def do_POST(self) -> None:
        """Echo."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {k: v.encode("latin-1").decode() for k, v in self.headers.items()}
        self.server.seen.append((self.path, headers, body))  # type: ignore[attr-defined]
        told = json.dumps({"path": self.path, "headers": headers, "body": body.decode()})
        told += f"\n{headers} {base64.b64encode(told.encode()).decode()}"
        moved = self.path.partition("/to/")[2]
        self.send_response(307 if moved else 200)
        if moved:
            self.send_header("Location", moved)
        if "leak" in self.path:
            self.send_header("Location", "/" + headers.get("X-Token", ""))
        self.send_header("Content-Length", str(len(told.encode())))
        self.end_headers()
        self.wfile.write(told.encode())

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    """On loopback; `seen` holds what came."""

    seen: list[tuple[str, dict[str, str], bytes]]


@pytest.fixture
def echo() -> Iterator[Server]:
    """A server that gives everything back."""
    server = Server(("127.0.0.1", 0), Echo)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def grant(jobs: Jobs, name: str = "TOKEN", grantee: str = "alice") -> None:
    """Let a role name a secret."""
    jobs.db.execute("select rowcron.grant_secret(%s, %s)", [name, grantee])


def traces(jobs: Jobs, *places: Path) -> list[str]:
    """In which tables, and files, a value stands."""
    found = []
    tables = jobs.db.execute(
        "select c.oid::regclass::text from pg_class as c where c.relkind in ('r', 'p')"
        " and c.relnamespace = 'rowcron'::regnamespace and not c.relispartition"
    ).fetchall()
    forms = [TOKEN, quote(TOKEN, safe=""), json.dumps(TOKEN)[1:-1], TOKEN.encode().hex()]
    forms += [base64.b64encode(TOKEN.encode()).decode()[:24], FILED]
    for (table,) in tables:
        for row in jobs.db.execute(f"select * from {table}".encode()):
            for value in row:
                text = value if isinstance(value, str) else json.dumps(value, default=str)
                if any(form in text or json.dumps(form)[1:-1] in text for form in forms):
                    found.append(f"{table}: {text[:80]}")
    for place in places:
        text = place.read_text("utf-8", "replace")
        found += [str(place) for form in forms if form in text or json.dumps(form)[1:-1] in text]
    return found


PRINTS = {
    "as it is": 'printf %s "$S"',
    "twice, without a gap": 'printf %s%s "$S" "$S"',
    "in base64": 'printf %s "$S" | base64',
    "in base64 after one byte": 'printf x%s "$S" | base64',
    "in base64 after two bytes": 'printf xy%sz "$S" | base64 -w 0',
    "in base64, wrapped at 7": 'printf %s "$S" | base64 -w 7',
    "in hexadecimal": 'printf %s "$S" | od -An -v -tx1',
    "in hexadecimal, without blanks": "printf %s \"$S\" | od -An -v -tx1 | tr -d ' \\n'",
    "in HEXADECIMAL": 'printf %s "$S" | od -An -v -tx1 | tr a-f A-F',
    "URL-encoded": "printf %s \"$S\" | od -An -v -tx1 | tr -d '\\n' | tr ' ' %",
    "folded at 5": 'printf %s "$S" | fold -w 5',
    "in two chunks": 'printf %.9s "$S"; sleep 0.3; printf %s "${S#?????????}"',
    "byte by byte": 'printf %s "$S" | od -An -v -to1 -w1 |'
    ' while read -r o; do printf "\\\\$o"; sleep 0.01; done',
    "on standard error": 'printf %s "$S" >&2; exit 3',
    "quoted by the shell": 'set -x; : "$S"; : "a b $S"',
    "quoted by bash, whose locale knows no é": 'LC_ALL=C bash -c \'printf %q "$1"\' - "$S"',
    "in an error of another program": 'cat "/nonexistent/$S"',
    "across the 64 KiB that are kept": 'printf %s "$S"; head -c 65525 /dev/zero | tr "\\0" x',
    "many times": 'i=0; while [ $i -lt 3000 ]; do printf "%s," "$S"; i=$((i+1)); done',
}


def test_no_output_of_a_shell_job_holds_it(jobs: Jobs, start: Start, attack: Attack) -> None:
    worker = start(*ALL, "--log-level", "debug", **NAMED)
    grant(jobs)
    runs = {
        what: jobs.run("shell", f'S="${{secret:TOKEN}}"; {command}')
        for what, command in PRINTS.items()
    }
    for what, run in runs.items():
        tried = attack(f"print the secret {what}")
        entry = jobs.end(run, 60)
        text = (entry["output"] or "") + (entry["error"] or "")
        assert "***" in text, (what, text)
        for piece in (TOKEN, "s3cr3t", "T0ken", "quotes", "czNjcjN0", "733363"):
            assert piece not in text, (what, text[:300])
        tried.stopped(" ".join(text.split())[:60] or "nothing is left")
    tried = attack("find it in any table, the log file, the console")
    wait_until(lambda: len(worker.events("end")) == len(runs), what="all ends")
    assert traces(jobs, worker.log, worker.console) == []
    tried.stopped("the job's text has the name; outputs, errors and log lines are blanked")


def test_a_shell_is_given_it_and_no_command_line(jobs: Jobs, start: Start, attack: Attack) -> None:
    start(*ALL, **NAMED)
    grant(jobs)
    right = '[ "$ROWCRON_SECRET_TOKEN" = "${secret:TOKEN}" ] && [ ${#ROWCRON_SECRET_TOKEN} -gt 9 ]'
    assert jobs.end(jobs.run("shell", right))["outcome"] == "succeeded"
    long = f"{right} # {'x' * 200_000}"
    assert jobs.end(jobs.run("shell", long))["outcome"] == "succeeded"
    read = jobs.start(jobs.add("shell", "wc -c", args={"t": "${secret:TOKEN}"}))
    assert jobs.end(read)["output"].strip() == str(len(json.dumps({"t": TOKEN}).encode()))

    tried = attack("read it in the command line of the shell (ps)")
    run = jobs.run("shell", 'read -r x <"/dev/null"; sleep 5; : "${secret:TOKEN}"')
    jobs.wait_running(run)
    wait_until(lambda: b"sleep 5" in command_lines(), what="the shell")
    assert b"s3cr3t" not in command_lines()
    jobs.owner.execute("select rowcron.cancel(%s)", [run])
    jobs.end(run)
    tried.stopped("the shell is given ${ROWCRON_SECRET_TOKEN}; the value is in its environment")

    tried = attack("break out of the command by the value's quotes")
    assert jobs.end(jobs.run("shell", 'printf "%s" "${secret:TOKEN}"'))["output"] == "***"
    tried.stopped("it is a variable, not text of the command")
    tried = attack("see another secret of the worker in the environment")
    seen = jobs.end(jobs.run("shell", 'env; : "${secret:TOKEN}"'))["output"]
    assert "ROWCRON_SECRET_TOKEN=***" in seen
    assert "OTHER" not in seen
    tried.stopped("only those that the command names and the owner was granted")


def command_lines() -> bytes:
    """Those of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" "))
        except OSError:
            continue
    return b"\n".join(found)


def test_http_sends_it_and_stores_it_nowhere(
    jobs: Jobs, start: Start, echo: Server, attack: Attack
) -> None:
    worker = start(*ALL, "--log-level", "debug", **NAMED)
    grant(jobs)
    base = f"http://127.0.0.1:{echo.server_port}"
    command = f"POST {base}/x?t=${{secret:TOKEN}}&u=1\nX-Token: a ${{secret:TOKEN}}"
    tried = attack("have a server echo URL, header and body, as JSON, Python and base64")
    entry = jobs.end(jobs.start(jobs.add("http", command, args={"t": "${secret:TOKEN}"})))
    path, headers, sent = echo.seen[0]
    assert path == f"/x?t={quote(TOKEN, safe='')}&u=1"
    assert headers["X-Token"] == f"a {TOKEN}"
    assert json.loads(sent) == {"t": TOKEN}
    assert entry["output"].count("***") >= 4, entry["output"]
    assert "s3cr3t" not in entry["output"]
    packed = entry["output"].rsplit(" ", 1)[1].split("***")
    pieces = [part[n:] for part in packed for n in range(4)]
    inner = [base64.b64decode(piece[: len(piece) // 4 * 4]) for piece in pieces]
    assert not [text for text in inner if b"3cr3t" in text or b"T0ken" in text]
    tried.stopped(" ".join(entry["output"].split())[:90])
    tried = attack("find it in an error: a Location that is not followed")
    leak = f"{base}/leak\nX-Token: ${{secret:TOKEN}}"
    entry = jobs.end(jobs.run("http", f"{leak}\nExpect-Status: 500"))
    assert "redirects to /***" in entry["error"]
    tried.stopped(entry["error"])
    tried = attack("find it in the error of a URL that is none")
    entry = jobs.end(jobs.run("http", "http://127.0.0.1:x${secret:TOKEN}/"))
    assert (entry["reason"], "s3cr3t" in entry["error"]) == ("command", False)
    tried.stopped(entry["error"])
    tried = attack("find it in any table, the log file, the console")
    wait_until(lambda: len(worker.events("end")) == 3, what="all ends")
    assert traces(jobs, worker.log, worker.console) == []
    tried.stopped("not there")

    tried = attack("carry a secret header to another origin by a redirect")
    other = f"http://localhost:{echo.server_port}"
    worker.stop()
    start(*ALL, "--http-allow", "127.0.0.1,localhost", **NAMED)
    follow = "X-Token: ${secret:TOKEN}\nAuthorization: plain\nX-Other: kept\nFollow-Redirects: 3"
    jobs.end(jobs.run("http", f"{base}/to/{other}/there\n{follow}"))
    _, headers, _ = next(seen for seen in echo.seen if seen[0] == "/there")
    assert "X-Token" not in headers
    assert "Authorization" not in headers
    assert headers["X-Other"] == "kept"
    tried.stopped("headers with a secret, Authorization and Cookie stay behind")
    tried = attack("carry a secret in the body to another origin by a redirect (307)")
    entry = jobs.end(
        jobs.start(
            jobs.add(
                "http", f"POST {base}/to/{other}/body\n{follow}", args={"t": "${secret:TOKEN}"}
            )
        )
    )
    assert "/body" not in [path for path, _, _ in echo.seen]
    tried.stopped(entry["error"])


def test_who_was_not_granted_it_does_not_get_it(
    jobs: Jobs, start: Start, echo: Server, bob: psycopg.Connection, attack: Attack
) -> None:
    start(*ALL, **NAMED)
    jobs.db.execute("grant rowcron_shell, rowcron_http to bob")
    base = f"http://127.0.0.1:{echo.server_port}"
    grant(jobs)
    theirs = Jobs(bob, jobs.db)
    tried = attack("name another's secret in a job")
    with pytest.raises(psycopg.Error, match="may not use the secret") as caught:
        theirs.add("shell", 'echo "${secret:TOKEN}"')
    assert caught.value.sqlstate == "RCSEC"
    tried.stopped(str(caught.value.diag.message_primary))
    tried = attack("grant it to oneself")
    with pytest.raises(psycopg.Error, match="may not grant secrets") as caught:
        bob.execute("select rowcron.grant_secret('TOKEN', 'bob')")
    tried.stopped(str(caught.value.diag.message_primary))
    tried = attack("read the variable that another's shell job is given")
    entry = theirs.end(theirs.run("shell", 'echo "got: $ROWCRON_SECRET_TOKEN."'))
    assert entry["output"] == "got: .\n"
    tried.stopped("it is set for runs that name it only")
    tried = attack("name it in the args of a run, as whoever fills in a form might")
    name = jobs.add("http", f"POST {base}/data\nX-Token: ${{secret:TOKEN}}")
    jobs.end(jobs.start(name, {"comment": "${secret:TOKEN}"}))
    assert json.loads(echo.seen[-1][2]) == {"comment": "${secret:TOKEN}"}
    assert echo.seen[-1][1]["X-Token"] == TOKEN
    tried.stopped("a run's own args are data and go as they are")
    tried = attack("use it after the grant was taken back")
    run = jobs.start(name)
    jobs.end(run)
    jobs.db.execute("select rowcron.revoke_secret('TOKEN', 'alice')")
    before = len(echo.seen)
    entry = jobs.end(jobs.start(name))
    assert (entry["outcome"], entry["reason"]) == ("failed", "secret")
    assert len(echo.seen) == before
    tried.stopped(entry["error"])
    grant(jobs, "UNSET")
    tried = attack("name a secret that was granted and that no worker has")
    entry = jobs.end(jobs.run("http", f"{base}/${{secret:UNSET}}"))
    assert (entry["reason"], "ROWCRON_SECRET_UNSET" in entry["error"]) == ("secret", True)
    tried.stopped(entry["error"])


@pytest.mark.parametrize("claimed", ["long", "short", "fired"])
def test_runs_that_are_claimed_together_get_it_each(
    jobs: Jobs, start: Start, echo: Server, attack: Attack, claimed: str
) -> None:
    """By a whole claim, by that of a sleeper that is woken, or as they are fired."""
    options = (*ALL, "--poll", "30", "--lease", "60")
    grant(jobs)
    command, args = f"POST http://127.0.0.1:{echo.server_port}/x", {"t": "${secret:TOKEN}"}
    tried = attack("have it filled into one run's own args by another's, or left out of one")
    if claimed == "fired":
        schedule = {"schedule": "* * * * * *", "on_missed": "all", "on_overlap": "allow"}
        jobs.add("http", command, args=args, max_runs=4, **schedule)
        jobs.db.execute(
            "update rowcron.agenda set next_run_at = next_run_at - interval '4 s',"
            " high_water = high_water - interval '5 s'"
        )
        start(*options, **NAMED)
        wait_until(lambda: len(echo.seen) == 4, what="all of them")
        assert [json.loads(body) for _, _, body in echo.seen] == [{"t": TOKEN}] * 4
        tried.stopped("each is filled in")
        return
    literal = {"comment": "${secret:TOKEN}"}
    orders = [[None] * 3, [literal, None, None], [None, literal, None], [None, None, literal]]
    orders += [[None, literal, literal], [literal, None, literal], [literal, literal, literal]]
    if claimed == "short":
        start(*options, **NAMED)
    for order in orders:
        if claimed == "short":
            wait_until(lambda: asleep(jobs.db), what="its sleep")
        name = jobs.add("http", command, args=args)
        with jobs.owner.transaction():
            runs = [jobs.start(name, own) for own in order]
        worker = start(*options, **NAMED) if claimed == "long" else None
        ends = [jobs.end(run) for run in runs]
        assert len({end["started_at"] for end in ends}) == 1, "together"
        if worker:
            worker.stop()
        sent = sorted(json.dumps(json.loads(body)) for _, _, body in echo.seen[-3:])
        assert sent == sorted(json.dumps(own or {"t": TOKEN}) for own in order), order
        assert [end["outcome"] for end in ends] == ["succeeded"] * 3
    tried.stopped("those with the job's args are filled in, those with their own go as they are")


def test_values_stay_where_they_are_put(
    jobs: Jobs, start: Start, echo: Server, attack: Attack, tmp_path: Path
) -> None:
    place = tmp_path / "secrets"
    place.mkdir()
    (place / "FILED").write_text(FILED + "\n", "utf-8")
    (tmp_path / "OUTSIDE").write_text("outside-of-it", "utf-8")
    start(
        *ALL, "--secrets-dir", str(place),
        ROWCRON_SECRET_LINES="one-line\nX-Injected: yes", ROWCRON_SECRET_SHORT="1234",
        ROWCRON_SECRET_HOST="127.0.0.1/../@[::1]", ROWCRON_SECRET_NEW="x" * 20_000,
        ROWCRON_SECRET_BYTES="\udcff" * 20,
    )  # fmt: skip
    for name in ("FILED", "LINES", "SHORT", "HOST", "NEW", "BYTES"):
        grant(jobs, name)
    base = f"http://127.0.0.1:{echo.server_port}"
    run = jobs.run("http", f"{base}/f\nX-Token: ${{secret:FILED}}")
    assert jobs.end(run)["outcome"] == "succeeded"
    assert echo.seen[-1][1]["X-Token"] == FILED
    (place / "FILED").write_text("changed-meanwhile", "utf-8")
    jobs.end(jobs.run("http", f"{base}/f\nX-Token: ${{secret:FILED}}"))
    assert echo.seen[-1][1]["X-Token"] == "changed-meanwhile"
    for name in ("../OUTSIDE", "/etc/passwd", "FILED/../../OUTSIDE", "."):
        tried = attack(f"${{secret:{name}}}: a file outside of --secrets-dir")
        with pytest.raises(psycopg.Error, match="is not a secret's name") as caught:
            jobs.add("http", f"{base}/${{secret:{name}}}")
        tried.stopped(str(caught.value.diag.message_primary))
    cases = {
        "a header, by a value of two lines": f"{base}/h\nX-Token: ${{secret:LINES}}",
        "a secret of 4 bytes, which could be guessed by its blanks": f"{base}/${{secret:SHORT}}",
        "a secret of 20 kB": f"{base}/${{secret:NEW}}",
        "another host, by a value with / and @": f"http://a${{secret:HOST}}:{echo.server_port}/h",
    }
    before = len(echo.seen)
    entry = jobs.end(jobs.run("http", f"{base}/${{secret:BYTES}}", max_attempts=3))
    assert (entry["reason"], entry["attempt"]) == ("secret", 1)
    assert entry["error"] == "secret BYTES is not UTF-8"
    for what, command in cases.items():
        tried = attack(f"inject {what}" if "header" in what or "host" in what else what)
        entry = jobs.end(jobs.run("http", command))
        assert (entry["outcome"], entry["reason"]) in (
            ("failed", "command"), ("failed", "secret"), ("failed", "connection"),
        ), entry  # fmt: skip
        assert "X-Injected" not in entry["error"]
        tried.stopped(entry["error"])
    assert len(echo.seen) == before


def test_whoever_has_a_secret_can_give_it_away(jobs: Jobs, start: Start, attack: Attack) -> None:
    start(*ALL, **NAMED)
    grant(jobs)
    tried = attack("print a granted secret backwards")
    entry = jobs.end(jobs.run("shell", 'printf %s "${secret:TOKEN}" | rev'))
    assert "nek0T" in entry["output"]
    tried.possible("blanking is against accidents; a grant is trust")
    tried = attack("name it within single quotes")
    entry = jobs.end(jobs.run("shell", "echo '${secret:TOKEN}'"))
    assert entry["output"] == "${ROWCRON_SECRET_TOKEN}\n"
    tried.possible("a shell leaves it alone there: the name is printed, not the value")


def test_blanking_finds_what_was_done_to_a_value(attack: Attack) -> None:
    blanker = Blanker([TOKEN])
    nested = json.dumps({"a": json.dumps({"b": TOKEN})})
    forms = {
        "URL-encoded": quote(TOKEN, safe=""),
        "URL-encoded in part": quote(TOKEN),
        "URL-encoded, + for blanks": quote_plus(TOKEN),
        "URL-encoded twice": quote(quote(TOKEN, safe=""), safe=""),
        "as JSON": json.dumps(TOKEN),
        "as JSON, ASCII not needed": json.dumps(TOKEN, ensure_ascii=False),
        "as JSON within JSON": nested,
        "as Python's repr": repr(TOKEN),
        "quoted by a shell": shlex.quote(TOKEN),
        "quoted by ls": TOKEN.replace("'", "'\\''"),
        "as HTML": TOKEN.replace("&", "&amp;").replace('"', "&quot;").replace("'", "&#39;"),
        "as bytes' repr": repr(TOKEN.encode()),
    }
    for n in range(3):
        text = b"ab"[:n] + TOKEN.encode() + b"tail"
        forms[f"as base64, {n} bytes ahead"] = base64.b64encode(text).decode()
        forms[f"as URL-safe base64, {n} bytes ahead"] = base64.urlsafe_b64encode(text).decode()
    for what, text in forms.items():
        tried = attack(f"the value {what}")
        shown = blanker.text(f"<{text}>") or ""
        assert "***" in shown, (what, shown)
        assert "3cr3t" not in shown
        tried.stopped(shown)
    assert blanker.text("nothing to see, 100% & more") == "nothing to see, 100% & more"
    begin = time.monotonic()
    blanker.head(os.urandom(400_000))
    Blanker([(ROOT / "LICENSE").read_text("utf-8")[:3000]]).head(b"%41\\u0041" * 20_000)
    assert time.monotonic() - begin < 5
