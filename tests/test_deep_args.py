"""Arguments that are nested deeper than Python reads cost their own run at most."""

from __future__ import annotations

import http.server
import threading

from psycopg.types.json import set_json_loads

from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
DEPTH = 3_000
DEEP = "[" * DEPTH + "]" * DEPTH


def run(jobs: Jobs, kind: str, command: str, **columns: object) -> int:
    """Start a job with them; the run's number."""
    set_json_loads(bytes, jobs.db)
    name = jobs.add(kind, command, **columns)
    row = jobs.owner.execute("select rowcron.run_now(%s, %s)", (name, DEEP)).fetchone()
    assert row is not None
    return int(row[0])


def test_a_python_job_fails_for_good_and_says_why(jobs: Jobs, start: Start) -> None:
    worker = start("--kind", "python")
    entry = jobs.end(run(jobs, "python", "whole", max_attempts=3))
    assert entry["outcome"] == "failed"
    assert "nested deeper than Python reads" in entry["error"]
    assert len(jobs.entries(entry["run_id"])) == 1
    assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"
    assert not worker.events("defect")
    assert worker.stop() == 0


def test_to_other_kinds_it_is_text(jobs: Jobs, start: Start) -> None:
    bodies: list[bytes] = []

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        start("--kind", "shell,http,sql", "--http-allow", "127.0.0.1")
        url = f"POST http://127.0.0.1:{server.server_address[1]}/"
        for kind, command in (("http", url), ("shell", "wc -c"), ("sql", "select $1")):
            assert jobs.end(run(jobs, kind, command))["outcome"] == "succeeded", kind
        server.shutdown()
    assert [body.replace(b" ", b"") for body in bodies] == [DEEP.encode()]
