"""One crash point played through: a worker is brought there, dies, and what follows is told."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from chaos.block import Block
from chaos.points import Death, Point
from chaos.proxy import Rule
from chaos.scene import Scene
from harness import TestServer, wait_until
from workers import WorkerProcess


@dataclass
class Told:
    """What happened at one point."""

    point: Point
    death: Death
    at_point: str
    ledger: str
    effects: str
    seconds: float
    fault: str = ""


class Play:
    """One point, one death."""

    def __init__(self, scene: Scene, point: Point, death: Death) -> None:
        self.scene, self.point, self.death = scene, point, death
        self.victim: WorkerProcess | None = None
        self.rule: Rule | None = None
        self.block: Block | None = None
        self.runs: list[int] = []

    def arm(self, stack: ExitStack) -> None:
        """Stand at the point from now on."""
        if self.point.wire is not None:
            self.rule = self.scene.proxy.rule(*self.point.wire)
        else:
            assert self.point.inside is not None
            self.block = stack.enter_context(
                Block(self.scene.db, *self.point.inside, late=self.point.late)
            )

    def store_jobs(self) -> list[str]:
        """One of each kind; return their names."""
        names = []
        for kind in self.point.jobs:
            if kind == "long":
                command = f'echo "shell $ROWCRON_RUN_ID $ROWCRON_ATTEMPT" >> {self.scene.file};'
                hurry = self.scene.directory / "hurry"
                command += f' [ "$ROWCRON_ATTEMPT" -gt 1 ] || [ -e {hurry} ] || exec sleep 2'
                name = self.scene.jobs.add("shell", command, name=kind, max_lost=100)
            else:
                name = self.scene.job(kind)
            names.append(name)
        return names

    def start_jobs(self, names: list[str] | None = None) -> None:
        """Each job once, on demand; stored now unless their names are given."""
        for name in names or self.store_jobs():
            self.runs.append(self.scene.jobs.start(name))

    def begin(self, stack: ExitStack) -> None:
        """Bring the worker to where it is to die."""
        scene = self.scene
        match self.point.scenario:
            case "fire":
                self.arm(stack)
                soon = scene.only("select clock_timestamp() + interval '1.5 s'")
                scene.job("sql", schedule="@every 1 hour", starts_at=soon)
                self.victim = scene.work(through=True, wait=False)
            case "sleep":
                self.arm(stack)
                self.victim = scene.work(through=True, wait=False)
            case "woken":
                names = self.store_jobs()
                self.victim = scene.work(through=True)
                # it knows that notifications arrive, and has looked and slept since
                heard = "select bool_or(query like 'unlisten rowcron%%') from pg_stat_activity"
                heard += " where datname = current_database()"
                wait_until(lambda: scene.only(heard))
                now = scene.only("select clock_timestamp()")
                asleep = "select bool_or(asleep and unsettled = '{}' and seen_at > %s)"
                asleep += " from rowcron.worker"
                for since in (now, now + timedelta(seconds=0.3)):
                    wait_until(lambda since=since: scene.only(asleep, since))
                self.arm(stack)
                self.start_jobs(names)
            case "rescue":
                self.start_jobs()
                claim = "select count(*) from rowcron.claim(gen_random_uuid(), 10,"
                claim += " kinds => '{sql,shell,http,python}', lease => '1 s')"
                assert scene.only(claim) == len(self.point.jobs)
                self.arm(stack)
                self.victim = scene.work(through=True, lease=2, wait=False)
            case "beat" | "drain" | "farewell":
                self.victim = scene.work(through=True, lease=2)
                wait_until(lambda: scene.only("select bool_or(asleep) from rowcron.worker"))
                if self.point.scenario == "farewell":
                    self.start_jobs()
                    wait_until(scene.file.exists, what="the effect")
                    scene.ended()
                    wait_until(lambda: scene.only("select bool_or(asleep) from rowcron.worker"))
                    self.arm(stack)
                    self.victim.send(signal.SIGTERM)
                else:
                    self.start_jobs()
                    wait_until(scene.file.exists, what="the effect")
                    self.arm(stack)
                    if self.point.scenario == "drain":
                        (scene.directory / "hurry").touch()
                        self.victim.send(signal.SIGHUP)
            case _:
                self.start_jobs()
                self.arm(stack)
                self.victim = scene.work(through=True, wait=False)

    def reach(self) -> str:
        """Wait until somebody stands at the point; tell the state of the runs then."""
        if self.rule is not None:
            wait_until(self.rule.reached.is_set, what=self.point.name)
            self.pid = self.rule.pid
        else:
            assert self.block is not None
            self.pid = self.block.wait()
        states = self.scene.rows("select state from rowcron.run order by id")
        entries = self.scene.only("select count(*) from rowcron.ledger")
        found = sorted({row["state"] for row in states})
        return f"{'+'.join(found) or 'none'}, {entries} entries"

    def die(self) -> None:
        """The death, and what of the point goes on afterwards."""
        scene, victim = self.scene, self.victim
        assert victim is not None
        if self.death == "process":
            victim.process.kill()
            victim.process.wait(10)
            if self.rule is not None:
                scene.proxy.drop(self.rule)
            dead = scene.only("select array_agg(id) from rowcron.worker")
            successor = scene.work(lease=5, wait=False)
            if self.block is not None:
                # its statement goes on in the server, and commits when the worker is long lost, or
                # would be if the statement did not hold the worker's own row; or the server has
                # noticed, and the successor's rescue stands at the point before it has registered
                late = "select coalesce(bool_and(lost_at is not null or expires_at <="
                late += " clock_timestamp() - interval '0.5 s'), true)"
                late += " from rowcron.worker where id = any (%s)"
                wait_until(lambda: scene.only(late, dead), 20, "the loss of the worker")
                self.block.open()
            successor.wait_for("worker")
        else:
            scene.db.execute("select pg_terminate_backend(%s)", [self.pid])
            gone = "select not exists (select from pg_stat_activity where pid = %s)"
            wait_until(lambda: scene.only(gone, self.pid), what="the session's end")
            if self.rule is not None:
                scene.proxy.drop(self.rule)
            if self.block is not None:
                self.block.open()
            if self.point.scenario in ("drain", "farewell"):
                victim.process.wait(20)
                scene.work(lease=5)

    def follow(self) -> None:
        """What has to happen after it."""
        if self.point.scenario == "sleep":
            self.start_jobs()
        if self.point.scenario == "fire":
            wait_until(lambda: self.scene.only(
                "select count(*) from rowcron.ledger where outcome = 'succeeded'") > 0)  # fmt: skip
        self.scene.ended()
        self.scene.check()
        if self.point.scenario == "fire":
            assert self.scene.only("select count(*) from rowcron.ledger where final") == 1
            assert len(self.scene.effects()) == 1


def told_of(scene: Scene) -> tuple[str, str]:
    """The ledger in short, and the effects."""
    ledger = []
    query = "select run_id, min(job) as job, string_agg(outcome, ' ' order by attempt) as outcomes"
    query += " from rowcron.ledger where run_id is not null group by run_id order by run_id"
    effects = scene.effects()
    counts = []
    for row in scene.rows(query):
        ledger.append(f"{row['job']}: {row['outcomes']}")
        counts.append(f"{row['job']} {effects[row['run_id']]}")
    if len({line.split(": ")[1] for line in ledger}) == 1 and len(ledger) > 1:
        ledger = [f"each: {ledger[0].split(': ')[1]}"]
    return "; ".join(ledger), ", ".join(counts)


def play(server: TestServer, point: Point, death: Death) -> Told:
    """Play one point."""
    with Scene(server) as scene, ExitStack() as stack:
        began = time.monotonic()
        one = Play(scene, point, death)
        at_point, fault = "not reached", ""
        try:
            one.begin(stack)
            at_point = one.reach()
            one.die()
            one.follow()
        except (AssertionError, psycopg.Error) as error:
            log = one.victim.console.read_text("utf-8")[-1500:] if one.victim else ""
            fault = f"{error}\n{log}"
        return Told(point, death, at_point, *told_of(scene), time.monotonic() - began, fault)
