"""What PostgreSQL cannot hold, and bodies that are no bodies: told as the client's mistake."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from web.site import Bearer, Site

LONG = 5 * 1024 * 1024


@pytest.fixture(scope="module")
def api(bearer: Bearer) -> httpx.Client:
    """A program of ada's."""
    return bearer("ada")


@pytest.fixture(scope="module")
def job(api: httpx.Client) -> str:
    """The path of a job."""
    answer = api.post("/api/jobs", json={"name": "there", "command": "select 1"})
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


def cursor(*keys: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(keys).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/api/jobs", "name", "\0"), ("/api/jobs", "search", "a\0"), ("/api/jobs", "owner", "\0"),
        ("/api/runs", "job", "\0"), ("/api/history", "since", "\0"), ("/jobs", "search", "\0"),
        ("/api/schedule/next", "schedule", "\0"), ("/api/schedule/explain", "timezone", "\0"),
        ("/api/history", "cursor", cursor("\ud800", 1, 1, "x")),
        ("/api/history", "cursor", cursor("a\0", 1, 1, "x")),
        ("/jobs", "after", cursor("\0", 1)),
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_sent_is_refused(
    api: httpx.Client, site: Site, path: str, name: str, value: str
) -> None:
    given = {"schedule": "@daily"} if path.endswith("explain") else {}
    if path.startswith("/api"):
        answer = api.get(path, params=given | {name: value})
        assert answer.headers["content-type"] == "application/problem+json"
    else:
        with site.sign_in("ada") as ada:
            answer = ada.get(path, params={name: value}, headers={"Accept": "text/html"})
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("text", ["\0", "\ud800", "@daily\0"])
def test_a_schedule_that_cannot_be_stored_has_its_verdict(api: httpx.Client, text: str) -> None:
    body = json.dumps({"schedule": text})
    headers = {"Content-Type": "application/json"}
    answer = api.post("/api/schedule/validate", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["valid"] is False
    assert answer.json()["problem"]["status"] == 422


@pytest.mark.parametrize("verb", ["", "/runs", "/run"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_a_body_in_another_encoding_is_refused(
    api: httpx.Client, job: str, verb: str, encoding: str
) -> None:
    path = job + verb if verb else "/api/jobs"
    given = {"args": {"a": "ü"}} if verb else {"name": "ü", "command": "x"}
    content = json.dumps(given, ensure_ascii=False).encode(encoding)
    answer = api.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "body", ['{"name": "x", "command": "\\ud800"}', '{"\\ud800": 1, "name": "x", "command": "x"}',
             '{"name": "x", "command": "x", "args": {"a": "\\ud800"}}',
             '{"name": "x", "command": "x", "args": {"\\u0000": 1}}']
)  # fmt: skip
def test_text_that_is_not_unicode_is_refused(api: httpx.Client, body: str) -> None:
    answer = api.post("/api/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["status"] == 422


@pytest.mark.parametrize("body", ["  ", "{", '{"name": }', "{'name': 1}"])
def test_broken_json_is_called_so(api: httpx.Client, body: str) -> None:
    answer = api.post("/api/jobs", content=body, headers={"Content-Type": "application/json"})
    problem = answer.json()
    assert (problem["status"], problem["title"]) == (422, "the body is not JSON")
    assert "field" not in problem
    assert "at character" in problem["detail"]


@pytest.mark.parametrize(
    "text",
    [
        "tomorrow",
        "yesterday or so",
        "01.02.2030 00:00",
        "2030-1-2",
        "now",
        "infinity",
        "-infinity",
        "",
    ],
)
def test_an_instant_that_is_not_iso_is_not_guessed(api: httpx.Client, job: str, text: str) -> None:
    changed = api.patch(job, json={"starts_at": text}, headers={"If-Match": "*"})
    for answer, field in (
        (api.post(f"{job}/runs", json={"due_at": text}), "due_at"), (changed, "starts_at"),
    ):  # fmt: skip
        problem = answer.json()
        assert (answer.status_code, problem.get("field")) == (422, field)
        assert problem["hint"] == "For example 2030-12-24T18:00:00Z."
    described = api.get("/api/openapi.json").json()["components"]["schemas"]["Enqueue"]
    assert "infinity" not in str(described["properties"]["due_at"])


@pytest.mark.parametrize("text", ["tomorrow", "01.12.2026", "-infinity", ""])
@pytest.mark.parametrize(
    ("path", "names"),
    [("history", "since until"), ("jobs/{}/occurrences", "from until"), ("schedule/next", "after")],
)
def test_nor_is_one_of_a_query(
    api: httpx.Client, job: str, path: str, names: str, text: str
) -> None:
    given = dict.fromkeys(names.split(), "2090-01-02") | {"schedule": "@daily"}
    path = "/api/" + path.format(job.rpartition("/")[2])
    assert api.get(path, params=given).status_code == 200
    for name in names.split():
        answer = api.get(path, params=given | {name: text})
        problem = answer.json()
        assert (answer.status_code, problem.get("field")) == (422, name), answer.text
        assert problem["hint"] == "For example 2030-12-24T18:00:00Z."
        taken = api.get(path, params=given | {name: "infinity"}).status_code
        assert (taken != 422) == ((path, name) == ("/api/history", "until"))


@pytest.mark.parametrize(
    "text", ["2090-01-02", "2090-01-02T03:04Z", "2090-01-02 03:04:05.6+05:30",
             "2090-01-02t03:04:05-0100", "20260-01-02T00:00:00+00:00"]
)  # fmt: skip
def test_an_instant_in_iso_is_taken(api: httpx.Client, job: str, text: str) -> None:
    assert api.post(f"{job}/runs", json={"due_at": text}).status_code == 201
    for end in (text, "infinity"):
        answer = api.patch(job, json={"ends_at": end}, headers={"If-Match": "*"})
        assert answer.status_code == 200, answer.text


def test_a_long_body_in_chunks_is_too_long(api: httpx.Client, site: Site, job: str) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(LONG // 65536):
            yield b" " * 65536

    for path in ("/api/jobs", f"{job}/run"):
        answer = api.post(path, content=chunks(), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["title"]) == (413, "the body is too long")
    with site.client() as client:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert client.post("/sign-in", content=chunks(), headers=form).status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "methods"),
    [
        ("POST", "/api/jobs/1", "HEAD GET PUT PATCH DELETE"),
        ("OPTIONS", "/api/jobs/1", "HEAD GET PUT PATCH DELETE"),
        ("DELETE", "/api/jobs", "HEAD GET POST"), ("HEAD", "/api/hold", "POST"),
        ("GET", "/api/jobs/1/run", "POST"), ("PUT", "/api/health", "HEAD GET"),
        ("POST", "/live", "GET"), ("HEAD", "/live", "GET"), ("PUT", "/sign-in", "HEAD GET POST"),
    ],
)  # fmt: skip
def test_a_method_that_is_not_there_is_answered_with_all_that_are(
    api: httpx.Client, method: str, path: str, methods: str
) -> None:
    answer = api.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"].split(", ") == methods.split()
    if method != "HEAD":
        assert answer.json()["hint"] == f"It takes {answer.headers['allow']}."


@pytest.mark.parametrize(
    "path", ["/api/health", "/api/ready", "/api/jobs", "/api/jobs/999999", "/sign-in", "/jobs",
             "/api/docs", "/api/openapi.json", "/static/app.js", "/nothing"]
)  # fmt: skip
def test_head_is_get_without_its_body(api: httpx.Client, path: str) -> None:
    whole, head = api.get(path), api.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    for name in ("content-type", "content-length", "content-encoding", "etag"):
        assert head.headers.get(name) == whole.headers.get(name), name
    assert api.get("/api/health").json()["status"] == "ok", "the connection is none the worse"
