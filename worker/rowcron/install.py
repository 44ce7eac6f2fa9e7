"""Compare the schema that a database has with the package's, and bring it up to date.

The chapters are plain SQL that can be applied again and again. They are applied in one transaction
under an advisory lock, so that any number of installers end well, and a hash of them all is kept in
``rowcron.setting`` so that applying the same chapters again costs two queries.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
from psycopg import errors as pg

from rowcron import __version__, single_role
from rowcron.chapters import (
    LOCK_KEY,
    LOCK_TIMEOUT,
    InstallError,
    chapters,
    remember_hash,
    schema_hash,
    script,
)
from rowcron.denied import explain
from rowcron.encoding import CLIENT

__all__ = ["InstallError", "Installed", "chapters", "install", "schema_hash", "script"]

OLDEST_SERVER = 150000
DEADLOCK_TRIES = 3
_OWNERS = """
select pg_catalog.pg_get_userbyid(n.nspowner), pg_catalog.pg_get_userbyid(p.proowner)
from pg_catalog.pg_namespace as n
left join pg_catalog.pg_proc as p
  on p.oid = pg_catalog.to_regprocedure('rowcron.execute(bigint, uuid)')
where n.nspname = 'rowcron'
"""
# Zone files may be others now (sql/053); the chapters do so, too.
_RENEW_AGENDA = "update rowcron.setting set value = 'null' where name = 'agenda_renewed'"


@dataclass(frozen=True)
class Installed:
    """What an installation did: ``changed`` is false when the schema was already this one.

    ``single_role`` is the role that plays all parts, None where they are separate.
    """

    changed: bool
    version: str
    previous: str | None
    single_role: str | None = None


def version_key(version: str) -> tuple[int, ...]:
    """A version as numbers that compare: '1.10.0' is after '1.9.2'; a suffix is ignored."""
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3])


def _stored(conn: psycopg.Connection, alone: str | None) -> dict[str, str]:
    """The version and hash that the database has; empty when the schema is not there."""
    there = conn.execute(
        "select 1 from pg_catalog.pg_class as c"
        " join pg_catalog.pg_namespace as n on n.oid = c.relnamespace"
        " where n.nspname = 'rowcron' and c.relname = 'setting'"
    ).fetchone()
    if there is None:
        return {}
    with conn.transaction():
        if alone is None:
            conn.execute("set local role rowcron_owner")
        rows = conn.execute(
            "select name, value #>> '{}' from rowcron.setting"
            " where name in ('schema_version', 'schema_hash')"
        ).fetchall()
        conn.execute("reset role")
    return {str(name): str(value) for name, value in rows}


def _refuse_newer(stored: dict[str, str]) -> None:
    version = stored.get("schema_version")
    if version is not None and version_key(version) > version_key(__version__):
        raise InstallError(
            f"the schema in the database is rowcron {version}, newer than this package,"
            f" {__version__}",
            f"pip install 'rowcron>={version}'",
            "RCVER",
        )


def _apply(conn: psycopg.Connection, *, force: bool, wanted: bool) -> Installed:
    """One try, in one transaction. A chapter is one simple-query string: it has no parameters."""
    where = "rowcron install"
    alone = None
    try:
        with conn.transaction():
            # whoever may create functions in a schema of the path could have ours call them
            conn.execute("set local search_path = pg_catalog, pg_temp")
            conn.execute("select pg_catalog.pg_advisory_xact_lock(%s)", [LOCK_KEY])
            owners = conn.execute(_OWNERS).fetchone()
            alone = single_role.role_of(conn, wanted=wanted)
            stored = _stored(conn, alone)
            _refuse_newer(stored)
            previous = stored.get("schema_version")
            # a restore may have left either with somebody else
            same = owners == (alone or "rowcron_owner", alone or "rowcron_gate")
            if stored.get("schema_hash") == schema_hash(alone) and same and not force:
                if alone is None:
                    conn.execute("set local role rowcron_owner")
                conn.execute(_RENEW_AGENDA)
                return Installed(False, __version__, previous, alone)
            conn.execute("set local client_min_messages = warning")
            conn.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
            for name, text in (*((c.name, c.text) for c in chapters()), ("", remember_hash(alone))):
                where = name or "rowcron install"
                text = text if alone is None else single_role.renamed(text, alone)
                conn.execute(text.encode())
    except pg.DeadlockDetected:
        raise
    except psycopg.Error as error:
        if conn.closed:
            raise
        raise explain(conn, error, where, alone) from error
    return Installed(True, __version__, previous, alone)


def install(database_url: str, *, force: bool = False, single_role: bool = False) -> Installed:
    """Install the schema or bring it up to date; a cheap no-op when it already is this one.

    `force` applies the chapters even so. `single_role` lets the installer's role play all parts;
    an installation that is so already stays so until its installer may make or use rowcron's
    roles, which then take it over. Raises `InstallError` when the server is older than 15,
    the schema is newer than this package or the role lacks a right; psycopg's own errors when
    there is no connection. Nothing is half-installed.
    """
    with psycopg.connect(
        database_url,
        autocommit=True,
        prepare_threshold=None,
        application_name="rowcron",
        client_encoding=CLIENT,
    ) as conn:
        server = conn.info.server_version
        if server < OLDEST_SERVER:
            raise InstallError(
                f"PostgreSQL {server // 10000}.{server % 10000} is too old",
                "rowcron needs PostgreSQL 15 or newer",
                "RCVER",
            )
        for tries_left in reversed(range(DEADLOCK_TRIES)):
            try:
                return _apply(conn, force=force, wanted=single_role)
            except pg.DeadlockDetected as error:
                if not tries_left:
                    raise explain(conn, error, "rowcron install") from error
        raise AssertionError("unreachable")
