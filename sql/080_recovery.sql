-- Lost claims. A worker whose heartbeat is overdue is declared lost, and each of its runs is handed
-- out again or ended, by the job's on_lost and max_lost; the attempt stands in the ledger as lost,
-- which is not failed. A run whose row is locked (a SQL job whose session is still executing holds
-- it FOR KEY SHARE) is left alone until that session has ended one way or the other, because it may
-- still commit. Rescuing is repeated as long as a lost worker holds a run.

set role rowcron_owner;

create or replace function rowcron._rescue(at timestamptz) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  dead uuid;
  live rowcron.run;
  rescued integer := 0;
begin
  for dead in
    select w.id
    from rowcron.worker as w
    where w.expires_at <= at
      and (w.lost_at is null
        or exists (select from rowcron.run as r where r.worker_id = w.id and r.state = 'running'))
    for no key update skip locked
  loop
    update rowcron.worker as w set lost_at = coalesce(w.lost_at, at), asleep = false
      where w.id = dead;
    for live in
      select r.* from rowcron.run as r
      where r.worker_id = dead and r.state = 'running'
      order by r.id
      for update skip locked
    loop
      perform rowcron._settle(live, 'lost', 'its worker was silent for longer than its lease', null,
        null, null, null);
      rescued := rescued + 1;
    end loop;
  end loop;
  return rescued;
end
$$;
comment on function rowcron._rescue(timestamptz) is
  'Declares workers lost whose lease has run out by this instant and settles their runs; returns '
    'how many.';

create or replace function rowcron._give_back(worker_id uuid, at timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  live rowcron.run;
begin
  update rowcron.worker as w
  set stopping = true, asleep = false, lost_at = at, expires_at = least(w.expires_at, at),
    seen_at = at
  where w.id = _give_back.worker_id and w.lost_at is null;
  for live in
    select r.* from rowcron.run as r
    where r.worker_id = _give_back.worker_id and r.state = 'running'
    order by r.id
    for update skip locked
  loop
    perform rowcron._settle(live, 'released', null, null, null, null, null);
  end loop;
end
$$;
comment on function rowcron._give_back(uuid, timestamptz) is
  'A worker''s last word: what it still holds is ready again at once, the attempt not counted.';

reset role;
