"""A database whose clock stands still.

Functions of the schema say `clock_timestamp()`, found through their own search_path, which begins
with pg_catalog. In one database of a test server a schema is put before it, in which a function of
that name reads a setting: so everything runs as it stands, triggers included, at any instant.
"""

from __future__ import annotations

import psycopg

FREEZE = """
create schema frozen;
grant usage on schema frozen to public;
create function frozen.clock_timestamp() returns timestamptz
language sql stable as $$ select current_setting('frozen.at')::timestamptz $$;
create function frozen.pg_postmaster_start_time() returns timestamptz
language sql stable as $$ select current_setting('frozen.started')::timestamptz $$;
select set_config('frozen.started', '2030-01-01', false);
select set_config('frozen.at', '2030-01-01', false);
do $$
declare
  f regprocedure;
begin
  for f in
    select p.oid from pg_proc as p
    where p.pronamespace = 'rowcron'::regnamespace and p.provolatile <> 'i'
      and 'search_path=pg_catalog, pg_temp' = any (p.proconfig)
  loop
    execute format('alter function %s set search_path to frozen, pg_catalog, pg_temp', f);
  end loop;
end
$$;
"""


def freeze(db: psycopg.Connection) -> None:
    """Do that to the database of a superuser's connection, and commit."""
    db.execute(FREEZE)
    db.commit()


def set_clock(db: psycopg.Connection, at: str) -> None:
    """It is now `at`, for this connection."""
    db.execute("select set_config('frozen.at', %s, false)", (at,))


def set_start(db: psycopg.Connection, at: str) -> None:
    """PostgreSQL started at that instant, for this connection."""
    db.execute("select set_config('frozen.started', %s, false)", (at,))
