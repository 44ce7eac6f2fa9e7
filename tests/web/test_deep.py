"""JSON that is nested deeper than Python reads is shown and handed on all the same."""

from __future__ import annotations

import json

import psycopg
import pytest

from harness import Database
from test_cli import rowcron
from web.site import Bearer, Site

DEPTH = 3_000
DEEP = "[" * DEPTH + "]" * DEPTH


@pytest.fixture(scope="module")
def deep(ada: psycopg.Connection, root: psycopg.Connection) -> tuple[int, int]:
    """A job whose args are deep, and its run that has ended with such a result; one that waits."""
    job = ada.execute(
        "insert into rowcron.job (name, command, args, queue) values ('deep', 'x', %s, 'none')"
        " returning id",
        (DEEP,),
    ).fetchone()
    assert job is not None
    for n in range(3):
        root.execute(
            "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
            " started_at, finished_at, outcome, result, args) select id, name, owner, queue, kind,"
            " 99000 + %s, 1, true, now(), now(), 'succeeded', args, args from rowcron.job"
            " where id = %s",
            (n, job[0]),
        )
    run = ada.execute("select rowcron.enqueue('deep', %s)", (DEEP,)).fetchone()
    ada.execute("select rowcron.enqueue('deep', %s)", (DEEP,))
    assert run is not None
    return job[0], run[0]


@pytest.mark.parametrize("role", ["ada", "vic"])
def test_lists_and_pages_show_it(
    bearer: Bearer, site: Site, deep: tuple[int, int], role: str
) -> None:
    job, run = deep
    api = bearer(role)
    for path in (
        "/api/runs?limit=1", "/api/runs?limit=2&job=deep", "/api/history?limit=1&job=deep",
        "/api/history?limit=2", "/api/jobs?limit=1", f"/api/jobs/{job}", f"/api/runs/{run}",
        "/api/runs/99001",
    ):  # fmt: skip
        answer = api.get(path)
        assert answer.status_code == 200, (path, answer.text[:200])
    assert DEEP in api.get(f"/api/jobs/{job}").text
    with site.sign_in(role) as client:
        for path in ("/", f"/jobs/{job}", f"/runs/{run}", "/runs/99001", "/jobs", "/timeline"):
            answer = client.get(path)
            assert answer.status_code == 200, (path, answer.text[:500])


def test_pages_follow_each_other(bearer: Bearer, deep: tuple[int, int]) -> None:
    api = bearer("ada")
    for path, key, count in (("/api/history", "finished_at", 3), ("/api/runs", "run_id", 5)):
        seen, cursor = [], None
        while True:
            params = {"job": "deep", "limit": 2} | ({"cursor": cursor} if cursor else {})
            text = api.get(path, params=params).text.replace(DEEP, "null")
            found = json.loads(text)
            seen += [(item[key], item["run_id"]) for item in found["items"]]
            if (cursor := found["next"]) is None:
                break
        assert len(seen) == len(set(seen)) == count, (path, seen)


def test_it_is_taken_or_refused(bearer: Bearer) -> None:
    api = bearer("ada")
    body = f'{{"name": "deeper", "command": "x", "args": {DEEP}}}'
    answer = api.post("/api/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (201, 400, 422), answer.text[:300]


def test_the_command_line_shows_it(shared: Database, deep: tuple[int, int]) -> None:
    url = shared.url("postgres")
    for words in (
        ("runs", "output", "99001"), ("history",), ("history", "--json"),
        ("runs", "list", "--json"), ("job", "show", "ada.deep"),
        ("job", "show", "ada.deep", "--json"), ("job", "list", "--json"),
    ):  # fmt: skip
        done = rowcron(*words, "--database-url", url)
        assert done.returncode == 0, (words, done.stderr[-300:])
        assert "Traceback" not in done.stderr
