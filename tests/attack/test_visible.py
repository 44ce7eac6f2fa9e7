# ruff: noqa: E501 -- the statements read better whole
"""Who may see another's job, as a viewer, may do no more with it than who does not."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from attack.conftest import Attack, Connect
from test_execute import Hands, add, only
from test_retention import maintain

RUN = (
    "insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at, args{columns})"
    " select id, name, '{owner}'::regrole, queue, kind, 'ready', now(), '{{\"to\": \"carol\"}}'{values}"
    " from rowcron.job where name = 'payroll'"
)
PAYROLL = "insert into public.paid select current_user, current_setting('rowcron.args')"


@pytest.fixture
def carol(
    db: psycopg.Connection, bob: psycopg.Connection, connect: Connect
) -> Iterator[psycopg.Connection]:
    """An author who is a viewer too; bob has a job that pays."""
    db.execute("drop role if exists carol")
    db.execute("create role carol login; grant rowcron_user, rowcron_viewer to carol")
    db.execute("create table paid (who text, args text); grant insert on paid to public")
    add(bob, "payroll", PAYROLL)
    connection = connect("carol")
    connection.execute("set client_min_messages = error")
    yield connection
    connection.close()
    db.execute("drop owned by carol; drop role carol")


def reasons(db: psycopg.Connection) -> list[tuple[str, ...]]:
    """How the runs of carol ended."""
    return db.execute(
        "select outcome, reason from rowcron.ledger where owner = 'carol'::regrole"
    ).fetchall()


def test_a_viewer_s_run_of_another_s_job_is_refused(
    carol: psycopg.Connection,
    bob: psycopg.Connection,
    db: psycopg.Connection,
    hands: Hands,
    attack: Attack,
) -> None:
    for claimed in hands.claim():  # bob's own
        hands.execute(claimed)
    for owner in ("carol", "bob"):
        attack.refused(carol, RUN.format(owner=owner, columns="", values=""), "42501")
    taken = only(bob, "select rowcron.enqueue('payroll', key => 'taken')")
    for owner in ("carol", "bob"):
        for key in ("taken", "free"):
            values = f", '{key}', now() + interval '1 day'"
            attack.refused(
                carol,
                RUN.format(owner=owner, columns=", key, key_expires_at", values=values),
                "RCNOJ",
            )
    for call, code in {
        "rowcron.enqueue('payroll', owner => 'bob')": "42501",
        "rowcron.enqueue('payroll', key => 'taken', owner => 'bob')": "RCNOJ",
        "rowcron.enqueue_many('payroll', array['{}'::jsonb], owner => 'bob')": "42501",
        "rowcron.run_now('payroll', owner => 'bob')": "RCNOJ",
        f"rowcron.cancel({taken})": "RCNOR",
        f"rowcron.retry({only(db, 'select max(run_id) from rowcron.ledger')})": "RCNOR",
        "rowcron.pause('payroll', 'bob')": "RCOWN",
        "rowcron.unschedule('payroll', 'bob')": "RCOWN",
        "rowcron.hand_over('payroll', 'carol', 'bob')": "RCNOJ",
        "rowcron.hold()": "RCOWN",
        "rowcron.grant_secret('S', 'carol')": "RCOWN",
        "rowcron.grant_connection('c', 'carol')": "RCOWN",
        "rowcron.schedule('payroll', command => 'x', owner => 'bob')": "RCOWN",
    }.items():
        attack.refused(carol, f"select {call}", code)
    for statement in ("update rowcron.job set command = 'x'", "delete from rowcron.job"):
        assert carol.execute(statement.encode()).rowcount == 0
    for claimed in hands.claim():
        hands.execute(claimed)
    assert [who for (who, _) in db.execute("select * from paid").fetchall()] == ["bob", "bob"]
    assert hands.claim() == []


def test_an_operator_who_is_an_author_enqueues_for_the_owner_alone(
    carol: psycopg.Connection, db: psycopg.Connection, hands: Hands, attack: Attack
) -> None:
    db.execute("grant rowcron_operator to carol")
    attack.refused(carol, RUN.format(owner="carol", columns="", values=""), "42501")
    carol.execute("select rowcron.enqueue('payroll', key => 'k', owner => 'bob')")
    assert {run["owner"] for run in hands.claim()} == {"bob"}


def test_a_run_that_is_not_its_job_s_owner_s_ends_unrun(
    carol: psycopg.Connection, bob: psycopg.Connection, db: psycopg.Connection, hands: Hands
) -> None:
    """As an older release let it be stored."""
    stored = RUN.format(owner="carol", columns="", values="").encode()
    db.execute(stored)
    for _ in range(3):
        for claimed in hands.claim():
            assert claimed["owner"] == "bob"
            hands.execute(claimed)
    db.execute(stored)
    bob.execute("update rowcron.job set queue = 'other'")
    assert only(db, "select owner::text from rowcron.run") == "carol", "an edit does not adopt it"
    maintain(db)
    assert reasons(db) == [("cancelled", "the run does not fit its job")] * 2
    assert db.execute("select who, args from paid").fetchall() == [("bob", "{}")]
    assert only(db, "select count(*) from rowcron.run") == 0


@pytest.mark.parametrize("by", ["claim", "maintenance"])
def test_a_run_that_did_not_see_its_job_handed_over_follows_it(
    db: psycopg.Connection, carol: psycopg.Connection, bob: psycopg.Connection, hands: Hands,
    connect: Connect, by: str,
) -> None:  # fmt: skip
    for claimed in hands.claim():
        hands.execute(claimed)
    db.execute("grant bob to carol")
    try:
        with bob.transaction():
            bob.execute("select rowcron.enqueue('payroll')")
            carol.execute("select rowcron.hand_over('payroll', 'carol', 'bob')")
        assert only(db, "select owner::text from rowcron.run") == "bob"
        if by == "maintenance":
            maintain(db)
            assert only(db, "select owner::text from rowcron.run") == "carol"
        else:
            assert hands.claim() == []
        (claimed,) = hands.claim()
        hands.execute(claimed)
        assert db.execute("select who from paid order by 1").fetchall() == [("bob",), ("carol",)]
    finally:
        db.execute("revoke bob from carol")
