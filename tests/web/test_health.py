"""Health, readiness, figures, and what has been: what they hold and say."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest

from harness import Database, wait_until
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


def test_health_asks_nothing_ready_asks_the_database(site: Site, people: Any) -> None:
    with site.client() as client:
        assert client.get("/api/health").json()["status"] == "ok"
        assert client.get("/api/ready").status_code == 200
        assert client.get("/api/metrics").status_code == 401
    nowhere = Site(WebSettings(conninfo="postgresql://x@127.0.0.1:1/x"))
    try:
        with nowhere.client() as client:
            assert client.get("/api/health").status_code == 200
            answer = client.get("/api/ready")
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            tried = client.post("/sign-in", data={"role": "ada", "password": "x"})
            assert tried.status_code == 503
    finally:
        nowhere.stop()


# Prometheus' text format, 0.0.4: what a line may be.
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (-?[0-9.e+-]+|NaN|[+-]Inf)")


def exposed(text: str) -> dict[str, dict[str, float]]:
    """Every sample by name and labels; fails at a line that Prometheus would not read."""
    assert text.endswith("\n")
    helped: list[str] = []
    typed: dict[str, str] = {}
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            assert re.fullmatch(rf"# HELP ({NAME}) \S.*", line), line
            helped.append(line.split()[2])
        elif line.startswith("# TYPE "):
            assert re.fullmatch(rf"# TYPE {NAME} (gauge|counter)", line), line
            name = line.split()[2]
            assert name not in typed, "a metric's samples stand together"
            assert helped[-1] == name
            typed[name] = line.split()[3]
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample is not None, line
            assert sample[1] == helped[-1], "a sample follows its own head"
            assert (typed[sample[1]] == "counter") == sample[1].endswith("_total")
            series = found.setdefault(sample[1], {})
            assert (sample[2] or "") not in series, "no series comes twice"
            series[sample[2] or ""] = float(sample[3])
    assert sorted(helped) == sorted(typed)
    return found


def test_metrics_are_what_prometheus_reads(
    api: httpx.Client, bearer: Bearer, root: psycopg.Connection, shared: Database
) -> None:
    create(api, "measured", queue='odd "queue"\\\n'.strip())
    made = create(api, "measured, too", queue="metrics").json()["id"]
    with psql_as(shared, "bea") as bea:
        bea.execute("insert into rowcron.job (name, command, queue) values ('b', 'x', 'bea only')")
    for _ in range(3):
        api.post(f"/api/jobs/{made}/run")
    root.execute(
        "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
        " started_at, finished_at, outcome) select id, name, owner, queue, kind, -n, 1, true,"
        " clock_timestamp(), clock_timestamp(), 'lost' from rowcron.job, generate_series(1, 2) n"
        " where id = %s",
        [made],
    )
    answer = bearer("vic").get("/api/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = exposed(answer.text)
    assert found["rowcron_queue_ready"]['queue="metrics",kind="sql"'] == 3
    assert found["rowcron_queue_workers"]['queue="metrics",kind="sql"'] == 0
    assert 0 <= found["rowcron_queue_oldest_ready_seconds"]['queue="metrics",kind="sql"'] < 600
    assert r'queue="odd \"queue\"\\",kind="sql"' in found["rowcron_queue_ready"]
    assert found["rowcron_ended_5m"]['outcome="lost"'] == 2
    assert (found["rowcron_held"], found["rowcron_ledger_overflows"]) == ({"": 0}, {"": 0})
    assert found["rowcron_web_viewers"][""] == 0
    other = exposed(bearer("ada").get("/api/metrics").text)
    assert 'queue="bea only",kind="sql"' in found["rowcron_queue_ready"]
    assert 'queue="bea only",kind="sql"' not in other["rowcron_queue_ready"], "not ada's to see"
    with httpx.Client(base_url=str(api.base_url)) as stranger:
        assert stranger.get("/api/metrics").status_code == 401


def test_a_queue_s_name_stands_in_the_metrics_as_it_is(api: httpx.Client, bearer: Bearer) -> None:
    for queue in ("braces", "braces{}", "{}"):
        create(api, f"of {queue}", queue=queue)
    found = exposed(bearer("vic").get("/api/metrics").text)["rowcron_queue_workers"]
    for queue in ("braces", "braces{}", "{}"):
        assert f'queue="{queue}",kind="sql"' in found


def test_metrics_tell_that_nobody_works(
    api: httpx.Client, bearer: Bearer, root: psycopg.Connection
) -> None:
    made = create(api, "neglected", queue="neglected", schedule="@hourly").json()["id"]
    create(api, "in time", queue="in time", schedule="@hourly")
    later = create(api, "later", queue="later").json()["id"]
    api.post(f"/api/jobs/{later}/run")
    root.execute(
        "update rowcron.agenda set high_water = now() - interval '2 h',"
        " next_run_at = now() - interval '5 min' where job_id = %s",
        [made],
    )
    # what nobody promotes
    root.execute(
        "update rowcron.run set state = 'waiting', waits_for = 'time',"
        " due_at = now() - interval '3 min' where job_id = %s",
        [later],
    )
    found = exposed(bearer("vic").get("/api/metrics").text)
    overdue = found["rowcron_queue_overdue_seconds"]
    assert 300 <= overdue['queue="neglected",kind="sql"'] < 400
    assert 180 <= overdue['queue="later",kind="sql"'] < 280
    assert overdue['queue="in time",kind="sql"'] == 0
    assert found["rowcron_queue_ready"]['queue="neglected",kind="sql"'] == 0
    assert found["rowcron_jobs"]['verdict="overdue"'] == 2
    assert api.get(f"/api/jobs/{made}/state").json()["verdict"] == "overdue"
    assert api.get("/api/jobs", params={"name": "neglected"}).json()["items"][0]["state"] == (
        "overdue"
    )
    queues = {q["queue"]: q for q in api.get("/api/queues").json()["items"]}
    assert queues["neglected"]["overdue_for"].startswith("00:05:")
    assert queues["in time"]["overdue_for"] is None
    root.execute("delete from rowcron.run where job_id = %s", [later])
    root.execute(
        "update rowcron.agenda set next_run_at = now() + interval '1 h' where job_id = %s", [made]
    )


def test_the_hold_is_a_metric(bearer: Bearer, shared: Database) -> None:
    with psql_as(shared, "otto") as otto:
        otto.execute("select rowcron.hold('measured')")
        try:
            assert exposed(bearer("vic").get("/api/metrics").text)["rowcron_held"] == {"": 1}
        finally:
            otto.execute("select rowcron.release()")


def test_what_ended_is_listed_with_all_that_is_known_of_it(
    api: httpx.Client, root: psycopg.Connection
) -> None:
    made = create(api, "with a history").json()["id"]
    root.execute(
        "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
        " scheduled_for, first_scheduled_for, occurrences, started_at, finished_at, outcome,"
        " reason, error, output) select id, name, owner, queue, kind, v.run, v.attempt, true,"
        " now(), case when v.run is null then now() - interval '3 h' end,"
        " case when v.run is null then 4 else 1 end, now(),"
        " clock_timestamp(), v.outcome, v.reason, v.error, v.output from rowcron.job, (values"
        " (71001, 2, 'failed', null, 'ERROR: broken', 'said'),"
        " (null, null, 'missed', 'downtime', null, null)"
        ") as v (run, attempt, outcome, reason, error, output) where id = %s",
        [made],
    )
    answer = api.get("/api/history", params={"job_id": made})
    assert answer.status_code == 200, answer.text
    items = {item["outcome"]: item for item in answer.json()["items"]}
    assert items.keys() == {"failed", "missed"}
    failed, missed = items["failed"], items["missed"]
    assert (failed["run_id"], failed["attempt"], failed["error"]) == (71001, 2, "ERROR: broken")
    assert (missed["run_id"], missed["occurrences"], missed["reason"]) == (None, 4, "downtime")
    assert datetime.fromisoformat(missed["first_scheduled_for"]) < datetime.now(UTC)


def test_a_database_that_goes_away_is_a_problem_and_comes_back(
    shared: Database, root: psycopg.Connection, bearer: Bearer
) -> None:
    """ready and the API say 503 in a problem document, health goes on, and all recovers."""
    site = Site(WebSettings(conninfo=shared.url(WEB)))
    program = bearer("ada", site)
    try:
        assert program.get("/api/jobs").status_code == 200
        root.execute(f"alter role {WEB} connection limit 0".encode())
        root.execute(
            f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{WEB}'"
        )
        for path in ("/api/ready", "/api/jobs", "/api/metrics", "/api/history"):
            wait_until(lambda path=path: program.get(path).status_code == 503, what=path)
            answer = program.get(path)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers.get("retry-after"), answer.text
            assert answer.json()["status"] == 503
        assert program.get("/api/health").json()["status"] == "ok"
    finally:
        root.execute(f"alter role {WEB} connection limit -1".encode())
    wait_until(lambda: program.get("/api/jobs").status_code == 200, what="the way back")
    assert program.get("/api/ready").json()["status"] == "ok"
    site.stop()
