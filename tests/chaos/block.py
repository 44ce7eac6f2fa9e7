"""A point inside the database at which the first session that comes by stands still."""

from __future__ import annotations

import itertools
from types import TracebackType

import psycopg

from harness import wait_until

_GATE, _TURN = 7_001, 7_002  # advisory locks: who holds the gate closed; who stands before it
_numbers = itertools.count(1)


class Block:
    """A trigger of a superuser's that waits before or after a change of a row, or at COMMIT.

    One session alone stands still, so that others can do the same meanwhile.
    """

    def __init__(
        self, db: psycopg.Connection, table: str, event: str, when: str = "", *, late: bool = False
    ) -> None:
        self.db = db
        self.pid = 0
        name = f"chaos_block_{next(_numbers)}"
        db.execute("""
            create or replace function public.chaos_block() returns trigger language plpgsql as $$
            begin
              if pg_catalog.pg_try_advisory_xact_lock(7002) then
                perform pg_catalog.pg_advisory_xact_lock_shared(7001);
              end if;
              return case when tg_op = 'DELETE' then old else new end;
            end
            $$
        """)
        condition = f"when ({when})" if when else ""
        kind = "constraint trigger" if late else "trigger"
        moment = "after" if late else "before"
        put_off = "deferrable initially deferred" if late else ""
        db.execute(
            f"create {kind} {name} {moment} {event} on {table} {put_off} for each row {condition}"
            " execute function public.chaos_block()".encode()
        )

    def __enter__(self) -> Block:
        self.gate = psycopg.connect(self.db.info.dsn, autocommit=True)
        self.gate.execute(f"select pg_advisory_lock({_GATE})".encode())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.open()

    def wait(self, limit: float = 20.0) -> int:
        """Wait until a session stands here; return its pid."""
        query = "select pid from pg_locks where locktype = 'advisory' and objid = %s"
        query += " and not granted and database = (select oid from pg_database"
        query += " where datname = current_database())"

        def standing() -> int:
            row = self.db.execute(query.encode(), [_GATE]).fetchone()
            return int(row[0]) if row else 0

        self.pid = wait_until(standing, limit, "a session at the point")
        return self.pid

    def open(self) -> None:
        """Whoever stands here goes on, and nobody does any more."""
        self.gate.close()
