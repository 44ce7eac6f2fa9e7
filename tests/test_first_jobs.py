"""Two transactions store an owner's first job at once."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from psycopg import IsolationLevel

Connect = Callable[[str], psycopg.Connection]
JOB = "insert into rowcron.job (name, command) values (%s, 'select 1')"


@pytest.mark.parametrize(
    "level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE], ids=lambda x: x.name
)
def test_who_has_the_older_snapshot_is_told_to_repeat_its_transaction(
    connect: Connect, level: IsolationLevel
) -> None:
    one, other = connect("alice"), connect("alice")
    one.autocommit = False
    one.isolation_level = level
    one.execute("select count(*) from rowcron.job")  # its snapshot
    other.execute(JOB, ["first"])
    with pytest.raises(psycopg.errors.SerializationFailure):
        one.execute(JOB, ["second"])
    one.rollback()
    one.execute(JOB, ["second"])
    one.commit()
    owned = "select count(*) from pg_proc where pronamespace = 'rowcron_executor'::regnamespace"
    assert other.execute(owned).fetchone() == (1,)
