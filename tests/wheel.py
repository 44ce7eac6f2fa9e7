"""The product as a stranger installs it: a wheel of this tree in a clean virtual environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness import ROOT


def run(*command: str | Path) -> None:
    """Run a program; fails the test, with what it said, if the program fails."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def install_wheel(directory: Path) -> Path:
    """Build the wheel, make the environment in `directory`; returns its directory of programs."""
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", directory, ROOT)
    home = directory / "clean"
    run(sys.executable, "-m", "venv", "--without-pip", home)
    wheel = next(directory.glob("*.whl"))
    pip = (sys.executable, "-m", "pip", "--python", home / "bin" / "python")
    run(*pip, "install", "--quiet", "--disable-pip-version-check", "--no-compile", wheel)
    return home / "bin"


def clean_environment(**more: str) -> dict[str, str]:
    """What a program sees that is to find neither this tree nor any database by itself."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "TZ": "UTC", "HOME": "/nonexistent", **more}
