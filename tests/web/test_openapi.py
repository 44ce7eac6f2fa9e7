"""schemathesis asks the API whatever its OpenAPI allows, and what it does not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import httpx
import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rowcron.web.app import create_app
from rowcron.web.settings import WebSettings
from web.site import Bearer, Site

EXAMPLES = int(os.environ.get("ROWCRON_TEST_EXAMPLES", "2"))  # of each operation
CHECKS = [
    not_a_server_error, content_type_conformance, negative_data_rejection,
    response_headers_conformance, response_schema_conformance, status_code_conformance,
]  # fmt: skip
schema = schemathesis.openapi.from_dict(create_app(WebSettings("")).openapi())
answers: Counter[int] = Counter()


@pytest.fixture(scope="module")
def token(bearer: Bearer) -> str:
    return bearer("ada").headers["Authorization"]


@pytest.fixture(scope="module")
def ids(bearer: Bearer, root: psycopg.Connection) -> Iterator[list[int]]:
    """Jobs and runs that exist, so that not everything is answered 404."""
    client: httpx.Client = bearer("ada")
    found = []
    for number in range(3):
        body = {"name": f"there {number}", "command": "select 1", "schedule": "@hourly"}
        made = client.post("/api/jobs", json=body)
        run = client.post(made.headers["location"] + "/run").json()["run_id"]
        found += [made.json()["id"], run]
    root.execute("select setval('rowcron.run_id_seq', 1000)")
    yield found
    told = dict(sorted(answers.items()))
    print(f"\nschemathesis: {sum(answers.values())} requests, answered {told}")
    assert sum(answers.values()) > 100
    assert {200, 422} <= answers.keys()


@pytest.mark.once
@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_whatever_is_asked_is_answered_as_openapi_says(
    case: schemathesis.Case, site: Site, token: str, ids: list[int]
) -> None:
    for name in ("job", "run"):
        value = case.path_parameters.get(name)
        if isinstance(value, int) and value > 0 and value % 2:
            case.path_parameters[name] = ids[value % len(ids)]
    headers = {"Authorization": token}
    response = case.call(base_url=site.url, headers=headers)
    answers[response.status_code] += 1
    case.validate_response(response, checks=CHECKS, headers=headers)
