-- The database alone numbers jobs. Runs, the ledger and the record of changes look a job up by its
-- number, so nobody may take that of a job that is gone; and one that is still to come, taken ahead,
-- would make somebody else's insert fail. GENERATED ALWAYS does not prevent it, because OVERRIDING
-- SYSTEM VALUE needs no right of its own. A grant of all columns but id would, but it would refuse
-- DEFAULT as well, which clients write that name each column, and binds no single role, whose the
-- table is.

set role rowcron_owner;

create or replace function rowcron._check_id() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  drawn bigint;
begin
  begin
    -- the default draws a row's number right before its triggers fire
    drawn := currval('rowcron.job_id_seq');
  exception when object_not_in_prerequisite_state then
    null;  -- this session has drawn none
  end;
  if new.id is distinct from drawn then
    raise exception using
      errcode = 'RCOWN',
      message = format('id %s of job "%s" cannot be chosen', new.id, new.name),
      detail = 'The database numbers jobs: a number belongs to one job for ever.',
      hint = 'Leave out the column id, or write OVERRIDING USER VALUE. If it is left out, an expression '
        'of the insert stores another job: do that before.',
      column = 'id';
  end if;
  return new;
end
$$;
comment on function rowcron._check_id() is
  'Trigger, before all others: a job bears the number that was drawn for it. Raises RCOWN.';

drop trigger if exists a03_id on rowcron.job;
create trigger a03_id before insert on rowcron.job
for each row execute function rowcron._check_id();

reset role;
