"""Events: lines for people on the console, JSON lines in a file for auditors.

Not the standard library's `logging`: at full speed a worker ends tens of thousands of runs a
second, and a record costs ten times what a line may. Lines gather and are written together at the
end of the loop's turn. What handlers log through `logging` is passed on as events of their own
(`Bridge`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rowcron.console import Console
from rowcron.logfile import RotatedFile
from rowcron.text import safe

if TYPE_CHECKING:
    from rowcron.settings import WorkerSettings

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# Claim, start and end of each run are for auditors; a person reads one line a run, at its end.
ONLY_IN_JSON = frozenset({"claim", "start"})
CONSOLE_AGAIN = 0.1  # seconds until a console that takes no more is tried again
LAST_WORDS = 1.0  # seconds that it is waited for at the end
# The logger that is told what handlers raise, for applications that listen (Sentry, say).
RAISED = "rowcron.run"


class Log:
    """Where a worker's events go. Safe to use from any thread."""

    def __init__(
        self,
        level: str = "info",
        file: RotatedFile | None = None,
        as_json: bool = False,
        descriptor: int = 2,
    ) -> None:
        self.level = LEVELS[level]
        self.file = file
        self.as_json = as_json
        self._console = Console(descriptor)
        self.audits = file is not None or as_json
        self.tells_runs = self.audits or self.level <= LEVELS["info"]
        self.loop: asyncio.AbstractEventLoop | None = None
        self._lines: list[str] = []
        self._records: list[str] = []
        self._scheduled = False
        self._second = 0
        self._stamp = ""
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: WorkerSettings) -> Log:
        """Return the log that these settings ask for.

        Raises OSError when the file cannot be opened.
        """
        file = None
        if settings.log_file is not None:
            file = RotatedFile(settings.log_file, settings.log_file_size, settings.log_file_count)
        return cls(settings.log_level, file, settings.log_json)

    def event(self, name: str, text: str, level: str = "info", **fields: Any) -> None:
        """Tell that something happened: `text` for people, `name` and `fields` for programs."""
        rank = LEVELS[level]
        now = time.time()
        on_console = rank >= self.level and (self.as_json or name not in ONLY_IN_JSON)
        if self.file is None and not on_console:
            return
        record = None
        if self.file is not None or self.as_json:
            stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds")
            record = json.dumps(
                {"at": stamp, "level": level, "event": name, "text": text, **fields}, default=str
            )
            record = record.replace("\x7f", "\\u007f")  # the one control that JSON leaves as it is
        with self._lock:
            if record is not None and self.file is not None:
                self._records.append(record)
            if on_console:
                line = record if self.as_json and record else self._line(now, level, text)
                self._lines.append(line)
        self._soon()

    def debug(self, text: str, **fields: Any) -> None:
        """Tell what only somebody who looks for a fault wants to know."""
        if self.level <= 10 or self.file is not None:
            self.event("debug", text, "debug", **fields)

    def _line(self, now: float, level: str, text: str) -> str:
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%H:%M:%S", time.localtime(second))
        mark = "" if level in ("info", "debug") else f"{level}: "
        return f"{self._stamp}.{int((now - second) * 1000):03d} {mark}{safe(text)}"

    def _soon(self) -> None:
        loop = self.loop
        if loop is None or loop.is_closed():
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            loop.call_soon_threadsafe(self.flush)

    def flush(self) -> None:
        """Write what has gathered."""
        self._scheduled = False
        with self._lock:
            lines, self._lines = self._lines, []
            records, self._records = self._records, []
        if lines or self._console.waits:
            text = "".join([f"{line}\n" for line in lines]).encode("utf-8", "backslashreplace")
            self._console.write(text, 0.0 if self.loop else LAST_WORDS)
            if not self._console.waits and (lost := self._console.lost):
                self._console.lost = 0
                self.event("unread", f"{lost} lines are missing here: nobody read them", "warning")
            elif self._console.waits and self.loop is not None:
                self.loop.call_later(CONSOLE_AGAIN, self.flush)
        if records and self.file is not None:
            self.file.write(("\n".join(records) + "\n").encode("ascii", "backslashreplace"))

    def close(self) -> None:
        """Write the rest and close the file."""
        self.loop = None
        self.flush()
        if self.file is not None:
            self.file.close()


class Bridge(logging.Handler):
    """Passes on what handlers and libraries log through the standard library."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.INFO if log.level >= 20 else logging.DEBUG)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Make an event of a record; not of what a handler raised, which its run's line tells."""
        if record.name == RAISED:
            return
        level = record.levelname.lower()
        try:
            text = self.format(record)
        except Exception:  # a bad format string is the handler's mistake, not ours
            text = str(record.msg)
        level = level if level in LEVELS else ("error" if record.levelno > 40 else "debug")
        self.log.event("log", f"{record.name}: {text}", level, logger=record.name)

    def install(self) -> None:
        """Take the place of the root logger's handlers, unless the application has set some up."""
        root = logging.getLogger()
        if not root.handlers:
            root.addHandler(self)
            root.setLevel(self.level)
            for noisy in ("httpx", "httpcore", "asyncio", "psycopg"):
                logging.getLogger(noisy).setLevel(logging.WARNING)


def complain(error: Any) -> None:
    """Print an error that keeps a worker from starting, as the command line does."""
    parts = (("Error", error.message), ("Detail", error.detail), ("Hint", error.hint))
    for title, text in parts:
        if text:
            print(f"{title}: {safe(text)}", file=sys.stderr)
