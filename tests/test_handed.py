"""Handlers that are given a connection and end its transaction, or the connection, themselves."""

from __future__ import annotations

import pytest

from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
MORE = "insert into public.effect values (3, 0)"
both = pytest.mark.parametrize("kind", ["", "_async"], ids=["plain", "async"])


def effects(jobs: Jobs) -> list[int]:
    """What handlers have left."""
    return [n for (n,) in jobs.db.execute("select n from public.effect order by n").fetchall()]


@both
@pytest.mark.parametrize(
    ("how", "left"),
    [
        (["rollback"], []),
        (["commit"], [1]),
        (["rollback", MORE], []),
        (["commit", MORE], [1]),
        (["commit; begin"], [1]),
        (["commit and chain", MORE], [1]),
        (["rollback and chain"], []),
        (["rollback", "begin", MORE], []),
    ],
    ids=str,
)
def test_a_handler_that_ends_its_transaction_has_failed(
    jobs: Jobs, start: Start, kind: str, how: list[str], left: list[int]
) -> None:
    start("--handler-connections", "1")
    entry = jobs.end(jobs.run("python", f"end_early{kind}", {"how": how}))
    assert (entry["outcome"], entry["reason"]) == ("failed", "transaction")
    assert "ended the transaction that it was handed" in entry["error"]
    assert "HINT: Leave COMMIT and ROLLBACK to the worker" in entry["error"]
    assert effects(jobs) == left
    good = jobs.end(jobs.run("python", f"end_early{kind}", {"how": ["savepoint"]}))
    assert (good["outcome"], good["error"]) == ("succeeded", None)
    assert effects(jobs) == sorted([*left, 1])


@both
def test_a_handler_that_closes_its_connection_has_failed(
    jobs: Jobs, start: Start, kind: str
) -> None:
    start("--handler-connections", "1")
    for how in (["close"], ["close", MORE]):
        run = jobs.run("python", f"end_early{kind}", {"how": how}, max_lost=3)
        entry = jobs.end(run)
        assert (entry["outcome"], entry["attempt"]) == ("failed", 1)
        assert "closed the connection that it was handed" in entry["error"]
        assert len(jobs.entries(run)) == 1
    own = jobs.end(jobs.run("python", f"end_early{kind}", {"how": ["close", "raise"]}))
    assert (own["outcome"], own["reason"]) == ("failed", "exception")
    assert "ValueError: of its own" in own["error"]
    assert effects(jobs) == []


@both
def test_a_handler_may_choose_the_isolation_of_its_transaction(
    jobs: Jobs, start: Start, kind: str
) -> None:
    start()
    entry = jobs.end(jobs.run("python", f"end_early{kind}", {"how": ["isolation", "savepoint"]}))
    assert (entry["outcome"], entry["error"]) == ("succeeded", None)
    assert effects(jobs) == [1]
