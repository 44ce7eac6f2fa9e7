"""Where roles cannot be made: the chapters with one role in the place of all of rowcron's.

Everything works, but nothing is kept apart: whoever logs in as that role reads and writes all, and
each job has all its rights. `adopt` gives such a schema to the roles when they exist, and so what a
restore without owners has given to the restorer.
"""

from __future__ import annotations

import re

import psycopg
from psycopg import sql

ROLES = (
    "rowcron_owner", "rowcron_gate", "rowcron_user", "rowcron_operator", "rowcron_viewer",
    "rowcron_worker", "rowcron_execute", "rowcron_shell", "rowcron_http", "rowcron_python",
    "rowcron_web",
)  # fmt: skip
# A comment, a whole literal, or a role's name outside of both.
_PARTS = re.compile(rf"--[^\n]*|'(?:[^']|'')*'|\b(?:{'|'.join(ROLES)})\b")
_LITERALS = {f"'{role}'" for role in ROLES}

_STANDING = """
select n.nspowner::regrole::text, n.nspowner = quote_ident(current_user)::regrole,
  pg_has_role(current_user, n.nspowner, 'usage')
from pg_catalog.pg_namespace as n where n.nspname = 'rowcron'
"""
_MAY_SEPARATE = """
select exists (select from pg_catalog.pg_roles where rolname = current_user
    and (rolcreaterole or rolsuper))
  or (select count(*) = 2 from pg_catalog.pg_roles as r
    where r.rolname in ('rowcron_owner', 'rowcron_gate')
      and pg_has_role(current_user, r.oid, %s))
"""
# The schema first: a new owner of what is in it needs the right to create there.
_ADOPT = """
do $adopt$
declare
  statement text;
  role text;
begin
  foreach role in array string_to_array(%s, ' ') loop
    if not exists (select from pg_catalog.pg_roles as r where r.rolname = role) then
      execute format('create role %%I nologin', role);
    end if;
    if role in ('rowcron_owner', 'rowcron_gate')
      and not pg_has_role(current_user, role, 'usage')
    then
      execute format('grant %%I to %%I', role, current_user);
    end if;
  end loop;
  alter schema rowcron owner to rowcron_owner;
  alter schema rowcron_executor owner to rowcron_owner;
  for statement in
    select format('alter %%s %%s owner to rowcron_owner',
      case c.relkind when 'v' then 'view' when 'c' then 'type' else 'table' end, c.oid::regclass)
    from pg_catalog.pg_class as c
    where c.relnamespace = 'rowcron'::regnamespace and c.relkind in ('r', 'p', 'v', 'c')
      and c.relowner = quote_ident(current_user)::regrole
    union all
    select format('alter type %%s owner to rowcron_owner', t.oid::regtype)
    from pg_catalog.pg_type as t
    where t.typnamespace = 'rowcron'::regnamespace and t.typtype in ('d', 'e')
      and t.typowner = quote_ident(current_user)::regrole
    union all
    select format('alter routine %%s owner to rowcron_owner', p.oid::regprocedure)
    from pg_catalog.pg_proc as p
    where p.pronamespace = 'rowcron'::regnamespace and p.proname <> 'execute'
      and p.proowner = quote_ident(current_user)::regrole
    union all
    select format('grant execute on function %%s to rowcron_gate', p.oid::regprocedure)
    from pg_catalog.pg_proc as p
    where p.pronamespace = 'rowcron_executor'::regnamespace
      and p.proowner = quote_ident(current_user)::regrole
  loop
    execute statement;
  end loop;
  set local role rowcron_owner;
  grant usage, create on schema rowcron to rowcron_gate;
  reset role;
  alter function rowcron.execute(bigint, uuid) owner to rowcron_gate;
  -- A restore without owners has left these with the restorer. Only a superuser may give them to
  -- whoever may not create there; to no superuser, who may be of the same name by chance.
  if (select r.rolsuper from pg_catalog.pg_roles as r where r.rolname = current_user) then
    for statement in
      select format('alter function %%s owner to %%s', p.oid::regprocedure, e.owner)
      from rowcron.executor as e
      join pg_catalog.pg_roles as r on r.oid = e.owner and not r.rolsuper
      join pg_catalog.pg_proc as p
        on p.proname = e.name and p.pronamespace = 'rowcron_executor'::regnamespace
      where p.proowner = quote_ident(current_user)::regrole
    loop
      execute statement;
    end loop;
  end if;
end
$adopt$
"""


def renamed(text: str, role: str) -> str:
    """Return a chapter in which `role` stands for each of rowcron's roles.

    Comments and longer literals stay as they are: the chapters put no role's name into one that
    they execute.
    """
    identifier, literal = sql.Identifier(role).as_string(None), sql.Literal(role).as_string(None)

    def replaced(match: re.Match[str]) -> str:
        part = match[0]
        if part in _LITERALS:
            return literal.strip()
        return part if part.startswith(("--", "'")) else identifier

    return _PARTS.sub(replaced, text)


def role_of(conn: psycopg.Connection, *, wanted: bool) -> str | None:
    """Return the single role that this installation has or shall have; None: separate roles.

    A schema that a single role owns is given to rowcron's roles when they can be had, unless
    `wanted`; the schema is `adopt`ed then.
    """
    standing = conn.execute(_STANDING).fetchone()
    me = conn.execute("select current_user::text").fetchone()
    assert me is not None
    if standing is None:
        return str(me[0]) if wanted else None
    owner, mine, _ = standing
    if owner == "rowcron_owner" or not mine:
        return None
    if wanted or not _may_separate(conn):
        return str(me[0])
    adopt(conn)
    return None


def _may_separate(conn: psycopg.Connection) -> bool:
    right = "set" if conn.info.server_version >= 160000 else "member"
    row = conn.execute(_MAY_SEPARATE, [right]).fetchone()
    return row is not None and bool(row[0])


def adopt(conn: psycopg.Connection) -> None:
    """Give the schema of a single role to rowcron_owner and rowcron_gate, in this transaction."""
    conn.execute(psycopg.ClientCursor(conn).mogrify(_ADOPT, [" ".join(ROLES)]).encode())
