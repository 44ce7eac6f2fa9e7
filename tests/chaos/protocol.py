"""The protocol of claims as a small machine: every step that a committed state or a lock can take.

Two workers and a rescuer (who also is a healthy worker that serves what is ready) over runs of two
kinds: `sql`, executed in the database under FOR KEY SHARE of its row, and `plain`, whose effect is
outside. Statements that hold a lock while they last are two steps, begin and commit, so that
everything else may happen in between; a process may die, an answer be lost and a report arrive late
at any point. Tokens are `NOW`, that of the claim that stands, or `OLD`.

`MUTATIONS` leave out one rule each; a search must find what goes wrong then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

NONE, OLD, NOW = 0, 1, 2  # tokens
MAX_LOST, MAX_ATTEMPTS = 2, 2
MUTATIONS = (
    "finish does not compare the token",
    "finish trusts the worker's id alone",
    "rescue passes over no lock",
    "a report does not wait for the lock",
    "execute takes no lock",
    "execute does not look at the token",
    "a lost worker's runs are looked for once",
    "a forgotten worker's runs are not looked for",
    "claim takes what is running",
    "cancel ends a running run",
)


class Run(NamedTuple):
    """A row of rowcron.run, or what the ledger says finally."""

    kind: str
    state: str = "ready"  # ready, running, ended
    holder: int = -1
    attempt: int = 1
    failures: int = 0
    losses: int = 0
    cancel: bool = False
    outcome: str = ""
    locked: str = ""  # claim or rescue: FOR UPDATE, not committed
    executing: int = -1  # by whose session, FOR KEY SHARE
    effects: int = 0


class Hold(NamedTuple):
    """What a worker's process has to do with a run."""

    token: int = NONE
    phase: str = ""  # held, executing, report
    outcome: str = ""
    late: str = ""  # a report on a connection that was cut, which the server may yet carry out
    late_token: int = NONE


class Worker(NamedTuple):
    """A row of rowcron.worker, and the process."""

    row: str = "live"  # live, lost, gone
    overdue: bool = False
    locked: str = ""  # claim or rescue
    alive: bool = True
    claiming: int = -1  # the run of a claim that is not committed
    holds: tuple[Hold, ...] = ()


class State(NamedTuple):
    """All of it."""

    runs: tuple[Run, ...]
    workers: tuple[Worker, ...]
    rescuing: int = -1  # the worker that a rescue, not committed, has found


Step = tuple[str, int, int]  # what, worker, run


class Broken(Exception):
    """An invariant does not hold."""


def first(kinds: tuple[str, ...]) -> State:
    """Return the beginning."""
    holds = tuple(Hold() for _ in kinds)
    return State(tuple(Run(kind) for kind in kinds), (Worker(holds=holds), Worker(holds=holds)))


def settle(run: Run, outcome: str) -> Run:
    """Chapter 068: what follows an attempt's end."""
    free = run._replace(state="ready", holder=-1, cancel=False, locked="")
    if outcome in ("lost", "released", "stopped") and run.cancel:
        return end(run, "cancelled")
    if outcome == "released":
        return free
    if outcome == "stopped":
        return free._replace(attempt=min(run.attempt + 1, 9))
    if outcome == "lost":
        losses = run.losses + 1
        if losses >= MAX_LOST:
            return end(run._replace(losses=losses), "lost")
        return free._replace(losses=losses, attempt=min(run.attempt + 1, 9))
    if outcome == "failed":
        failures = run.failures + 1
        if failures >= MAX_ATTEMPTS or run.cancel:
            return end(run._replace(failures=failures), "failed")
        return free._replace(failures=failures, attempt=run.attempt + 1)
    return end(run, outcome)


def last_word(worker: Worker, r: int, run: Run) -> str:
    """What a worker that stops says of a run that it holds: whether it had begun."""
    begun = run.kind == "plain" and worker.holds[r].phase == "report"
    return "stopped" if begun else "released"


def end(run: Run, outcome: str) -> Run:
    """Out of run, into the ledger."""
    if run.state == "ended":
        raise Broken("an outcome is overwritten")
    if outcome == "succeeded" and run.kind == "sql" and run.effects != 1:
        raise Broken(f"succeeded with {run.effects} effects")
    if outcome != "succeeded" and run.kind == "sql" and run.effects:
        raise Broken(f"{outcome}, but it has had its effect")
    return run._replace(state="ended", outcome=outcome, holder=-1, locked="", cancel=False)


class Machine:
    """The steps from a state; `wrong` is the rule that is left out."""

    def __init__(self, state: State, wrong: str = "") -> None:
        self.state = state
        self.wrong = wrong

    def steps(self) -> Iterator[tuple[Step, State]]:
        """Everything that can happen next."""
        for w, worker in enumerate(self.state.workers):
            yield from self._about_worker(w, worker)
            for r, run in enumerate(self.state.runs):
                yield from self._claims(w, worker, r, run)
                yield from self._executes(w, worker, r, run)
                yield from self._reports(w, worker, r, run)
        for r, run in enumerate(self.state.runs):
            if run.state == "ended" or run.locked:
                continue
            if run.state == "ready":
                yield ("cancel", -1, r), self._with(r, end(run, "cancelled"))
                done = run._replace(effects=run.effects + 1)
                yield ("serve", -1, r), self._with(r, end(done, "succeeded"))
            elif not run.cancel:
                if self.wrong == "cancel ends a running run":
                    yield ("cancel", -1, r), self._with(r, end(run, "cancelled"))
                else:
                    yield ("cancel", -1, r), self._with(r, run._replace(cancel=True))

    def _with(self, r: int, run: Run, w: int = -1, worker: Worker | None = None) -> State:
        """Return the state with a run and a worker replaced; of what has ended no token stands."""
        runs, workers = list(self.state.runs), list(self.state.workers)
        if worker is not None:
            workers[w] = worker
        if r >= 0:
            before, runs[r] = runs[r], run
            if before.state == "running" and (run.state, run.holder) != ("running", before.holder):
                for i, other in enumerate(workers):
                    workers[i] = other._replace(holds=put(other.holds, r, aged(other.holds[r])))
        return self.state._replace(runs=tuple(runs), workers=tuple(workers))

    def _about_worker(self, w: int, worker: Worker) -> Iterator[tuple[Step, State]]:
        runs, state = self.state.runs, self.state
        held = [r for r, run in enumerate(runs) if run.state == "running" and run.holder == w]
        if worker.row == "live" and not worker.overdue and not worker.locked:
            yield ("fall silent", w, -1), self._with(-1, runs[0], w, worker._replace(overdue=True))
        heard = worker.row == "live"
        if worker.alive and worker.overdue and not worker.locked and heard:
            fresh = worker._replace(overdue=False)
            yield ("heartbeat", w, -1), self._with(-1, runs[0], w, fresh)
        if worker.alive:
            holds = tuple(
                Hold(late=h.outcome or h.late, late_token=h.token if h.outcome else h.late_token)
                for h in worker.holds
            )
            yield (
                ("die", w, -1),
                self._with(-1, runs[0], w, worker._replace(alive=False, holds=holds)),
            )
        if worker.row == "lost" and not worker.locked and not held:
            yield ("forget", w, -1), self._with(-1, runs[0], w, worker._replace(row="gone"))
        due = worker.overdue or worker.row != "live"
        again = bool(held) and self.wrong != "a lost worker's runs are looked for once"
        if worker.row == "gone" and self.wrong == "a forgotten worker's runs are not looked for":
            again = False
        if state.rescuing == -1 and due and not worker.locked and (worker.row == "live" or again):
            locked = self._rescue_locks(w)
            marked = put(state.workers, w, worker._replace(locked="rescue"))
            yield ("rescue", w, -1), State(locked, marked, w)
        if state.rescuing == w:
            yield ("rescue commits", w, -1), self._rescued(w, worker)
            free = tuple(r._replace(locked="") if r.locked == "rescue" else r for r in runs)
            marked = put(state.workers, w, worker._replace(locked=""))
            yield ("rescue aborts", w, -1), State(free, marked)
        if worker.alive and worker.row == "live" and not worker.locked and worker.claiming < 0:
            yield ("farewell", w, -1), self._farewell(w)

    def _rescue_locks(self, w: int) -> tuple[Run, ...]:
        careless = self.wrong == "rescue passes over no lock"
        return tuple(
            run._replace(locked="rescue")
            if run.state == "running" and run.holder == w and not run.locked
            and (run.executing < 0 or careless)
            else run
            for run in self.state.runs
        )  # fmt: skip

    def _rescued(self, w: int, worker: Worker) -> State:
        state = self.state._replace(rescuing=-1)
        row = "lost" if worker.row == "live" else worker.row
        workers = put(state.workers, w, worker._replace(row=row, locked="", overdue=True))
        machine = Machine(state._replace(workers=workers), self.wrong)
        for r, run in enumerate(state.runs):
            if run.locked == "rescue":
                machine.state = machine._with(r, settle(run, "lost"))
        return machine.state

    def _farewell(self, w: int) -> State:
        """The last word of a worker that stops; its process ends."""
        worker = self.state.workers[w]
        holds = tuple(Hold(late=h.late, late_token=h.late_token) for h in worker.holds)
        gone = worker._replace(row="lost", overdue=True, alive=False, holds=holds)
        machine = Machine(self._with(-1, self.state.runs[0], w, gone), self.wrong)
        for r, run in enumerate(self.state.runs):
            mine = run.state == "running" and run.holder == w
            if mine and not run.locked and run.executing < 0:
                machine.state = machine._with(r, settle(run, last_word(worker, r, run)))
        return machine.state

    def _claims(self, w: int, worker: Worker, r: int, run: Run) -> Iterator[tuple[Step, State]]:
        if worker.claiming == r:
            if run.state == "running":
                raise Broken("a run has two holders")
            now = run._replace(state="running", holder=w, locked="")
            over = worker._replace(claiming=-1)
            if worker.locked == "claim":
                over = over._replace(locked="", overdue=False)
            yield ("claim commits, answer lost", w, r), self._with(r, now, w, over)
            if worker.alive:
                hold = worker.holds[r]._replace(token=NOW, phase="held", outcome="")
                heard = over._replace(holds=put(worker.holds, r, hold))
                yield ("claim commits", w, r), self._with(r, now, w, heard)
            over = worker._replace(
                claiming=-1, locked="" if worker.locked == "claim" else worker.locked
            )
            yield ("claim aborts", w, r), self._with(r, run._replace(locked=""), w, over)
            return
        if (
            not worker.alive
            or worker.claiming >= 0
            or worker.holds[r].phase
            or worker.row == "gone"
        ):
            return
        if worker.row == "lost":
            return
        if worker.overdue and worker.locked:
            return  # waits for the row, to renew the lease
        if run.locked or run.state == "ended":
            return
        if run.state == "running":
            if self.wrong == "claim takes what is running":
                raise Broken("a run has two holders")
            return
        locked = "claim" if worker.overdue and worker.row == "live" else worker.locked
        claiming = worker._replace(claiming=r, locked=locked)
        yield ("claim", w, r), self._with(r, run._replace(locked="claim"), w, claiming)

    def _executes(self, w: int, worker: Worker, r: int, run: Run) -> Iterator[tuple[Step, State]]:
        hold = worker.holds[r]
        if hold.phase == "held" and run.kind == "plain":
            done = run._replace(effects=min(run.effects + 1, 9)) if run.state != "ended" else run
            for outcome in ("succeeded", "failed"):
                told = hold._replace(phase="report", outcome=outcome)
                new = worker._replace(holds=put(worker.holds, r, told))
                yield (f"work: {outcome}", w, r), self._with(r, done, w, new)
        if hold.phase == "held" and run.kind == "sql" and not run.locked:
            free = worker._replace(
                holds=put(worker.holds, r, Hold(late=hold.late, late_token=hold.late_token))
            )
            blind = self.wrong == "execute does not look at the token"
            if hold.token != NOW and not blind:
                yield ("execute is refused", w, r), self._with(r, run, w, free)
            elif run.executing < 0 and run.state == "running":
                if hold.token != NOW:
                    raise Broken("executed by somebody who does not hold the run")
                lock = run if self.wrong == "execute takes no lock" else run._replace(executing=w)
                under_way = worker._replace(
                    holds=put(worker.holds, r, hold._replace(phase="executing"))
                )
                yield ("execute", w, r), self._with(r, lock, w, under_way)
        mine = run.executing == w or (
            self.wrong == "execute takes no lock" and hold.phase == "executing"
        )
        if mine and not run.locked:
            yield from self._execution_ends(w, worker, r, run)

    def _execution_ends(
        self, w: int, worker: Worker, r: int, run: Run
    ) -> Iterator[tuple[Step, State]]:
        hold = worker.holds[r]
        free = run._replace(executing=-1)
        idle = worker._replace(
            holds=put(worker.holds, r, Hold(late=hold.late, late_token=hold.late_token))
        )
        doubt = hold._replace(phase="report", outcome="lost")
        asks = worker._replace(holds=put(worker.holds, r, doubt))
        if hold.phase != "executing":  # cut off, or its process is dead: the server goes on
            idle = asks = worker
        done = settle(free._replace(effects=free.effects + 1), "succeeded")
        yield ("execution commits", w, r), self._with(r, done, w, idle)
        yield ("execution fails", w, r), self._with(r, settle(free, "failed"), w, idle)
        if hold.phase == "executing" and worker.alive:
            yield ("execution commits, answer lost", w, r), self._with(r, done, w, asks)
            yield ("connection cut", w, r), self._with(r, run, w, asks)
        yield ("session ends", w, r), self._with(r, free, w, asks)

    def _reports(self, w: int, worker: Worker, r: int, run: Run) -> Iterator[tuple[Step, State]]:
        hold = worker.holds[r]
        careless = self.wrong == "a report does not wait for the lock"
        waits = bool(run.locked) or (run.executing >= 0 and not careless)
        if hold.phase == "report" and worker.alive:
            if not hold.late:
                late = hold._replace(late=hold.outcome, late_token=hold.token)
                new = worker._replace(holds=put(worker.holds, r, late))
                yield ("report cut off", w, r), self._with(r, run, w, new)
            if not waits:
                idle = Hold(late=hold.late, late_token=hold.late_token)
                new = worker._replace(holds=put(worker.holds, r, idle))
                yield ("report", w, r), self._reported(w, new, r, hold.token, hold.outcome)
        if hold.late:
            new = worker._replace(
                holds=put(worker.holds, r, hold._replace(late="", late_token=NONE))
            )
            yield ("late report vanishes", w, r), self._with(r, run, w, new)
            if not waits:
                yield ("late report", w, r), self._reported(w, new, r, hold.late_token, hold.late)

    def _reported(self, w: int, worker: Worker, r: int, token: int, outcome: str) -> State:
        run = self.state.runs[r]
        accepted = run.state == "running" and token == NOW
        if self.wrong == "finish does not compare the token":
            accepted = run.state == "running"
        if self.wrong == "finish trusts the worker's id alone":
            accepted = run.state == "running" and run.holder == w
        if not accepted:
            return self._with(r, run, w, worker)
        if token != NOW or run.holder != w:
            raise Broken("a report was taken from somebody who does not hold the run")
        if run.kind == "sql" and outcome == "lost" and run.executing >= 0:
            raise Broken("given up while it executes")
        return self._with(r, settle(run, outcome), w, worker)


def aged(hold: Hold) -> Hold:
    """The claim that this was about stands no more."""
    return hold._replace(
        token=OLD if hold.token else NONE, late_token=OLD if hold.late_token else NONE
    )


def put(items: tuple, at: int, item: object) -> tuple:  # type: ignore[type-arg]
    """Return the tuple with one item replaced."""
    return (*items[:at], item, *items[at + 1 :])
