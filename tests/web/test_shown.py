"""Names, figures and changes are shown as they are, whatever they hold."""

from __future__ import annotations

import re
from html import unescape

import psycopg
import pytest
from psycopg import sql

from harness import Database
from rowcron.web.render import quantile
from web.site import ASKED, Bearer, Site, password, psql_as


@pytest.fixture(scope="module", params=['we"ird', 'semi"', "Upper Case"])
def odd(request: pytest.FixtureRequest, root: psycopg.Connection) -> str:
    """An author whose name must be quoted."""
    role = str(request.param)
    name = sql.Identifier(role)
    root.execute(
        sql.SQL("create role {} login password {}").format(name, sql.Literal(password(role)))
    )
    root.execute(sql.SQL("grant rowcron_user, {} to {}").format(sql.Identifier(ASKED), name))
    return role


def test_whoever_owns_a_run_may_ask_something_of_it(site: Site, shared: Database, odd: str) -> None:
    with psql_as(shared, odd) as conn:
        conn.execute("insert into rowcron.job (name, command) values ('own', 'x')")
        row = conn.execute("select rowcron.enqueue('own')").fetchone()
        assert row is not None
        with site.sign_in(odd) as client, site.sign_in("vic") as viewer:
            assert "/cancel" in client.get(f"/runs/{row[0]}").text
            assert "/cancel" not in viewer.get(f"/runs/{row[0]}").text


def test_the_hint_for_a_token_s_role_can_be_pasted(bearer: Bearer, odd: str) -> None:
    answer = bearer(odd).get("/api/jobs")
    assert answer.status_code == 403, answer.text
    assert f"grant {sql.Identifier(odd).as_string(None)} to the login" in answer.json()["hint"]


def test_the_median_is_that_of_job_health(
    site: Site, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    row = ada.execute(
        "insert into rowcron.job (name, command) values ('of two', 'x') returning id"
    ).fetchone()
    assert row is not None
    root.execute(
        "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
        " started_at, finished_at, outcome) select j.id, j.name, j.owner, j.queue, j.kind,"
        " 9300 + n, 1, true, t.at, t.at + n * interval '1.5 s', 'succeeded' from rowcron.job as j,"
        " generate_series(0, 1) as n, (select clock_timestamp() - interval '1 min' as at) as t"
        " where j.id = %s",
        row,
    )
    health = ada.execute(
        "select extract(epoch from median_duration) from rowcron.job_health where id = %s", row
    ).fetchone()
    assert health == (0.75,)
    with site.sign_in("ada") as client:
        text = client.get(f"/jobs/{row[0]}").text
    assert re.findall(r"<dt>(median|95 %)</dt><dd>([^<]+)</dd>", text) == [
        ("median", "750 ms"), ("95 %", "1.5 s"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "share", "rank"),
    [(1, 0.95, 1), (2, 0.5, 1), (10, 0.95, 10), (20, 0.95, 19), (21, 0.95, 20), (60, 0.95, 57)],
)
def test_a_quantile_is_that_of_the_nearest_rank(count: int, share: float, rank: int) -> None:
    assert quantile(range(count, 0, -1), share) == rank


def test_a_change_is_shown_as_it_was_written(site: Site, ada: psycopg.Connection) -> None:
    row = ada.execute(
        "insert into rowcron.job (name, command) values ('rewritten', 'select 1') returning id"
    ).fetchone()
    assert row is not None
    ada.execute("update rowcron.job set command = %s where id = %s", ["select '<ö>' & 1", row[0]])
    with site.sign_in("ada") as client:
        text = client.get(f"/jobs/{row[0]}").text
    shown = text.partition('data-section="changes">')[2]
    assert "<ö>" not in shown
    assert """<code>command</code> "select 1" → "select '<ö>' & 1\"""" in unescape(shown)
