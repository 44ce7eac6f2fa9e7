"""Filters that `history` and `runs list` share; they become conditions, so the database filters."""

from __future__ import annotations

import re
from typing import LiteralString

from rowcron.commands._names import split_name

Condition = tuple[LiteralString, object]
# quoted or not, or the number that is left of one that was dropped
OWNED_BY: LiteralString = "v.owner = (select rowcron._role_named(%s))"  # once, not for each row


def job_filter(job: str | None) -> list[Condition]:
    """Return the condition for a job's name, or for `owner.name`."""
    if not job:
        return []
    owner, name = split_name(job)
    found: list[Condition] = [("v.job = %s", name)]
    if owner:
        found.append((OWNED_BY, owner))
    return found


def since_filter(since: str | None) -> list[Condition]:
    """Return the condition for an instant, or for so long ago by the database's clock."""
    if not since:
        return []
    if re.match(r"\s*(\d{4}-|today|yesterday)", since):
        return [("v.finished_at >= %s::timestamptz", since)]
    # a stable now() can be compared with the partitions' bounds once, when the query starts;
    # `2 hours ago` is minus two hours to the database
    ago = "(select greatest(i, -i) from (select %s::interval) as x (i))"
    return [(f"v.finished_at >= now() - {ago}", since)]
