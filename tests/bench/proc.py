"""What Linux says about a worker's processes."""

from __future__ import annotations

from pathlib import Path

from bench.tools import Workers


def tree(workers: Workers) -> list[int]:
    """The processes and their children."""
    found, todo = [], [process.pid for process in workers.processes]
    while todo:
        pid = todo.pop()
        found.append(pid)
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            todo += [int(child) for child in path.read_text("ascii").split()]
    return found


def cpu(workers: Workers) -> float:
    """Seconds of CPU that they have used, all threads; to the nanosecond (no ticks)."""
    total = 0
    for pid in tree(workers):
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            total += int(path.read_text("ascii").split()[0])
    return total / 1e9


def rss(workers: Workers) -> float:
    """Resident memory in MB."""
    total = 0
    for pid in tree(workers):
        for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024
