"""`make test`: pgTAP and pytest on every PostgreSQL that is found, and one closing line.

The embedded server is always there; server binaries of other major versions, 15 and newer, are
used where Debian puts them. Tests mostly wait, so more parts of them than there are cores run at
the same time. Exit code 0 only if something passed and nothing failed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import ROOT, TestServer, pgtap_script
from rowcron.embedded_os import MAJOR, is_root

OLDEST = 15
PACKAGES = ("libtap-parser-sourcehandler-pgtap-perl", "postgresql-{}-pgtap")
REPEATED = 8  # this many failures on one server are tried once more
EXTRAS = ("postgresql-{}-plpgsql-check", "pgbouncer")
BROWSER = ("chromium-headless-shell", "fonts-dejavu-core")
# What pytest is told for each part; the longest first, so that the last to end leave little idle.
PARTS = {
    "a to o": sorted(str(path) for path in (ROOT / "tests").glob("test_[a-o]*.py")),
    "p to z": sorted(str(path) for path in (ROOT / "tests").glob("test_[p-z]*.py")),
    "attack": ["tests/attack", "tests/web"],
    "chaos": ["tests/chaos", "tests/soak"],
}
NO_TESTS = 5  # pytest's exit code


@dataclass
class Count:
    """How many tests passed and failed, and what there is to read about it."""

    what: str
    passed: int
    failed: int
    output: str = ""
    seconds: float = 0.0
    unsteady: int = 0


def debian_servers() -> dict[int, Path]:
    """The server binaries of /usr/lib/postgresql, by major version."""
    found = {}
    for path in Path("/usr/lib/postgresql").glob("*/bin/postgres"):
        name = path.parent.parent.name
        if name.isdigit() and int(name) >= OLDEST and (path.parent / "initdb").exists():
            found[int(name)] = path.parent
    return found


def install_pgtap() -> str | None:
    """Install pgTAP, pg_prove and PgBouncer if they are missing and this may; else say what to."""
    ready = shutil.which("pg_prove") and pgtap_script()
    if ready and (shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")):
        return None
    wanted = " ".join(PACKAGES).format(15)
    sentence = (
        f"pgTAP and pg_prove are missing: install them, on Debian with: apt-get install {wanted}"
    )
    if not is_root() or not shutil.which("apt-get"):
        return None if ready else sentence
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    quiet = {"stdout": subprocess.DEVNULL, "env": environment, "check": False}
    subprocess.run(["apt-get", "update", "-q"], **quiet)  # type: ignore[call-overload]
    listed = subprocess.run(
        ["apt-cache", "search", "--names-only", "^postgresql-[0-9]+-pgtap$"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    version = next(iter(re.findall(r"postgresql-(\d+)-pgtap", listed)), "15")
    needed = [package.format(version) for package in PACKAGES]
    for names in (needed, *([extra.format(version)] for extra in EXTRAS)):
        command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *names]
        subprocess.run(command, **quiet)  # type: ignore[call-overload]
    return None if shutil.which("pg_prove") and pgtap_script() else sentence


def install_browser() -> str | None:
    """Install a browser if there is none and this may; else say what to install."""
    if os.environ.get("ROWCRON_TEST_CHROMIUM") or any(map(shutil.which, (BROWSER[0], "chromium"))):
        return None
    if is_root() and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["install", "-q", "-y", "--no-install-recommends", *BROWSER]
        for step in (["update", "-q"], install):
            subprocess.run(["apt-get", *step], env=environment, **quiet)  # type: ignore[call-overload]
    if shutil.which(BROWSER[0]):
        return None
    return f"a browser is missing; on Debian: apt-get install {' '.join(BROWSER)}"


def run_pgtap(bin: Path | None) -> Count:
    """pg_prove over sql_tests/ in a database where rowcron was installed by an ordinary role."""
    files = sorted(str(path) for path in (ROOT / "sql_tests").glob("*.sql"))
    server = TestServer(bin)
    try:
        server.start()
        server.make_template()
        database = server.create_database().name
        psql = str(server.bin / "psql")
        where = {"PGHOST": str(server.base / "socket"), "PGUSER": "postgres"}
        done = subprocess.run(
            ["pg_prove", "--verbose", "--psql-bin", psql, *files],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | where | {"PGDATABASE": database},
        )
    finally:
        server.stop()
    output = done.stdout + done.stderr
    passed = len(re.findall(r"^ok \d+", output, re.MULTILINE))
    failed = len(re.findall(r"^not ok \d+", output, re.MULTILINE))
    if done.returncode and not failed:
        failed = 1  # a file that died, or whose plan does not hold
    facts = [line for line in output.splitlines() if not re.match(r"ok \d+|1\.\.\d+", line)]
    return Count("pgTAP", passed, failed, "\n".join(facts) if failed else "")


def run_pytest(
    bin: Path | None, part: str, scratch: Path, arguments: list[str], *, first: bool
) -> Count:
    """pytest over a part of tests/; what says nothing about the server only with the first one."""
    name = f"{bin.parent.name if bin else MAJOR}-{part}"
    report = scratch / f"{name}.xml"
    report.unlink(missing_ok=True)
    marks = "not soak" if first else "not soak and not once"
    command = [sys.executable, "-m", "pytest", "-q", "-m", marks]
    command += ["-o", f"cache_dir={scratch / f'cache-{name}'}"]
    command += [f"--junitxml={report}", "--durations=10", *arguments]
    command += [] if is_picked(arguments) else PARTS[part]
    environment = os.environ | {"ROWCRON_TEST_BIN": str(bin or "")}
    environment["ROWCRON_TEST_CLEAN"] = str(scratch)
    environment["ROWCRON_TEST_LOOP"] = "auto" if first else "asyncio"
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    output = done.stdout + done.stderr
    if done.returncode == NO_TESTS:
        return Count(part, 0, 0)
    if not report.exists():
        return Count(part, 0, 1, output)
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    counts = [
        {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
        for suite in suites
    ]
    failed = sum(count["failures"] + count["errors"] for count in counts)
    passed = sum(count["tests"] - count["skipped"] for count in counts) - failed
    if done.returncode and not failed:
        failed = 1
    return Count(part, max(passed, 0), failed, output)


def is_picked(arguments: list[str]) -> bool:
    """Whether the arguments name files or directories: then there are no parts."""
    return any((ROOT / argument.split("::")[0]).exists() for argument in arguments)


def server_name(bin: Path | None) -> str:
    """What a server is called in what is printed."""
    return f"PostgreSQL {bin.parent.name if bin else f'{MAJOR} (embedded)'}"


def run_part(
    bin: Path | None, part: str, scratch: Path, arguments: list[str], *, first: bool
) -> Count:
    """One part on one server, told when it ends."""
    begin = time.monotonic()
    try:
        if part == "pgTAP":
            count = run_pgtap(bin)
        else:
            count = run_pytest(bin, part, scratch, arguments, first=first)
    except Exception as error:  # the schema does not install, the server does not start
        count = Count(part, 0, 1, f"{type(error).__name__}: {error}")
    count.seconds = time.monotonic() - begin
    told = f"{server_name(bin)}, {count.what}: {count.passed} passed, {count.failed} failed"
    print(f"--- {told} in {count.seconds:.0f} s\n{count.output}".rstrip(), flush=True)
    return count


def repeat(bin: Path | None, scratch: Path, arguments: list[str], count: Count) -> None:
    """What failed, if little, once more by itself when all else is over; told in any case.

    Many tests wait for processes that share a machine's cores with those of other tests, and such
    a machine stands still now and then. A defect fails both times; what failed only the first time
    is worth a look.
    """
    if not 0 < count.failed <= REPEATED:
        return
    if count.what == "pgTAP":
        again = run_pgtap(bin)
        count.unsteady = max(count.failed - again.failed, 0)
        count.passed, count.failed = again.passed, again.failed
    else:
        again = run_pytest(
            bin, count.what, scratch, [*arguments, "--last-failed"], first=bin is None
        )
        if not again.passed + again.failed:
            return
        count.unsteady, count.failed = again.passed, again.failed
        count.passed += again.passed
    print(f"--- once more, what failed on {server_name(bin)}:\n{again.output}", flush=True)


def main() -> int:
    """Run everything; arguments go to pytest."""
    if sentence := install_pgtap() or install_browser():
        print(sentence)
        print("0 passed, 1 failed")
        return 1
    servers: list[Path | None] = [None]
    servers += [path for major, path in sorted(debian_servers().items()) if major != MAJOR]
    parts = [*(["pytest"] if is_picked(sys.argv[1:]) else PARTS), "pgTAP"]
    at_once = (os.cpu_count() or 1) + 1
    with TemporaryDirectory() as scratch, ThreadPoolExecutor(at_once) as pool:
        runs = [
            (bin, pool.submit(run_part, bin, part, Path(scratch), sys.argv[1:], first=bin is None))
            for part in parts
            for bin in servers
        ]
        found = [(bin, run.result()) for bin, run in runs]
        for bin, count in found:
            repeat(bin, Path(scratch), sys.argv[1:], count)
    print("\n" + "=" * 72)
    for bin, count in found:
        print(
            f"{server_name(bin):26} {count.what:9} {count.passed:6} passed"
            f" {count.failed:4} failed {count.seconds:5.0f} s"
            + (f"  ({count.unsteady} only when tried again)" if count.unsteady else "")
        )
    passed, failed = (
        sum(getattr(count, key) for _, count in found) for key in ("passed", "failed")
    )
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
