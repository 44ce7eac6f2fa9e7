"""The HTTP API over a real database: what it does, what it refuses, and in whose words."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import Database
from rowcron.web.settings import WebSettings
from web.site import WEB, Bearer, Site, psql_as


@pytest.fixture(scope="module")
def api(bearer: Bearer) -> httpx.Client:
    """A program of ada's."""
    return bearer("ada")


def create(api: httpx.Client, name: str, **columns: Any) -> httpx.Response:
    answer = api.post("/api/jobs", json={"name": name, "command": "select 1", **columns})
    assert answer.status_code == 201, answer.text
    return answer


def test_a_job_is_created_read_changed_replaced_and_deleted(
    api: httpx.Client, ada: psycopg.Connection
) -> None:
    made = create(api, "whole life", schedule="0 3 * * *", timeout="10 minutes", priority=7)
    path, tag = made.headers["location"], made.headers["etag"]
    read = api.get(path)
    assert (read.json(), read.headers["etag"]) == (made.json(), tag)
    assert read.json()["timeout"] == "00:10:00"
    assert "03:00" in read.json()["english"]

    changed = api.patch(path, json={"schedule": "30 3 * * *", "description": "x"},
                        headers={"If-Match": tag})  # fmt: skip
    assert changed.status_code == 200, changed.text
    assert changed.json()["priority"] == 7, "what is not named stays"
    assert changed.headers["etag"] != tag

    body = {"name": "whole life", "command": "select 2"}
    replaced = api.put(path, json=body, headers={"If-Match": changed.headers["etag"]})
    assert replaced.status_code == 200, replaced.text
    told = replaced.json()
    assert (told["command"], told["priority"], told["schedule"]) == ("select 2", 0, None)
    assert (told["timeout"], told["description"]) == ("01:00:00", None)

    emptied = api.patch(path, json={"timezone": "Europe/Berlin"}, headers={"If-Match": "*"})
    assert emptied.json()["timezone"] == "Europe/Berlin"
    gone = api.delete(path, headers={"If-Match": emptied.headers["etag"]})
    assert (gone.status_code, gone.content) == (204, b"")
    assert api.get(path).status_code == 404
    row = ada.execute("select count(*) from rowcron.job where name = 'whole life'").fetchone()
    assert row == (0,)


def test_a_change_names_the_version_that_it_is_made_from(api: httpx.Client) -> None:
    made = create(api, "versions")
    path, tag = made.headers["location"], made.headers["etag"]
    assert api.patch(path, json={"priority": 1}).status_code == 428
    assert api.put(path, json={"name": "versions", "command": "x"}).status_code == 428
    assert api.delete(path).status_code == 428
    fresh = api.patch(path, json={"priority": 1}, headers={"If-Match": tag})
    late = api.patch(path, json={"priority": 2}, headers={"If-Match": tag})
    assert late.status_code == 412
    assert late.headers["etag"] == fresh.headers["etag"]
    assert api.delete(path, headers={"If-Match": tag}).status_code == 412
    assert api.get(path).json()["priority"] == 1
    assert api.get(path, headers={"If-None-Match": fresh.headers["etag"]}).status_code == 304


def test_of_many_changes_made_from_one_version_one_is_taken(api: httpx.Client) -> None:
    made = create(api, "race")
    path, headers = made.headers["location"], {"If-Match": made.headers["etag"]}

    def change(number: int) -> int:
        return api.patch(path, json={"priority": number}, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(change, range(8))) == [200] + [412] * 7


@pytest.mark.parametrize(
    ("columns", "status", "code", "field"),
    [
        ({"schedule": "61 * * * *"}, 422, "RCSCH", "schedule"),
        ({"timezone": "Mars/Olympus"}, 422, "RCTZN", "timezone"),
        ({"kind": "cobol"}, 422, "RCKND", "kind"),
        ({"name": "a.b"}, 422, "RCNAM", "name"),
        ({"queue": ""}, 422, "RCNAM", "queue"),
        ({"max_attempts": 0}, 422, "RCLIM", "max_attempts"),
        ({"timeout": "-1 s"}, 422, "RCLIM", "timeout"),
        ({"command": ""}, 422, "RCCMD", "command"),
        ({"kind": "http", "command": "ftp://x"}, 422, "RCCMD", "command"),
        ({"connection": "admin"}, 422, "RCCON", "connection"),
        ({"timeout": "soon"}, 422, "22007", None),
        ({"starts_at": "2030-13-01"}, 422, "22008", None),
        ({"description": "nul \0"}, 422, "22P05", None),
        ({"name": "taken"}, 409, "23505", "name"),
    ],
)
def test_the_database_s_verdict_is_handed_on_with_its_field(
    api: httpx.Client, ada: psycopg.Connection, columns: dict[str, Any], status: int, code: str,
    field: str | None,
) -> None:  # fmt: skip
    if columns.get("name") == "taken":
        create(api, "taken")
    body = {"name": "refused", "command": "select 1", **columns}
    answer = api.post("/api/jobs", json=body)
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["code"], problem.get("field")) == (status, code, field)
    assert problem["status"] == status
    if code.startswith("RC"):
        with pytest.raises(psycopg.Error) as told, ada.transaction():
            ada.execute(
                "insert into rowcron.job (name, kind, command, schedule, timezone, queue,"
                " max_attempts, timeout, connection) select r.name, coalesce(r.kind, 'sql'),"
                " r.command, r.schedule, coalesce(r.timezone, 'UTC'), coalesce(r.queue, 'default'),"
                " coalesce(r.max_attempts, 1), coalesce(r.timeout, '1 hour'), r.connection"
                " from jsonb_populate_record(null::rowcron.job, %s) as r",
                [json.dumps(body)],
            )
        diag = told.value.diag
        assert (problem["title"], problem.get("detail"), problem.get("hint")) == (
            diag.message_primary, diag.message_detail, diag.message_hint,
        ), "the words are psql's"  # fmt: skip


@pytest.mark.parametrize(
    "body", [{}, {"name": "x"}, {"name": "x", "command": 1}, {"name": "x", "command": "x", "no": 1},
             [], "x", {"name": "x", "command": "x", "priority": 2**31},
             {"name": "x", "command": "x", "priority": True},
             {"name": "x", "command": "x", "args": 1}]
)  # fmt: skip
def test_a_body_of_another_form_is_refused(api: httpx.Client, body: Any) -> None:
    answer = api.post("/api/jobs", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_dry_run_judges_and_stores_nothing(api: httpx.Client, ada: psycopg.Connection) -> None:
    body = {"name": "dry", "command": "select 1", "schedule": "@daily"}
    good = api.post("/api/jobs", params={"dry_run": True}, json=body)
    assert (good.status_code, good.json()["name"]) == (200, "dry")
    bad = api.post("/api/jobs", params={"dry_run": True}, json={**body, "schedule": "x"})
    assert bad.status_code == 422
    assert ada.execute("select count(*) from rowcron.job where name = 'dry'").fetchone() == (0,)


def test_args_come_back_to_the_last_digit(api: httpx.Client) -> None:
    args = '{"n": 12345678901234567890.123456789, "e": "\\u00e9", "deep": [[[null]]]}'
    text = f'{{"name": "digits", "command": "select 1", "args": {args}}}'
    made = api.post("/api/jobs", content=text, headers={"Content-Type": "application/json"})
    assert made.status_code == 201, made.text
    assert "12345678901234567890.123456789" in made.text


def test_a_page_follows_the_other_until_all_are_told(
    api: httpx.Client, ada: psycopg.Connection
) -> None:
    for number in range(7):
        create(api, f"page {number}", queue="pages")
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        params = {"queue": "pages", "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = api.get("/api/jobs", params=params).json()
        seen += [job["name"] for job in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert seen == [f"page {number}" for number in range(7)]
    assert api.get("/api/jobs", params={"cursor": "nonsense"}).status_code == 422


def test_pause_resume_and_run_are_the_functions_of_the_schema(
    api: httpx.Client, ada: psycopg.Connection
) -> None:
    made = create(api, "buttons", schedule="@hourly")
    path = made.headers["location"]
    assert api.post(f"{path}/pause").json()["enabled"] is False
    assert api.get(f"{path}/state").json()["verdict"] == "paused"
    gates = {gate["gate"]: gate for gate in api.get(f"{path}/why").json()["items"]}
    assert gates["paused"]["holds"] is True
    assert api.post(f"{path}/resume").json()["enabled"] is True
    ran = api.post(f"{path}/run", json={"args": {"a": 1}})
    assert ran.status_code == 201
    run = api.get(ran.headers["location"]).json()
    assert (run["job"], run["args"], run["attempts"]) == ("buttons", {"a": 1}, [])
    assert api.post(f"{path}/run").status_code == 201, "without a body, too"
    cancelled = api.post(f"/api/runs/{run['run_id']}/cancel").json()
    assert cancelled == {"run_id": run["run_id"], "answer": "cancelled"}
    assert api.get(ran.headers["location"]).json()["state"] == "cancelled"
    assert api.post(f"/api/runs/{run['run_id']}/cancel").json()["code"] == "RCNOR"
    again = api.post(f"/api/runs/{run['run_id']}/retry")
    assert api.get(again.headers["location"]).json()["retry_of"] == run["run_id"]
    actions = [change["action"] for change in api.get(f"{path}/changes").json()["items"]]
    assert actions == ["retry", "cancel", "run", "run", "update", "update", "insert"]


def test_args_that_are_null_are_the_job_s_own(api: httpx.Client, ada: psycopg.Connection) -> None:
    path = create(api, "own args", args={"own": 1}).headers["location"]
    for verb in ("run", "runs"):
        for body in ({}, {"args": None}):
            ran = api.post(f"{path}/{verb}", json=body)
            query = "select r.args is null from rowcron.run as r where r.id = %s"
            own = ada.execute(query, [ran.json()["run_id"]]).fetchone()
            assert own == (True,), (verb, body)


def test_the_same_idempotency_key_names_the_same_run(api: httpx.Client) -> None:
    path = create(api, "keys").headers["location"] + "/runs"

    def ask(key: str | None, **body: Any) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return api.post(path, json=body, headers=headers)

    first = ask("invoice-1", args={"n": 1})
    assert first.status_code == 201, first.text
    second = ask("invoice-1", args={"n": 2})
    assert (second.status_code, second.json()) == (200, first.json())
    assert ask("invoice-2").json() != first.json()
    assert ask(None).json() != ask(None).json()
    assert ask("k" * 501).json()["code"] == "RCKEY"
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda _: ask("together"), range(8)))
    assert len({answer.json()["run_id"] for answer in at_once}) == 1
    assert sorted(answer.status_code for answer in at_once) == [200] * 7 + [201]
    later = ask(None, due_at="2090-01-01T00:00:00Z", priority=3)
    run = api.get(later.headers["location"]).json()
    assert (run["state"], run["due_at"]) == ("waiting", "2090-01-01T00:00:00+00:00")


def test_a_key_over_http_is_the_same_key_in_psql(
    api: httpx.Client, ada: psycopg.Connection
) -> None:
    path = create(api, "invoices").headers["location"]
    row = ada.execute("select rowcron.enqueue('invoices', key => 'Rechnung-ß')").fetchone()
    assert row is not None
    for verb in ("run", "runs"):
        key = {"Idempotency-Key": "Rechnung-ß".encode()}
        again = api.post(f"{path}/{verb}", headers=key)
        assert (again.status_code, again.json()) == (200, {"run_id": row[0]})
        assert api.get(again.headers["location"]).json()["key"] == "Rechnung-ß"
        key = {"Idempotency-Key": "Rechnung-ß".encode("latin-1")}
        refused = api.post(f"{path}/{verb}", headers=key)
        assert (refused.status_code, refused.json()["field"]) == (422, "idempotency-key")
        assert "UTF-8" in refused.json()["hint"]


def test_run_takes_a_key_and_retry_refuses_it(api: httpx.Client) -> None:
    path, key = create(api, "run by key").headers["location"], {"Idempotency-Key": "k"}
    api.post(f"{path}/pause")
    first = api.post(f"{path}/run", headers=key, json={"args": {"n": 1}})
    assert first.status_code == 201, first.text
    run = api.get(first.headers["location"]).json()
    assert (run["key"], run["args"], run["state"]) == ("k", {"n": 1}, "ready")
    again = api.post(f"{path}/run", headers=key)
    assert (again.status_code, again.json()) == (200, first.json())
    assert api.post(f"{path}/runs", headers=key).json() == first.json()
    assert api.post(f"{path}/run").json() != first.json()
    api.post(f"/api/runs/{run['run_id']}/cancel")
    retry = f"/api/runs/{run['run_id']}/retry"
    refused = api.post(retry, headers=key)
    assert (refused.status_code, refused.json()["field"]) == (422, "idempotency-key")
    assert api.post(retry).status_code == 201


def test_null_in_a_whole_job_is_as_if_it_were_left_out(api: httpx.Client) -> None:
    """Generated clients write null for what is not set."""
    columns = api.get("/api/openapi.json").json()["components"]["schemas"]["JobIn"]["properties"]
    unset = dict.fromkeys(columns.keys() - {"name", "command"})
    for column in unset:
        assert {"type": "null"} in columns[column]["anyOf"], column
    varying = {"id", "name", "english", "created_at", "updated_at"}

    def said(answer: httpx.Response) -> dict[str, Any]:
        return {key: value for key, value in answer.json().items() if key not in varying}

    plain = said(create(api, "nothing set"))
    made = create(api, "all null", **unset)
    assert said(made) == plain
    path = made.headers["location"]
    api.patch(path, json={"priority": 7, "queue": "other"}, headers={"If-Match": "*"})
    body = {"name": "all null", "command": "select 1", **unset}
    put = api.put(path, json=body, headers={"If-Match": "*"})
    assert put.status_code == 200, put.text
    assert said(put) == plain
    refused = api.patch(path, json={"queue": None}, headers={"If-Match": "*"})
    assert (refused.status_code, refused.json()["field"]) == (422, "queue")


def test_an_operator_pauses_another_s_job_and_changes_nothing_else(
    api: httpx.Client, bearer: Bearer
) -> None:
    path = create(api, "operated", schedule="@hourly").headers["location"]
    otto = bearer("otto")
    assert otto.post(f"{path}/pause").json()["enabled"] is False
    assert otto.patch(path, json={"enabled": True}, headers={"If-Match": "*"}).status_code == 200
    refused = otto.patch(path, json={"command": "select 2"}, headers={"If-Match": "*"})
    assert refused.status_code == 403
    assert otto.delete(path, headers={"If-Match": "*"}).status_code == 403
    assert otto.post("/api/hold", json={"reason": "test"}).json() == {"held": True}
    assert "held by otto: test" in api.get("/api/queues").json()["items"][0]["held"]
    assert api.post("/api/release").json()["code"] == "RCOWN"
    assert otto.post("/api/release").json() == {"held": False}


def test_h_is_where_a_job_of_the_asker_would_have_it_whatever_its_name(
    shared: Database, site: Site, root: psycopg.Connection
) -> None:
    root.execute('create role "Ada-Bo" login')
    root.execute(f'grant rowcron_user to "Ada-Bo"; grant "Ada-Bo" to {WEB}'.encode())
    with psycopg.connect(shared.url("Ada-Bo"), autocommit=True) as conn:
        token = conn.execute("select rowcron.create_token('test')").fetchone()[0]  # type: ignore[index]
        conn.execute(
            "insert into rowcron.job (name, schedule, command) values ('h', 'H H * * *', 'x')"
        )
        job = conn.execute(
            "select id, english, to_json(next_run_at) #>> '{}' from rowcron.jobs"
        ).fetchone()
    assert job is not None
    with site.client(headers={"Authorization": f"Bearer {token}"}) as client:
        assert client.get(f"/api/jobs/{job[0]}").json()["english"] == job[1]
        text = {"schedule": "H H * * *", "name": "h", "count": 1}
        assert client.post("/api/schedule/validate", json=text).json()["next"] == [job[2]]


def test_the_tools_answer_as_the_functions_do(api: httpx.Client, ada: psycopg.Connection) -> None:
    params = {"schedule": "0 3 * * mon-fri", "timezone": "Europe/Berlin"}
    row = ada.execute("select rowcron.explain('0 3 * * mon-fri', 'Europe/Berlin')").fetchone()
    assert api.get("/api/schedule/explain", params=params).json() == {"english": row[0]}  # type: ignore[index]
    more = {"after": "2026-11-24T00:00:00Z", "count": 2}
    assert api.get("/api/schedule/next", params=params | more).json() == {
        "next": ["2026-11-24T02:00:00+00:00", "2026-11-25T02:00:00+00:00"]
    }
    good = api.post("/api/schedule/validate", json=params | {"count": 1}).json()
    assert (good["valid"], good["english"], len(good["next"])) == (True, row[0], 1)  # type: ignore[index]
    bad = api.post("/api/schedule/validate", json={"schedule": "99 * * * *"}).json()
    assert (bad["valid"], bad["problem"]["code"]) == (False, "RCSCH")
    assert api.get("/api/schedule/explain", params={"schedule": "x"}).json()["code"] == "RCSCH"


def test_more_at_a_time_than_the_limit_is_answered_429(shared: Database, bearer: Bearer) -> None:
    narrow = Site(WebSettings(conninfo=shared.url(WEB), connections=2, requests=2))
    try:
        program = bearer("ada", narrow)
        with psql_as(shared, "ada") as conn:
            conn.autocommit = False
            conn.execute("insert into rowcron.job (name, command) values ('locked', 'x')")
            body = {"name": "locked", "command": "select 1"}
            with ThreadPoolExecutor(6) as pool:
                asked = [pool.submit(program.post, "/api/jobs", json=body) for _ in range(6)]
                answers = as_completed(asked, 20)
                first = [next(answers).result() for _ in range(4)]
                conn.execute("delete from rowcron.job where name = 'locked'")
                conn.commit()  # those that waited go on
                last = [answer.result().status_code for answer in answers]
        assert [answer.status_code for answer in first] == [429] * 4
        assert all(answer.headers["retry-after"] for answer in first)
        assert sorted(last) == [201, 409]
    finally:
        narrow.stop()


def test_long_answers_are_compressed_and_long_bodies_refused(api: httpx.Client) -> None:
    assert api.get("/api/openapi.json").headers["content-encoding"] == "gzip"
    huge = api.post("/api/jobs", content=b"x" * (5 * 1024 * 1024))
    assert huge.status_code == 413
    long = api.post("/api/jobs", json={"name": "long", "command": "x" * (1024 * 1024 + 1)})
    assert long.json()["code"] == "RCCMD"


def test_other_sites_may_ask_only_if_they_are_named(site: Site, shared: Database) -> None:
    asked = {"Origin": "https://ui.example", "Access-Control-Request-Method": "GET"}
    with site.client() as client:
        answer = client.options("/api/jobs", headers=asked)
        assert "access-control-allow-origin" not in answer.headers
    named = Site(WebSettings(conninfo=shared.url(WEB), cors_origins=("https://ui.example",)))
    try:
        with named.client() as client:
            answer = client.options("/api/jobs", headers=asked)
            assert answer.headers["access-control-allow-origin"] == "https://ui.example"
            assert "access-control-allow-credentials" not in answer.headers
    finally:
        named.stop()


def test_swagger_and_openapi_are_served_from_here(api: httpx.Client) -> None:
    page = api.get("/api/docs").text
    assert "https://" not in page.replace("http://www.w3.org", "")
    assert api.get("/api/docs/swagger-ui-bundle.js").status_code == 200
    assert api.get("/api/docs/../secrets").status_code == 404
    schema = api.get("/api/openapi.json").json()
    for name in ("JobIn", "JobPatch", "RunRequest", "Enqueue", "Text", "Hold"):
        assert schema["components"]["schemas"][name]["examples"], name


def test_every_example_of_a_body_is_taken(api: httpx.Client, root: psycopg.Connection) -> None:
    schemas = api.get("/api/openapi.json").json()["components"]["schemas"]
    for example in schemas["JobIn"]["examples"]:
        answer = api.post("/api/jobs", params={"dry_run": True}, json=example)
        assert answer.status_code == 200, (example, answer.text)
    path = create(api, "examples").headers["location"]
    for example in schemas["JobPatch"]["examples"]:
        answer = api.patch(path, json=example, headers={"If-Match": "*"})
        assert answer.status_code == 200, (example, answer.text)
    for name, verb in (("Enqueue", "runs"), ("RunRequest", "run")):
        for example in schemas[name]["examples"]:
            answer = api.post(f"{path}/{verb}", json=example)
            assert answer.status_code == 201, (example, answer.text)
    for example in schemas["Text"]["examples"]:
        assert api.post("/api/schedule/validate", json=example).json()["valid"], example


JOBS = st.fixed_dictionaries(
    {"command": st.text(min_size=1, max_size=30)},
    optional={
        "schedule": st.sampled_from(["0 3 * * *", "@every 5 minutes", "H H * * *", "61 * * * *"]),
        "timezone": st.sampled_from(["UTC", "Europe/Berlin", "Mars/Olympus"]),
        "priority": st.integers(-(2**31), 2**31 - 1),
        "args": st.none()
        | st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
        "timeout": st.sampled_from(["1 s", "90 minutes", "0", "31 days", "1 mon"]),
        "retry_backoff": st.floats(-1, 200, allow_nan=False),
        "on_missed": st.sampled_from(["latest", "skip", "all", "never"]),
        "description": st.none() | st.text(max_size=30),
        "ends_at": st.sampled_from(["infinity", "2030-01-01T00:00:00Z", "2030-01-01 12:00+05:30"]),
    },
)


@given(columns=JOBS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_the_api_says_and_what_psql_says_is_equal(
    api: httpx.Client, ada: psycopg.Connection, columns: dict[str, Any]
) -> None:
    """The same job through both doors: stored alike to the last column, or refused alike."""
    body = {"name": "equal", **columns}
    names = ", ".join(body)
    values = ", ".join(f"r.{name}" for name in body)
    ada.execute("delete from rowcron.job where name = 'equal'")
    told: tuple[Any, ...]
    try:
        ada.execute(
            f"insert into rowcron.job ({names}) select {values}"
            " from jsonb_populate_record(null::rowcron.job, %s) as r".encode(),
            [json.dumps(body)],
        )
        stored = _row(ada)
        ada.execute("delete from rowcron.job where name = 'equal'")
    except psycopg.Error as error:
        diag = error.diag
        told = (error.sqlstate, diag.message_primary, diag.message_detail, diag.message_hint)
        answer = api.post("/api/jobs", json=body)
        problem = answer.json()
        keys = ("code", "title", "detail", "hint")
        assert tuple(problem.get(key) for key in keys) == told
        assert ada.execute("select count(*) from rowcron.job where name = 'equal'").fetchone() == (
            0,
        )
        return
    answer = api.post("/api/jobs", json=body)
    assert answer.status_code == 201, answer.text
    assert _row(ada) == stored
    said = answer.json()
    row = ada.execute("select to_jsonb(j) - 'agenda' from rowcron.job as j where name = 'equal'")
    whole = row.fetchone()[0]  # type: ignore[index]
    assert {key: said[key] for key in whole if key not in TIMES} == {
        key: value for key, value in whole.items() if key not in TIMES
    }
    listed = api.get("/api/jobs", params={"name": "equal"}).json()["items"]
    view = ada.execute(
        "select to_jsonb(j) from rowcron.jobs as j where j.name = 'equal'"
    ).fetchone()
    assert {k: v for k, v in listed[0].items() if not k.endswith("_at")} == {
        k: v
        for k, v in view[0].items()
        if not k.endswith("_at")  # type: ignore[index]
    }


TIMES = ("created_at", "updated_at", "starts_at", "ends_at")


def _row(conn: psycopg.Connection) -> Any:
    found = conn.execute(
        "select to_jsonb(j) - '{id,created_at,updated_at}'::text[] from rowcron.job as j"
        " where name = 'equal'"
    ).fetchone()
    assert found is not None
    return found[0]
