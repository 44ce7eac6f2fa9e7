"""The product as a stranger installs it: a wheel of this tree in a clean virtual environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness import ROOT
from rowcron.embedded_os import locked


def run(*command: str | Path) -> None:
    """Run a program; fails the test, with what it said, if the program fails."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def install_wheel(directory: Path) -> Path:
    """Build the wheel, make the environment; returns its directory of programs.

    Made in `directory`, or once for all in the one that run.py names.
    """
    directory = Path(os.environ.get("ROWCRON_TEST_CLEAN", directory))
    with locked(directory / "lock"):
        if not (directory / "clean" / "bin" / "rowcron").exists():
            _install_wheel(directory)
    return directory / "clean" / "bin"


def _install_wheel(directory: Path) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", directory, ROOT)
    home = directory / "clean"
    run(sys.executable, "-m", "venv", "--without-pip", home)
    wheel = next(directory.glob("*.whl"))
    pip = (sys.executable, "-m", "pip", "--python", home / "bin" / "python")
    run(*pip, "install", "--quiet", "--disable-pip-version-check", "--no-compile", wheel)


def clean_environment(**more: str) -> dict[str, str]:
    """What a program sees that is to find neither this tree nor any database by itself."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "TZ": "UTC", "HOME": "/nonexistent", **more}
