"""Writes down what was tried and what stopped it, and prints the list at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from rowcron.text import safe

OPEN = "NOT STOPPED"


@dataclass
class Attempt:
    """One thing that was tried."""

    test: str
    tried: str
    verdict: str = OPEN
    why: str = ""

    def stopped(self, by: str) -> None:
        """It failed: `by` says what of."""
        self.verdict, self.why = "stopped", " ".join(by.split())

    def possible(self, why: str) -> None:
        """It works, and is meant to."""
        self.verdict, self.why = "by design", " ".join(why.split())


class Attack:
    """What one test tries. Call it with that, then say on its answer what stopped it."""

    def __init__(self, test: str) -> None:
        self.test = test
        self.attempts: list[Attempt] = []

    def __call__(self, tried: str) -> Attempt:
        """Begin an attempt; it counts as not stopped until it is told otherwise."""
        self.attempts.append(Attempt(self.test, " ".join(tried.split())))
        return self.attempts[-1]

    def note(self, what: str, stopped_by: str) -> None:
        """Remember an attempt that has failed already."""
        self(what).stopped(stopped_by)

    def refused(self, connection: psycopg.Connection, what: str, *codes: str) -> psycopg.Error:
        """Execute `what`, which must be refused with one of these SQLSTATEs."""
        tried = self(what)
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(what.encode())
        error = caught.value
        assert error.sqlstate in codes, (what, error.sqlstate, str(error))
        tried.stopped(f"{error.sqlstate} {error.diag.message_primary}")
        return error


ATTEMPTS = pytest.StashKey[list[Attempt]]()


@pytest.fixture
def attack(request: pytest.FixtureRequest) -> Iterator[Attack]:
    """Tries things and keeps the minutes."""
    mine = Attack(request.node.nodeid.rpartition("/")[2])
    yield mine
    request.config.stash.setdefault(ATTEMPTS, []).extend(mine.attempts)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the list."""
    attempts = config.stash.get(ATTEMPTS, [])
    if not attempts:
        return
    terminalreporter.section("attacks")
    test = ""
    for attempt in attempts:
        if attempt.test != test:
            test = attempt.test
            terminalreporter.write_line(test)
        terminalreporter.write_line(f"  {attempt.verdict:11} {safe(attempt.tried)}")
        if attempt.why:
            terminalreporter.write_line(f"              {safe(attempt.why)}")
    counts = {word: sum(a.verdict == word for a in attempts) for word in ("stopped", "by design")}
    open_ = len(attempts) - sum(counts.values())
    told = ", ".join(f"{count} {word}" for word, count in counts.items())
    terminalreporter.write_line(f"{len(attempts)} attacks: {told}, {open_} not stopped")
