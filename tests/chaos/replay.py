"""Paths of the model walked through the real functions, under a clock that stands still.

What is two steps in the model is a transaction that stays open here, on a connection of its own;
after each step what is committed must be what the model says.
"""

from __future__ import annotations

import random
from uuid import UUID, uuid4

import psycopg
import pytest

import frozen
from chaos.protocol import Machine, State, Step, first, last_word
from harness import Database

AT = "2030-01-01T00:00:00Z"
# How likely a step is beside the others, so that paths are long and end in every way.
WEIGHTS = {
    "serve": 0.02, "cancel": 0.05, "die": 0.1, "farewell": 0.1, "late report vanishes": 0.1,
    "claim aborts": 0.3, "rescue aborts": 0.3, "claim": 3.0, "work: failed": 3.0,
    "execution fails": 3.0, "rescue": 2.0,
}  # fmt: skip
CLAIM = "select run_id, token from rowcron._claim(%s, 1, null, '{sql,shell}', null, %s)"
FINISH = "select accepted from rowcron.finish(%s, array[%s::bigint], array[%s::uuid], array[%s])"


class Replay:
    """Connections to one database, in which path after path is walked."""

    def __init__(self, database: Database) -> None:
        self.url = database.url("postgres")
        self.db = psycopg.connect(self.url, autocommit=True)
        frozen.freeze(self.db)
        self.db.execute("create table public.effect (run_id bigint)")
        self.db.execute("grant insert on public.effect to alice")
        self.db.execute("grant rowcron_shell to alice")
        self.rescuer = self._connect()
        self.claims = [self._connect(), self._connect()]
        self.lanes = [self._connect(), self._connect()]
        self._set(self.db)
        self.db.execute("select rowcron._maintain(%s)", [AT])
        with psycopg.connect(database.url("alice"), autocommit=True) as alice:
            self._set(alice)
            for kind, command in (
                (
                    "sql",
                    "insert into public.effect select current_setting('rowcron.run_id')::bigint",
                ),
                ("shell", "true"),
            ):
                alice.execute(
                    "insert into rowcron.job (name, kind, command, max_lost, max_attempts,"
                    " retry_delay) values (%s, %s, %s, 2, 2, '0')",
                    [kind, kind, command],
                )
        self.steps = 0
        self.executed: dict[int, list[object]] = {}

    def _set(self, connection: psycopg.Connection) -> None:
        connection.execute("set client_min_messages = error")
        connection.execute("set lock_timeout = '5 s'")
        connection.execute("set frozen.started = '2029-12-31'")
        frozen.set_clock(connection, AT)

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.connect(self.url, autocommit=True)
        self._set(connection)
        return connection

    def close(self) -> None:
        """Close the connections."""
        for connection in (self.db, self.rescuer, *self.claims, *self.lanes):
            connection.close()

    def walk(self, kind: str, seed: int, longest: int) -> str:
        """Walk one random path; return how its run ended. Fails where model and SQL part."""
        chance = random.Random(seed)
        state = first((kind,))
        self._begin("sql" if kind == "sql" else "shell")
        path: list[str] = []
        try:
            for _ in range(longest):
                choices = [c for c in Machine(state).steps() if self._possible(c[0], state)]
                if not choices:
                    break
                weights = [WEIGHTS.get(step[0], 1.0) for step, _ in choices]
                step, after = chance.choices(choices, weights)[0]
                path.append(f"{step[0]} {step[1]}")
                self._do(step, state, after)
                state = after
                self.steps += 1
                self._compare(state)
        except (AssertionError, psycopg.Error) as error:
            raise AssertionError(f"seed {seed}: {' | '.join(path)}: {error}") from error
        finally:
            for connection in (self.rescuer, *self.claims, *self.lanes):
                connection.execute("rollback")
        return state.runs[0].outcome or state.runs[0].state

    def _begin(self, job: str) -> None:
        for table in ("run", "ledger", "worker"):
            self.db.execute(f"delete from rowcron.{table}".encode())
        self.db.execute("delete from public.effect")
        self.ids = [uuid4(), uuid4()]
        self.third = uuid4()
        for worker in (*self.ids, self.third):
            self.db.execute(
                "select rowcron._register(%s, null, '{sql,shell}', null, 1, '10 s', '5 s', null,"
                " null, null, %s)",
                [worker, AT],
            )
        row = self.db.execute("select rowcron.enqueue(%s, owner => 'alice')", [job]).fetchone()
        assert row is not None
        self.run = int(row[0])
        self.tokens: list[UUID | None] = [None, None]
        self.late: list[UUID | None] = [None, None]
        self.fresh: list[UUID | None] = [None, None]

    def _possible(self, step: Step, state: State) -> bool:
        """One rescue takes all that it finds: only where that is one worker, as in the model."""
        if step[0] != "rescue":
            return True
        for w, worker in enumerate(state.workers):
            holds = any(run.holder == w for run in state.runs)
            found = worker.overdue if worker.row == "live" else holds
            if w != step[1] and found and not worker.locked:
                return False
        return True

    def _do(self, step: Step, before: State, after: State) -> None:
        what, w, _ = step
        db, worker = self.db, self.ids[w]
        if what in ("claim aborts", "rescue aborts", "session ends"):
            group = {"claim aborts": self.claims[w], "rescue aborts": self.rescuer}
            group.get(what, self.lanes[w]).execute("rollback")
        elif what.startswith("claim commits"):
            self.claims[w].execute("commit")
            if what == "claim commits":
                self.tokens[w] = self.fresh[w]
        elif what == "rescue commits":
            self.rescuer.execute("commit")
        elif what == "fall silent":
            query = "update rowcron.worker set expires_at = %s where id = %s"
            db.execute(query, [AT, worker])
        elif what == "heartbeat":
            # held, because a heartbeat also rescues, which is a step of its own in the model
            db.execute("update rowcron.setting set value = '{}' where name = 'hold'")
            db.execute("select rowcron.heartbeat(%s)", [worker])
            db.execute("update rowcron.setting set value = 'null' where name = 'hold'")
        elif what == "die":
            if before.workers[w].holds[0].outcome:
                self.late[w] = self.tokens[w]
        elif what == "farewell":
            stopped = last_word(before.workers[w], 0, before.runs[0]) == "stopped"
            begun = [self.run] if stopped else []
            db.execute("select rowcron._give_back(%s, %s, %s::bigint[])", [worker, AT, begun])
        elif what == "forget":
            query = "update rowcron.worker set lost_at = lost_at - interval '1 hour' where id = %s"
            db.execute(query, [worker])
            self._maintain()
        elif what == "rescue":
            if before.workers[w].row == "gone":
                self._maintain()
            self.rescuer.execute("begin")
            self.rescuer.execute("select rowcron._rescue(%s)", [AT])
        elif what == "claim":
            self.claims[w].execute("begin")
            self.claims[w].execute(
                "select rowcron._sign_of_life(%s, null, '{sql,shell}', null, '10 s', %s)",
                [worker, AT],
            )
            self.fresh[w] = self._claimed(self.claims[w], worker)
        elif what == "cancel":
            db.execute("select rowcron.cancel(%s)", [self.run])
        elif what == "serve":
            token = self._claimed(db, self.third)
            db.execute("insert into public.effect values (%s)", [self.run])
            db.execute("select rowcron.finish(%s, %s)", [self.run, token])
        elif what.startswith("work"):
            if before.runs[0].state != "ended":
                db.execute("insert into public.effect values (%s)", [self.run])
        elif what.startswith("execut"):
            self._execute(what, w)
        elif what in ("report", "late report"):
            self._report(what, w, before, after)
        elif what == "report cut off":
            self.late[w] = self.tokens[w]
        else:
            assert what in ("connection cut", "late report vanishes"), what

    def _maintain(self) -> None:
        self.db.execute(
            "update rowcron.setting set value = '\"1970-01-01T00:00:00Z\"'"
            " where name = 'maintained_at'"
        )
        self.db.execute("select rowcron._maintain(%s)", [AT])

    def _claimed(self, connection: psycopg.Connection, worker: UUID) -> UUID:
        rows = connection.execute(CLAIM, [worker, AT]).fetchall()
        assert [row[0] for row in rows] == [self.run], "the claim brings the run"
        token: UUID = rows[0][1]
        return token

    def _execute(self, what: str, w: int) -> None:
        lane, values = self.lanes[w], [self.run, self.tokens[w]]
        if what in ("execute", "execute is refused"):
            lane.execute("begin")
            begin = "select rowcron._begin_execute(%s, %s)"
            if what == "execute":
                lane.execute(begin, values)
            else:
                with pytest.raises(psycopg.Error) as refused:
                    lane.execute(begin, values)
                assert refused.value.sqlstate == "RCCLM"
                lane.execute("rollback")
            self.executed[w] = values
            return
        failed = "'22012', 'division by zero'" if "fails" in what else "null, null"
        if "fails" not in what:
            lane.execute("insert into public.effect values (%s)", [self.run])
        query = f"select rowcron._end_execute(%s, %s, {failed}, null, null)"
        lane.execute(query.encode(), self.executed[w])
        lane.execute("commit")

    def _report(self, what: str, w: int, before: State, after: State) -> None:
        hold = before.workers[w].holds[0]
        token = self.tokens[w] if what == "report" else self.late[w]
        outcome = hold.outcome if what == "report" else hold.late
        row = self.db.execute(FINISH, [self.ids[w], self.run, token, outcome]).fetchone()
        assert row is not None
        assert row[0] == (before.runs[0] != after.runs[0]), "whether the report is taken"

    def _compare(self, state: State) -> None:
        (run,) = state.runs
        if run.state == "ended":
            query = "select 'ended', -1, outcome from rowcron.ledger where final"
            expected: tuple[object, ...] = ("ended", -1, run.outcome)
        else:
            query = """
              select r.state, case r.worker_id when %s then 0 when %s then 1 else -1 end,
                '', r.failures, r.losses, r.cancel_asked_by is not null, r.attempt
              from rowcron.run as r
            """
            expected = (
                *(run.state, run.holder, ""),
                *(run.failures, run.losses, run.cancel, run.attempt),
            )
        values = self.ids if run.state != "ended" else []
        assert self.db.execute(query.encode(), values).fetchall() == [expected], expected
        counts = "select (select count(*) from public.effect), (select count(*) from rowcron.run),"
        counts += " (select count(*) from rowcron.ledger where not final),"
        counts += " (select count(*) from rowcron.ledger where final)"
        over = run.state == "ended"
        assert self.db.execute(counts.encode()).fetchone() == (
            run.effects, int(not over), run.attempt - 1, int(over),
        )  # fmt: skip
        query = "select lost_at is not null, expires_at <= %s from rowcron.worker where id = %s"
        for worker, there in zip(self.ids, state.workers, strict=True):
            rows = self.db.execute(query.encode(), [AT, worker]).fetchall()
            if there.row == "gone":
                continue
            assert rows == [(there.row == "lost", there.overdue)], (rows, there)
