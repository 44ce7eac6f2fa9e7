"""The statement boundaries of the worker's protocol, as places where a worker can be stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chaos.proxy import Moment

Death = Literal["process", "session"]
CLAIM, SHORT = r"rowcron\.claim\(", r"rowcron\.claim_ready\("
BEAT = r"rowcron\.heartbeat\(.*stopping => "
REGISTER, EXECUTE = r"rowcron\.heartbeat\(.*changes_since(?!.*stopping)", r"rowcron\.execute\("
FINISH, FINISH_ONE = r"rowcron\.finish\(\$1::uuid", r"rowcron\.finish\(run_id =>"


@dataclass(frozen=True)
class Point:
    """Where a worker dies; in `rowcron`'s words, on the wire or at a table."""

    name: str
    jobs: tuple[str, ...]
    wire: tuple[str, Moment] | None = None
    inside: tuple[str, str, str] | None = None  # table, event, condition
    late: bool = False  # inside COMMIT
    scenario: str = "run"


ALL = ("sql", "handed", "plain", "shell")
BY_WORKER = "session_user = 'w_worker'"
POINTS = [
    Point("registering: not sent", ALL, wire=(REGISTER, "sent")),
    Point("registering: before commit", ALL, inside=("rowcron.worker", "insert", BY_WORKER)),
    Point("registering: answer unread", ALL, wire=(REGISTER, "answered")),
    Point("claim: not sent", ALL, wire=(CLAIM, "sent")),
    Point("claim: runs marked, not committed", ALL,
          inside=("rowcron.run", "update", "new.state = 'running' and old.state = 'ready'")),
    Point("claim: in commit", ALL, late=True,
          inside=("rowcron.run", "update", "new.state = 'running' and old.state = 'ready'")),
    Point("claim: answer unread", ALL, wire=(CLAIM, "answered")),
    Point("short claim: not sent", ALL, wire=(SHORT, "sent"), scenario="woken"),
    Point("short claim: runs marked, not committed", ALL, scenario="woken",
          inside=("rowcron.run", "update", "new.state = 'running' and old.state = 'ready'")),
    Point("short claim: in commit", ALL, late=True, scenario="woken",
          inside=("rowcron.run", "update", "new.state = 'running' and old.state = 'ready'")),
    Point("short claim: answer unread", ALL, wire=(SHORT, "answered"), scenario="woken"),
    Point("firing: run inserted, not committed", ("sql",), scenario="fire",
          inside=("rowcron.run", "insert", BY_WORKER)),
    Point("firing: in commit", ("sql",), late=True, scenario="fire",
          inside=("rowcron.run", "insert", BY_WORKER)),
    Point("execute: not sent", ("sql",), wire=(EXECUTE, "sent")),
    Point("execute: before the effect", ("sql",), inside=("public.effect", "insert", "")),
    Point("execute: between effect and finish", ("sql",),
          inside=("rowcron.run", "delete", BY_WORKER)),
    Point("execute: before the entry", ("sql",), inside=("rowcron.ledger", "insert", BY_WORKER)),
    Point("execute: in commit", ("sql",), late=True,
          inside=("rowcron.ledger", "insert", BY_WORKER)),
    Point("execute: answer unread", ("sql",), wire=(EXECUTE, "answered")),
    Point("a handler's connection: begin not sent", ("handed",), wire=("(?i)^begin", "sent")),
    Point("a handler's connection: begin unanswered", ("handed",),
          wire=("(?i)^begin", "answered")),
    Point("a handler's connection: before the effect", ("handed",),
          wire=("public.effect", "sent")),
    Point("a handler's connection: after the effect", ("handed",),
          wire=("public.effect", "answered")),
    Point("a handler's connection: finish not sent", ("handed_async",), wire=(FINISH_ONE, "sent")),
    Point("a handler's connection: in finish", ("handed",),
          inside=("rowcron.ledger", "insert", "session_user = 'alice'")),
    Point("a handler's connection: finish unanswered", ("handed",),
          wire=(FINISH_ONE, "answered")),
    Point("a handler's connection: commit not sent", ("handed",), wire=("(?i)^commit", "sent")),
    Point("a handler's connection: in commit", ("handed_async",), late=True,
          inside=("rowcron.ledger", "insert", "session_user = 'alice'")),
    Point("a handler's connection: commit unanswered", ("handed",),
          wire=("(?i)^commit", "answered")),
    Point("finish: not sent", ("shell", "plain"), wire=(FINISH, "sent")),
    Point("finish: runs deleted, no entry yet", ("shell", "plain"),
          inside=("rowcron.ledger", "insert", BY_WORKER)),
    Point("finish: in commit", ("shell", "plain"), late=True,
          inside=("rowcron.ledger", "insert", BY_WORKER)),
    Point("finish: answer unread", ("shell", "plain"), wire=(FINISH, "answered")),
    Point("heartbeat while running: not sent", ("long",), wire=(BEAT, "sent"), scenario="beat"),
    Point("heartbeat while running: not committed", ("long",), scenario="beat",
          inside=("rowcron.worker", "update",
                  "new.wake_at is not distinct from old.wake_at and new.lost_at is null")),
    Point("heartbeat while running: answer unread", ("long",), wire=(BEAT, "answered"),
          scenario="beat"),
    Point("falling asleep: not sent", ALL, wire=(BEAT, "sent"), scenario="sleep"),
    Point("falling asleep: not committed", ALL, scenario="sleep",
          inside=("rowcron.worker", "update", "new.asleep")),
    Point("falling asleep: answer unread", ALL, wire=(BEAT, "answered"), scenario="sleep"),
    Point("rescue: before the entry", ALL, inside=("rowcron.ledger", "insert", BY_WORKER),
          scenario="rescue"),
    Point("rescue: worker declared lost, run not settled", ALL, scenario="rescue",
          inside=("rowcron.run", "update", "old.state = 'running' and new.state = 'ready'")),
    Point("rescue: in commit", ALL, late=True, scenario="rescue",
          inside=("rowcron.ledger", "insert", BY_WORKER)),
    Point("drain: giving back not sent", ("long",), wire=(FINISH, "sent"), scenario="drain"),
    Point("drain: giving back, not committed", ("long",), scenario="drain",
          inside=("rowcron.run", "update", "old.state = 'running' and new.state = 'ready'")),
    Point("drain: giving back, answer unread", ("long",), wire=(FINISH, "answered"),
          scenario="drain"),
    Point("farewell: not sent", ("long",), wire=(BEAT, "sent"), scenario="farewell"),
    Point("farewell: not committed", ("long",), scenario="farewell",
          inside=("rowcron.worker", "update", "new.stopping")),
    Point("farewell: answer unread", ("long",), wire=(BEAT, "answered"), scenario="farewell"),
]  # fmt: skip
