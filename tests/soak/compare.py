"""The ledger held against croniter, which knows nothing of rowcron."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from croniter import croniter

from soak.jobs import Job


def occurrences(schedule: str, zone: str, start: datetime, end: datetime) -> Iterator[datetime]:
    """What croniter names from `start` on and before `end`, in UTC."""
    local = start.astimezone(ZoneInfo(zone))
    options = {"second_at_beginning": True, "implement_cron_bug": True}
    names = croniter(schedule, local - timedelta(seconds=1), ret_type=datetime, **options)
    while (instant := names.get_next()) < end:
        if instant >= start:
            yield instant.astimezone(ZoneInfo("UTC"))


@dataclass
class Comparison:
    """One job's occurrences and what the ledger says of them."""

    job: str
    expected: int
    outcomes: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)  # that were not the last of their run
    absent: list[datetime] = field(default_factory=list)
    doubled: list[datetime] = field(default_factory=list)
    unnamed: list[datetime] = field(default_factory=list)

    @property
    def differences(self) -> list[str]:
        """Each way in which the ledger is wrong."""
        lists = {"absent": self.absent, "more than once": self.doubled, "unnamed": self.unnamed}
        return [f"{self.job}: {word} {at}" for word, found in lists.items() for at in found]

    def __str__(self) -> str:
        outcomes = ", ".join(f"{n} {word}" for word, n in sorted(self.outcomes.items()))
        earlier = ", ".join(f"{n} {word}" for word, n in sorted(self.attempts.items()))
        stand = f"{sum(self.outcomes.values()):5} in the ledger: {outcomes}"
        return (
            f"{self.job:10} {self.expected:5} named, {stand}; earlier attempts: {earlier or 'none'}"
        )


def compare(job: Job, entries: list[dict[str, str]], start: datetime, end: datetime) -> Comparison:
    """Compare the entries of a job: an entry of several occurrences stands for each of them."""
    named = list(occurrences(job.schedule, job.timezone, start, end))
    result = Comparison(job.name, len(named))
    stands: Counter[datetime] = Counter()
    for entry in entries:
        if not entry["scheduled_for"]:
            continue  # on demand
        if entry["final"] != "t":
            result.attempts[entry["outcome"]] += 1
            continue
        last = datetime.fromisoformat(entry["scheduled_for"])
        first = datetime.fromisoformat(entry["first_scheduled_for"] or entry["scheduled_for"])
        covered = [at for at in named if first <= at <= last] if first != last else [last]
        count = int(entry["occurrences"])
        if len(covered) != count:
            result.unnamed.append(last)
        stands.update(covered)
        result.outcomes[entry["outcome"]] += count
    result.absent = [at for at in named if stands[at] == 0]
    result.doubled = [at for at in named if stands[at] > 1]
    result.unnamed += sorted(stands.keys() - set(named))
    return result
