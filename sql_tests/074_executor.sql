-- An owner's executor: when it stands, and that enrol() makes anew one that does not.

begin;
select plan(15);
set local client_min_messages to error;
create role tap_ann;
create role tap_bob;
grant rowcron_user to tap_ann;
grant usage on schema public to tap_ann;

create function public.tap_executor() returns text language sql
return (select format('rowcron_executor.%I(bigint, uuid)', e.name) from rowcron.executor as e where e.owner::text = 'tap_ann');
create function public.tap_gate() returns boolean language sql
return (select w.holds from rowcron.why_not_running('work', 'tap_ann') as w where w.gate = 'owner');
create function public.tap_spoil(how text) returns boolean language plpgsql as $$
begin
  execute format(how, public.tap_executor());
  return public.tap_gate();
end
$$;
create function public.tap_enrol() returns boolean language plpgsql as $$
begin
  set local role tap_ann;
  perform rowcron.enrol();
  reset role;
  return public.tap_gate();
end
$$;

set local role tap_ann;
select rowcron.schedule('work', '0 3 * * *', 'select 1');
reset role;
create temp table first as select public.tap_executor() as name;
select is(public.tap_gate(), false, 'an owner has an executor from its first job on');
select is(public.tap_enrol(), false, 'to enrol changes nothing then');
select is(public.tap_executor(), (select f.name from first as f), 'and leaves it');

select t.line
from (values
  (1, 'alter function %s security invoker', 'one without its rights'),
  (2, 'alter function %s owner to tap_bob', 'one that is another''s'),
  (3, 'drop function %s', 'one that was dropped')
) as s (n, how, which)
cross join lateral unnest(array[
  is(public.tap_spoil(s.how), true, s.which || ' runs nothing'),
  is(public.tap_enrol(), false, s.which || ': enrol() makes it anew'),
  isnt(public.tap_executor(), null, s.which || ': and notes it')
]) as t (line)
order by s.n;
update rowcron.executor set edition = 2 where owner = 'tap_ann'::regrole;
update first set name = public.tap_executor();
select is(public.tap_gate(), false, 'one of an older edition runs on');
select is(public.tap_enrol(), false, 'until its owner enrols');
select isnt(public.tap_executor(), (select f.name from first as f), 'who then has the latest');

select * from finish();
rollback;
