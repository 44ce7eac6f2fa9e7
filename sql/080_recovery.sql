-- Lost claims. A worker whose heartbeat is overdue is declared lost, and each of its runs is handed
-- out again or ended, by the job's on_lost and max_lost; the attempt stands in the ledger as lost,
-- which is not failed. A run whose row is locked (a SQL job whose session is still executing holds
-- it FOR KEY SHARE) is left alone until that session has ended one way or the other, because it may
-- still commit. Rescuing is repeated as long as a lost worker holds a run.
--
-- A lease ends a lease from now at the latest. One that ends much later was noted while the clock was
-- ahead: it is brought back to that, and whoever is alive is heard of before.

set role rowcron_owner;

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
    where w.expires_at <= at and (w.lost_at is null or looks and rowcron._holds(w.id))
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
