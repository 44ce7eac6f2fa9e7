"""kind shell: `/bin/sh -c COMMAND`, in a session and process group of its own.

The environment is PATH, HOME, LANG, what `--shell-env` lets through, and the run's ROWCRON_
variables. Arguments stand as JSON on standard input, a file rather than a pipe, so that nobody has
to read it. Standard output and error are captured together, their end kept. A worker takes shell
jobs only when it was started with `--kind shell`; `--shell-user` and `--shell-limit` fence them in.

A secret never stands in a command line, which everybody on the machine can read: the shell is given
`${ROWCRON_SECRET_NAME}` in place of `${secret:NAME}`, and the value in its environment. So it is
written where a variable is: within double quotes, not within single ones. In args it stands on
standard input.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rowcron.capture import LIMIT, Tail
from rowcron.executors import TaskExecutor, stopped
from rowcron.limits import User, find_user, limiting
from rowcron.models import Outcome, Run
from rowcron.secrets import PREFIX, NoSecret, Secrets, fill, json_text

PASSED = ("PATH", "HOME", "LANG")
USUAL_PATH = "/usr/local/bin:/usr/bin:/bin"
LONGEST_ARGUMENT = 100_000  # Linux takes 128 KiB; longer commands become a script
LINGER = (
    0.2  # seconds for the output to end after the shell has; a child in the background may hold it
)


class Capture(asyncio.SubprocessProtocol):
    """Collects what a process prints and learns of its end."""

    def __init__(self, kept: int) -> None:
        loop = asyncio.get_running_loop()
        self.tail = Tail(kept)
        self.exited: asyncio.Future[None] = loop.create_future()
        self.silent: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep the end of it."""
        self.tail.add(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Nobody holds the output any more."""
        if not self.silent.done():
            self.silent.set_result(None)

    def process_exited(self) -> None:
        """The shell itself has ended."""
        if not self.exited.done():
            self.exited.set_result(None)


class Executor(TaskExecutor):
    """Runs shell commands."""

    def __init__(self, host: Any) -> None:
        super().__init__(host)
        settings = self.host.settings
        self.secrets = Secrets(settings)
        self.user = find_user(settings.shell_user) if settings.shell_user else None
        self.limiting = limiting(settings.shell_limits)
        names = dict.fromkeys((*PASSED, *settings.shell_env))
        environ = {name: os.environ[name] for name in names if name in os.environ}
        self.environ = {"PATH": USUAL_PATH} | environ
        if self.user is not None:
            self.environ["HOME"] = self.user.home
        self.graces: dict[int, float] = {}

    async def open(self) -> None:
        """Say what nothing can be done about later."""
        if os.geteuid() == 0 and self.user is None:
            text = "shell jobs run as root and can read everything here; --shell-user names another"
            self.host.log.event("shell", text, "warning")

    def environment(self, run: Run) -> dict[str, str]:
        """Return what the command sees; nothing else of the worker's environment reaches it."""
        scheduled_for = run.scheduled_for
        return self.environ | {
            "ROWCRON_RUN_ID": str(run.run_id),
            "ROWCRON_ATTEMPT": str(run.attempt),
            "ROWCRON_SCHEDULED_FOR": scheduled_for.isoformat() if scheduled_for else "",
            "ROWCRON_IDEMPOTENCY_KEY": str(run.idempotency_key),
            "ROWCRON_JOB": run.job,
        }

    async def execute(self, run: Run) -> Outcome:
        """Start the shell, wait for it, and take its process group down when asked to stop."""
        loop = asyncio.get_running_loop()
        try:
            values = self.secrets.of(run)
        except NoSecret as error:
            return Outcome("fatal", "secret", str(error))
        held = {f"{PREFIX}{name}": value for name, value in values.items()}
        command = os.fsencode(fill(run.command, {n: f"${{{PREFIX}{n}}}" for n in values}))
        args = run.args_json
        if run.args_secrets is not None:
            args = fill(args.decode(), values, json_text).encode()
        kept = LIMIT + (run.hidden.margin if run.hidden else 0)
        with (
            unnamed_file(args, self.user) as stdin,
            unnamed_file(command if len(command) > LONGEST_ARGUMENT else None, self.user) as script,
        ):
            arguments: list[Any] = ["-c", command] if script is None else [f"/dev/fd/{script}"]
            if self.limiting:
                arguments = ["-c", self.limiting, "sh", "/bin/sh", *arguments]
            starting = asyncio.ensure_future(
                loop.subprocess_exec(
                    lambda: Capture(kept),
                    "/bin/sh",
                    *arguments,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=self.environment(run) | held,
                    pass_fds=() if script is None else (script,),
                    start_new_session=True,
                    **dropped(self.user),
                )
            )
            while not starting.done():
                with suppress(asyncio.CancelledError):
                    # itself not cancelled: asyncio would then wait for ever for the process's end
                    await asyncio.wait((starting,))
            try:
                transport, capture = starting.result()
            except OSError as error:
                return Outcome("failed", "start", f"/bin/sh: {error.strerror}")
        try:
            if run.stopping is None:
                await asyncio.shield(capture.exited)
                await asyncio.wait((capture.silent,), timeout=LINGER)
            else:
                await self._end(run, transport, capture)
        except asyncio.CancelledError:
            await self._end(run, transport, capture)
        finally:
            transport.close()
            self.graces.pop(run.run_id, None)
        tail = capture.tail
        output = run.hidden.tail(tail.bytes()) if run.hidden else tail.text()
        return outcome_of(run, transport.get_returncode(), output)

    def stop(self, run: Run, grace: float) -> None:
        """Send TERM to the group, KILL after `grace`."""
        self.graces[run.run_id] = grace
        super().stop(run, grace)

    async def _end(
        self, run: Run, transport: asyncio.SubprocessTransport, capture: Capture
    ) -> None:
        group = transport.get_pid()
        over = asyncio.gather(asyncio.shield(capture.exited), asyncio.shield(capture.silent))
        grace = self.graces.get(run.run_id, 0.0)
        try:
            if grace > 0:
                send(group, signal.SIGTERM)
                await asyncio.wait((over,), timeout=grace)
        except asyncio.CancelledError:
            pass  # asked again: no more patience
        finally:
            send(group, signal.SIGKILL)
        await asyncio.wait((capture.exited,))
        await asyncio.wait((capture.silent,), timeout=LINGER)
        over.cancel()


def dropped(user: User | None) -> dict[str, Any]:
    """Return what makes a process somebody else's."""
    if user is None:
        return {}
    home = Path(user.home)
    return {
        "user": user.uid,
        "group": user.gid,
        "extra_groups": user.groups,
        "cwd": home if home.is_dir() and home.stat().st_uid == user.uid else "/",
    }


@contextmanager
def unnamed_file(content: bytes | None, user: User | None) -> Iterator[int | None]:
    """Give the descriptor of a file with that content and no name; None for None."""
    if content is None:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        file.seek(0)
        if user is not None:  # who opens it once more, through /dev/stdin, needs a right to it
            os.fchown(file.fileno(), user.uid, user.gid)
        yield file.fileno()


def send(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group, if there still is one."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def outcome_of(run: Run, status: int | None, output: str | None) -> Outcome:
    """Return what an exit status means."""
    if run.stopping is not None and not (run.stopping == "released" and status == 0):
        return stopped(run, output)
    if status is None:
        return Outcome("failed", "exit", "exit status unknown", output)
    if status < 0:
        try:
            name = f" ({signal.Signals(-status).name})"
        except ValueError:
            name = ""
        result = f'{{"signal": {-status}}}'
        return Outcome("failed", "signal", f"killed by signal {-status}{name}", output, result)
    result = f'{{"exit": {status}}}'
    if status > 0:
        return Outcome("failed", "exit", f"exit status {status}", output, result)
    return Outcome("succeeded", None, None, output, result)
