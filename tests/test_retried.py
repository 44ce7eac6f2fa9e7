"""What a run is told that repeats another: the occurrence of the first."""

from __future__ import annotations

from datetime import timedelta

import pytest

from harness import Database, wait_until
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
TOLD = "current_setting('rowcron.scheduled_for')::timestamptz"


@pytest.mark.parametrize(
    ("kind", "command", "columns"),
    [
        ("sql", f"select {TOLD} as told", {}),
        ("sql", f"select {TOLD} as told", {"connection": "admin"}),
        ("python", "occurrence", {}),
        ("shell", 'echo "$ROWCRON_SCHEDULED_FOR"', {}),
    ],
)
def test_a_retry_is_for_the_occurrence_of_what_it_repeats(
    jobs: Jobs,
    start: Start,
    database: Database,
    kind: str,
    command: str,
    columns: dict[str, str],
) -> None:
    jobs.db.execute("select rowcron.grant_connection('admin', 'alice')")
    start("--kind", "sql,python,shell", ROWCRON_CONNECTION_ADMIN=database.url("alice"))
    soon = jobs.db.execute("select date_trunc('second', now()) + interval '2 s'").fetchone()[0]
    name = jobs.add(kind, command, schedule="@every 1 hour", starts_at=soon, **columns)
    query = "select run_id from rowcron.history where job = %s and scheduled_for is not null"
    (run,) = wait_until(lambda: jobs.db.execute(query, (name,)).fetchone(), what="the run")
    first = jobs.end(run)
    assert first["scheduled_for"] - soon < timedelta(seconds=1)
    told = first["output"], first["result"]
    assert str(first["scheduled_for"].date()) in str(told)
    for _ in range(2):
        run = jobs.owner.execute("select rowcron.retry(%s)", (run,)).fetchone()[0]
        entry = jobs.end(run)
        assert (entry["output"], entry["result"]) == told
        assert (entry["scheduled_for"], entry["retry_for"]) == (None, first["scheduled_for"])
