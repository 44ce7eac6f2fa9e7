-- Where a claim begins to look. The rows that were handed out stay in the indexes until no snapshot
-- can see them any more, and while a transaction is open that is older than half a million finished
-- runs, each look at the ready ones would pass over half a million dead entries. So a session that
-- has passed over many remembers how far it has come, a bound for each queue, kind and priority,
-- and begins there; for the agenda and for what waits for its time likewise.
--
-- A bound is a guess, never a promise: below it may lie what was committed late, put back, or is due
-- earlier than what was there. So all is looked at again, from the beginning, within a second or ten
-- times what the last such sweep took, whichever is longer; in a tenth of its time also when a claim
-- brought less than there was room for. A bound lies half a second in the past at least, so that
-- only transactions that commit later than that can be below it. A higher priority, or one without
-- a bound, is always looked at.
--
-- What is remembered belongs to the session, as a setting: a table's row, written under the held
-- snapshot, would only grow dead versions of its own. A session that has forgotten, or behind a
-- pooler is another one, looks at everything; one that other workers have used looks no later.

set role rowcron_owner;

do $$
begin
  if to_regtype('rowcron._band') is null then
    create type rowcron._band as (
      step integer,
      queue text,
      kind text,
      from_rank integer,
      from_due_at timestamptz,
      from_id bigint,
      until_rank integer
    );
    create type rowcron._reached as (
      swept_at timestamptz,
      took double precision,
      short boolean,
      idle boolean,
      fired_until timestamptz,
      promoted_until timestamptz,
      bounds rowcron._band[]
    );
  end if;
end
$$;
comment on type rowcron._band is
  'A range of run_ready_idx: of a queue and kind, from this rank (the priority''s complement, so '
    'that all ascend), instant and id, up to a last rank. Bands of a lower step go first.';
comment on type rowcron._reached is
  'What a session remembers: when it last looked at everything and how many seconds that took, '
    'whether the last claim brought less than asked, whether everything was looked at while the '
    'worker''s sleep was settled, and the bounds (bands without step and last rank).';

-- plpgsql, also where an expression would do: a session plans it once, and functions in SQL anew in
-- each statement before PostgreSQL 18.
create or replace function rowcron._reach_key(queues text[], kinds text[], handlers text[])
returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return 'rowcron.reached_' || md5(concat_ws('/', queues::text, kinds::text, handlers::text));
end
$$;
comment on function rowcron._reach_key(text[], text[], text[]) is
  'The setting in which a session remembers its bounds for these queues (null: all), kinds and '
    'handlers.';

create or replace function rowcron._recall(key text) returns rowcron._reached
language plpgsql stable
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD'
as $$
declare
  noted text := current_setting(key, true);
  reached rowcron._reached;
begin
  if noted <> '' then
    begin
      reached := noted::rowcron._reached;
    exception when others then
      reached := null;  -- somebody else's setting: as if there were none
    end;
    if reached.swept_at <= clock_timestamp() and reached.took >= 0 then
      return reached;
    end if;
  end if;
  return null;
end
$$;
comment on function rowcron._recall(text) is 'What this session remembers; null: nothing.';

create or replace function rowcron._remember(key text, reached rowcron._reached) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD'
as $$
begin
  perform set_config(key, coalesce(reached::text, ''), false);
end
$$;
comment on function rowcron._remember(text, rowcron._reached)
  is 'Remembers it in this session; null: forgets.';

create or replace function rowcron._sweep_due(reached rowcron._reached, at_once boolean)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return reached.swept_at is null or clock_timestamp() >= reached.swept_at
    + make_interval(secs => greatest(case when at_once then 0 else 1 end, 10 * reached.took));
end
$$;
comment on function rowcron._sweep_due(rowcron._reached, boolean) is
  'Whether to look at everything now: after a second or ten times what it took; at_once: after the '
    'latter alone.';

create or replace function rowcron._passed_over() returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return pg_stat_get_xact_tuples_returned('rowcron.run_ready_idx'::regclass)
    - pg_stat_get_xact_tuples_fetched('rowcron.run_ready_idx'::regclass)
    + pg_stat_get_xact_tuples_returned('rowcron.run_waiting_idx'::regclass)
    - pg_stat_get_xact_tuples_fetched('rowcron.run_waiting_idx'::regclass)
    + pg_stat_get_xact_tuples_returned('rowcron.agenda_due_idx'::regclass)
    - pg_stat_get_xact_tuples_fetched('rowcron.agenda_due_idx'::regclass);
end
$$;
comment on function rowcron._passed_over() is
  'How many entries of rows that are no more this session''s statements have met in the indexes '
    'that a claim begins with. Only differences within a transaction mean something.';

create or replace function rowcron._bands(queues text[], kinds text[], bounds rowcron._band[])
returns rowcron._band[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  bands rowcron._band[];
begin
  if bounds is null then
    for i in 1..coalesce(cardinality(queues), 0) loop
      bands[i] := row(1, queues[i], kinds[i], -2147483648, '-infinity', 0, 2147483647);
    end loop;
    return bands;
  end if;
  return rowcron._bands_from(queues, kinds, bounds);
end
$$;
comment on function rowcron._bands(text[], text[], rowcron._band[]) is
  'The ranges to look through, in order, so that nothing but what is below a bound is left out: '
    'with each priority that has one also the lower ones up to the next.';

create or replace function rowcron._bands_from(queues text[], kinds text[], bounds rowcron._band[])
returns rowcron._band[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
set enable_hashjoin = on  -- claim() has it off, and compares each lane with each bound else
as $$
begin
  return (
    with ranks as (
      select r.rank, lead(r.rank::bigint, 1, 2147483648) over (order by r.rank) as next
      from (
        select -2147483648 as rank union select b.from_rank from unnest(bounds) as b
      ) as r
    )
    select array_agg(row(
      r.step, l.queue, l.kind, r.rank, coalesce(b.from_due_at, '-infinity'), coalesce(b.from_id, 0),
      r.next - 1
    )::rowcron._band order by r.step)
    from (select r.rank, r.next, row_number() over (order by r.rank) as step from ranks as r) as r
    cross join unnest(queues, kinds) as l (queue, kind)
    left join unnest(bounds) as b
      on b.queue = l.queue and b.kind = l.kind and b.from_rank = r.rank
  );
end
$$;
comment on function rowcron._bands_from(text[], text[], rowcron._band[]) is
  '_bands, where there are bounds.';

create or replace function rowcron._lowered(bounds rowcron._band[], at timestamptz)
returns rowcron._band[]
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select case when exists (select from unnest(bounds) as b where b.from_due_at > at) then (
    select array_agg(row(null, b.queue, b.kind, b.from_rank, least(b.from_due_at, at),
      case when b.from_due_at <= at then b.from_id else 0 end, null)::rowcron._band)
    from unnest(bounds) as b
  ) else bounds end
$$;
comment on function rowcron._lowered(rowcron._band[], timestamptz) is
  'The bounds, none later than an instant from which on something is put among the ready runs now.';

create or replace function rowcron._advance(
  bounds rowcron._band[], queues text[], kinds text[], picked tid[], swept boolean, short boolean,
  latest timestamptz
) returns rowcron._band[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with last as materialized (
      -- of what was picked the last instant of each; not later than `latest`
      select r.queue, r.kind, r.rank, least(max(r.due_at), latest) as due_at
      from rowcron.run as r
      where r.ctid = any (picked)
      group by r.queue, r.kind, r.rank
    ), places as (
      select l.queue, l.kind, l.rank, l.due_at, 0 as id, swept as certain from last as l
      union all
      -- and of all the last one, in case that many are due at one instant
      select r.queue, r.kind, r.rank, r.due_at, r.id, swept
      from rowcron.run as r
      where r.ctid = picked[cardinality(picked)] and r.due_at <= latest
        -- of the others fired at that instant some may not be committed
        and r.created_at <= latest
      union all
      select b.queue, b.kind, b.from_rank, b.from_due_at, b.from_id, false from unnest(bounds) as b
      union all
      -- nothing is left of any known priority, and of the usual one
      select l.queue, l.kind, k.rank, latest, 0, false
      from unnest(queues, kinds) as l (queue, kind)
      cross join (
        select -1 as rank union select b.from_rank from unnest(bounds) as b
        union select l.rank from last as l
      ) as k
      where short
    ), furthest as (
      select distinct on (p.queue, p.kind, p.rank) p.queue, p.kind, p.rank, p.due_at, p.id
      from places as p
      order by p.queue, p.kind, p.rank, (p.certain and not short) desc, p.due_at desc, p.id desc
    )
    select array_agg(row(null, f.queue, f.kind, f.rank, f.due_at, f.id, null)::rowcron._band)
    from (
      select f.queue, f.kind, f.rank, f.due_at, f.id, dense_rank() over (order by f.rank) as nth
      from furthest as f
    ) as f
    where f.nth <= 200 / cardinality(queues)
  );
end
$$;
comment on function rowcron._advance(
  rowcron._band[], text[], text[], tid[], boolean, boolean, timestamptz
) is
  'The bounds after these rows were picked; short: no others were found. A sweep that found enough '
    'may also lower one. For the highest priorities alone, so that there are about two hundred bands '
    'to look through at most; what has no bound is looked at from its beginning, and so is all where '
    'there are more lanes: to recall the bounds would take longer than to look.';

create or replace function rowcron._note_reach(
  key text, before rowcron._reached, swept boolean, passed bigint, began timestamptz,
  latest timestamptz, queues text[], kinds text[], picked tid[], short boolean, fired boolean,
  promoted boolean
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  reached rowcron._reached := before;
begin
  -- a few are usual, and dear is only the sum
  if swept and passed < 5000 then
    if before.swept_at is not null then
      perform rowcron._remember(key, null);
    end if;
    return;
  end if;
  if swept then
    reached.swept_at := clock_timestamp();
    reached.took := extract(epoch from reached.swept_at - began);
  end if;
  reached.short := short;
  reached.idle := false;
  reached.fired_until := case when fired then latest
    when not swept then before.fired_until end;
  reached.promoted_until := case when promoted then latest
    when not swept then before.promoted_until end;
  reached.bounds := rowcron._advance(before.bounds, queues, kinds, picked, swept, short, latest);
  perform rowcron._remember(key, reached);
end
$$;
comment on function rowcron._note_reach(
  text, rowcron._reached, boolean, bigint, timestamptz, timestamptz, text[], text[], tid[],
  boolean, boolean, boolean
) is
  'After a claim: remembers how far it came if it passed over much, forgets when a sweep did not. '
    'fired, promoted: whether all that was due is done.';

reset role;
