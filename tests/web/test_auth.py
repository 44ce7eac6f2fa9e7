"""Who gets in, as whom, and for how long."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from harness import Database, TestServer, wait_until
from rowcron.web import actor
from rowcron.web.settings import WebSettings
from rowcron.web.signing import address_as
from web.site import WEB, Bearer, Site, password, proof_of, psql_as


def me(client: httpx.Client) -> str:
    answer = client.get("/api/me")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["role"])


def test_a_person_acts_as_the_role_that_signed_in(site: Site) -> None:
    with site.sign_in("ada") as ada, site.sign_in("vic") as vic:
        assert (me(ada), me(vic)) == ("ada", "vic")
        assert ada.get("/api/me").json() == {
            "role": "ada", "author": True, "operator": False, "viewer": False,
        }  # fmt: skip


def test_the_cookie_is_for_http_and_this_site_alone(site: Site) -> None:
    with site.client() as client:
        answer = client.post("/sign-in", data={"role": "ada", "password": password("ada")})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie  # over plain HTTP it would never come back


@pytest.mark.parametrize(
    ("role", "secret"),
    [("ada", "wrong"), ("ada", ""), ("nobody", "x"), ("", ""), ("ada\0", "x"), ("a da", "x"),
     ("ada password=x", "x"), ("ada", password("bea"))],
)  # fmt: skip
def test_a_wrong_password_and_an_unknown_role_are_answered_alike(
    site: Site, role: str, secret: str
) -> None:
    site.state.door.throttle._failures.clear()
    with site.client() as client:
        answer = client.post("/sign-in", data={"role": role, "password": secret})
        assert answer.status_code == 401
        assert "role or password is not right" in answer.text
        assert client.get("/api/me").status_code == 401


def test_a_server_that_asks_for_no_password_lets_nobody_in(site: Site) -> None:
    """The tests' server trusts alice: were that enough, anybody could be anybody."""
    site.state.door.throttle._failures.clear()
    with site.client() as client:
        answer = client.post("/sign-in", data={"role": "alice", "password": "anything"})
        assert answer.status_code == 403
        assert "asked for no password" in answer.text
        assert client.get("/api/me").status_code == 401


def test_signing_in_carries_nothing_of_the_process_s_own_login() -> None:
    info = (
        "postgresql://web:own@h/d?sslcert=c&sslkey=k&passfile=p&options=-crole%3Dx&sslmode=require"
    )
    parts = conninfo_to_dict(address_as(info, "a'b", "c d"))
    assert parts == {
        "host": "h", "dbname": "d", "sslmode": "require", "user": "a'b", "password": "c d",
        "passfile": "/dev/null",
    }  # fmt: skip


def test_after_five_failures_the_next_waits(site: Site) -> None:
    site.state.door.throttle._failures.clear()
    with site.client() as client:
        for _ in range(5):
            answer = client.post("/sign-in", data={"role": "bea", "password": "wrong"})
            assert answer.status_code == 401
        answer = client.post("/sign-in", data={"role": "bea", "password": password("bea")})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        other = client.post("/sign-in", data={"role": "ada", "password": password("ada")})
        assert other.status_code == 303, "another role is not locked out"
    site.state.door.throttle._failures.clear()


@pytest.fixture
def proxied(shared: Database) -> Iterator[Site]:
    """A web process behind a proxy."""
    site = Site(WebSettings(conninfo=shared.url(WEB), behind_proxy=True))
    yield site
    site.stop()


def test_behind_a_proxy_its_last_word_counts_and_not_its_client_s(proxied: Site) -> None:
    with proxied.client() as client:

        def tries(*forwarded: str) -> int:
            headers = [("X-Forwarded-For", text) for text in forwarded]
            given = {"role": "bea", "password": "wrong"}
            return client.post("/sign-in", data=given, headers=headers).status_code

        codes = [tries(f"10.9.8.{n}, 192.0.2.7") for n in range(5)]
        codes += [tries("10.0.0.1,192.0.2.7"), tries("10.0.0.1", "192.0.2.7:5000")]
        assert codes == [401] * 5 + [429] * 2
        assert tries("192.0.2.7, 192.0.2.8") == 401, "another address has its own failures"
        assert tries("[2001:db8::1]:9") == 401
        assert ("both", "2001:db8::1", "bea") in proxied.state.door.throttle._failures
        assert tries("nonsense") == 401, "who connects, then"
        assert ("both", "127.0.0.1", "bea") in proxied.state.door.throttle._failures
        given = {"role": "bea", "password": password("bea")}
        headers = {"X-Forwarded-For": "192.0.2.9", "X-Forwarded-Proto": "https"}
        assert "secure" in client.post("/sign-in", data=given, headers=headers).headers[
            "set-cookie"
        ].lower()  # fmt: skip


def test_without_a_proxy_nobody_says_who_they_are(site: Site) -> None:
    site.state.door.throttle._failures.clear()
    given = {"role": "bea", "password": "wrong"}
    with site.client() as client:
        client.post("/sign-in", data=given, headers={"X-Forwarded-For": "192.0.2.7"})
    assert ("both", "127.0.0.1", "bea") in site.state.door.throttle._failures
    site.state.door.throttle._failures.clear()


def test_a_role_s_passwords_are_guessed_slowly_from_many_addresses(proxied: Site) -> None:
    """And yet the role itself waits seconds at most, and not at all where it is known."""
    with proxied.client() as client:

        def tries(address: str, secret: str) -> httpx.Response:
            given = {"role": "bea", "password": secret}
            return client.post("/sign-in", data=given, headers={"X-Forwarded-For": address})

        assert tries("192.0.2.1", password("bea")).status_code == 303
        codes = {tries(f"198.51.100.{n}", "wrong").status_code for n in range(30)}
        assert codes == {401}
        throttle = proxied.state.door.throttle
        throttle.failed([("role", "", "bea")] * 20)
        late = tries("198.51.100.200", "wrong")
        assert late.status_code == 429
        assert 1 <= int(late.headers["retry-after"]) <= 11
        assert tries("192.0.2.1", password("bea")).status_code == 303, "bea is known there"
        given = {"role": "ada", "password": password("ada")}
        headers = {"X-Forwarded-For": "198.51.100.1"}
        assert client.post("/sign-in", data=given, headers=headers).status_code == 303


def test_sign_out_ends_the_session(site: Site) -> None:
    with site.sign_in("ada") as ada:
        cookie = dict(ada.cookies)
        answer = ada.post("/sign-out", data={"csrf": proof_of(ada)})
        assert answer.status_code == 303
    with site.client(cookies=cookie) as again:
        assert again.get("/api/me").status_code == 401


def test_a_change_with_a_cookie_needs_the_page_s_proof(site: Site) -> None:
    job = {"name": "forged", "command": "select 1"}
    with site.sign_in("ada") as ada, site.sign_in("ada") as other:
        proof = proof_of(ada)
        assert proof != proof_of(ada), "each page has another"
        for headers in ({}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": proof_of(other)}):
            answer = ada.post("/api/jobs", json=job, headers=headers)
            assert answer.status_code == 403, answer.text
        foreign = {"X-CSRF-Token": proof, "Sec-Fetch-Site": "cross-site"}
        assert ada.post("/api/jobs", json=job, headers=foreign).status_code == 403
        foreign = {"X-CSRF-Token": proof, "Origin": "https://evil.example"}
        assert ada.post("/api/jobs", json=job, headers=foreign).status_code == 403
        assert ada.post("/jobs/new", data=job).status_code == 403
        good = ada.post("/api/jobs", json=job, headers={"X-CSRF-Token": proof})
        assert good.status_code == 201, good.text


def test_another_site_cannot_sign_a_browser_in(site: Site) -> None:
    with site.client() as client:
        answer = client.post(
            "/sign-in",
            data={"role": "ada", "password": password("ada")},
            headers={"Origin": "https://evil.example"},
        )
        assert answer.status_code == 403


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil", "x", "/a\nb"])
def test_signing_in_leads_to_no_other_site(site: Site, to: str) -> None:
    with site.client() as client:
        given = {"role": "ada", "password": password("ada"), "next": to}
        assert client.post("/sign-in", data=given).headers["location"] == "/"


def test_only_names_of_ours_are_answered(site: Site) -> None:
    with site.client() as client:
        assert client.get("/api/health", headers={"Host": "evil.example"}).status_code == 421
        assert client.get("/api/health", headers={"Host": "localhost:1"}).status_code == 200


def test_a_token_acts_as_the_role_that_made_it(bearer: Bearer) -> None:
    assert me(bearer("ada")) == "ada"
    assert me(bearer("vic")) == "vic"


def test_a_token_needs_no_proof_and_sees_what_row_security_shows(
    bearer: Bearer, site: Site
) -> None:
    program = bearer("ada")
    made = program.post("/api/jobs", json={"name": "by token", "command": "select 1"})
    assert made.status_code == 201, made.text
    assert made.json()["owner"] == "ada"
    path = made.headers["location"]
    assert bearer("vic").get(path).status_code == 200, "a viewer sees all"
    with site.sign_in("bea") as bea:
        assert bea.get(path).status_code == 404, "another author nothing"


def test_a_viewer_changes_nothing(bearer: Bearer) -> None:
    answer = bearer("vic").post("/api/jobs", json={"name": "no", "command": "select 1"})
    assert (answer.status_code, answer.json()["code"]) == (403, "42501")


def test_the_web_process_acts_only_for_roles_granted_to_it(bearer: Bearer) -> None:
    answer = bearer("bea").get("/api/me")
    assert answer.status_code == 403
    assert 'grant "bea"' in answer.json()["hint"]


@pytest.mark.parametrize("token", ["", "x", "rowcron_" + "0" * 64, "x" * 300, "ü"])
def test_what_is_no_token_is_refused(site: Site, token: str) -> None:
    with site.client() as client:
        answer = client.get(
            "/api/me", headers={"Authorization": f"Bearer {token}".strip().encode()}
        )
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_revoked_and_an_expired_token_are_refused_at_once(
    site: Site, shared: Database, root: psycopg.Connection
) -> None:
    with psql_as(shared, "ada") as conn:
        tokens = [
            conn.execute("select rowcron.create_token(%s)", [label]).fetchone()[0]  # type: ignore[index]
            for label in ("revoked", "expired")
        ]
        with site.client() as client:

            def answers() -> list[int]:
                headers = [{"Authorization": f"Bearer {token}"} for token in tokens]
                return [client.get("/api/me", headers=each).status_code for each in headers]

            assert answers() == [200, 200]
            conn.execute(
                "select rowcron.revoke_token(id) from rowcron.token where label = 'revoked'"
            )
            assert answers() == [401, 200]
            root.execute(
                "update rowcron.token set created_at = now() - interval '2 h',"
                " expires_at = now() - interval '1 h' where label = 'expired'"
            )
            assert answers() == [401, 401]


@pytest.mark.parametrize(
    ("change", "back"),
    [("nologin", "login"), ("valid until '2020-01-01'", "valid until 'infinity'")],
)
def test_a_role_that_may_not_log_in_is_out_with_its_tokens_at_once(
    bearer: Bearer, root: psycopg.Connection, change: str, back: str
) -> None:
    program = bearer("vic")
    assert me(program) == "vic"
    root.execute(f"alter role vic {change}".encode())
    try:
        answer = program.get("/api/me")
        assert answer.status_code == 401
        assert "may no longer log in" in answer.json()["detail"]
    finally:
        root.execute(f"alter role vic {back}".encode())
    assert me(program) == "vic"


@pytest.mark.parametrize(
    ("role", "verb", "path", "status"),
    [("ada", "GET", "/api/jobs/999999", 404), ("vic", "POST", "/api/release", 403),
     ("bea", "GET", "/api/me", 403)],
)  # fmt: skip
def test_a_token_that_is_used_for_what_is_refused_was_used_all_the_same(
    bearer: Bearer, root: psycopg.Connection, role: str, verb: str, path: str, status: int
) -> None:
    program = bearer(role)
    assert program.request(verb, path).status_code == status
    token = root.execute("select t.used_at is not null from rowcron.token as t order by t.id desc")
    assert token.fetchone() == (True,)


def test_one_request_after_another_leaves_no_role_behind(bearer: Bearer, site: Site) -> None:
    """The pool's connections are shared by all tokens: none may still be somebody."""
    ada, vic = bearer("ada"), bearer("vic")
    for _ in range(5):
        assert (me(ada), me(vic)) == ("ada", "vic")
        broken = ada.get("/api/schedule/next", params={"schedule": "nonsense"})
        assert broken.status_code == 422
        assert site.ask_pool("select current_user::text") == WEB
    with site.client() as client:
        assert client.get("/api/jobs").status_code == 401


def test_a_login_without_rowcron_web_serves_people_but_no_tokens(
    people: TestServer, shared: Database, bearer: Bearer
) -> None:
    own = Site(WebSettings(conninfo=shared.url("w_worker")))
    try:
        with own.sign_in("ada") as ada:
            assert me(ada) == "ada"
        answer = bearer("ada", own).get("/api/me")
        assert answer.status_code == 401
        assert "rowcron_web" in answer.json()["hint"]
    finally:
        own.stop()


def test_a_role_that_may_no_longer_log_in_is_out(
    site: Site, root: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "PATIENCE", 0.5)
    with site.sign_in("otto") as otto:
        assert me(otto) == "otto"
        root.execute("alter role otto nologin")
        root.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'otto'"
        )
        try:
            assert wait_until(lambda: otto.get("/api/me").status_code == 401)
            assert otto.get("/", headers={"Accept": "text/html"}).headers["location"] == "/sign-in"
        finally:
            root.execute("alter role otto login")


@pytest.mark.once
def test_the_one_time_url_lets_in_once(shared: Database, tmp_path: Path) -> None:
    """`rowcron web` as a process: what it prints, whom that lets in, how it ends."""
    command = [sys.executable, "-m", "rowcron", "web", "--port", "0", "--as-login"]
    process = subprocess.Popen(
        [*command, "--database-url", shared.url("alice")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        found = re.search(
            r"(http://127\.0\.0\.1:\d+)(/sign-in\?code=\S+)", process.stdout.readline()
        )
        assert found is not None
        with httpx.Client(base_url=found[1]) as first, httpx.Client(base_url=found[1]) as second:
            assert first.get(found[2]).status_code == 303
            assert me(first) == "alice"
            assert second.get(found[2]).status_code == 403
            assert second.get("/api/me").status_code == 401
        again = process.stdout.readline()
        assert "/sign-in?code=" in again
        assert found[2] not in again
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
        process.stdout.close()


def test_whoever_looks_at_the_one_time_url_with_head_does_not_use_it(shared: Database) -> None:
    site = Site(WebSettings(conninfo=shared.url("alice"), as_login=True))
    try:
        code = {"code": site.state.codes.make()}
        with site.client() as preview, site.client() as person:
            looked = preview.head("/sign-in", params=code)
            assert (looked.status_code, "set-cookie" in looked.headers) == (200, False)
            assert preview.get("/api/me").status_code == 401
            assert person.get("/sign-in", params=code).status_code == 303
            assert me(person) == "alice"
    finally:
        site.stop()


@pytest.mark.once
@pytest.mark.parametrize(
    "url", ["postgresql+psycopg2://u:se-cret@127.0.0.1/app", "host=/tmp password='se-cret"]
)
def test_an_address_that_cannot_be_read_is_refused_at_the_start(url: str) -> None:
    command = [sys.executable, "-m", "rowcron", "web", "--port", "0", "--database-url", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout
    assert "Open:" not in done.stdout
    assert "--database-url cannot be read" in done.stderr
    assert "postgresql://" in done.stderr.partition("Hint:")[2]
    assert "se-cret" not in done.stdout + done.stderr


def test_the_web_process_s_own_login_has_no_rights(shared: Database) -> None:
    with psycopg.connect(shared.url(WEB), autocommit=True) as conn:
        for query in ("select * from rowcron.job", "select rowcron.version()"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(query.encode())
