"""The protocol's state space, searched to its end; and its paths, walked through the SQL."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from chaos.protocol import MUTATIONS, Broken, Machine, State, first
from chaos.replay import Replay
from chaos.size import LONG, sized, table
from harness import Database

SEED = int(os.environ.get("ROWCRON_MODEL_SEED", "1"))


def mirrored(state: State) -> State:
    """The same with the two workers' places exchanged."""
    swap = {-1: -1, 0: 1, 1: 0}
    runs = tuple(
        run._replace(holder=swap[run.holder], executing=swap[run.executing]) for run in state.runs
    )
    return State(runs, state.workers[::-1], swap[state.rescuing])


def search(kinds: tuple[str, ...], wrong: str = "", workers: int = 2) -> tuple[int, int, str]:
    """Search everything; return how many states and steps there are, and what is wrong."""
    start = first(kinds)
    if workers == 1:
        start = start._replace(workers=start.workers[:1])
    seen = {start: 0}
    found = [start]
    before: list[list[int]] = [[]]
    steps = 0
    for at, state in enumerate(found):  # grows meanwhile
        try:
            after = {following for _, following in Machine(state, wrong).steps()}
        except Broken as broken:
            return len(found), steps, str(broken)
        for following in after:
            steps += 1
            known = seen.get(following)
            if known is None and workers == 2:
                known = seen.get(mirrored(following))
            if known is None:
                known = seen[following] = len(found)
                found.append(following)
                before.append([])
            before[known].append(at)
    ends = [n for n, state in enumerate(found) if all(run.state == "ended" for run in state.runs)]
    ending = set(ends)
    while ends:
        fresh = [n for n in before[ends.pop()] if n not in ending]
        ending.update(fresh)
        ends.extend(fresh)
    forgotten = len(found) - len(ending)
    return len(found), steps, f"from {forgotten} states no end is reachable" if forgotten else ""


@pytest.mark.once
def test_nothing_that_can_happen_breaks_the_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    """One holder, no outcome overwritten, an effect once, no run forgotten: in every state."""
    cases: list[tuple[tuple[str, ...], int]] = [(("sql",), 1), (("plain",), 1), (("sql",), 2)]
    if LONG:
        cases += [(("plain",), 2), (("sql", "plain"), 1)]
    rows: dict[str, object] = {}
    for kinds, workers in cases:
        began = time.monotonic()
        states, steps, wrong = search(kinds, workers=workers)
        assert not wrong, (kinds, wrong)
        name = f"{' and '.join(kinds)}, {workers} worker{'s' if workers > 1 else ''}"
        rows[name] = f"{states} states, {steps} steps, {time.monotonic() - began:.0f} s"
    with capsys.disabled():
        print(table("Model of the protocol: searched whole, nothing found", rows))


@pytest.mark.once
def test_a_rule_that_is_left_out_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    rows: dict[str, object] = {}
    for wrong in MUTATIONS:
        found = ""
        for kinds, workers in ((("sql",), 1), (("plain",), 1), (("sql",), 2), (("plain",), 2)):
            states, _, found = search(kinds, wrong, workers)
            if found:
                rows[wrong] = f"{found} (state {states})"
                break
        assert found, wrong
    with capsys.disabled():
        print(table(f"Model of the protocol: {len(rows)} mutations, all found", rows))


@pytest.fixture
def replay(database: Database) -> Iterator[Replay]:
    replay = Replay(database)
    yield replay
    replay.close()


def test_the_functions_do_what_the_model_says(
    replay: Replay, capsys: pytest.CaptureFixture[str]
) -> None:
    ends: dict[str, int] = {}
    paths = sized(60, 3000)
    for number in range(paths):
        end = replay.walk(("sql", "plain")[number % 2], SEED + number, 40)
        ends[end] = ends.get(end, 0) + 1
    assert {"succeeded", "cancelled", "lost"} <= ends.keys()
    with capsys.disabled():
        rows: dict[str, object] = {"paths": paths, "steps": replay.steps, **ends}
        print(table("Model against SQL: the same after every step", rows))
