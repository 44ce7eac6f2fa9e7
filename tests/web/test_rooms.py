"""A login that has no further connection: the session goes on. One that is shut out: it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest

from harness import Database, wait_until
from rowcron.web import actor
from rowcron.web.settings import WebSettings
from web.site import WEB, Site, password, proof_of, psql_as

PAGE = {"Accept": "text/html"}


@contextlib.contextmanager
def limited(root: psycopg.Connection, role: str, limit: int) -> Iterator[None]:
    """The role may have so many connections."""
    root.execute(f"alter role {role} connection limit {limit}".encode())
    try:
        yield
    finally:
        root.execute(f"alter role {role} connection limit -1".encode())


def cut_off(root: psycopg.Connection, role: str) -> None:
    """End all of the role's connections."""
    query = "select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename = %s"
    root.execute(query, [role])


def test_requests_at_once_share_the_one_connection_that_a_role_may_have(
    own: Site, root: psycopg.Connection
) -> None:
    cut_off(root, "bea")
    with limited(root, "bea", 1), own.sign_in("bea") as bea, ThreadPoolExecutor(6) as pool:
        paths = ["/", "/jobs", "/api/me", "/api/jobs", "/timeline", "/"] * 3
        answers = list(pool.map(bea.get, paths))
        assert [answer.status_code for answer in answers] == [200] * len(paths)


def test_without_room_the_answer_is_503_and_the_session_goes_on(
    own: Site, shared: Database, root: psycopg.Connection
) -> None:
    with own.sign_in("bea") as bea, limited(root, "bea", 1):
        cut_off(root, "bea")
        with psql_as(shared, "bea"):  # elsewhere she has the one that she may have
            for headers in ({}, PAGE):
                answer = bea.get("/jobs", headers=headers)
                assert answer.status_code == 503, answer.text
                assert answer.headers["retry-after"]
                assert "no further connection of" in answer.text
        assert bea.get("/api/me").json()["role"] == "bea"


def test_signing_in_again_needs_no_second_connection(own: Site, root: psycopg.Connection) -> None:
    cut_off(root, "bea")
    with limited(root, "bea", 1), own.sign_in("bea") as first:
        for _ in range(7):
            with own.sign_in("bea") as second:
                assert second.get("/api/me").json()["role"] == "bea"
        assert first.get("/api/me").json()["role"] == "bea"
        with own.client() as client:
            given = {"role": "bea", "password": "wrong"}
            codes = [client.post("/sign-in", data=given).status_code for _ in range(6)]
            assert codes == [401] * 5 + [429], "what is wrong is told and counted as ever"


def test_signing_in_while_all_is_lent_says_so_and_counts_for_nothing(
    own: Site, root: psycopg.Connection
) -> None:
    cut_off(root, "bea")
    with (
        limited(root, "bea", 1),
        own.sign_in("bea") as first,
        own.client() as client,
        ThreadPoolExecutor(5) as pool,
    ):
        proof = {"X-CSRF-Token": proof_of(first)}
        body = {"name": "waits", "command": "select 1"}
        root.execute("begin")
        root.execute("lock table rowcron.job in access exclusive mode")
        waiting = pool.submit(first.post, "/api/jobs", json=body, headers=proof)
        wait_until(lambda: own.state.door.logins["bea"][1].pool._lent, what="the request")
        given = {"role": "bea", "password": password("bea")}
        for _ in range(2):  # more in all than are free; at once, as the lock is waited for 5 s
            for answer in pool.map(lambda _: client.post("/sign-in", data=given), range(4)):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert "no further connection" in answer.text
        root.execute("rollback")
        assert waiting.result().status_code == 201
        assert client.post("/sign-in", data=given).status_code == 303


def test_a_full_server_ends_no_session(
    own: Site, root: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is let in, the process's own login neither: that says nothing of the role."""
    monkeypatch.setattr(actor, "PATIENCE", 0.0)
    with own.sign_in("bea") as bea:
        with limited(root, "bea", 0), limited(root, WEB, 0):
            cut_off(root, "bea")
            for _ in range(3):
                assert bea.get("/api/me").status_code == 503
            with own.client() as client:
                given = {"role": "bea", "password": password("bea")}
                answer = client.post("/sign-in", data=given)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert bea.get("/api/me").status_code == 200


def test_a_role_whose_password_was_changed_is_out(
    own: Site, root: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "PATIENCE", 0.5)
    with own.sign_in("bea") as bea:
        root.execute("alter role bea password 'another'")
        try:
            cut_off(root, "bea")
            assert bea.get("/api/me").status_code == 503
            assert wait_until(lambda: bea.get("/api/me").status_code == 401)
            assert bea.get("/", headers=PAGE).headers["location"] == "/sign-in"
        finally:
            literal = password("bea").replace("'", "''")
            root.execute(f"alter role bea password '{literal}'".encode())
        assert bea.get("/api/me").status_code == 401, "its sessions are over"


def test_the_one_time_url_lets_in_after_a_refusal(
    shared: Database, root: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "PATIENCE", 0.0)
    root.execute("create role web_owner login")
    site = Site(WebSettings(conninfo=shared.url("web_owner"), as_login=True))
    try:

        def open_with_code(client: httpx.Client) -> httpx.Response:
            client.get("/sign-in", params={"code": site.state.codes.make()})
            return client.get("/api/me")

        with site.client() as first, site.client() as second:
            assert open_with_code(first).json()["role"] == "web_owner"
            with limited(root, "web_owner", 0):
                cut_off(root, "web_owner")
                for _ in range(3):
                    assert first.get("/api/me").status_code == 503
            assert first.get("/api/me").status_code == 200
            assert open_with_code(second).status_code == 200
    finally:
        site.stop()
        cut_off(root, "web_owner")
        root.execute("drop role web_owner")


def test_connections_that_were_cut_while_idle_are_not_handed_out(
    own: Site, root: psycopg.Connection
) -> None:
    """As a restart does: the first request after it is answered as any other."""
    with own.sign_in("bea") as bea, ThreadPoolExecutor(4) as pool:
        list(pool.map(bea.get, ["/"] * 8))
        assert len(own.state.door.logins["bea"][1].pool._idle) >= 1
        cut_off(root, "bea")
        answers = list(pool.map(bea.get, ["/api/me"] * 4))
        assert [answer.status_code for answer in answers] == [200] * 4
