"""http jobs that reach for what is near the worker, and answers that never end."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import httpcore
import psycopg
import pytest

from attack.conftest import Attack
from rowcron.addresses import Gate
from rowcron.guarded import Blocked, GuardedBackend
from rowcron.lookups import Lookups
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
NOTHING = ("--http-allow", "203.0.113.1")  # else the tests' own allowance
PUBLIC = "93.184.216.34"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as its path says, in ways that no good server does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer; all methods do the same."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, dict(self.headers.items()), body))  # type: ignore[attr-defined]
        what, _, rest = self.path[1:].partition("/")
        try:
            getattr(self, f"do_{what}", self.plain)(rest)
        except OSError:
            self.close_connection = True

    do_POST = do_PUT = do_HEAD = do_GET

    def plain(self, _: str) -> None:
        """A short answer with a cookie."""
        self.answer(200, b"canary", ("Set-Cookie", "session=of-somebody; Path=/"))

    def answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        """An ordinary answer."""
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_to(self, rest: str) -> None:
        """Redirect: /to/302/URL."""
        status, _, target = rest.partition("/")
        self.answer(int(status), b"moved", ("Location", target or self.path))

    def do_endless(self, _: str) -> None:
        """A body of 10 GB."""
        self.send_response(200)
        self.send_header("Content-Length", str(10**10))
        self.end_headers()
        block = b"x" * 65_536
        for _number in range(10**10 // len(block)):
            self.wfile.write(block)

    def do_bomb(self, _: str) -> None:
        """1 GB of zeros, packed into 1 MB."""
        self.answer(200, self.server.bomb, ("Content-Encoding", "gzip"))  # type: ignore[attr-defined]

    def do_drip(self, _: str) -> None:
        """A byte of the body now and then."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.drip(b"x")

    def do_header_drip(self, _: str) -> None:
        """A header now and then."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        self.drip(b"X-A: b\r\n")

    def do_continue(self, _: str) -> None:
        """An interim answer now and then, never the last one."""
        self.drip(b"HTTP/1.1 100 Continue\r\n\r\n")

    def do_headers(self, _: str) -> None:
        """Headers without end."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _number in range(10**6):
            self.wfile.write(b"X-A: " + b"b" * 1000 + b"\r\n")

    def do_garbage(self, _: str) -> None:
        """Not HTTP."""
        self.wfile.write(b"\x1b[2J\0\xff SSH-2.0-OpenSSH_9\r\n\r\n")
        self.close_connection = True

    def do_surplus(self, rest: str) -> None:
        """An answer that ends with its head, and what was asked for all the same."""
        head = b"204 No Content" if self.command != "HEAD" else b"200 OK\r\nContent-Length: 9"
        self.wfile.write(b"HTTP/1.1 " + head + b"\r\n\r\n" + unquote_to_bytes(rest))

    def drip(self, what: bytes) -> None:
        """Write it again and again, slowly."""
        for _number in range(600):
            self.wfile.write(what)
            self.wfile.flush()
            time.sleep(0.1)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Web(http.server.ThreadingHTTPServer):
    """A server on loopback; `seen` holds its requests."""

    daemon_threads = True
    bomb = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[], Web]]:
    """Starts servers."""
    servers: list[Web] = []

    def begin() -> Web:
        server = Web()
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def test_nothing_near_is_reached(
    jobs: Jobs, start: Start, serve: Callable[[], Web], attack: Attack
) -> None:
    canary = serve()
    start(*NOTHING)
    port = canary.server_port
    hosts = {
        "loopback": "127.0.0.1",
        "loopback, another": "127.255.255.254",
        "loopback by name": "localhost",
        "loopback by the machine's own name": socket.gethostname(),
        "loopback in one number": "2130706433",
        "loopback in hexadecimal": "0x7f.1",
        "loopback in octal": "0177.0.0.1",
        "loopback, short": "127.1",
        "loopback in circled digits": "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
        "loopback behind a user name": "example.org@127.0.0.1",
        "loopback in IPv6": "[::1]",
        "loopback mapped into IPv6": "[::ffff:127.0.0.1]",
        "loopback compatible with IPv6": "[::127.0.0.1]",
        "loopback behind NAT64": "[64:ff9b::7f00:1]",
        "loopback behind 6to4": "[2002:7f00:1::]",
        "unspecified": "0.0.0.0",
        "unspecified in IPv6": "[::]",
        "metadata of most clouds": "169.254.169.254",
        "metadata in one number": "2852039166",
        "metadata mapped into IPv6": "[::ffff:a9fe:a9fe]",
        "metadata translated to IPv6": "[::ffff:0:a9fe:a9fe]",
        "metadata in IPv6 (AWS)": "[fd00:ec2::254]",
        "metadata of Alibaba": "100.100.100.200",
        "metadata of Azure": "168.63.129.16",
        "metadata of Oracle": "192.0.0.192",
        "private 10/8": "10.1.2.3",
        "private 172.16/12": "172.31.0.1",
        "private 192.168/16": "192.168.1.1",
        "unique local IPv6": "[fc00::1]",
        "link-local IPv6": "[fe80::1]",
        "site-local IPv6": "[fec0::1]",
        "carrier NAT": "100.64.0.1",
        "multicast": "224.0.0.1",
        "multicast IPv6": "[ff02::1]",
        "broadcast": "255.255.255.255",
        "benchmarks": "198.18.0.1",
        "documentation": "192.0.2.1",
    }
    runs = {
        what: jobs.run("http", f"http://{host}:{port}/x", timeout="20 s")
        for what, host in hosts.items()
    }
    for what, run in runs.items():
        tried = attack(f"{what}: http://{hosts[what]}/")
        entry = jobs.end(run, 60)
        assert entry["outcome"] == "failed"
        assert entry["reason"] in ("blocked", "command"), (what, entry)
        assert entry["reason"] == "command" or "--http-allow" in entry["error"]
        tried.stopped(entry["error"].partition(";")[0])
    assert canary.seen == []


def test_a_host_or_range_can_be_allowed(
    jobs: Jobs, start: Start, serve: Callable[[], Web], attack: Attack
) -> None:
    allowed, canary = serve(), serve()
    start("--http-allow", f"127.0.0.1:{allowed.server_port}", "--http-allow", "*.lan,10.0.0.0/8")
    good = jobs.run("http", f"http://127.0.0.1:{allowed.server_port}/x")
    assert jobs.end(good)["outcome"] == "succeeded"
    tried = attack("another port of an address of which one port is allowed")
    entry = jobs.end(jobs.run("http", f"http://127.0.0.1:{canary.server_port}/x"))
    assert entry["reason"] == "blocked"
    tried.stopped(entry["error"].partition(";")[0])
    assert canary.seen == []


def test_redirects_are_judged_like_the_first(
    jobs: Jobs, start: Start, serve: Callable[[], Web], attack: Attack
) -> None:
    web, canary = serve(), serve()
    start("--http-allow", f"127.0.0.1:{web.server_port}")
    base = f"http://127.0.0.1:{web.server_port}"
    tried = attack("a redirect, without Follow-Redirects")
    entry = jobs.end(jobs.run("http", f"{base}/to/302/http://169.254.169.254/latest/meta-data/"))
    assert (entry["reason"], "not followed" in entry["error"]) == ("status", True)
    tried.stopped(entry["error"])
    targets = {
        "to the metadata service": "http://169.254.169.254/latest/meta-data/iam/",
        "to loopback": f"http://127.0.0.1:{canary.server_port}/",
        "to loopback by name": f"http://localhost:{canary.server_port}/",
        "to loopback without a scheme": f"//127.1:{canary.server_port}/",
        "over a redirect that is allowed": f"{base}/to/302/http://[::1]:{canary.server_port}/",
    }
    for what, target in targets.items():
        for status in (301, 302, 303, 307, 308):
            command = f"{base}/to/{status}/{target}\nFollow-Redirects: 5"
            entry = jobs.end(jobs.run("http", command))
            assert (entry["outcome"], entry["reason"]) == ("failed", "blocked"), entry
        attack(f"Follow-Redirects: 5 {what}: {target}").stopped(entry["error"].partition(";")[0])
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:6379/_FLUSHALL"):
        tried = attack(f"Follow-Redirects to {target}")
        entry = jobs.end(jobs.run("http", f"{base}/to/302/{target}\nFollow-Redirects: 5"))
        assert entry["reason"] == "status"
        tried.stopped(entry["error"])
    tried = attack("redirects in a circle")
    entry = jobs.end(jobs.run("http", f"{base}/to/302\nFollow-Redirects: 3"))
    assert entry["reason"] == "status"
    assert len([path for _, path, _, _ in web.seen if path == "/to/302"]) == 4
    tried.stopped(entry["error"])
    assert canary.seen == []
    nowhere = jobs.run("http", f"{base}/to/302/http://127.0.0.1:99999/\nFollow-Redirects: 1")
    assert jobs.end(nowhere)["reason"] == "status"
    assert jobs.end(nowhere)["error"].endswith("not followed: its Location is no URL")
    followed = jobs.run("http", f"{base}/to/302/{base}/x\nFollow-Redirects: 1")
    assert jobs.end(followed)["output"] == "canary"


def answers(*rounds: list[str]) -> Callable[..., Any]:
    """A resolver that answers differently each time."""
    left = list(rounds)

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        found = left.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in found]

    return getaddrinfo


class Recorder(httpcore.AsyncNetworkBackend):
    """Notes where it is told to connect, and refuses."""

    def __init__(self) -> None:
        self.where: list[str] = []

    async def connect_tcp(self, host: str, *_: Any, **__: Any) -> Any:
        """Note it."""
        self.where.append(host)
        raise httpcore.ConnectError("nobody there")


def test_a_name_that_changes_its_mind(monkeypatch: pytest.MonkeyPatch, attack: Attack) -> None:
    """The resolver is made up, for want of a name server; what connects is the worker's own."""

    async def reach(backend: GuardedBackend) -> str:
        try:
            await backend.connect_tcp("rebind.example", 80, 5.0)
        except Blocked:
            return "blocked"
        except httpcore.ConnectError:
            return "tried"
        return "connected"

    async def attempts(*rounds: list[str]) -> tuple[list[str], list[str]]:
        recorder = Recorder()
        backend = GuardedBackend(Gate(), Lookups(), "alice", recorder)
        monkeypatch.setattr("rowcron.lookups.socket.getaddrinfo", answers(*rounds))
        return [await reach(backend) for _ in rounds], recorder.where

    tried = attack("DNS: public when judged, 127.0.0.1 when connected (rebinding)")
    assert asyncio.run(attempts([PUBLIC], ["127.0.0.1"])) == (["tried", "blocked"], [PUBLIC])
    tried.stopped("asked once a connection; the connection goes to the address that was judged")
    tried = attack("DNS: public and private addresses in one answer")
    assert asyncio.run(attempts(["127.0.0.1", PUBLIC, "10.0.0.1"])) == (["tried"], [PUBLIC])
    tried.stopped("only the public ones are tried")
    tried = attack("DNS: all private")
    assert asyncio.run(attempts(["10.0.0.1", "::1"])) == (["blocked"], [])
    tried.stopped("blocked")


def test_a_gate_opens_what_it_is_told(attack: Attack) -> None:
    gate = Gate(["shop.internal:8080", "*.lan", "10.0.0.0/8"])
    assert gate.names("SHOP.internal.", 8080)
    assert gate.names("a.b.lan", 1)
    for host, port in (
        ("shop.internal", 80),
        ("lan", 80),
        ("evillan", 80),
        ("x.shop.internal", 8080),
    ):
        tried = attack(f"{host}:{port} where shop.internal:8080 and *.lan are allowed")
        assert not gate.names(host, port)
        tried.stopped("names are compared as a whole, label by label")
    for bad in ("10.0.0.0/99", "a/b", "10.0.0", "", "http://x"):
        with pytest.raises(ValueError, match="address, range or host"):
            Gate([bad])


def test_answers_are_bounded_in_size_and_time(
    jobs: Jobs, start: Start, serve: Callable[[], Web], attack: Attack
) -> None:
    web = serve()
    web.bomb = gzip.compress(bytes(10**9), 1)
    worker = start()
    base = f"http://127.0.0.1:{web.server_port}"
    jobs.end(jobs.run("http", f"{base}/x"))
    for what, path, reason in (
        ("a body of 10 GB", "endless", None),
        ("a gzip bomb of 1 GB", "bomb", None),
        ("a body that drips, a byte each 100 ms", "drip", "timeout"),
        ("headers that drip", "header_drip", "timeout"),
        ("interim answers without end", "continue", "timeout"),
        ("headers without end", "headers", "connection"),
        ("an answer that is not HTTP, with escape sequences", "garbage", "connection"),
    ):
        tried = attack(what)
        timeout = "1 s" if reason == "timeout" else "5 s"
        begin = time.monotonic()
        entry = jobs.end(jobs.run("http", f"{base}/{path}", timeout=timeout))
        took = time.monotonic() - begin
        assert entry["reason"] == reason, entry
        assert took < 15
        assert len((entry["output"] or "").encode()) <= 65_536
        tried.stopped(
            f"{entry['outcome']} in {took:.1f} s: {entry['error'] or 'the first 64 KiB are kept'}"
        )
    lines = Path(f"/proc/{worker.process.pid}/status").read_text("utf-8").splitlines()
    peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    assert peak < 150_000


def test_what_follows_an_answer_answers_nobody(
    jobs: Jobs, start: Start, serve: Callable[[], Web], bob: psycopg.Connection, attack: Attack
) -> None:
    web = serve()
    start("--concurrency", "1")
    base = f"http://127.0.0.1:{web.server_port}"
    jobs.db.execute("grant rowcron_http to bob")
    theirs = Jobs(bob, jobs.db)
    forged = quote("HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nforged for bob", safe="")
    for method in ("HEAD", "GET"):
        tried = attack(f"leave an answer for the next owner's job: {method} that is given a body")
        sent = jobs.run("http", f"{method} {base}/surplus/{forged}")
        assert jobs.end(sent)["outcome"] == "succeeded"
        assert theirs.end(theirs.run("http", f"POST {base}/bobs-account"))["output"] == "canary"
        tried.stopped("each run has connections of its own")


def test_names_that_nobody_answers_for_hold_up_no_other_owner(
    jobs: Jobs, start: Start, serve: Callable[[], Web], bob: psycopg.Connection, attack: Attack
) -> None:
    web = serve()
    allow = ("--http-allow", "127.0.0.1,localhost", "--app", "slow_names")
    # uvloop asks the system behind Python's back
    options = ("--concurrency", "100", "--grace", "0", "--event-loop", "asyncio")
    worker = start(*allow, *options, "--handler-database-url", "")
    jobs.db.execute("grant rowcron_http to bob")
    theirs = Jobs(bob, jobs.db)
    tried = attack("have the worker look up names whose servers are silent, as many as it takes")
    runs = [jobs.run("http", f"http://n{n}.silent/", timeout="500 ms") for n in range(20)]
    for run in runs:
        assert jobs.end(run)["reason"] == "timeout"
    runs = [jobs.run("http", f"http://n{n}.silent/") for n in range(40)]
    for run in runs:
        jobs.wait_running(run)
    begin = time.monotonic()
    url = f"http://localhost:{web.server_port}/x"
    assert theirs.end(theirs.run("http", url))["output"] == "canary"
    assert time.monotonic() - begin < 5
    tried.stopped("of each owner 32 are looked up at a time, and nobody shares their threads")
    tried = attack("keep a worker from ending by them")
    worker.stop(limit=10)
    tried.stopped("they end with it")


def test_one_job_s_requests_do_not_colour_another_s(
    jobs: Jobs, start: Start, serve: Callable[[], Web], bob: psycopg.Connection, attack: Attack
) -> None:
    web, proxy = serve(), serve()
    address = f"http://127.0.0.1:{proxy.server_port}"
    start("--concurrency", "1", HTTP_PROXY=address, http_proxy=address, ALL_PROXY=address)
    base = f"http://127.0.0.1:{web.server_port}"
    tried = attack("send the cookies that another owner's job was given")
    assert jobs.end(jobs.run("http", f"{base}/first"))["outcome"] == "succeeded"
    jobs.db.execute("grant rowcron_http to bob")
    theirs = Jobs(bob, jobs.db)
    theirs.end(theirs.run("http", f"{base}/second"))
    assert "Cookie" not in next(h for _, path, h, _ in web.seen if path == "/second")
    tried.stopped("nothing is remembered between requests")
    tried = attack("have jobs go through a proxy by the environment's http_proxy")
    assert proxy.seen == []
    tried.stopped("no proxy is taken from the environment")
    for header in (
        "Content-Length: 4",
        "Transfer-Encoding: chunked",
        "Connection: upgrade",
        "Upgrade: h2c",
    ):
        tried = attack(f"smuggle a second request: {header}")
        smuggled = {"x": "GET /smuggled HTTP/1.1"}
        entry = jobs.end(jobs.run("http", f"POST {base}/p\n{header}", smuggled))
        assert (entry["outcome"], entry["reason"]) == ("failed", "command")
        tried.stopped(entry["error"])
    for line in ("X: a\x0bb", "X: a\x1b[2J", " X: a", "X a", "X\t: a"):
        tried = attack(f"a header line {line!r}")
        with pytest.raises(psycopg.Error, match="header line") as caught:
            jobs.add("http", f"{base}/x\n{line}")
        tried.stopped(str(caught.value).splitlines()[0])
    for line in ("X: a\rGET /smuggled HTTP/1.1", "X: a\u2028Y: b", "X: a\x85Y: b"):
        tried = attack(f"a header line {line!r}")
        entry = jobs.end(jobs.run("http", f"{base}/x\n{line}"))
        assert (entry["outcome"], entry["reason"]) == ("failed", "command")
        tried.stopped(entry["error"])
    assert all(len(headers) < 9 for _, _, headers, _ in web.seen)
    assert not [path for _, path, _, _ in web.seen if "smuggled" in path]
