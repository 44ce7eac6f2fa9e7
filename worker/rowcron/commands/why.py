"""`rowcron why`: the gates between a job and a run."""

from __future__ import annotations

import click

from rowcron.commands._base import command, json_option, session, with_database
from rowcron.commands._names import job_argument, of_job
from rowcron.output import is_shown, print_json
from rowcron.target import Named
from rowcron.text import safe


@command("why", "rowcron why nightly")
@job_argument()
@json_option
@with_database
def why(named: Named, name: str, as_json: bool) -> None:
    """Tell why a job does not run now.

    Every gate between the job and a run, in order: those that stand open, and those that hold it.
    The last, room, tells how long a run has been ready, and how many of its queue go first.
    """
    with session(named) as client:
        gates = client.call("why_not_running", of_job(name, "job"))
    if as_json:
        print_json(gates)
        return
    size = max((len(gate["gate"]) for gate in gates), default=0)
    yes, no = ("✓", "✗") if is_shown("✓✗") else ("+", "-")
    for gate in gates:
        mark = click.style(no, fg="red") if gate["holds"] else click.style(yes, fg="green")
        line = f"{mark} {safe(gate['gate']):<{size}}  {safe(gate['detail'] or '')}"
        click.echo(line.rstrip())
        if gate["holds"] and gate["hint"]:
            click.echo(f"{'':<{size + 4}}{safe(gate['hint'])}")
    held = sum(bool(gate["holds"]) for gate in gates)
    if not held:
        # the last gate tells what it is waiting for all the same: its turn
        click.echo(f"\nNothing holds it back; {safe(gates[-1]['detail'])}.")


COMMANDS = {"why": why}
