"""The README's commands and SQL, as written, on a fresh clone with an empty HOME."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import ROOT, fast_place, wait_until

pytestmark = pytest.mark.once
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


class Clone:
    """A fresh clone, the terminal of its `make run`, and a second terminal."""

    def __init__(self, place: Path) -> None:
        self.tree = place / "rowcron"
        home = place / "home"
        home.mkdir()
        keep = ("PATH", "LANG", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE")
        self.environment = {k: v for k, v in os.environ.items() if k in keep} | {"HOME": str(home)}
        pip = Path("~/.config/pip/pip.conf").expanduser()
        if pip.exists():  # where packages come from is the machine's affair
            self.environment.setdefault("PIP_CONFIG_FILE", str(pip))
        # as root the server runs as another user, who cannot pass pytest's own directories
        data = Path(tempfile.mkdtemp(prefix="rowcron-readme-", dir=fast_place()))
        data.chmod(0o755)
        self.environment["XDG_DATA_HOME"] = str(data)
        self.said = place / "make-run.txt"

    def clone(self) -> None:
        """What `git clone` would bring: the files that git does not ignore, as they are now."""
        listed = subprocess.run(
            ["git", "ls-files", "-zco", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in listed.split("\0"):
            if name and (ROOT / name).exists():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.tree / name)

    def start(self, command: str) -> None:
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                command.split(), cwd=self.tree, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        wait_until(self.psql, 180, "the line that connects")

    def psql(self) -> str | None:
        """The line that `make run` prints to be pasted."""
        assert self.process.poll() is None, self.said.read_text()[-3000:]
        found = re.search(r"^Connect:\s+(.*psql .*)$", self.said.read_text(), re.MULTILINE)
        return found[1] if found else None

    def sql(self, text: str) -> str:
        """What psql answers to a block, through the pasted line."""
        done = subprocess.run(
            f"{self.psql()} -X -v ON_ERROR_STOP=1 -f -", shell=True, input=text, text=True,
            capture_output=True, cwd=self.tree, env=self.environment, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (text, done.stderr)
        return done.stdout

    def shell(self, line: str, given: str = "") -> str:
        environment = self.environment | {
            "PATH": f"{self.tree / '.venv/bin'}:{self.environment['PATH']}"
        }
        done = subprocess.run(
            line, shell=True, cwd=self.tree, env=environment, input=given, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    def stop(self) -> str:
        """What Ctrl-C in the terminal does: the whole foreground group gets SIGINT."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(60)
        return self.said.read_text()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    clone = Clone(tmp_path_factory.mktemp("stranger"))
    clone.clone()
    clone.start(blocks("sh")[0].splitlines()[1])
    yield clone
    if clone.process.poll() is None:
        clone.stop()
    shutil.rmtree(clone.environment["XDG_DATA_HOME"])


def test_every_statement_and_command_works_as_written(clone: Clone) -> None:
    assert blocks("sh")[0].splitlines()[1] == "make run"
    first, ask, *others = blocks("sql")
    assert "close-the-books | schedule" in clone.sql(first)
    answer = wait_until(
        lambda: "succeeded" in (found := clone.sql(ask)) and found, 20, "the first run's record"
    )
    assert '{"rows": 1}' in answer
    assert "close-the-books run" in clone.said.read_text()
    said = "".join(clone.sql(block) for block in others)
    assert "2026-03-30" in said, "the next weekday after a Friday evening"
    (commands,) = [block for block in blocks("sh") if "rowcron job list" in block]
    for line in commands.splitlines():
        assert clone.shell(line).strip(), line
    (handler,) = blocks("python")
    compile(handler, "tasks.py", "exec")


def test_the_installer_grants_as_the_readme_says(clone: Clone) -> None:
    grants = re.search(
        r"`(select rowcron\.grant_secret[^`]*)` by the installer \(`(rowcron psql [^`]*)`", README
    )
    assert grants is not None
    me = clone.sql("copy (select current_user) to stdout").strip()
    clone.shell(f"{grants[2]} -v ON_ERROR_STOP=1", grants[1].replace("alice", me) + ";")
    assert me in clone.sql("select grantee from rowcron.secret_grant where secret = 'TOKEN'")


def test_each_column_that_the_readme_lists_exists(clone: Clone) -> None:
    paragraph = README[
        README.index("The other columns of") : README.index("rowcron.schedule('ping'")
    ]
    named = set(re.findall(r"`([a-z_]+)`", paragraph))
    columns = set(
        clone.sql(
            "copy (select attname from pg_attribute where attrelid = 'rowcron.job'::regclass"
            " and attnum > 0) to stdout"
        ).split()
    )
    own = {"id", "name", "owner", "schedule", "command", "created_at", "updated_at"}
    assert columns - named <= own
    assert named - columns == set()


def test_ctrl_c_drains_and_stops_the_server(clone: Clone) -> None:
    said = clone.stop()
    assert "worker stopped" in said
    assert clone.process.returncode in (0, -signal.SIGINT), "make dies of the signal itself"
    assert "rror" not in said
