"""What the page of a job says is to come: what the planner says, not the schedule alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import psycopg
import pytest

from web.site import Site


@pytest.fixture
def page(site: Site) -> Iterator[httpx.Client]:
    """A browser in which ada is signed in."""
    with site.sign_in("ada") as client:
        yield client


def make(ada: psycopg.Connection, name: str, schedule: str, columns: str = "") -> int:
    row = ada.execute(
        "insert into rowcron.job (name, command, schedule) values (%s, 'x', %s) returning id",
        [name, schedule],
    ).fetchone()
    assert row is not None
    if columns:
        ada.execute(f"update rowcron.job set {columns} where id = {row[0]}".encode())
    return int(row[0])


def section(page: httpx.Client, job: int, name: str) -> str:
    answer = page.get(f"/jobs/{job}")
    assert answer.status_code == 200, answer.text
    return re.split("</?section", answer.text.partition(f'data-section="{name}">')[2])[0]


def ahead(page: httpx.Client, job: int) -> int:
    return section(page, job, "ahead").count("<tr><td")


@pytest.mark.parametrize(
    ("schedule", "columns", "count"),
    [
        ("@hourly", "", 10), ("@every 1 second", "", 10), ("H * * * *", "", 10),
        ("@hourly", "max_runs = 3", 3), ("@every 7 minutes", "max_runs = 12", 10),
        ("@after 5 minutes", "", 1), ("@at 2090-01-01 00:00", "", 1),
        ("@hourly", "ends_at = now() + interval '90 minutes', max_runs = 5", 1),
        ("@hourly", "starts_at = now() + interval '300 days'", 10),
        ("@hourly", "enabled = false", 10), ("@reboot", "", 0),
        ("@hourly", "schedule = null", 0),
    ],
)  # fmt: skip
def test_the_next_ten_are_those_that_will_be(
    page: httpx.Client, ada: psycopg.Connection, schedule: str, columns: str, count: int
) -> None:
    name = re.sub(r"\W", "_", f"{schedule} {columns}")
    shown = ahead(page, make(ada, name, schedule, columns))
    # an hourly one may end within the minute in which the test runs
    assert shown == count or (count == 1 and "ends_at" in columns and shown == 2)


def test_what_is_overdue_comes_first_and_is_called_due(
    page: httpx.Client, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    job = make(ada, "overdue", "@hourly")
    again = make(ada, "overdue after", "@after 5 minutes")
    root.execute(
        "update rowcron.agenda set next_run_at = date_trunc('hour', now()) - interval '2 h',"
        " high_water = date_trunc('hour', now()) - interval '3 h' where job_id = %s",
        [job],
    )
    root.execute(
        "update rowcron.agenda set next_run_at = now() - interval '1 min',"
        " high_water = now() - interval '2 min' where job_id = %s",
        [again],
    )
    for number, count in ((job, 10), (again, 1)):
        shown = section(page, number, "ahead")
        assert shown.count("<tr><td") == count
        assert shown.count(">due <time") == 1
        assert shown.index("due <time") < shown.index("</tr>", shown.index("<tbody>"))


def test_an_after_job_whose_run_is_under_way_is_not_over(
    page: httpx.Client, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    job = make(ada, "under way", "@after 5 minutes")
    root.execute("update rowcron.agenda set next_run_at = null where job_id = %s", [job])
    root.execute(
        "insert into rowcron.run (job_id, job, owner, kind, queue, scheduled_for, due_at, state,"
        " priority) select id, name, owner, kind, queue, now(), now(), 'ready', 0"
        " from rowcron.job where id = %s",
        [job],
    )
    assert "not known yet" in section(page, job, "head")
    assert "not known yet" in section(page, job, "ahead")
