"""Say what an installer lacks when the server has refused a statement of the installation."""

from __future__ import annotations

import psycopg
from psycopg import errors as pg

from rowcron.chapters import LOCK_TIMEOUT, InstallError
from rowcron.single_role import ROLES

# What may be lacking, the first that is: a message (null: the server's own) and a hint.
_LACKS = """
select w.message, w.hint
from (
  select quote_ident(current_user) as me, quote_ident(current_database()) as here,
    exists (select from pg_roles where rolname = current_user and (rolcreaterole or rolsuper))
      as may_create_roles
) as i
left join lateral (
  select r.oid, pg_has_role(r.oid, case
    when current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end
  ) as is_mine
  from pg_roles as r where r.rolname = 'rowcron_owner'
) as o on true
left join lateral (
  select n.nspname as schema, n.nspowner::regrole as owner
  from pg_namespace as n
  where n.nspname in ('rowcron', 'rowcron_executor')
    and n.nspowner not in (coalesce(o.oid, 0::oid), me::regrole)
  order by n.nspname limit 1
) as s on true
cross join lateral (values
  (s.schema is not null, null,
    format('schema %%s belongs to %%s: install as that role; or, if it is not rowcron''s: '
      'drop schema %%s;', s.schema, s.owner, s.schema)),
  (not %(single)s and o.is_mine is false, null,
    format('another role has installed rowcron in this cluster; as that one or as a superuser: '
      'grant %%s to %%s with admin option;', %(roles)s::text, me)),
  (not %(single)s and o.oid is null and not may_create_roles,
    format('role %%s may not create roles', me),
    format('as a superuser: alter role %%s createrole;', me)),
  (not has_database_privilege(current_database(), 'create'),
    format('role %%s may not create schemas here', me),
    format('as a superuser: grant create on database %%s to %%s;', here, me)),
  ((select not has_language_privilege(l.oid, 'usage') from pg_language as l
    where l.lanname = 'plpgsql'), null,
    'as a superuser: grant usage on language plpgsql to public; owners of jobs need it, too'),
  (true, null, format('as a superuser: give %%s the right to what the message names',
    case when %(single)s then me else concat_ws(', ', me, 'rowcron_owner', 'rowcron_gate') end))
) as w (lacks, message, hint)
where w.lacks and (%(denied)s or s.schema is not null)
limit 1
"""


def explain(
    conn: psycopg.Connection, error: psycopg.Error, where: str, alone: str | None = None
) -> InstallError:
    """Say what is missing; `conn` is usable again (rolled back), `alone` is the single role."""
    primary = error.diag.message_primary or str(error)
    state = error.sqlstate or ""
    denied = isinstance(error, pg.InsufficientPrivilege)
    # or there is no rowcron_owner, because the schema is a single role's
    if denied or isinstance(error, (pg.InvalidParameterValue, pg.UndefinedObject)):
        with conn.transaction():
            conn.execute("set local search_path = pg_catalog, pg_temp")
            row = conn.execute(
                _LACKS,
                {"single": alone is not None, "roles": ", ".join(ROLES), "denied": denied},
            ).fetchone()
        if row is not None:
            return InstallError(row[0] or f"{where}: {primary}", row[1], state)
    if isinstance(error, pg.ReadOnlySqlTransaction):
        hint = "name the primary; or as its administrator: set default_transaction_read_only = off"
        return InstallError(f"{where}: the database takes no writes: {primary}", hint, state)
    if isinstance(error, pg.LockNotAvailable):
        return InstallError(
            f"{where}: other sessions use the schema for longer than {LOCK_TIMEOUT}",
            "stop the workers, or wait for running jobs, then: rowcron install",
            state,
        )
    hint = error.diag.message_hint or "nothing was changed; this is a defect of rowcron or of a"
    if not error.diag.message_hint:
        hint += " schema changed by hand: please report it with the message above"
    return InstallError(f"{where}: {primary}", hint, state)
