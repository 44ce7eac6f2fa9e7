-- Lost claims. A worker whose heartbeat is overdue is declared lost, and each of its runs is handed
-- out again or ended, by the job's on_lost and max_lost; the attempt stands in the ledger as lost,
-- which is not failed. A run whose row is locked (a SQL job whose session is still executing holds
-- it FOR KEY SHARE) is left alone until that session has ended one way or the other, because it may
-- still commit. Rescuing is repeated as long as a lost worker holds a run.
--
-- A lease ends a lease from now at the latest. One that ends much later was noted while the clock was
-- ahead: it is brought back to that, and whoever is alive is heard of before.
--
-- Nor is lost whom nobody could have heard: a server that was stopped, frozen or cut off, or a standby
-- promoted late, does not judge by that time. It shows in that nobody at all was heard. So whoever
-- breaks the silence puts the others' end off, in the transaction of its own word, which hides it.

set role rowcron_owner;

create or replace function rowcron._last_heard(at timestamptz) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select max(w.seen_at) from rowcron.worker as w
    where w.lost_at is null and w.seen_at < at + interval '1 minute'
  );
end
$$;
comment on function rowcron._last_heard(timestamptz) is
  'When any worker was heard last; what a clock noted that was ahead does not count.';

create or replace function rowcron._is_unheard(
  w rowcron.worker, last_heard timestamptz, at timestamptz
) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- a start in the future was noted while the clock was ahead; put off once a start, by five seconds
  return w.seen_at < pg_postmaster_start_time() and at >= pg_postmaster_start_time()
      and greatest(at, w.expires_at) < pg_postmaster_start_time() + interval '5 seconds'
    -- who lives speaks sooner, asleep or not
    or last_heard <= at - greatest(w.lease * 0.6, least(w.lease, interval '2.5 seconds'))
      -- Once a silence: whose end was put off ends later than it said itself. Else who comes once an
      -- hour, and finds each time that nobody was heard, would never rescue anybody.
      and w.expires_at <= w.seen_at + w.lease;
end
$$;
comment on function rowcron._is_unheard(rowcron.worker, timestamptz, timestamptz) is
  'Whether a worker''s silence says nothing about it, because nobody was heard for as long, or the '
    'server has just started.';

create or replace function rowcron._put_off(worker_id uuid, at timestamptz) returns timestamptz
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- a pulse is back within a second or so, and no pause between two tries is longer than this
  soon constant timestamptz := at + interval '5 seconds';
  last_heard timestamptz := rowcron._last_heard(at);
  unheard uuid[] := array(
    select w.id from rowcron.worker as w
    where w.lost_at is null and w.expires_at < soon and w.id <> _put_off.worker_id
      and rowcron._is_unheard(w, last_heard, at)
  );
  found_ids uuid[];
begin
  if unheard = '{}' then
    return at;
  end if;
  with free as (
    select w.id from rowcron.worker as w
    where w.id = any (unheard) and w.lost_at is null and w.expires_at < soon
    for no key update skip locked
  ), put_off as (
    update rowcron.worker as w set expires_at = soon
    from free as f
    where w.id = f.id
    returning w.id
  )
  select array_agg(p.id) into found_ids from put_off as p;
  -- Who has locked one is perhaps rolled back. The silence then lasts on, so that the next to speak
  -- tries again.
  return case when cardinality(found_ids) = cardinality(unheard) then at else last_heard end;
end
$$;
comment on function rowcron._put_off(uuid, timestamptz) is
  'Before this worker is noted as heard: gives a few more seconds to those whose silence says nothing '
    'about them. Returns when to note it as heard: now, or if not all could be put off, when the '
      'last one was.';

create or replace function rowcron._settle_lost(
  worker_id uuid, outcome text, reason text, run_id bigint default null
) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  live rowcron.run;
  settled integer := 0;
begin
  for live in
    select r.* from rowcron.run as r
    where r.worker_id = _settle_lost.worker_id and r.state = 'running'
      and (_settle_lost.run_id is null or r.id = _settle_lost.run_id)
    order by r.id
    for update skip locked
  loop
    continue when not rowcron._can_end(live);  -- looked at again as long as the worker holds it
    -- What a worker that has said goodbye still holds it took with a claim that was committed
    -- later, or its row was locked then. Of a SQL job nothing is left: given back, not lost. Any
    -- other may have begun, and nobody is left to ask.
    perform rowcron._settle(live, case when outcome = 'stopped' and live.kind = 'sql'
        and not exists (
          select from rowcron.job as j where j.id = live.job_id and j.connection is not null
        ) then 'released' else outcome end,
      reason, null, null, null, null);
    settled := settled + 1;
  end loop;
  return settled;
end
$$;
comment on function rowcron._settle_lost(uuid, text, text, bigint) is
  'Settles what a lost worker holds, or one run of it; returns how many.';

create or replace function rowcron._rescue(at timestamptz) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  dead record;
  outcome text;
  reason text;
  run_id bigint;
  rescued integer := 0;
  -- Of a worker that is lost a claim may still be committed, so all are looked at again. While a
  -- snapshot is held that passes over all that they ever held, so then a session does it in a tenth
  -- of its time at most; a setting remembers until when (as in chapter 058).
  key constant text := 'rowcron.looked_until';
  noted text := current_setting(key, true);
  began timestamptz := clock_timestamp();
  looks boolean := case when noted ~ E'^\\d{1,12}(\\.\\d{1,9})?$'
    then extract(epoch from began) not between noted::numeric - 60 and noted::numeric else true end;
  read_before bigint := pg_stat_get_xact_blocks_fetched('rowcron.run_running_idx'::regclass);
begin
  for dead in
    select w.id, w.session_ended_at, w.stopping, w.expires_at > at as is_ahead
    from rowcron.worker as w
    where w.expires_at <= at and case when w.lost_at is null
        then not rowcron._is_unheard(w, (select rowcron._last_heard(at)), at)
        else looks and rowcron._holds(w.id) end
      or w.expires_at > at + w.lease + interval '1 minute'  -- `at` may be a little old
    for no key update skip locked
  loop
    if dead.is_ahead then
      update rowcron.worker as w
      set
        seen_at = least(w.seen_at, at), expires_at = at + w.lease,
        lost_at = case when w.lost_at > at then at else w.lost_at end
      where w.id = dead.id;
      continue;
    end if;
    update rowcron.worker as w set lost_at = coalesce(w.lost_at, at), asleep = false
    where w.id = dead.id;
    outcome := case when dead.stopping then 'stopped' else 'lost' end;
    reason := case when dead.stopping then null
      when dead.session_ended_at is not null then 'its worker''s session ended'
      else 'its worker was silent for longer than its lease' end;
    begin
      rescued := rescued + rowcron._settle_lost(dead.id, outcome, reason);
    exception when others then
      -- a run that cannot be settled now must not keep the others, and each claim, from going on
      for run_id in
        select r.id from rowcron.run as r
        where r.worker_id = dead.id and r.state = 'running'
        order by r.id
      loop
        begin
          rescued := rescued + rowcron._settle_lost(dead.id, outcome, reason, run_id);
        exception when others then
          raise warning 'run % of a lost worker cannot be settled: %', run_id, sqlerrm;
        end;
      end loop;
    end;
  end loop;
  if looks and pg_stat_get_xact_blocks_fetched('rowcron.run_running_idx'::regclass)
    > read_before + 100
  then
    perform set_config(key, extract(epoch from clock_timestamp()
      + least(10 * (clock_timestamp() - began), interval '1 minute'))::text, false);
  end if;
  return rescued;
end
$$;
comment on function rowcron._rescue(timestamptz) is
  'Declares workers lost whose lease has run out by this instant and settles their runs; returns '
    'how many.';

create or replace function rowcron._adopt(at timestamptz) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into rowcron.worker (
    id, kinds, concurrency, lease, poll, seen_at, expires_at, lost_at
  )
  select distinct r.worker_id, '{}'::text[], 0, interval '1 second', interval '5 seconds', at, at,
    at
  from rowcron.run as r
  where r.state = 'running'
    and not exists (select from rowcron.worker as w where w.id = r.worker_id)
  on conflict do nothing
$$;
comment on function rowcron._adopt(timestamptz) is
  'A claim that was committed when its worker had been forgotten: the worker is known again, as '
    'lost, so that its runs are rescued.';

drop function if exists rowcron._give_back(uuid, timestamptz);
create or replace function rowcron._give_back(
  worker_id uuid, at timestamptz, begun bigint[] default '{}'
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  update rowcron.worker as w
  set stopping = true, asleep = false, lost_at = at, expires_at = least(w.expires_at, at),
    seen_at = at
  where w.id = _give_back.worker_id and w.lost_at is null;
  perform rowcron._give_back_others(worker_id, '{}', begun);
end
$$;
comment on function rowcron._give_back(uuid, timestamptz, bigint[]) is
  'A worker''s last word: what it still holds is ready again at once, the attempt not counted; but '
    'those that had begun, and whose end it could not report, are lost.';

drop function if exists rowcron._give_back_others(uuid, bigint[]);
create or replace function rowcron._give_back_others(
  worker_id uuid, holding bigint[], begun bigint[] default '{}'
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  live rowcron.run;
begin
  for live in
    select r.* from rowcron.run as r
    where r.worker_id = _give_back_others.worker_id and r.state = 'running'
      and r.id <> all (holding)
    order by r.id
    for update skip locked
  loop
    -- what is only given back does not end; the rest is then left to those who look for lost claims
    continue when (live.id = any (begun) or live.cancel_asked_by is not null)
      and not rowcron._can_end(live);
    perform rowcron._settle(live, case when live.id = any (begun) then 'stopped' else 'released' end,
      null, null, null, null, null);
  end loop;
end
$$;
comment on function rowcron._give_back_others(uuid, bigint[], bigint[]) is
  'What a worker holds without knowing, because its claim was not answered, is ready again at once, '
    'the attempt not counted. begun: of these it knows that they had begun.';

reset role;
