"""What a shell job may take and see: resource limits, another user, a worker that cannot be read.

Limits are set by the shell itself before the command begins: code between fork and exec is not safe
in a process with threads, and limits set from outside come late.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import re
import sys
from typing import Any, NamedTuple

from rowcron.errors import RowcronError

# name -> ulimit's letter, what one of its units is; Debian's sh counts processes with -p, others -u
ULIMITS = {
    "cpu": ("t", 1),
    "memory": ("v", 1024),
    "files": ("n", 1),
    "file-size": ("f", 512),
    "processes": ("u", 1),
}
_UNITS = {
    "": 1, "b": 1, "k": 1000, "kb": 1000, "kib": 1 << 10, "m": 10**6, "mb": 10**6, "mib": 1 << 20,
    "g": 10**9, "gb": 10**9, "gib": 1 << 30,
}  # fmt: skip
_TIMES = {"": 1, "s": 1, "min": 60, "h": 3600}
_LIMIT = re.compile(r"\s*([a-z-]+)\s*=\s*([0-9]{1,12})\s*([a-z]*)\s*", re.IGNORECASE)
_PR_SET_DUMPABLE = 4


def read_limits(value: Any) -> Any:
    """Return `cpu=60 s,memory=1 GB` as a dictionary of seconds, bytes and counts.

    Raises ValueError.
    """
    if isinstance(value, list | tuple):
        value = ",".join(value)
    if not isinstance(value, str):
        return value
    limits = {}
    for item in filter(str.strip, value.split(",")):
        match = _LIMIT.fullmatch(item)
        name, unit = (match[1].lower(), match[3].lower()) if match else ("", "")
        units = {"cpu": _TIMES, "memory": _UNITS, "file-size": _UNITS}.get(name, {"": 1})
        if match is None or name not in ULIMITS or unit not in units or int(match[2]) == 0:
            raise ValueError(
                f"{item.strip()!r} is not a limit such as cpu=60 s, memory=1 GB, files=100,"
                " file-size=1 GB, processes=50"
            )
        limits[name] = int(match[2]) * units[unit]
    return limits


def limiting(limits: dict[str, int]) -> str:
    """Return the shell text that sets limits and then becomes its arguments; "" for no limits."""
    parts = []
    for name, most in limits.items():
        letter, unit = ULIMITS[name]
        count = max(most // unit, 1)
        one = f"ulimit -{letter} {count}"
        if letter == "u":
            one = f"{{ (ulimit -u {count}) 2>/dev/null && {one} || ulimit -p {count}; }}"
        parts.append(one)
    return " && ".join(parts) + ' && exec "$@"; exit 126' if parts else ""


class User(NamedTuple):
    """Whom shell jobs run as."""

    uid: int
    gid: int
    groups: list[int]
    home: str


def find_user(name: str) -> User:
    """Return a user of this system, groups included. Raises `RowcronError`."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise RowcronError(
            f'there is no user "{name}"',
            detail="--shell-user names whom shell jobs run as.",
            hint=f"useradd --system {name}",
        ) from None
    if os.geteuid() != 0 or entry.pw_uid == 0:
        raise RowcronError(
            f'shell jobs cannot run as "{name}"',
            detail="Only root can become somebody else, and root is nobody to become.",
            hint="start the worker as root, or as that user and without --shell-user",
        )
    groups = os.getgrouplist(name, entry.pw_gid)
    return User(entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


def close_process() -> None:
    """Keep processes of the same user out of this one's environment, memory and descriptors.

    A shell job runs as the worker's user unless told otherwise, and could read the database's URL
    in /proc. What it starts is not affected. Only Linux has this; root reads everything anyway.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
