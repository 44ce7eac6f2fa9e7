"""Every statement boundary of the worker's protocol, hit on purpose.

At each point a worker is killed (SIGKILL of its process) or its session is ended
(`pg_terminate_backend`; the answer, if there is one, is lost). On the wire the proxy stands at the
point, in the database a trigger does. What became of run, ledger and effect is printed as a table
and asserted: effects of sql jobs and of handlers that use the handed connection exactly once, all
others at least once with a lost attempt in the ledger for each further one, nothing stuck, never
two holders. The short form takes one of the two deaths a point and
leaves out what comes before a statement; the long form does all, SIZE times.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from chaos.play import play
from chaos.points import POINTS, Death, Point
from chaos.size import LONG, SIZE
from harness import TestServer

LESS_DANGEROUS = ("not sent", "begin unanswered", "before the effect")  # in the long form alone


def cases() -> list[tuple[Point, Death]]:
    """Some points with one death each, in the long form all with both."""
    deaths: tuple[Death, Death] = ("process", "session")
    if LONG:
        both = [(point, death) for point in POINTS for death in deaths]
        return both * max(1, round(SIZE))
    chosen = [point for point in POINTS if not point.name.endswith(LESS_DANGEROUS)]
    return [(point, deaths[number % 2]) for number, point in enumerate(chosen)]


def test_a_worker_may_die_at_every_boundary_of_its_protocol(
    server: TestServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(lambda case: play(server, *case), cases()))
    lines = [f"{'point':45} {'dies':8} {'there':24} {'ledger afterwards':50} effects"]
    for one in told:
        name = one.point.name
        lines.append(f"{name:45} {one.death:8} {one.at_point:24} {one.ledger:50} {one.effects}")
    faults = [one for one in told if one.fault]
    lost = sum(one.ledger.count("lost") for one in told)
    points = {one.point.name for one in told}
    lines.append(
        f"{len(told)} deaths at {len(points)} points, {lost} lost attempts, {len(faults)} faults,"
        f" longest {max(one.seconds for one in told):.1f} s"
    )
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert not faults, "\n".join(f"{o.point.name} ({o.death}): {o.fault}" for o in faults)
