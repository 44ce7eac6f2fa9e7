"""What a handler does for the benchmark, in whichever tool's worker it runs. Standard library only.

Counts, remembers the first start and, if asked, every start; writes that down when all that is
wanted has started, and once more when the process ends.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

URL = os.environ.get("BENCH_URL", "")
COUNT = int(os.environ.get("BENCH_COUNT", "0"))
MODE = os.environ.get("BENCH_MODE", "async")
BODY = float(os.environ.get("BENCH_BODY", "0")) / 1000
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "100"))
GAP = float(os.environ.get("BENCH_GAP", "0.1"))
CRON = os.environ.get("BENCH_CRON", "* * * * *")


class Probe:
    """One process's count; two processes of a worker write two reports."""

    def __init__(self) -> None:
        self.path = os.environ.get("BENCH_REPORT", "")
        self.first = self.last = 0.0
        self.started = 0
        self.starts: list[tuple[Any, float]] | None = [] if "BENCH_STARTS" in os.environ else None
        self._numbers = itertools.count(1)  # next() is one step even among threads
        self._writing = threading.Lock()
        atexit.register(self.write)

    def hit(self, number: Any = None, at: float | None = None) -> None:
        """A handler has started, now or at the time that it took."""
        now = at or time.time()
        n = next(self._numbers)
        self.started = n
        if self.starts is not None:
            self.starts.append((number, now))
        if n == 1:
            self.first = now
            if "BENCH_FLUSH" in os.environ:
                threading.Thread(target=self._flush, daemon=True).start()
        if n == COUNT:
            self.last = now
            self.write()

    def _flush(self) -> None:
        """A forked worker may end without its atexit functions: write now and then."""
        written = 0
        while True:
            time.sleep(0.2)
            if self.started != written:
                written = self.started
                self.write()

    def write(self) -> None:
        """Write the report, whole or not at all."""
        if not self.path:
            return
        with self._writing:
            # what the counter would give next; `started` may be behind among threads
            count = int(repr(self._numbers)[len("count(") : -1]) - 1
            starts = self.starts and [(_seconds(n), at) for n, at in list(self.starts)]
            report = {"count": count, "first": self.first, "last": self.last, "starts": starts}
            target = f"{self.path}.{os.getpid()}"
            draft = Path(f"{target}.draft")
            draft.write_text(json.dumps(report), "utf-8")
            draft.rename(target)


def _seconds(number: Any) -> Any:
    # not while other handlers wait for this one
    return number.timestamp() if isinstance(number, datetime) else number


PROBE = Probe()


def answer(value: Any) -> None:
    """Hand something back to the harness."""
    Path(os.environ["BENCH_ANSWER"]).write_text(json.dumps(value), "utf-8")
