"""`rowcron up --web`: the page of whoever started it, through the URL in the terminal."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from harness import fast_place

pytestmark = pytest.mark.once


@pytest.fixture
def data() -> Iterator[Path]:
    """Not below pytest's own directories, to which the server's user may not pass."""
    place = Path(tempfile.mkdtemp(prefix="rowcron-web-", dir=fast_place()))
    place.chmod(0o755)
    yield place / "data"
    shutil.rmtree(place, ignore_errors=True)


def test_the_terminal_s_url_shows_the_jobs_of_who_started_it(data: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ROWCRON_", "PG"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "rowcron", "up", "--web", "--data", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment | {"ROWCRON_WEB_PORT": "0"},
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"(http://127\.0\.0\.1:\d+)(/sign-in\?code=\S+)", line):
                break
        assert found is not None, "".join(said)
        with httpx.Client(base_url=found[1], timeout=30) as client:
            assert client.get(found[2]).status_code == 303
            role = client.get("/api/me").json()["role"]
            jobs = client.get("/api/jobs").json()["items"]
            assert {job["owner"] for job in jobs} == {role}
            assert len(jobs) == 3
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(60) == 0, rest
        process.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{found[1]}/api/health")
        except httpx.TransportError:
            return
        time.sleep(0.1)
    raise AssertionError("the web process outlives the command")
