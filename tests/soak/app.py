"""The application that `--app soak.app` names; its connection is the login `soak_app`."""

from __future__ import annotations

from typing import Any

import psycopg

from rowcron import Run, handler


@handler
def tally(run: Run, connection: psycopg.Connection[Any], fail_each: int) -> dict[str, int]:
    """Write a row on the handed connection; now and then the first attempt fails after it."""
    scheduled_for = run.scheduled_for
    assert scheduled_for is not None
    connection.execute(
        "insert into tally (run_id, scheduled_for) values (%s, %s)", (run.run_id, scheduled_for)
    )
    if run.attempt == 1 and scheduled_for.second % fail_each == 0:
        raise ValueError("the first attempt fails after it has written")
    row = connection.execute("select sum(bbalance) from pgbench_branches").fetchone()
    assert row is not None
    return {"balance": int(row[0])}
