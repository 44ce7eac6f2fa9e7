"""Handlers that are given a connection and end its transaction, or the connection, themselves."""

from __future__ import annotations

import time

import pytest

from harness import wait_until
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


@both
@pytest.mark.parametrize("on_lost", ["retry", "fail"])
def test_a_handler_is_not_to_blame_when_there_is_no_room_for_its_record(
    jobs: Jobs, start: Start, kind: str, on_lost: str
) -> None:
    """It is rolled back and tried again; where that is not wanted, it is lost and not failed."""
    worker = start()
    jobs.db.execute("""
      create table public.room ();
      grant select on public.room to public;
      create function public.is_full() returns trigger language plpgsql as $$
      begin
        if to_regclass('public.room') is not null then
          raise exception using errcode = '53100', message = 'no space left on device';
        end if;
        return new;
      end
      $$;
      create trigger is_full before insert on rowcron.ledger
      for each row execute function public.is_full()
    """)
    run = jobs.run("python", f"insert{kind}", on_lost=on_lost, max_lost=1)
    worker.wait_for("unavailable", code="53100")
    wait_until(lambda: jobs.running(run), what="its report still waits")
    jobs.db.execute("drop table public.room")
    entries = [jobs.end(run), *jobs.entries(run)]
    told = [(e["attempt"], e["outcome"], e["reason"]) for e in entries[1:]]
    reason = "its end could not be recorded"
    if on_lost == "fail":
        assert told == [(1, "lost", f"{reason}; on_lost = fail")]
        assert effects(jobs) == []
    else:
        assert told == [(1, "lost", reason), (2, "succeeded", None)]
        assert effects(jobs) == [1]
    assert "no space left on device" in entries[1]["error"]


@both
def test_what_a_handler_leaves_in_its_transaction_is_its_own_fault(
    jobs: Jobs, start: Start, kind: str
) -> None:
    """Its record is refused each time: no reason to try for ever."""
    start()
    run = jobs.run("python", f"end_early{kind}", {"how": ["set transaction read only"]})
    entry = jobs.end(run)
    assert (entry["outcome"], entry["reason"], entry["attempt"]) == ("failed", "exception", 1)


@both
@pytest.mark.parametrize("limit", ["lock_timeout", "statement_timeout"])
def test_what_binds_a_handlers_statements_does_not_bind_its_record(
    jobs: Jobs, start: Start, kind: str, limit: str
) -> None:
    """Its owner's open edit of a job @after is waited for, in the one attempt that there is."""
    start("--poll", "0.5")
    how = [f"set local {limit} = '5s'", "select pg_advisory_xact_lock(7007)"]
    how += [f"set local {limit} = '100ms'"]
    jobs.db.execute("select pg_advisory_lock(7007)")
    name = jobs.add("python", f"end_early{kind}", args={"how": how}, schedule="@after 1 hour")
    jobs.db.execute("update rowcron.agenda set next_run_at = clock_timestamp()")
    waits = "select 1 from pg_locks where locktype = %s and not granted"
    wait_until(lambda: jobs.db.execute(waits, ("advisory",)).fetchone(), what="the handler")
    (run,) = jobs.db.execute("select id from rowcron.run").fetchone() or (0,)
    with jobs.owner.transaction():
        jobs.owner.execute("update rowcron.job set ends_at = '2100-01-01' where name = %s", (name,))
        jobs.db.execute("select pg_advisory_unlock(7007)")
        wait_until(lambda: jobs.db.execute(waits, ("transactionid",)).fetchone(), what="the record")
        time.sleep(0.5)  # five times the limit
        assert jobs.running(run)
    assert [entry["outcome"] for entry in (jobs.end(run), *jobs.entries(run))[1:]] == ["succeeded"]
    assert effects(jobs) == [1]


@both
@pytest.mark.parametrize("code", ["55P03", "40001", "40P01"])
def test_a_record_that_fails_each_time_is_not_tried_without_end(
    jobs: Jobs, start: Start, kind: str, code: str
) -> None:
    start()
    jobs.db.execute(
        f"""
        create function public.refuse() returns trigger language plpgsql as $$
        begin
          raise exception using errcode = '{code}', message = 'not now';
        end
        $$;
        create trigger refuse before insert on rowcron.ledger
        for each row when (new.outcome = 'succeeded') execute function public.refuse()
        """.encode()
    )
    run = jobs.run("python", f"insert{kind}", max_lost=2)
    entry = jobs.end(run)
    assert entry["outcome"] == "lost"
    assert entry["reason"].startswith("its end could not be recorded")
    assert len(jobs.entries(run)) <= 3
    assert effects(jobs) == []
