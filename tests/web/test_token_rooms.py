"""Tokens share the connections of one login: whose requests wait, and for what."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed

import httpx
import psycopg
import pytest

from harness import Database, wait_until
from rowcron.web.settings import WebSettings
from web.site import WEB, Bearer, Site, psql_as


def test_a_role_whose_requests_all_wait_stops_no_other_role_s_tokens(
    shared: Database, bearer: Bearer
) -> None:
    site = Site(WebSettings(conninfo=shared.url(WEB), requests=8))
    ada, vic = bearer("ada", site), bearer("vic", site)
    path = ada.post("/api/jobs", json={"name": "held", "command": "x"}).headers["location"]

    def change(_: int) -> httpx.Response:
        return ada.patch(path, json={"priority": 1}, headers={"If-Match": "*"})

    try:
        with psql_as(shared, "ada") as conn, ThreadPoolExecutor(12) as pool:
            conn.autocommit = False
            conn.execute("update rowcron.job set priority = 2 where name = 'held'")
            asked = [pool.submit(change, number) for number in range(12)]
            refused = as_completed(asked, 20)
            assert [next(refused).result().status_code for _ in range(4)] == [429] * 4
            answers = [vic.get("/api/me"), vic.get("/api/ready"), ada.get("/api/me")]
            held = [answer for answer in asked if not answer.done()]
            conn.rollback()
            late = [answer.result().status_code for answer in held]
        assert [answer.status_code for answer in answers] == [200, 200, 429], "only hers wait"
        assert late == [200] * 8
    finally:
        site.stop()


@pytest.mark.parametrize(
    ("end", "back"),
    [("select rowcron.revoke_token(max(id)) from rowcron.token", "select"),
     ("alter role ada nologin", "alter role ada login")],
)  # fmt: skip
def test_a_token_that_ends_serves_no_request_that_still_waits_for_room(
    own: Site, shared: Database, root: psycopg.Connection, bearer: Bearer, end: str, back: str
) -> None:
    ada = bearer("ada", own)
    job = {"name": f"line {len(end)}", "command": "x"}
    path = ada.post("/api/jobs", json=job).headers["location"]
    id_ = int(path.rpartition("/")[2])

    def change(priority: int) -> httpx.Response:
        return ada.patch(path, json={"priority": priority}, headers={"If-Match": "*"})

    with ThreadPoolExecutor(4) as pool:
        with root.transaction():
            root.execute("select from rowcron.job where id = %s for update", [id_])
            asked = [pool.submit(change, number) for number in range(3)]
            wait_until(lambda: own.state.pool._lent == 3, what="three that wait for the lock")
            last = pool.submit(change, 77)
            wait_until(lambda: own.state.pool._rooms["ada"]._asking == 4, what="one in line")
            with psycopg.connect(shared.url("postgres"), autocommit=True) as other:
                other.execute(end.encode())
        try:
            answer = last.result()
            begun = [answer.result().status_code for answer in asked]
        finally:
            root.execute(back.encode())
    assert answer.status_code == 401, answer.text
    assert answer.json()["title"] == "the token is not valid"
    assert begun == [200] * 3
    found = root.execute("select priority from rowcron.job where id = %s", [id_]).fetchone()
    assert found is not None
    assert found[0] in range(3)


def test_two_roles_whose_requests_all_wait_leave_a_connection_to_other_roles_tokens(
    own: Site, root: psycopg.Connection, bearer: Bearer
) -> None:
    ada, otto, vic = (bearer(role, own) for role in ("ada", "otto", "vic"))
    with ThreadPoolExecutor(8) as pool:
        with root.transaction():
            root.execute("lock table rowcron.job in access exclusive mode")
            asked = [pool.submit(client.get, "/api/jobs") for client in (ada, otto) * 4]
            rooms = own.state.pool._rooms
            wait_until(
                lambda: [rooms[role]._asking for role in ("ada", "otto")] == [4, 4],
                what="more of both roles than have room",
            )
            answers = [vic.get("/api/me").status_code for _ in range(3)]
            held = [answer.done() for answer in asked]
        late = [answer.result().status_code for answer in asked]
    assert answers == [200] * 3
    assert held == [False] * 8, "others are answered while all of theirs wait"
    assert late == [200] * 8
