"""Who may connect to the embedded server, and as whom.

Through the socket: the operating system's user who started it, and root, as any role; the kernel
vouches for who they are (`peer`). Over TCP, only when a port was asked for, on loopback: who knows
the password (SCRAM). Nobody else, and never by trust.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
from pathlib import Path

import psycopg
from psycopg import sql

from rowcron.embedded_os import private_file

DATABASE = "rowcron"
ADMIN = "postgres"  # the superuser that initdb makes
INSTALLER = "rowcron_installer"
WORKER = "rowcron_embedded_worker"
PERSON_ROLES = ("user", "shell", "http", "python", "operator", "viewer", "web")

HEADER = "# Written by rowcron at every start of the embedded server: changes here do not last.\n"
OWN_PATH = "-c search_path=pg_catalog,pg_temp"  # the person may create functions in public


def person() -> str:
    """The login of whoever runs this: the OS user's name when that is a plain one, or `me`."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "me"
    reserved = name in ("public", "none", ADMIN) or name.startswith(("pg_", "rowcron"))
    return name if re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name) and not reserved else "me"


def hba_text(*, tcp: bool) -> str:
    """pg_hba.conf."""
    lines = ["local all all peer map=rowcron"]
    if tcp:
        lines += [f"host all all {host} scram-sha-256" for host in ("127.0.0.1/32", "::1/128")]
    return HEADER + "\n".join(lines) + "\n"


def ident_text() -> str:
    """pg_ident.conf: the operating system's user who started the server, and root, as any role."""
    names = dict.fromkeys([pwd.getpwuid(os.geteuid()).pw_name, "root"])
    return HEADER + "".join(f'rowcron "{name}" all\n' for name in names)


def give_password(conn: psycopg.Connection, role: str, pgpass: Path) -> None:
    """Give `role` a new random password, kept in `pgpass` alone (0600, libpq's format).

    The server is told the SCRAM verifier, so that the password is in no log. A password that is
    there already stays.
    """
    known = pgpass.read_text("utf-8") if pgpass.exists() else ""
    if f"*:*:*:{role}:" in known:
        return
    password = secrets.token_urlsafe(24)
    verifier = conn.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    statement = sql.SQL("alter role {} password {}")
    conn.execute(statement.format(sql.Identifier(role), sql.Literal(verifier.decode())))
    handle = private_file(pgpass, os.O_WRONLY | os.O_APPEND)
    with os.fdopen(handle, "a", encoding="utf-8") as file:
        file.write(f"*:*:*:{role}:{password}\n")


def create_logins(admin_url: str, login: str) -> None:
    """The installer, the worker, the person and the database; what is there already stays."""
    with psycopg.connect(admin_url, dbname="postgres", autocommit=True, options=OWN_PATH) as conn:
        known = {row[0] for row in conn.execute("select rolname from pg_catalog.pg_roles")}
        for role, options in ((INSTALLER, "login createrole"), (WORKER, "login"), (login, "login")):
            if role not in known:
                statement = sql.SQL("create role {} {}")
                conn.execute(statement.format(sql.Identifier(role), sql.SQL(options)))
        named = "select 1 from pg_catalog.pg_database where datname = %s"
        if conn.execute(named, [DATABASE]).fetchone() is None:
            statement = sql.SQL("create database {} owner {}")
            conn.execute(statement.format(sql.Identifier(DATABASE), sql.Identifier(INSTALLER)))


def grant_roles(admin_url: str, login: str) -> None:
    """After the schema is installed: the person may do everything, the worker only its verbs."""
    wanted = [(f"rowcron_{name}", login) for name in PERSON_ROLES] + [("rowcron_worker", WORKER)]
    with psycopg.connect(admin_url, autocommit=True, options=OWN_PATH) as conn:
        for role, member in wanted:
            held = "select pg_catalog.pg_has_role(%s, %s, 'member')"
            if not (conn.execute(held, [member, role]).fetchone() or [False])[0]:
                statement = sql.SQL("grant {} to {}")
                conn.execute(statement.format(sql.Identifier(role), sql.Identifier(member)))
        schema = sql.SQL("grant create, usage on schema public to {}")
        conn.execute(schema.format(sql.Identifier(login)))
