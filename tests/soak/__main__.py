"""`make soak`: the long form on every PostgreSQL that is found, at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import ROOT
from rowcron.embedded_os import MAJOR
from run import debian_servers

SECONDS = os.environ.get("ROWCRON_SOAK_SECONDS") or "600"


def soak(bin: Path | None) -> int:
    """One server; prints what came of it. Returns pytest's exit code."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "tests/soak"]
    environment = {"ROWCRON_TEST_BIN": str(bin or ""), "ROWCRON_SOAK_SECONDS": SECONDS}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | environment,
    )
    name = f"PostgreSQL {bin.parent.name if bin else f'{MAJOR} (embedded)'}"
    print(f"--- {name}\n{done.stdout}{done.stderr}".rstrip(), flush=True)
    return done.returncode


def main() -> int:
    """Run them all; 0 if all went well."""
    servers: list[Path | None] = [None]
    servers += [path for major, path in sorted(debian_servers().items()) if major != MAJOR]
    with ThreadPoolExecutor(len(servers)) as pool:
        return max(pool.map(soak, servers))


sys.exit(main())
